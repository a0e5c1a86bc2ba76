//! What is measured: one module for each group of figures.

pub mod attach;
pub mod bulk;
pub mod drain;
pub mod echo;
pub mod fanout;
pub mod interrupt;
pub mod memory;
pub mod resume;

use super::figures::Table;
use super::world::World;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of everything; at least 5 in a full run.
    pub rounds: usize,
    /// True for a run that only shows that everything works.
    pub is_quick: bool,
}

impl Scale {
    /// One of two numbers.
    pub fn of<T>(self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

/// What every section gets.
pub struct Bench {
    /// The product.
    pub world: World,
    /// How much.
    pub scale: Scale,
    /// Where the figures go.
    pub table: Table,
    /// Whether tmux is installed.
    pub has_tmux: bool,
    /// Whether ttyd is installed.
    pub has_ttyd: bool,
}

/// A section of the bench.
pub type Section = fn(&mut Bench) -> anyhow::Result<()>;

/// All sections with their names, in the order in which they run.
pub const ALL: [(&str, &str, Section); 10] = [
    ("echo", "keystroke to echo", echo::alone),
    ("flooded", "keystroke to echo beside a flooding session", echo::flooded),
    ("interrupt", "^C into a flood", interrupt::run),
    ("drain", "drain of a flooding child", drain::run),
    ("bulk", "bulk text to one viewer, CPU", bulk::run),
    ("fanout", "one session, 100 viewers", fanout::run),
    ("stalled", "one viewer that never reads", fanout::stalled),
    ("attach", "first right screen of a session with a long history", attach::run),
    ("resume", "away and back, a killed daemon", resume::run),
    ("memory", "memory and idle CPU", memory::run),
];
