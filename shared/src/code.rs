//! Stable error codes and the error that travels on every wire.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $text:literal, $status:literal;)*) => {
        /// A stable, machine-readable reason. Texts may change, codes do not.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code that this version does not know.
            #[serde(other)]
            Unknown,
        }

        impl ErrorCode {
            /// The code as it is written on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Unknown => "unknown",
                }
            }

            /// The HTTP status that the relay answers with.
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Unknown => 500,
                }
            }

            /// Finds a code by its wire text; [`ErrorCode::Unknown`] if there is none.
            pub fn from_text(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    _ => Self::Unknown,
                }
            }

            /// Every code that this version knows.
            pub const ALL: &'static [ErrorCode] = &[$(Self::$name),*];
        }
    };
}

codes! {
    /// The request is not understood; the message says which part.
    BadRequest => "bad_request", 400;
    /// No valid login, token or ticket came with the request.
    Unauthenticated => "unauthenticated", 401;
    /// The caller is known but may not do this.
    Forbidden => "forbidden", 403;
    /// There is no such thing, or it belongs to somebody else; the two look the same.
    NotFound => "not_found", 404;
    /// There is no live pairing that this request could belong to.
    PairingNotFound => "pairing_not_found", 404;
    /// The thing is not in a state in which this can be done.
    Conflict => "conflict", 409;
    /// The name is already used on that machine.
    NameTaken => "name_taken", 409;
    /// The request is larger than the documented limit.
    TooLarge => "too_large", 413;
    /// Too many requests; try again after the time given.
    RateLimited => "rate_limited", 429;
    /// The machine runs as many sessions as it allows.
    TooManySessions => "too_many_sessions", 409;
    /// The machine has no live link to the relay.
    MachineOffline => "machine_offline", 409;
    /// The machine did not answer in time.
    MachineTimeout => "machine_timeout", 504;
    /// The directory does not exist, is not readable, or is outside the allowed roots.
    BadDirectory => "bad_directory", 422;
    /// A value has the right form but cannot be used; the message says why.
    Invalid => "invalid", 422;
    /// Claude Code is not installed or not usable on the machine.
    ClaudeUnavailable => "claude_unavailable", 422;
    /// The child process could not be started.
    SpawnFailed => "spawn_failed", 500;
    /// The session has ended.
    SessionEnded => "session_ended", 409;
    /// The session does not take input now (ended, or opened read-only).
    ReadOnly => "read_only", 409;
    /// More input is waiting than the session takes; slow down.
    InputFull => "input_full", 429;
    /// The token or machine was revoked.
    Revoked => "revoked", 401;
    /// The two programs have no protocol version in common.
    VersionMismatch => "version_mismatch", 426;
    /// Our fault; the log of the program has the cause.
    Internal => "internal", 500;
    /// Not now: starting, stopping or overloaded.
    Unavailable => "unavailable", 503;
}

/// A failure as it is told to the other side: a stable code and a sentence for a person.
///
/// The sentence says what happened and what to do next, and never holds an internal cause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct WireError {
    /// Stable code.
    pub code: ErrorCode,
    /// One or two sentences for a person.
    pub message: String,
}

impl WireError {
    /// Builds an error from its code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_and_serde_form_agree_for_every_code() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(ErrorCode::from_text(code.as_str()), *code);
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"from_the_future\"").unwrap(), ErrorCode::Unknown);
    }
}
