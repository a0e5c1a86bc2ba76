//! Secrets in the system's keyring: Keychain on macOS, Secret Service on Linux.

use std::sync::mpsc;
use std::time::Duration;

use claudenest_shared::secret::Secret;
use keyring::{Entry, Error};

use super::{SecretError, SecretStore};

/// The service name under which people find the entries in their keyring.
const SERVICE: &str = "claudenest-agent";
/// A keyring that asks a person to unlock it gets this long; then the caller goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system's keyring. Every call runs on a thread of its own: the D-Bus client blocks, may wait for a
/// person, and must not run inside the daemon's async runtime.
#[derive(Debug)]
pub struct KeyringStore {
    scope: String,
}

impl KeyringStore {
    /// Entries are named `<scope>/<name>`.
    pub fn new(scope: String) -> Self {
        Self { scope }
    }

    fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(Entry) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, SecretError> {
        let user = format!("{}/{name}", self.scope);
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("keyring".to_owned())
            .spawn(move || {
                let result = Entry::new(SERVICE, &user).and_then(work);
                // The caller may have given up.
                let _ = sender.send(result);
            })
            .map_err(|error| SecretError::NoKeyring(error.to_string()))?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(translate(&error)),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(SecretError::Slow(PATIENCE.as_secs())),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(SecretError::NoKeyring("its client failed".to_owned()))
            }
        }
    }
}

fn translate(error: &Error) -> SecretError {
    SecretError::NoKeyring(match error {
        Error::NoDefaultStore => "no keyring service is running".to_owned(),
        Error::NoStorageAccess(_) => "it is locked, or access was refused".to_owned(),
        Error::Ambiguous(_) => "it holds several entries of the same name".to_owned(),
        other => other.to_string(),
    })
}

impl SecretStore for KeyringStore {
    fn get(&self, name: &str) -> Result<Option<Secret<String>>, SecretError> {
        self.run(name, |entry| match entry.get_password() {
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn set(&self, name: &str, secret: &Secret<String>) -> Result<(), SecretError> {
        let secret = secret.clone();
        self.run(name, move |entry| entry.set_password(secret.expose()))
    }

    fn delete(&self, name: &str) -> Result<(), SecretError> {
        self.run(name, |entry| match entry.delete_credential() {
            Ok(()) | Err(Error::NoEntry) => Ok(()),
            Err(error) => Err(error),
        })
    }
}
