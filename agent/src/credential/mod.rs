//! The machine's key and its tokens: in the keyring if one answers, otherwise in files with mode 0600.
//!
//! Invariants: the first successful write decides which store is used and the choice is recorded, so that a
//! keyring that comes or goes never splits the secrets over two places; an entry that should exist and
//! is not found is an error ("locked or cleared") and never "not paired".

mod file;
mod keychain;
mod relays;

use std::path::{Path, PathBuf};

use claudenest_shared::pairing;
use claudenest_shared::secret::Secret;
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use file::{FileStore, write_private};
pub use keychain::KeyringStore;
pub use relays::{PairedRelay, Relays};

use crate::config::CredentialStore;
use crate::paths::Paths;

/// A place for secrets. Calls block: use a blocking thread inside the daemon.
pub trait SecretStore: Send + Sync {
    /// Reads a secret; `None` if the store has none of this name (a locked keyring says so as well).
    ///
    /// # Errors
    /// [`SecretError`] when the store cannot be used.
    fn get(&self, name: &str) -> Result<Option<Secret<String>>, SecretError>;
    /// Writes a secret and has it on disk when it returns.
    ///
    /// # Errors
    /// [`SecretError`] when the store cannot be used.
    fn set(&self, name: &str, secret: &Secret<String>) -> Result<(), SecretError>;
    /// Removes a secret; it is no error if there is none.
    ///
    /// # Errors
    /// [`SecretError`] when the store cannot be used.
    fn delete(&self, name: &str) -> Result<(), SecretError>;
}

/// Which store is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// The system's keyring.
    Keyring,
    /// Files with mode 0600.
    File,
}

/// The store in use and why, for `status` and `doctor`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoreChoice {
    /// Which.
    pub kind: StoreKind,
    /// Why not the keyring, when files are used although the keyring was allowed.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Why a secret cannot be read or written. The texts are complete for a person.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No keyring answers.
    #[error(
        "No keyring can be used ({0}). Set credential_store = \"file\" in the configuration to keep secrets in files with mode 0600."
    )]
    NoKeyring(String),
    /// The keyring did not answer in time.
    #[error(
        "The keyring did not answer within {0} s; it may wait for you to unlock it. Unlock it and try again."
    )]
    Slow(u64),
    /// A secret that was stored is not there.
    #[error(
        "The keyring does not give the {0}: it is locked, or the entry was removed. Unlock the keyring and try again; if the entry is gone, run `claudenest-agent unpair --force` and pair again."
    )]
    Missing(String),
    /// A secret in a file is missing.
    #[error(
        "The file {0} with a secret is missing. Restore it, or run `claudenest-agent unpair --force` and pair again."
    )]
    MissingFile(PathBuf),
    /// Others could read or have written the file.
    #[error(
        "{path} {problem}. Its secret may be known to others. Remove it and pair again, or repair it: chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file system failed.
    #[error("{path} cannot be {action}: {source}.")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The content is not what was written.
    #[error("{0} is damaged. Run `claudenest-agent unpair --force` and pair again.")]
    Damaged(String),
}

/// The machine's identity: an Ed25519 key that never leaves the machine.
pub struct Identity(SigningKey);

impl Identity {
    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `message`; hexadecimal.
    pub fn sign(&self, message: &[u8]) -> String {
        hex(&self.0.sign(message).to_bytes())
    }

    /// Signs a relay's challenge for the link.
    pub fn sign_link(&self, nonce: &[u8; 32], token: &Secret<String>) -> String {
        let digest = claudenest_shared::token::digest(token.expose());
        self.sign(&pairing::link_message(nonce, &digest))
    }

    /// A key from its 32 secret bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(***)")
    }
}

/// Identity and tokens of this machine.
pub struct Vault {
    policy: CredentialStore,
    choice_file: PathBuf,
    keyring: Box<dyn SecretStore>,
    files: FileStore,
}

const IDENTITY: &str = "identity";

impl Vault {
    /// Opens the vault of a data directory; touches neither keyring nor files yet.
    pub fn open(paths: &Paths, policy: CredentialStore) -> Self {
        // The data directory is part of the name: two agents of one user share the keyring, not the secrets.
        let scope = Sha256::digest(paths.data_dir.as_os_str().as_encoded_bytes());
        Self::with_keyring(paths, policy, Box::new(KeyringStore::new(hex(&scope[..4]))))
    }

    /// As [`Vault::open`], with another keyring: for tests.
    pub fn with_keyring(paths: &Paths, policy: CredentialStore, keyring: Box<dyn SecretStore>) -> Self {
        Self {
            policy,
            choice_file: paths.data_dir.join("credentials.json"),
            keyring,
            files: FileStore::new(paths.secrets_dir()),
        }
    }

    /// The store that holds the secrets; `None` before the first secret was written.
    pub fn choice(&self) -> Option<StoreChoice> {
        let recorded = std::fs::read(&self.choice_file).ok();
        recorded.and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// The machine's identity; makes one if there is none and no relay knows one.
    ///
    /// # Errors
    /// [`SecretError`]; in particular when it should exist and cannot be read.
    pub fn identity(&self, is_paired: bool) -> Result<Identity, SecretError> {
        match self.get(IDENTITY)? {
            Some(secret) => parse_seed(&secret).map(|seed| Identity::from_seed(&seed)),
            None if is_paired => Err(self.missing(IDENTITY, "machine's key")),
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|error| SecretError::Io {
                    path: PathBuf::from("the random source"),
                    action: "read",
                    source: std::io::Error::other(error.to_string()),
                })?;
                self.set(IDENTITY, &Secret::new(hex(&seed)))?;
                Ok(Identity::from_seed(&seed))
            }
        }
    }

    /// The machine token of a relay.
    ///
    /// # Errors
    /// [`SecretError`]; in particular when it is not there although the relay is listed.
    pub fn token(&self, relay: &str) -> Result<Secret<String>, SecretError> {
        let name = token_name(relay);
        self.get(&name)?.ok_or_else(|| self.missing(&name, &format!("token of {relay}")))
    }

    /// Keeps the machine token of a relay.
    ///
    /// # Errors
    /// [`SecretError`] when neither store takes it.
    pub fn set_token(&self, relay: &str, token: &Secret<String>) -> Result<(), SecretError> {
        self.set(&token_name(relay), token)
    }

    /// Removes the machine token of a relay.
    ///
    /// # Errors
    /// [`SecretError`] when the store cannot be used.
    pub fn delete_token(&self, relay: &str) -> Result<(), SecretError> {
        self.store().delete(&token_name(relay))
    }

    /// Tries the store without changing a secret.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be used.
    pub fn probe(&self) -> Result<(), SecretError> {
        self.store().get(IDENTITY).map(drop)
    }

    /// Tries the keyring, whatever is in use.
    ///
    /// # Errors
    /// [`SecretError`] when no keyring answers.
    pub fn probe_keyring(&self) -> Result<(), SecretError> {
        self.keyring.get(IDENTITY).map(drop)
    }

    fn kind(&self) -> StoreKind {
        match (self.policy, self.choice()) {
            (CredentialStore::File, _) => StoreKind::File,
            (CredentialStore::Keyring, _) => StoreKind::Keyring,
            (CredentialStore::Auto, choice) => choice.map_or(StoreKind::Keyring, |choice| choice.kind),
        }
    }

    fn store(&self) -> &dyn SecretStore {
        match self.kind() {
            StoreKind::Keyring => &*self.keyring,
            StoreKind::File => &self.files,
        }
    }

    fn get(&self, name: &str) -> Result<Option<Secret<String>>, SecretError> {
        if self.policy == CredentialStore::Auto && self.choice().is_none() {
            return Ok(None); // Nothing was ever written.
        }
        self.store().get(name)
    }

    fn set(&self, name: &str, secret: &Secret<String>) -> Result<(), SecretError> {
        let undecided = self.policy == CredentialStore::Auto && self.choice().is_none();
        if !undecided {
            self.store().set(name, secret)?;
            return match self.choice() {
                Some(choice) if choice.kind == self.kind() => Ok(()),
                _ => self.record(&StoreChoice { kind: self.kind(), reason: None }),
            };
        }
        let choice = match self.keyring.set(name, secret) {
            // A keyring may take an entry and lose it; only what reads back counts.
            Ok(()) if matches!(self.keyring.get(name), Ok(Some(read)) if read == *secret) => {
                StoreChoice { kind: StoreKind::Keyring, reason: None }
            }
            result => {
                self.files.set(name, secret)?;
                let reason = match result {
                    Err(SecretError::NoKeyring(reason)) => reason,
                    Err(error) => error.to_string(),
                    Ok(()) => "it does not keep what is written".to_owned(),
                };
                StoreChoice { kind: StoreKind::File, reason: Some(reason) }
            }
        };
        self.record(&choice)
    }

    fn record(&self, choice: &StoreChoice) -> Result<(), SecretError> {
        let bytes = serde_json::to_vec_pretty(choice).expect("a choice is plain data");
        write_private(&self.choice_file, &bytes)
    }

    fn missing(&self, name: &str, what: &str) -> SecretError {
        match self.kind() {
            StoreKind::Keyring => SecretError::Missing(what.to_owned()),
            StoreKind::File => SecretError::MissingFile(self.files.path(name)),
        }
    }
}

fn parse_seed(secret: &Secret<String>) -> Result<[u8; 32], SecretError> {
    unhex(secret.expose()).ok_or_else(|| SecretError::Damaged("The machine's key".to_owned()))
}

fn token_name(relay: &str) -> String {
    format!("token-{}", hex(&Sha256::digest(relay.as_bytes())[..8]))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes of hexadecimal text.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.trim().as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; N];
    for (slot, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Reads a file that may be missing.
fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, SecretError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretError::Io { path: path.to_owned(), action: "read", source }),
    }
}

#[cfg(test)]
mod tests;
