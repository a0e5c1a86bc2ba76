//! Why a session is in its state, as the supervisor says it: an English sentence and the words of which it is made.

use std::fmt::Display;
use std::time::Duration;

use claudenest_shared::reason::{StateNote, StateWord};
use claudenest_shared::session::{Exit, SessionInfo};

/// A sentence and its words, in step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// For programs, and for whoever does not know the words.
    pub text: String,
    /// For translations.
    pub notes: Vec<StateNote>,
}

impl Reason {
    /// A word without values.
    pub fn of(word: StateWord) -> Self {
        Self::with(word, &[])
    }

    /// A word with what goes into its sentence.
    pub fn with(word: StateWord, values: &[(&str, &dyn Display)]) -> Self {
        let note = StateNote::new(word, values);
        Self { text: note.text(), notes: vec![note] }
    }

    /// Both, one after the other.
    #[must_use]
    pub fn and(mut self, next: Self) -> Self {
        self.text = format!("{}; {}", self.text, next.text);
        self.notes.extend(next.notes);
        self
    }

    /// What stands at a session now.
    pub fn standing(info: &SessionInfo) -> Option<Self> {
        info.state_reason.clone().map(|text| Self { text, notes: info.state_notes.clone() })
    }

    /// Puts a reason, or none, at a session.
    pub fn put(reason: Option<Self>, info: &mut SessionInfo) {
        let (text, notes) = reason.map_or((None, Vec::new()), |reason| (Some(reason.text), reason.notes));
        info.state_reason = text;
        info.state_notes = notes;
    }

    /// A start failed; the next attempt comes after `pause`.
    pub fn start_failed(attempt: u32, attempts: u32, why: &str, pause: Duration) -> Self {
        Self::with(
            StateWord::StartFailed,
            &[("attempt", &attempt), ("attempts", &attempts), ("why", &why), ("seconds", &pause.as_secs())],
        )
    }

    /// It is started again after `pause`.
    pub fn starts_again(pause: Duration, restart: u32, restarts: u32) -> Self {
        Self::with(
            StateWord::StartsAgain,
            &[("seconds", &pause.as_secs()), ("restart", &restart), ("restarts", &restarts)],
        )
    }

    /// How a process ended.
    pub fn exit(exit: Exit) -> Self {
        match exit {
            Exit::Code { code } => Self::with(StateWord::ExitCode, &[("code", &code)]),
            Exit::Signal { signal } => {
                let name = signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
                Self::with(StateWord::KilledBy, &[("signal", &name)])
            }
            Exit::Lost {} => Self::of(StateWord::ExitLost),
        }
    }
}

/// Names of the signals whose numbers are the same on every system we run on.
fn signal_name(signal: u8) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}
