//! Shell commands by a grammar, and mutations of the corpus.

/// A small generator of random numbers (xorshift64*), the same everywhere for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// Files of the jail; several are named like flags or hold what a shell would expand.
pub const FILES: &[&str] = &[
    "a.txt",
    "b.txt",
    "src/main.rs",
    "src/lib.rs",
    "src/deep/x.rs",
    "-exec",
    "-delete",
    "--help",
    "-o",
    "-n",
    "e",
    "w",
    "--output=planted",
    "$(planted)",
    "a b",
    "-fprintf",
    "--compress-program=sh",
    "--checkpoint-action=exec=sh",
    "{}",
    ";",
    "=ls",
    "script.sh",
    "data.bin",
    "-rf",
    "[x]",
    "*",
];

const PROGRAMS: &[&str] = &[
    "ls",
    "cat",
    "head",
    "tail",
    "wc",
    "grep",
    "echo",
    "printf",
    "find",
    "sed",
    "pwd",
    "true",
    "date",
    "stat",
    "du",
    "diff",
    "cut",
    "tr",
    "uniq",
    "nl",
    "paste",
    "comm",
    "tac",
    "fold",
    "od",
    "basename",
    "dirname",
    "realpath",
    "readlink",
    "id",
    "whoami",
    "uname",
    "seq",
    "sha256sum",
    "md5sum",
    "cmp",
    "expand",
    "df",
    "cd",
    "free",
    "nproc",
    "strings",
    "xxd",
    "tty",
    "false",
    "sort",
    "tee",
    "env",
    "xargs",
    "awk",
    "test",
    "command",
    "time",
    "type",
    "tar",
    "cp",
    "git",
    "eval",
];

const FLAGS: &[&str] = &[
    "-l",
    "-a",
    "-la",
    "-n",
    "-c",
    "-r",
    "-R",
    "-v",
    "-i",
    "-e",
    "-x",
    "-s",
    "-q",
    "-u",
    "-h",
    "-o",
    "-E",
    "-F",
    "-L",
    "-H",
    "-w",
    "-z",
    "-d",
    "-f",
    "-t",
    "-p",
    "-n5",
    "-5",
    "-c3",
    "--color",
    "--color=always",
    "--all",
    "--help",
    "--version",
    "-name",
    "-type",
    "f",
    "-maxdepth",
    "1",
    "-exec",
    "-delete",
    "-print",
    "-print0",
    "-o",
    "-size",
    "-path",
    "-newer",
    "-printf",
    "-fprint",
    "--include=*.rs",
    "--output=x",
    "--output",
    "-v x",
    "-m1",
    "-A1",
    "--pre=sh",
    "--",
    "-",
    "--files0-from=a.txt",
    "-k1",
    "-d:",
    "-f1",
    "+%s",
    "-Iseconds",
    "--time-style=+%s",
    "-C1",
    "-W9",
    "-w9",
    "-b2",
    "-ok",
    "-ls",
    "-fls",
    "--reference=a.txt",
    "--suffix=x",
    "-T",
    "-I",
    "-A",
    "-regex",
    "-perm",
    "-mtime",
    "-1",
    "-empty",
    "-prune",
    "-not",
    "-quit",
    "--debug",
    "-D",
    "-O3",
    "-P",
];

const WORDS: &[&str] = &[
    "a.txt",
    "b.txt",
    "src",
    "src/main.rs",
    ".",
    "./src",
    "src/../a.txt",
    "x",
    "fn",
    "'a b'",
    "\"a b\"",
    "'*'",
    "'*.rs'",
    "*.rs",
    "1,5p",
    "'1,5p'",
    "'1e id'",
    "'s/a/b/e'",
    "'$(id)'",
    "\"$(id)\"",
    "$(id)",
    "`id`",
    "'%s'",
    "'%s\\n'",
    "%n",
    "'%n'",
    "'a[$(id)]'",
    "a[1]",
    "{a,b}",
    "~",
    "$HOME",
    "=ls",
    "!x",
    "a\\ b",
    "''",
    "a=b",
    "A=b",
    "'('",
    "')'",
    "'{}'",
    "{}",
    "+",
    "';'",
    "\\;",
    "'-exec'",
    "-e\\xec",
    "\"-exec\"",
    "a-z",
    "A-Z",
    "10",
    "/dev/null",
    "/etc/passwd",
    "#x",
    "@x",
    "50%",
    "a,b",
    "a:b",
    "é",
    "-exe'c'",
    "'-o'x",
];

const JOINS: &[&str] = &[" | ", " && ", " || ", "; ", ";", "|", "&&", " & ", "\n", " |& ", " ; "];
const REDIRECTS: &[&str] = &[
    " 2>/dev/null",
    " > /dev/null",
    " 2>&1",
    " > planted.txt",
    " >> a.txt",
    " < a.txt",
    " </dev/null",
    " >&2",
    " &> x",
    " >|x",
    " <<< x",
    " 2> /dev/null",
];
const WRAPS: &[(&str, &str)] = &[
    ("(", ")"),
    ("{ ", "; }"),
    ("! ", ""),
    ("time ", ""),
    ("coproc ", ""),
    ("A=b ", ""),
    ("f() { ", "; }; f"),
    ("echo $(", ")"),
    ("if true; then ", "; fi"),
    ("[[ -v ", " ]]"),
    ("printf -v ", " x"),
];
/// What mutations put in.
const SPICE: &[&str] = &[
    "$", "`", "\\", "'", "\"", "{", "}", "(", ")", "[", "]", "*", "?", "~", "!", "#", "&", "|", ";", "<",
    ">", "=", ",", "-", "\n", "\t", " ", "%", "@", "^", ":", "+", "$(id)", "`id`", "\\\n", "\u{202e}",
    "\u{200b}", "é", "''", "\"\"", "-exec", "$'", "${", "..", "/", "0", "e", "--", ">x", "|sh", ";id",
    "&&id", "\r", "$IFS", "{a,b}", "=(", "<(", "2>", "x[", "]=",
];

/// A command by the grammar.
pub fn command(random: &mut Random) -> String {
    let mut text = String::new();
    // Sometimes many parts.
    let parts = match random.below(40) {
        0 => 15 + random.below(5),
        1..=12 => 2 + random.below(3),
        _ => 1,
    };
    for index in 0..parts {
        if index > 0 {
            // Mostly the joins of plain commands.
            let among = if random.below(10) == 0 { JOINS.len() } else { 7 };
            text.push_str(JOINS[random.below(among)]);
        }
        text.push_str(&simple(random));
    }
    if random.below(30) == 0 {
        let (before, after) = WRAPS[random.below(WRAPS.len())];
        text = format!("{before}{text}{after}");
    }
    text
}

fn simple(random: &mut Random) -> String {
    // Those at the end can do more than read.
    let among = if random.below(12) == 0 { PROGRAMS.len() } else { PROGRAMS.len() - 13 };
    let mut text = PROGRAMS[random.below(among)].to_owned();
    for _ in 0..random.below(5) {
        text.push(' ');
        let word = match random.below(10) {
            0..=3 => random.pick(FLAGS),
            4..=6 => random.pick(FILES),
            _ => random.pick(WORDS),
        };
        match random.below(12) {
            0 => text.push_str(&format!("'{word}'")),
            1 => text.push_str(&format!("\"{word}\"")),
            _ if word.contains([' ', '$', ';', '*', '[', '{', '('])
                && random.below(4) > 0
                && !word.contains(['\'', '"']) =>
            {
                text.push_str(&format!("'{word}'"))
            }
            _ => text.push_str(word),
        }
    }
    if random.below(8) == 0 {
        text.push_str(random.pick(REDIRECTS));
    }
    text
}

/// One to three changes of a command, or two commands cut together.
pub fn mutate(random: &mut Random, corpus: &[String]) -> String {
    let mut text = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(3) {
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let at = cuts[random.below(cuts.len())];
        match random.below(6) {
            0..=2 => text.insert_str(at, random.pick(SPICE)),
            3 => {
                if at < text.len() {
                    text.remove(at);
                }
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let other_cuts: Vec<usize> = other.char_indices().map(|(at, _)| at).collect();
                let from = other_cuts.get(random.below(other_cuts.len())).copied().unwrap_or(0);
                text = format!("{}{}", &text[..at], &other[from..]);
            }
            _ => {
                let word = random.pick(WORDS);
                text.insert_str(at, &format!(" {word} "));
            }
        }
    }
    text
}
