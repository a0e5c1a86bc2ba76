//! Random output of four families, from a seed: what Claude Code prints, with links and focus, with alternate screens,
//! and everything a VT can do.

use std::fmt::Write;

use super::Rng;

/// What a stream is made of. Each family has everything of those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Ink: erases lines upwards, colours, boxes, spinners, synchronized updates.
    Ink,
    /// Links, focus reports, strike, styled underlines, titles, key encodings, clearing the screen.
    Links,
    /// Alternate screens, cursor addressing, mouse modes, scroll regions that are reset again.
    Alternate,
    /// Scroll regions, saved cursors, tab stops, charsets, origin and insert mode, protected cells, resets.
    Full,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ink, Self::Links, Self::Alternate, Self::Full];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ink => "Ink",
            Self::Links => "links and focus",
            Self::Alternate => "alternate screen",
            Self::Full => "full VT",
        }
    }
}

const WORDS: [&str; 26] = [
    "claude",
    "the",
    "a",
    "Reading",
    "src/main.rs",
    "ok",
    "✓",
    "●",
    "⎿",
    "✳",
    "…",
    "│",
    "╭──",
    "──╮",
    "╰",
    "日本語",
    "漢",
    "🚀",
    "👩\u{200d}💻",
    "❤\u{fe0f}",
    "e\u{301}",
    "ü",
    "한글",
    "🇩🇪",
    "1234567890",
    "│ > ",
];
const LINKS: [&str; 4] =
    ["https://a.example/1", "https://b.example/path?x=1", "http://c.example", "file:///etc/passwd"];

/// Output of a family for a terminal of this size: `pieces` pieces.
pub fn stream(family: Family, rng: &mut Rng, cols: usize, rows: usize, pieces: usize) -> String {
    let mut out = String::new();
    for _ in 0..pieces {
        let most = match family {
            Family::Ink => 0,
            Family::Links => 1,
            Family::Alternate => 2,
            Family::Full => 3,
        };
        // Half of the pieces are text and what Ink does, whatever the family.
        match if rng.chance(50) { 0 } else { rng.below(most + 1) } {
            0 => ink(rng, cols, rows, &mut out),
            1 => links(rng, &mut out),
            2 => alternate(rng, cols, rows, &mut out),
            _ => full(rng, cols, rows, &mut out),
        }
    }
    out
}

fn text(rng: &mut Rng, cols: usize, out: &mut String) {
    let words = match rng.below(10) {
        0 => rng.within(cols / 4, cols / 2),
        _ => rng.within(1, 6),
    };
    for _ in 0..words {
        out.push_str(rng.pick(&WORDS));
        if rng.chance(70) {
            out.push(' ');
        }
    }
}

fn colour(rng: &mut Rng, first: usize) -> String {
    match rng.below(5) {
        0 => format!("{}", first + rng.below(8)),
        1 => format!("{}", first + 60 + rng.below(8)),
        2 => format!("{};5;{}", first + 8, rng.below(256)),
        3 => format!("{};2;{};{};{}", first + 8, rng.below(256), rng.below(256), rng.below(256)),
        _ => format!("{}", first + 9),
    }
}

fn ink(rng: &mut Rng, cols: usize, rows: usize, out: &mut String) {
    let _ = match rng.below(22) {
        0..=6 => {
            text(rng, cols, out);
            Ok(())
        }
        7 | 8 => write!(out, "\r\n"),
        9 => {
            // Ink erases what it drew, from the bottom up.
            for _ in 0..rng.within(1, rows.min(6)) {
                out.push_str("\x1b[2K\x1b[1A");
            }
            write!(out, "\x1b[2K\x1b[G")
        }
        10 | 11 => write!(out, "\x1b[{}m", colour(rng, 30)),
        12 => write!(out, "\x1b[{}m", colour(rng, 40)),
        13 => write!(out, "\x1b[{}m", rng.pick(&["1", "2", "3", "4", "7", "1;2", "22", "23", "24", "27"])),
        14 => write!(out, "\x1b[{}m", rng.pick(&["0", "", "39", "49", "39;49"])),
        15 => write!(out, "\x1b[{}{}", rng.within(1, 12), rng.pick(&["A", "B", "C", "D", "G"])),
        16 => write!(out, "{}", rng.pick(&["\x1b[K", "\x1b[J", "\x1b[2K", "\x1b[1K", "\r", "\n", "\x08"])),
        17 => write!(out, "\x1b[?2026{}", rng.pick(&["h", "l"])),
        18 => write!(out, "\x1b[?25{}", rng.pick(&["h", "l"])),
        19 => write!(out, "\r{} \x1b[38;2;215;119;87m", rng.pick(&["·", "✢", "✳", "✶", "✻", "✽"])),
        20 => write!(out, "{}\r\n", "─".repeat(cols.min(200))),
        _ => write!(out, "\x1b[{}C{}", rng.within(1, 5), rng.pick(&WORDS)),
    };
}

fn links(rng: &mut Rng, out: &mut String) {
    let _ = match rng.below(16) {
        0 | 1 => {
            let id = if rng.chance(40) { format!("id={}", rng.below(4)) } else { String::new() };
            write!(out, "\x1b]8;{id};{}\x1b\\{}", rng.pick(&LINKS), rng.pick(&WORDS))
        }
        2 | 3 => write!(out, "\x1b]8;;\x07"),
        4 => write!(out, "\x1b[?1004{}", rng.pick(&["h", "l"])),
        5 => write!(out, "\x1b[?2004{}", rng.pick(&["h", "l"])),
        6 => write!(out, "\x1b[{}m", rng.pick(&["9", "29", "53", "55", "5", "25", "8", "28", "21"])),
        7 => write!(out, "\x1b[4:{}m{}\x1b[24m", rng.below(6), rng.pick(&WORDS)),
        8 => write!(out, "\x1b[4:3;58:2::{}:0:0m{}", rng.below(256), rng.pick(&WORDS)),
        9 => write!(out, "\x1b[{}m", rng.pick(&["58;5;9", "59", "58:5:3", "38:5:200", "48:2::1:2:3"])),
        10 => write!(out, "\x1b[2J\x1b[3J\x1b[H"),
        11 => write!(out, "\x1b]{};title {}\x07", rng.pick(&["0", "2"]), rng.below(100)),
        12 => write!(
            out,
            "{}",
            rng.pick(&["\x1b[>1u", "\x1b[>5u", "\x1b[<u", "\x1b[=3;2u", "\x1b[>4;2m", "\x1b[>4m"])
        ),
        13 => write!(out, "\x1b[{} q", rng.below(7)),
        14 => {
            write!(out, "{}", rng.pick(&["\x1b[?1h", "\x1b[?1l", "\x1b=", "\x1b>", "\x1b[?12h", "\x1b[?12l"]))
        }
        _ => write!(out, "\x1b]4;{};rgb:11/22/33\x1b\\\x1b]11;#000000\x07", rng.below(256)),
    };
}

fn alternate(rng: &mut Rng, cols: usize, rows: usize, out: &mut String) {
    let (row, col) = (rng.within(1, rows), rng.within(1, cols));
    let _ = match rng.below(16) {
        0 | 1 => write!(out, "\x1b[?1049h"),
        2 | 3 => write!(out, "\x1b[?1049l"),
        4 => write!(out, "\x1b[?{}{}", rng.pick(&["47", "1047", "1048"]), rng.pick(&["h", "l"])),
        5..=8 => write!(out, "\x1b[{row};{col}H{}", rng.pick(&WORDS)),
        9 => write!(out, "\x1b[{row}d\x1b[{col}G"),
        10 => write!(out, "{}", rng.pick(&["\x1b[J", "\x1b[1J", "\x1b[2J", "\x1b[K", "\x1b[H"])),
        11 => write!(
            out,
            "\x1b[?{}{}",
            rng.pick(&["9", "1000", "1002", "1003", "1006", "1016", "1007", "2031"]),
            rng.pick(&["h", "l"])
        ),
        12 => write!(out, "\x1b[{row};{rows}r\x1b[{rows};1H\n\n{}\x1b[r", rng.pick(&WORDS)),
        13 => write!(out, "\x1b[{}{}", rng.within(1, 4), rng.pick(&["S", "T", "L", "M", "P", "@", "X"])),
        14 => write!(out, "\x1b[{row};{cols}H{}", rng.pick(&WORDS)),
        _ => write!(out, "\x1bM"),
    };
}

fn full(rng: &mut Rng, cols: usize, rows: usize, out: &mut String) {
    let (row, col) = (rng.within(1, rows), rng.within(1, cols));
    let _ = match rng.below(26) {
        0 | 1 => write!(out, "\x1b[{row};{}r", rng.within(1, rows + 1)),
        2 => write!(out, "\x1b[r"),
        3 | 4 => write!(out, "{}", rng.pick(&["\x1b7", "\x1b[s"])),
        5 | 6 => write!(out, "{}", rng.pick(&["\x1b8", "\x1b[u"])),
        7 => write!(out, "\x1b[?6{}", rng.pick(&["h", "l"])),
        8 => write!(out, "\x1b[4{}", rng.pick(&["h", "l", "l"])),
        9 => write!(out, "\x1b[?7{}", rng.pick(&["h", "h", "l"])),
        10 => write!(out, "\x1b[20{}", rng.pick(&["h", "l"])),
        11 => write!(
            out,
            "{}",
            rng.pick(&[
                "\x1b(0lqk",
                "\x1b(B",
                "\x1b)0",
                "\x1b)B",
                "\x0e",
                "\x0f",
                "\x1b*0\x1bn",
                "\x1b+0\x1bo"
            ])
        ),
        12 => write!(out, "\x1b[{col}G\x1bH"),
        13 => write!(out, "{}", rng.pick(&["\x1b[g", "\x1b[3g", "\t", "\t", "\x1b[2I", "\x1b[Z"])),
        14 => write!(out, "{}", rng.pick(&["\x1bD", "\x1bE", "\x1bM", "\x0b", "\x0c"])),
        15 => write!(out, "{}\x1b[{}b", rng.pick(&["x", "日", "e\u{301}"]), rng.within(1, 9)),
        16 => write!(out, "\x1b[{}{}", rng.within(1, 6), rng.pick(&["S", "T", "L", "M"])),
        17 => write!(out, "\x1b[{}{}", rng.within(1, 6), rng.pick(&["@", "P", "X", "a", "e", "`", "E", "F"])),
        18 => write!(
            out,
            "\x1b[1\"q{}\x1b[0\"q\x1b[?{}{}",
            rng.pick(&WORDS),
            rng.below(3),
            rng.pick(&["J", "K"])
        ),
        19 => write!(out, "\x1b[{}{}", rng.within(1, 4), rng.pick(&[" @", " A", "'}", "'~"])),
        20 => write!(out, "\x1b[?45{}\x08\x08", rng.pick(&["h", "l"])),
        21 if rng.chance(30) => write!(out, "{}", rng.pick(&["\x1b#8", "\x1bc", "\x1b[!p", "\x1b[!p"])),
        22 => write!(out, "\x1b[{row};{col}f{}", rng.pick(&WORDS)),
        23 => write!(out, "\x1b[{};{}m", rng.below(110), rng.below(60)),
        24 => write!(out, "\u{301}x\u{200b}"),
        _ => {
            text(rng, cols, out);
            Ok(())
        }
    };
}

/// Twenty pieces that bring out what a screen hides.
pub fn follow_up(family: Family, rng: &mut Rng, cols: usize, rows: usize) -> String {
    let mut out = String::new();
    let revealing = [
        "x",
        "\t.",
        "\r\n",
        "\x1b8o",
        "\u{301}",
        "\x1b[2b",
        "\x08*",
        "\x1b[?1049lN",
        "\x0fq",
        "\x0eq",
        "\x1b[H\x1bM^",
        "\n\n\n\n\n_",
    ];
    for turn in 0..20 {
        if turn % 3 == 0 && (family == Family::Full || turn > 0) {
            out.push_str(rng.pick(&revealing));
        } else {
            out.push_str(&stream(family, rng, cols, rows, 1));
        }
    }
    out
}
