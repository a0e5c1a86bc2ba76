//! Locks as the control socket and the link ask for them.

use std::path::PathBuf;
use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::SessionId;
use claudenest_shared::lock::{LockHolder, LockOrigin};
use claudenest_shared::wire::agent::{Op, Reply};

use super::{Locks, Refusal, Releaser, Wish};

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A person: at the command line, or through a relay.
    Person {
        /// For people: "dev on pts/3", "alice@example.com".
        label: String,
    },
    /// A supervised session. It takes and gives back its own.
    Session {
        /// Which.
        session: SessionId,
        /// Its name.
        name: String,
        /// Its directory.
        cwd: PathBuf,
    },
}

impl Locks {
    /// Does what a lock operation says. `None` if `op` is about something else.
    ///
    /// # Cancel safety
    /// If dropped, it may be carried out without an answer.
    pub async fn op(&self, op: &Op, asker: &Asker) -> Option<Result<Reply, WireError>> {
        let result = match op {
            Op::LockList {} => Ok(Reply::Locks { locks: self.list() }),
            Op::LockAcquire { path, kind, lease_s, reason, wait_s, .. } => {
                let (who, origin, cwd) = match asker {
                    Asker::Person { label } => {
                        (LockHolder::Person { label: label.clone() }, LockOrigin::Person, None)
                    }
                    Asker::Session { session, name, cwd } => {
                        let who = LockHolder::Session { session: *session, name: name.clone() };
                        (who, LockOrigin::Tool, Some(cwd.clone()))
                    }
                };
                let path = PathBuf::from(path);
                let wish = Wish {
                    who,
                    origin,
                    kind: *kind,
                    lease_s: *lease_s,
                    reason: reason.clone(),
                    cwd: cwd.unwrap_or_else(|| path.clone()),
                    path,
                    wait: Duration::from_secs(u64::from(wait_s.unwrap_or(0))),
                };
                let result = self.acquire(wish).await;
                result.map(|lock| Reply::Locks { locks: vec![lock] }).map_err(|refusal| told(&refusal, asker))
            }
            Op::LockRelease { lock, force, .. } => {
                let by = match asker {
                    Asker::Session { .. } if *force => {
                        return Some(Err(WireError::new(
                            ErrorCode::Forbidden,
                            "A session gives back its own locks only. Ask the user to take this one away.",
                        )));
                    }
                    Asker::Session { session, .. } => Releaser::Session(*session),
                    Asker::Person { .. } if *force => Releaser::Force,
                    Asker::Person { .. } => Releaser::Person,
                };
                self.release(*lock, by).await.map(|_| Reply::Done {}).map_err(|refusal| told(&refusal, asker))
            }
            _ => return None,
        };
        Some(result)
    }
}

/// A refusal in the words for who asked.
fn told(refusal: &Refusal, asker: &Asker) -> WireError {
    let error = refusal.to_wire();
    match asker {
        Asker::Person { .. } => error,
        Asker::Session { .. } => WireError { message: refusal.for_claude(), ..error },
    }
}
