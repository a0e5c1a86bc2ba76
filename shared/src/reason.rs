//! Why a session is in its state: words of a dictionary and their values, so that every reader can say it in its own language.
//!
//! The English sentence travels beside the words, for programs and for words that the reader does not know.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident => $template:literal;)*) => {
        /// A stable word for why a session is in its state. Sentences may change, words do not.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum StateWord {
            $($(#[$doc])* $name,)*
            /// A word that this version does not know: show the sentence.
            #[serde(other)]
            Unknown,
        }

        impl StateWord {
            /// The English sentence; `{name}` stands for a value.
            const fn template(self) -> &'static str {
                match self {
                    $(Self::$name => $template,)*
                    Self::Unknown => "",
                }
            }

            /// Every word that this version knows.
            pub const ALL: &'static [StateWord] = &[$(Self::$name),*];
        }
    };
}

words! {
    /// All places for live sessions are taken.
    WaitsForPlace => "waits for one of {places} places";
    /// A person asked for its end.
    EndedOnRequest => "on request";
    /// The same, before there was a process.
    EndedBeforeStart => "on request, before it had started";
    /// A person asked for another start.
    Restarts => "restarts";
    /// A start failed and is tried again.
    StartFailed => "start {attempt} of {attempts} failed: {why} Next attempt in {seconds} s";
    /// Starting was given up.
    StartGivenUp => "could not be started after {attempts} attempts: {why}";
    /// The machine was rebooted under it.
    MachineRestarted => "the machine restarted";
    /// The process that kept its terminal was killed.
    KeeperKilled => "its keeper process was killed";
    /// Its process exited.
    ExitCode => "exit code {code}";
    /// A signal ended its process.
    KilledBy => "killed by {signal}";
    /// Nobody saw how it ended.
    ExitLost => "its exit status was lost";
    /// It crashed and is started again.
    StartsAgain => "starts again in {seconds} s ({restart} of {restarts})";
    /// Its conversation is kept.
    CanBeResumed => "the conversation can be resumed";
    /// It was put to sleep.
    Hibernated => "wake it to go on";
    /// It was stopped for a while.
    PausedOnRequest => "on request";
    /// It was ended for its memory.
    MemoryEnded => "it used more memory than allowed";
    /// It goes on in spite of its memory.
    MemoryHigh => "uses {mib} MiB of memory, more than allowed";
    /// No hook has come: perhaps a dialog is in front of the prompt.
    NoSign => "no sign from Claude Code yet: perhaps a first-run dialog; look at the screen";
    /// It wants its first prompt.
    WaitsForPrompt => "waits for a prompt";
    /// The turn is over.
    Answered => "answered; waits for the next prompt";
    /// The turn ended by an error.
    TurnFailed => "the turn failed ({error}); waits for the next prompt";
    /// The turn was interrupted, or a permission refused at the keyboard.
    Interrupted => "interrupted or refused; waits for the next prompt";
    /// Claude Code says itself what it waits for.
    WaitsFor => "waits: {what}";
    /// It wants permission for something not named.
    AsksPermission => "asks for permission";
    /// It asks the person something.
    AsksQuestion => "asks a question";
    /// It has a plan.
    HasPlan => "has a plan and asks whether to go on";
    /// It wants to run a command.
    WantsToRun => "wants to run `{command}`";
    /// It wants to write a file.
    WantsToWrite => "wants to write {file}";
    /// It wants to edit a file.
    WantsToEdit => "wants to edit {file}";
    /// It wants to read a file.
    WantsToRead => "wants to read {file}";
    /// It wants to fetch an address.
    WantsToFetch => "wants to fetch {url}";
    /// It wants to search the web.
    WantsToSearch => "wants to search for \u{201c}{query}\u{201d}";
    /// It wants to use another tool.
    WantsToUse => "wants to use {tool}";
}

/// One word with its values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateNote {
    /// The word.
    pub word: StateWord,
    /// What goes into its sentence, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

impl StateNote {
    /// A word with what goes into its sentence.
    pub fn new(word: StateWord, values: &[(&str, &dyn Display)]) -> Self {
        Self {
            word,
            values: values.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect(),
        }
    }

    /// The English sentence, without a full stop.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut rest = self.word.template();
        // Values are put in, never looked into: a command may contain braces.
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').unwrap_or((after, ""));
            text.push_str(before);
            text.push_str(self.values.get(name).map_or("", String::as_str));
            rest = tail;
        }
        text + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_into_the_sentence_as_they_are() {
        let note = StateNote::new(StateWord::WantsToRun, &[("command", &"echo {url} ${HOME}")]);
        assert_eq!(note.text(), "wants to run `echo {url} ${HOME}`");
        let note = StateNote::new(
            StateWord::StartsAgain,
            &[("seconds", &2_u64), ("restart", &1_u32), ("restarts", &3_u32)],
        );
        assert_eq!(note.text(), "starts again in 2 s (1 of 3)");
        assert_eq!(StateNote::new(StateWord::Restarts, &[]).text(), "restarts");
    }

    #[test]
    fn words_round_trip_and_later_ones_are_unknown() {
        for word in StateWord::ALL {
            let note = StateNote::new(*word, &[]);
            let json = serde_json::to_string(&note).unwrap();
            assert_eq!(serde_json::from_str::<StateNote>(&json).unwrap(), note);
            assert!(!word.template().is_empty() && !word.template().ends_with('.'), "{word:?}");
        }
        let later = r#"{"word":"dreams_of","values":{"what":"sheep"}}"#;
        assert_eq!(serde_json::from_str::<StateNote>(later).unwrap().word, StateWord::Unknown);
    }
}
