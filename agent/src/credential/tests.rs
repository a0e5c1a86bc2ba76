use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use super::*;

/// A keyring in memory that can be locked, absent or forgetful.
#[derive(Clone, Default)]
struct FakeKeyring {
    entries: Arc<Mutex<HashMap<String, Secret<String>>>>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Open,
    Absent,
    /// As observed with a locked gnome-keyring: reading says "no entry", writing fails.
    Locked,
    Forgetful,
}

impl SecretStore for FakeKeyring {
    fn get(&self, name: &str) -> Result<Option<Secret<String>>, SecretError> {
        match *self.state.lock().unwrap() {
            State::Absent => Err(SecretError::NoKeyring("no keyring service is running".into())),
            State::Locked => Ok(None),
            _ => Ok(self.entries.lock().unwrap().get(name).cloned()),
        }
    }

    fn set(&self, name: &str, secret: &Secret<String>) -> Result<(), SecretError> {
        match *self.state.lock().unwrap() {
            State::Absent => Err(SecretError::NoKeyring("no keyring service is running".into())),
            State::Locked => Err(SecretError::NoKeyring("it is locked".into())),
            State::Forgetful => Ok(()),
            State::Open => {
                self.entries.lock().unwrap().insert(name.to_owned(), secret.clone());
                Ok(())
            }
        }
    }

    fn delete(&self, name: &str) -> Result<(), SecretError> {
        self.entries.lock().unwrap().remove(name);
        Ok(())
    }
}

struct Bed {
    paths: Paths,
    keyring: FakeKeyring,
    _temp: tempfile::TempDir,
}

impl Bed {
    fn new(state: State) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let data_dir = temp.path().join("data");
        let paths = Paths { config_file: temp.path().join("c"), runtime_dir: data_dir.join("run"), data_dir };
        let keyring = FakeKeyring::default();
        *keyring.state.lock().unwrap() = state;
        Self { paths, keyring, _temp: temp }
    }

    fn vault(&self, policy: CredentialStore) -> Vault {
        Vault::with_keyring(&self.paths, policy, Box::new(self.keyring.clone()))
    }

    fn set_state(&self, state: State) {
        *self.keyring.state.lock().unwrap() = state;
    }
}

const RELAY: &str = "https://relay.test";

fn token() -> Secret<String> {
    Secret::new("mn_secret".to_owned())
}

#[test]
fn without_a_keyring_secrets_go_to_private_files_and_the_reason_is_recorded() {
    for state in [State::Absent, State::Locked, State::Forgetful] {
        let bed = Bed::new(state);
        let vault = bed.vault(CredentialStore::Auto);
        let key = vault.identity(false).unwrap().public_key();
        vault.set_token(RELAY, &token()).unwrap();
        let choice = vault.choice().unwrap();
        assert_eq!(choice.kind, StoreKind::File);
        assert!(choice.reason.is_some());
        for entry in std::fs::read_dir(bed.paths.secrets_dir()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        // A keyring that appears later does not split the secrets.
        bed.set_state(State::Open);
        let vault = bed.vault(CredentialStore::Auto);
        assert_eq!(vault.identity(true).unwrap().public_key(), key);
        assert_eq!(vault.token(RELAY).unwrap(), token());
        assert!(bed.keyring.entries.lock().unwrap().is_empty());
    }
}

#[test]
fn a_keyring_that_works_is_used_and_nothing_is_in_files() {
    let bed = Bed::new(State::Open);
    let vault = bed.vault(CredentialStore::Auto);
    vault.identity(false).unwrap();
    vault.set_token(RELAY, &token()).unwrap();
    assert_eq!(vault.choice().unwrap().kind, StoreKind::Keyring);
    assert!(!bed.paths.secrets_dir().exists());
    vault.delete_token(RELAY).unwrap();
    assert!(matches!(vault.token(RELAY), Err(SecretError::Missing(_))));
}

#[test]
fn a_locked_keyring_never_looks_like_a_new_machine() {
    let bed = Bed::new(State::Open);
    let key = bed.vault(CredentialStore::Auto).identity(false).unwrap().public_key();
    bed.set_state(State::Locked);
    let vault = bed.vault(CredentialStore::Auto);
    assert!(matches!(vault.identity(true), Err(SecretError::Missing(_))));
    assert!(matches!(vault.token(RELAY), Err(SecretError::Missing(_))));
    bed.set_state(State::Open);
    assert_eq!(vault.identity(true).unwrap().public_key(), key);
}

#[test]
fn exposed_and_missing_files_are_refused() {
    let bed = Bed::new(State::Absent);
    let vault = bed.vault(CredentialStore::File);
    vault.set_token(RELAY, &token()).unwrap();
    let path = FileStore::new(bed.paths.secrets_dir()).path(&token_name(RELAY));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = vault.token(RELAY).unwrap_err();
    assert!(error.to_string().contains("mode 640"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(vault.token(RELAY), Err(SecretError::MissingFile(_))));
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(vault.token(RELAY).is_err(), "links are not followed");
}

#[test]
fn a_keyring_that_is_asked_for_is_never_replaced_by_files() {
    let bed = Bed::new(State::Absent);
    let error = bed.vault(CredentialStore::Keyring).set_token(RELAY, &token()).unwrap_err();
    assert!(matches!(error, SecretError::NoKeyring(_)));
    assert!(!bed.paths.secrets_dir().exists());
}

#[test]
fn pairings_round_trip_and_a_damaged_list_says_so() {
    let bed = Bed::new(State::Absent);
    assert_eq!(Relays::load(&bed.paths).unwrap(), Relays::default());
    let relay = PairedRelay {
        url: RELAY.into(),
        account: "a@b".into(),
        machine_id: claudenest_shared::id::MachineId::from_bytes([1; 16]),
        machine_name: "studio".into(),
        paired_at: claudenest_shared::time::UnixMs(1),
        allow_plain_http: false,
        extra_ca: Vec::new(),
    };
    let mut relays = Relays::default();
    relays.put(relay.clone());
    relays.put(PairedRelay { account: "c@d".into(), ..relay });
    relays.save(&bed.paths).unwrap();
    let mut read = Relays::load(&bed.paths).unwrap();
    assert_eq!(read, relays);
    assert_eq!((read.relays.len(), read.find(RELAY).unwrap().account.as_str()), (1, "c@d"));
    assert!(read.remove(RELAY) && !read.remove(RELAY));
    std::fs::write(bed.paths.relays_file(), "{").unwrap();
    assert!(Relays::load(&bed.paths).unwrap_err().to_string().contains("relays.json"));
}

#[test]
fn hexadecimal_round_trips() {
    assert_eq!(unhex::<3>(&hex(&[0, 255, 16])), Some([0, 255, 16]));
    for bad in ["", "00ff1", "00ff1g", "00ff1000"] {
        assert_eq!(unhex::<3>(bad), None);
    }
}
