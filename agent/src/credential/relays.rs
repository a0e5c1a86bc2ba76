//! The relays that this machine is paired with, without their secrets.

use std::path::PathBuf;

use claudenest_shared::id::MachineId;
use claudenest_shared::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::{SecretError, read_optional, write_private};
use crate::paths::Paths;

/// One pairing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PairedRelay {
    /// Address of the relay, normalised; the key of the entry.
    pub url: String,
    /// Account that the machine belongs to.
    pub account: String,
    /// The machine's id at this relay.
    pub machine_id: MachineId,
    /// The machine's name at this relay when it was paired.
    pub machine_name: String,
    /// When it was paired.
    pub paired_at: UnixMs,
    /// True if plain HTTP was allowed for this relay when it was paired.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// Certificate authorities that were given when it was paired.
    #[serde(default)]
    pub extra_ca: Vec<PathBuf>,
}

/// The list of pairings.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Relays {
    /// Pairings in the order in which they were made.
    pub relays: Vec<PairedRelay>,
}

impl Relays {
    /// Reads the list; a missing file is an empty list.
    ///
    /// # Errors
    /// [`SecretError`] when the file cannot be read or understood.
    pub fn load(paths: &Paths) -> Result<Self, SecretError> {
        let path = paths.relays_file();
        match read_optional(&path)? {
            None => Ok(Self::default()),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| SecretError::Damaged(format!("{} ({error})", path.display()))),
        }
    }

    /// Writes the list.
    ///
    /// # Errors
    /// [`SecretError::Io`] when it cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<(), SecretError> {
        let bytes = serde_json::to_vec_pretty(self).expect("pairings are plain data");
        write_private(&paths.relays_file(), &bytes)
    }

    /// The pairing with a relay.
    pub fn find(&self, url: &str) -> Option<&PairedRelay> {
        self.relays.iter().find(|relay| relay.url == url)
    }

    /// Adds a pairing, or replaces the one with the same relay.
    pub fn put(&mut self, relay: PairedRelay) {
        self.relays.retain(|other| other.url != relay.url);
        self.relays.push(relay);
    }

    /// Removes the pairing with a relay; false if there was none.
    pub fn remove(&mut self, url: &str) -> bool {
        let before = self.relays.len();
        self.relays.retain(|relay| relay.url != url);
        self.relays.len() < before
    }
}
