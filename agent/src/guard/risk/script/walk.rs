//! The state of a walk through a script: directories, variables, and what is found about each simple command.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::word::UNKNOWN;
use super::{
    Assessment, MAX_DEPTH, Part, PartRole, Reason, Risk, RiskNote, Scope, Word, parse, place, program, tool,
    tree,
};

/// Most simple commands that are judged; far more than the sixteen that can be understood.
const MAX_JUDGED: usize = 500;
/// Directories in which a command may find itself after several `cd`; more are unknown.
const MAX_DIRS: usize = 4;

/// What the rest of a pipeline or script must know of a command.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(in crate::guard::risk) struct Facts {
    /// It talks to other machines.
    pub is_network: bool,
    /// It turns encoded text into something else.
    pub is_decoder: bool,
    /// It runs what it reads.
    pub runs_stdin: bool,
    /// Text that it prints, if that is known.
    pub prints: Option<String>,
}

/// A redirection.
#[derive(Clone, Debug)]
pub(in crate::guard::risk) struct Redirect {
    /// Writes its target, or else reads it.
    pub writes: bool,
    /// The file.
    pub target: Option<Word>,
}

/// A simple command before it is judged.
#[derive(Clone, Default, Debug)]
pub(in crate::guard::risk) struct Simple {
    /// As written.
    pub text: String,
    /// Names and values of the assignments in front of it.
    pub assignments: Vec<(String, Word)>,
    /// Program and arguments.
    pub words: Vec<Word>,
    /// Redirections to and from files.
    pub redirects: Vec<Redirect>,
    /// What it reads from its standard input, if that stands in the script.
    pub stdin: Option<String>,
}

/// Where the shell may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::guard::risk) struct Dirs {
    /// Absolute and clean.
    pub known: Vec<PathBuf>,
    /// It may be somewhere else as well.
    pub is_open: bool,
}

/// The state of the walk.
pub(in crate::guard::risk) struct Walk<'a> {
    pub scope: &'a Scope<'a>,
    pub out: &'a mut Assessment,
    pub variables: HashMap<String, String>,
    pub dirs: Dirs,
    /// Names that functions and aliases have taken.
    pub redefined: HashSet<String>,
    pub has_network: bool,
    home: Option<String>,
    pub(super) nesting: usize,
    judged: usize,
}

impl<'a> Walk<'a> {
    pub fn new(scope: &'a Scope<'a>, out: &'a mut Assessment) -> Self {
        let home = scope.home.map(|home| home.to_string_lossy().into_owned());
        let mut variables = HashMap::new();
        if let Some(home) = &home {
            variables.insert("HOME".to_owned(), home.clone());
        }
        variables.insert("PWD".to_owned(), scope.cwd.to_string_lossy().into_owned());
        let dirs =
            Dirs { known: vec![place::join(Path::new("/"), &scope.cwd.to_string_lossy())], is_open: false };
        Self {
            scope,
            out,
            variables,
            dirs,
            redefined: HashSet::new(),
            has_network: false,
            home,
            nesting: 0,
            judged: 0,
        }
    }

    /// Judges a script; `depth` counts scripts within scripts.
    pub fn script(&mut self, text: &str, depth: usize, role: PartRole) -> Facts {
        if depth > MAX_DEPTH {
            self.give_up(Reason::TooDeep);
            return Facts::default();
        }
        let Some(tree) = parse(text) else {
            self.give_up(Reason::NotParsed);
            return Facts::default();
        };
        let has_error = tree.root_node().has_error();
        let facts = tree::run(self, text, depth, role, &tree);
        if has_error {
            self.give_up(Reason::NotParsed);
            self.pieces(text, depth);
        } else if text.contains("\\\n") {
            // The shell joins lines before it reads words, the parser after.
            self.pieces(&text.replace("\\\n", ""), depth);
        }
        let secrets = [Reason::Secrets, Reason::SecretFile, Reason::ShowsEnvironment];
        let is_secret = |note: &RiskNote| secrets.iter().any(|reason| reason.word() == note.word);
        if self.has_network && self.out.notes.iter().any(is_secret) {
            self.out.note(Reason::SendsSecrets, None);
        }
        facts
    }

    /// Looks at a text that the parser did not understand, cut at everything that may end a command. This finds what makes it
    /// worse; it can make nothing better.
    fn pieces(&mut self, text: &str, depth: usize) {
        const LEADING: &[&str] = &["{", "!", "then", "do", "else", "if", "while", "until", "time"];
        for piece in text.split(['\n', ';', '|', '&', '(', ')', '`']) {
            let words = piece.split_ascii_whitespace().skip_while(|word| LEADING.contains(word));
            let mut simple = Simple { text: piece.trim().to_owned(), ..Simple::default() };
            simple.words = words.map(|word| self.word(word)).collect();
            if !simple.words.is_empty() {
                self.simple(simple, depth, PartRole::Inner);
            }
        }
    }

    pub fn give_up(&mut self, reason: Reason) {
        self.out.note(reason, None);
        self.out.has_unknown_writes = true;
        self.out.is_understood = false;
    }

    /// A word of text that stands within this script.
    pub fn word(&self, text: &str) -> Word {
        Word::read(text, &self.variables, self.home.as_deref())
    }

    /// The paths that a word may mean; `None` if that is not known. True for a tree: the word is a pattern below it.
    pub fn paths(&self, word: &Word) -> Option<Vec<(PathBuf, bool)>> {
        let mut guess = word.guess.as_str();
        let mut is_tree = false;
        if word.is_pattern {
            let at = guess.find(['*', '?', '[', '{', '@', '+', '!']).unwrap_or(guess.len());
            guess =
                guess[..at].rsplit_once('/').map_or("", |(dir, _)| if dir.is_empty() { "/" } else { dir });
            is_tree = true;
        }
        if guess.contains(UNKNOWN) || (word.is_pattern && word.guess.contains("..")) {
            return None;
        }
        if guess.starts_with('/') {
            return Some(vec![(place::join(Path::new("/"), guess), is_tree)]);
        }
        (!self.dirs.is_open)
            .then(|| self.dirs.known.iter().map(|dir| (place::join(dir, guess), is_tree)).collect())
    }

    /// Notes that `word` is written to.
    pub fn writes(&mut self, word: &Word, is_tree: bool, part: &str) {
        match self.paths(word) {
            Some(paths) => {
                for (path, is_pattern) in paths {
                    tool::write_of(path, is_tree || is_pattern, self.scope, Some(part), self.out);
                }
                self.writes_as_the_kernel_sees_it(word, is_tree);
            }
            None => {
                self.out.note(Reason::WritesUnknownPlace, Some(part));
                self.out.has_unknown_writes = true;
            }
        }
    }

    /// Behind a symbolic link, `..` is another directory for the kernel than in the text: who looks at the files has to see
    /// the path as it was written.
    fn writes_as_the_kernel_sees_it(&mut self, word: &Word, is_tree: bool) {
        if word.is_pattern || !word.guess.split('/').any(|name| name == "..") {
            return;
        }
        if word.guess.starts_with('/') {
            self.out.write(PathBuf::from(&word.guess), is_tree);
            return;
        }
        for dir in self.dirs.known.clone() {
            self.out.write(dir.join(&word.guess), is_tree);
        }
    }

    /// Notes that `word` is read.
    pub fn reads(&mut self, word: &Word, part: &str) {
        match self.paths(word) {
            Some(paths) => {
                for (path, _) in paths {
                    tool::read_of(&path, self.scope, Some(part), self.out);
                }
            }
            None => {
                // Better a guess than nothing: `cat ~/.ssh/$X`.
                let guess = word.guess.replace(UNKNOWN, "_");
                if guess.starts_with('/') {
                    tool::read_of(&place::join(Path::new("/"), &guess), self.scope, Some(part), self.out);
                }
            }
        }
    }

    /// Judges a simple command, also one that another one runs.
    pub fn simple(&mut self, simple: Simple, depth: usize, role: PartRole) -> Facts {
        self.judged += 1;
        if depth > MAX_DEPTH || self.judged > MAX_JUDGED {
            self.give_up(if depth > MAX_DEPTH { Reason::TooDeep } else { Reason::TooManyParts });
            return Facts::default();
        }
        let before = std::mem::replace(&mut self.out.risk, Risk::Low);
        let index = self.out.parts.len();
        let assignments = simple
            .assignments
            .iter()
            .map(|(name, word)| word.value.as_ref().map(|value| format!("{name}={value}")));
        let words = assignments.chain(simple.words.iter().map(|word| word.value.clone())).collect();
        let has_file_redirect = simple.redirects.iter().any(|redirect| {
            let target = redirect.target.as_ref().and_then(|word| word.value.as_deref());
            redirect.writes && target != Some("/dev/null")
        });
        self.out.parts.push(Part {
            text: simple.text.clone(),
            words,
            role,
            has_file_redirect,
            risk: Risk::Low,
        });
        self.redirects(&simple);
        if simple.words.iter().chain(simple.assignments.iter().map(|(_, word)| word)).any(Word::is_computed) {
            self.out.note(Reason::Computed, Some(&simple.text));
            self.out.is_understood = false;
        }
        let facts = program::judge(self, &simple, depth);
        self.has_network |= facts.is_network;
        if program::is_wrapper(&simple) {
            self.out.parts[index].role = PartRole::Wrapper;
        }
        self.out.parts[index].risk = self.out.risk;
        self.out.risk = self.out.risk.max(before);
        facts
    }

    pub(super) fn redirects(&mut self, simple: &Simple) {
        for redirect in &simple.redirects {
            let Some(target) = &redirect.target else { continue };
            if target.guess.starts_with("/dev/tcp/") || target.guess.starts_with("/dev/udp/") {
                self.out.note(Reason::RawNetwork, Some(&simple.text));
                self.has_network = true;
            } else if redirect.writes {
                if target.guess != "/dev/null" {
                    self.out.note(Reason::Overwrites, Some(&simple.text));
                }
                self.writes(target, false, &simple.text);
            } else {
                self.reads(target, &simple.text);
            }
        }
    }

    /// Follows a `cd`.
    pub fn change_dir(&mut self, word: Option<&Word>) {
        let target = match word {
            Some(word) if word.guess == "-" => None,
            Some(word) => self.paths(word),
            None => self.home.as_ref().map(|home| vec![(PathBuf::from(home), false)]),
        };
        match target {
            Some(paths) if paths.iter().all(|(_, is_pattern)| !is_pattern) => {
                self.dirs = Dirs { known: paths.into_iter().map(|(path, _)| path).collect(), is_open: false };
            }
            _ => self.dirs.is_open = true,
        }
    }

    /// Both may be true from here on.
    pub(super) fn join_dirs(&mut self, other: Dirs) {
        for dir in other.known {
            if !self.dirs.known.contains(&dir) {
                self.dirs.known.push(dir);
            }
        }
        self.dirs.is_open |= other.is_open || self.dirs.known.len() > MAX_DIRS;
        self.dirs.known.truncate(MAX_DIRS);
    }
}
