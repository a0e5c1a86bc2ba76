//! Exit codes, the same for every command, and the error that carries one.

use std::fmt;

use claudenest_shared::code::{ErrorCode, WireError};

/// Documented exit codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// The daemon does not run.
    NoDaemon = 3,
    /// There is no such thing.
    NotFound = 4,
    /// It was refused, or is not possible in this state.
    Refused = 5,
    /// The time given is over.
    TimedOut = 124,
}

impl Exit {
    /// The exit code for an error of daemon or relay.
    pub fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotFound | ErrorCode::PairingNotFound => Self::NotFound,
            ErrorCode::Internal | ErrorCode::SpawnFailed | ErrorCode::Unavailable | ErrorCode::Unknown => {
                Self::Failed
            }
            ErrorCode::MachineTimeout => Self::TimedOut,
            _ => Self::Refused,
        }
    }
}

/// A failure with its exit code; the text is complete for a person.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// Stable code for `--json`.
    pub code: &'static str,
    /// What happened and what to do.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Makes a failure as an `anyhow` error.
pub fn fail(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    let code = match exit {
        Exit::Failed => "failed",
        Exit::Usage => "usage",
        Exit::NoDaemon => "daemon_not_running",
        Exit::NotFound => "not_found",
        Exit::Refused => "refused",
        Exit::TimedOut => "timed_out",
    };
    anyhow::Error::new(Failure { exit, code, message: message.into() })
}

/// Makes a failure of an error that daemon or relay told.
pub fn wire(error: WireError) -> anyhow::Error {
    anyhow::Error::new(Failure {
        exit: Exit::of(error.code),
        code: error.code.as_str(),
        message: error.message,
    })
}

/// How the program ends for `error`, and the stable code for `--json`.
pub fn classify(error: &anyhow::Error) -> (Exit, &'static str) {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        (failure.exit, failure.code)
    } else if error.downcast_ref::<crate::config::ConfigError>().is_some() {
        (Exit::Usage, "bad_config")
    } else {
        (Exit::Failed, "failed")
    }
}
