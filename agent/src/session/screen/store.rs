//! What does not fit into a cell: strings of several code points, and links.
//!
//! Entries are never changed. Unused ones are swept when there are many; the caller knows which are used.

use std::collections::HashMap;

/// Entries below which nothing is swept: a choice, some 100 KB at most.
const SWEEP_FLOOR: usize = 1024;
/// Longest string of one cell, in bytes. xterm.js has no limit; letters with more marks than this are no text.
pub(super) const MAX_STRING_BYTES: usize = 256;

/// A link of OSC 8.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Link {
    pub(super) id: Option<Box<str>>,
    pub(super) uri: Box<str>,
}

/// See the module. Numbers of strings count from 0, of links from 1.
#[derive(Debug)]
pub(super) struct Store {
    strings: Vec<Box<str>>,
    links: Vec<Link>,
    /// Links with an id are the same wherever they are opened again.
    by_id: HashMap<Link, u32>,
    limit: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self { strings: Vec::new(), links: Vec::new(), by_id: HashMap::new(), limit: SWEEP_FLOOR }
    }
}

impl Store {
    pub(super) fn add_string(&mut self, string: String) -> u32 {
        self.strings.push(string.into_boxed_str());
        (self.strings.len() - 1) as u32
    }

    pub(super) fn string(&self, number: u32) -> &str {
        self.strings.get(number as usize).map_or("", |string| string)
    }

    pub(super) fn add_link(&mut self, link: Link) -> u32 {
        if let Some(number) = self.by_id.get(&link) {
            return *number;
        }
        self.links.push(link.clone());
        let number = self.links.len() as u32;
        if link.id.is_some() {
            self.by_id.insert(link, number);
        }
        number
    }

    pub(super) fn link(&self, number: u32) -> Option<&Link> {
        self.links.get((number as usize).checked_sub(1)?)
    }

    /// True if [`Self::sweep`] is due.
    pub(super) fn is_full(&self) -> bool {
        self.strings.len() + self.links.len() >= self.limit
    }

    /// Forgets all but the named entries. Returns the new numbers, by old one.
    pub(super) fn sweep(&mut self, strings: &[u32], links: &[u32]) -> (HashMap<u32, u32>, HashMap<u32, u32>) {
        let mut kept = Self::default();
        let mut new_strings = HashMap::new();
        for old in strings {
            new_strings.entry(*old).or_insert_with(|| kept.add_string(self.string(*old).to_owned()));
        }
        let mut new_links = HashMap::new();
        for old in links {
            if let Some(link) = self.link(*old) {
                new_links.entry(*old).or_insert_with(|| kept.add_link(link.clone()));
            }
        }
        kept.limit = SWEEP_FLOOR.max(2 * (kept.strings.len() + kept.links.len()));
        *self = kept;
        (new_strings, new_links)
    }
}
