//! Whatever survives the sanitiser makes a terminal say nothing: the daemon alone answers.

use claudenest_agent::session::sanitise::{AnswerContext, Event, ModeState, answer};
use claudenest_tests::terminal::Rng;
use claudenest_tests::terminal::judge::Judge;
use claudenest_tests::terminal::streams::{Family, stream};

use crate::{sanitised, setting};

/// Everything that some terminal answers, and everything that looks like it.
pub(crate) const QUESTIONS: &[&str] = &[
    "\x1b[c",
    "\x1b[0c",
    "\x1b[>c",
    "\x1b[>0c",
    "\x1b[=c",
    "\x1b[=0c",
    "\x1bZ",
    "\u{9b}c",
    "\u{9a}",
    "\x05",
    "\x1b[5n",
    "\x1b[6n",
    "\x1b[?5n",
    "\x1b[?6n",
    "\x1b[?15n",
    "\x1b[?25n",
    "\x1b[?26n",
    "\x1b[?53n",
    "\x1b[?55n",
    "\x1b[?56n",
    "\x1b[?62n",
    "\x1b[?63n",
    "\x1b[?75n",
    "\x1b[?85n",
    "\x1b[?996n",
    "\x1b[4$p",
    "\x1b[20$p",
    "\x1b[?1$p",
    "\x1b[?25$p",
    "\x1b[?1000$p",
    "\x1b[?1006$p",
    "\x1b[?2004$p",
    "\x1b[?2026$p",
    "\x1b[?2027$p",
    "\x1b[?2031$p",
    "\x1b[?2048$p",
    "\x1b[?5522$p",
    "\x1bP$qm\x1b\\",
    "\x1bP$q\"p\x1b\\",
    "\x1bP$qr\x1b\\",
    "\x1bP$q q\x1b\\",
    "\x1bP$q\"q\x1b\\",
    "\x1bP1$qm\x1b\\",
    "\x1bP+q544e\x1b\\",
    "\x1bP+q436f\x1b\\",
    "\x1b[>q",
    "\x1b[>0q",
    "\x1b[?u",
    "\x1b[11t",
    "\x1b[13t",
    "\x1b[13;2t",
    "\x1b[14t",
    "\x1b[14;2t",
    "\x1b[15t",
    "\x1b[16t",
    "\x1b[18t",
    "\x1b[19t",
    "\x1b[20t",
    "\x1b[21t",
    "\x1b[x",
    "\x1b[0x",
    "\x1b[1x",
    "\x1b[1;1;1;1;1;1*y",
    "\x1b[?1;1;0S",
    "\x1b[?2;1S",
    "\x1b[?4m",
    "\x1b[?1x",
    "\x1b[1$w",
    "\x1b[2$w",
    "\x1b[1$u",
    "\x1b[&u",
    "\x1b[\"v",
    "\x1b['|",
    "\x1b[1'z",
    "\x1b[#R",
    "\x1b[#|",
    "\x1b[?1;2c",
    "\x1b]4;1;?\x07",
    "\x1b]4;0;?;1;?;2;red\x1b\\",
    "\x1b]5;0;?\x07",
    "\x1b]10;?\x07",
    "\x1b]10;?;?;?\x1b\\",
    "\x1b]11;?\x1b\\",
    "\x1b]12;?\x07",
    "\x1b]13;?\x07",
    "\x1b]14;?\x07",
    "\x1b]15;?\x07",
    "\x1b]16;?\x07",
    "\x1b]17;?\x07",
    "\x1b]18;?\x07",
    "\x1b]19;?\x07",
    "\x1b]21;foreground=?;background=?\x1b\\",
    "\x1b]22;?__current__\x1b\\",
    "\x1b]50;?\x07",
    "\x1b]52;c;?\x07",
    "\x1b]52;;?\x1b\\",
    "\x1b]52;pc;?\x07",
    "\x1b]60\x07",
    "\x1b]61\x07",
    "\x1b]66;s=2;x\x07",
    "\x1b]99;i=1:p=?;\x1b\\",
    "\x1b]702;?\x07",
    "\x1b]1337;ReportCellSize\x07",
    "\x1b]1337;ReportVariable=eA==\x07",
    "\x1b]1337;RequestUpload=format=tgz\x07",
    "\x1b]5522;type=read\x1b\\",
    "\x1b[?2048h",
    "\x1b[?1004h",
    "\x1b[?2031h",
    "\x1b[?1000h",
    "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    "\x1b_q\x1b\\",
    "\x1b[21t\x1b]2;x\x07",
];

/// Pieces that make questions likely where there is none yet.
pub(crate) const PIECES: &[&str] = &[
    "\x1b",
    "\x1b[",
    "\x1b]",
    "\x1bP",
    "\x1b_",
    "\u{9b}",
    "\u{9d}",
    "\u{90}",
    "\u{9c}",
    "\x07",
    "\x1b\\",
    "\x18",
    "\x1a",
    "?",
    ">",
    "=",
    "$",
    "+",
    "'",
    "\"",
    "*",
    " ",
    ";",
    ":",
    "0",
    "1",
    "6",
    "25",
    "2048",
    "c",
    "n",
    "p",
    "q",
    "t",
    "u",
    "x",
    "y",
    "m",
    "h",
    "S",
    "Z",
    "J",
    "1J",
    "10;?",
    "4;1;?",
    "11;",
    "52;c;",
    "$q",
    "+q",
    "\n",
    "\0",
    "\x7f",
    "é",
    "日",
    "\u{301}",
    "\x1b[999;999H",
];

fn stream_of(rng: &mut Rng) -> Vec<u8> {
    let mut raw = Vec::new();
    for _ in 0..rng.within(10, 120) {
        match rng.below(10) {
            0..=3 => raw.extend_from_slice(rng.pick(QUESTIONS).as_bytes()),
            4..=6 => raw.extend_from_slice(rng.pick(PIECES).as_bytes()),
            7 => {
                let question = rng.pick(QUESTIONS).as_bytes();
                raw.extend_from_slice(&question[..rng.below(question.len())]);
            }
            8 => raw.extend((0..rng.below(9)).map(|_| rng.bits() as u8).collect::<Vec<_>>()),
            _ => {
                let family = Family::ALL[rng.below(4)];
                raw.extend_from_slice(stream(family, rng, 80, 24, 3).as_bytes());
            }
        }
    }
    raw
}

#[test]
fn no_question_reaches_a_terminal() {
    let mut judge = Judge::start().unwrap();
    for question in QUESTIONS {
        let (out, events) = sanitised(question.as_bytes());
        let (said, _) = judge.answers(80, 24, &out).unwrap();
        assert!(said.is_empty(), "{}: {said:?}", question.escape_debug());
        // Asked once, it is answered once at most; and the judge would answer it, or nobody does.
        let queries = events.iter().filter(|event| matches!(event, Event::Query(_))).count();
        let asked = question.matches('?').count().max(1);
        assert!(queries <= asked, "{}", question.escape_debug());
    }
}

/// Guards the test above: without the sanitiser the judge does answer, and everything it answers is known as a question.
#[test]
fn whatever_a_terminal_answers_is_known_as_a_question() {
    let mut judge = Judge::start().unwrap();
    let context = AnswerContext {
        kitty_flags: Some(0),
        ..AnswerContext::dark((1, 1), (24, 80), &|_| ModeState::Reset)
    };
    let mut answered = 0;
    for question in QUESTIONS {
        let (said, _) = judge.answers(80, 24, question.as_bytes()).unwrap();
        if said.is_empty() {
            continue;
        }
        answered += 1;
        let (_, events) = sanitised(question.as_bytes());
        let ours: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Query(query) => answer(query, &context),
                _ => None,
            })
            .collect();
        assert!(!ours.is_empty(), "{}: xterm.js says {said:?}", question.escape_debug());
    }
    assert!(answered > 20, "the judge answers: {answered}");
}

#[test]
fn no_stream_makes_a_terminal_say_anything() {
    let mut judge = Judge::start().unwrap();
    let (count, first) = (setting("TERMINAL_STREAMS", 1_000), setting("TERMINAL_FIRST", 0));
    for seed in first..first + count {
        let mut rng = Rng(seed);
        let raw = stream_of(&mut rng);
        let (out, _) = sanitised(&raw);
        assert_eq!(out.len(), raw.len());
        let (cols, rows) = (rng.within(2, 200) as u16, rng.within(2, 60) as u16);
        let (said, _) = judge.answers(cols, rows, &out).unwrap();
        assert!(said.is_empty(), "seed {seed}: {said:?} to {}", out.escape_ascii());
    }
}
