use super::*;

pub(super) fn sanitise(input: &[u8]) -> (Vec<u8>, Vec<Event>) {
    sanitise_with(Sanitiser::default(), input)
}

pub(super) fn sanitise_with(mut sanitiser: Sanitiser, input: &[u8]) -> (Vec<u8>, Vec<Event>) {
    let (mut out, mut events) = (Vec::new(), Vec::new());
    sanitiser.push(input, &mut out, &mut events);
    sanitiser.flush(&mut out);
    assert_eq!(out.len(), input.len(), "length of {:?}", input.escape_ascii().to_string());
    (out, events)
}

/// The output without fillers, and the events.
fn essence(input: &[u8]) -> (String, Vec<Event>) {
    let (out, events) = sanitise(input);
    let kept: Vec<u8> = out.into_iter().filter(|byte| *byte != 0).collect();
    (kept.escape_ascii().to_string(), events)
}

#[track_caller]
fn check(input: impl AsRef<[u8]>, expected: impl AsRef<[u8]>, events: &[Event]) {
    let input = input.as_ref();
    let expected = (expected.as_ref().escape_ascii().to_string(), events.to_vec());
    assert_eq!(essence(input), expected, "{}", input.escape_ascii());
}

#[track_caller]
fn check_kept(inputs: &[&str]) {
    for input in inputs {
        assert_eq!(
            sanitise(input.as_bytes()).0.escape_ascii().to_string(),
            input.as_bytes().escape_ascii().to_string()
        );
    }
}

#[track_caller]
fn check_blanked(inputs: &[&str]) {
    for input in inputs {
        check(format!("a{input}b"), "ab", &[]);
    }
}

#[track_caller]
fn check_query(input: &str, query: Query) {
    check(format!("a{input}b"), "ab", &[Event::Query(query)]);
}

#[test]
fn plain_output_passes_unchanged() {
    check_kept(&[
        "plain text\r\n\ttab\x08\x07\x0e\x0f\x0b\x0c",
        "grüße 漢字 👩\u{200d}👩\u{200d}👧 ❤\u{fe0f} \u{a0}«é»",
        "\x1b[1;31mred\x1b[0m\x1b[38;2;1;2;3m\x1b[38:2::1:2:3m\x1b[4:3m\x1b[m",
        "\x1b[H\x1b[2J\x1b[3J\x1b[K\x1b[10;20H\x1b[5A\x1b[5B\x1b[5C\x1b[5D\x1b[5G\x1b[5d\x1b[2;10r\x1b[r",
        "\x1b[?25l\x1b[?25h\x1b[?1049h\x1b[?2004;1004h\x1b[?2026h\x1b[?2026l\x1b[?2031h\x1b[4h\x1b[20l",
        "\x1b7\x1b8\x1bM\x1bD\x1bE\x1bH\x1b=\x1b>\x1bc\x1b#8\x1b(0\x1b(B\x1b)0\x1bn\x1bo\x1b|\x1b}\x1b~",
        "\x1b[s\x1b[u\x1b[>1u\x1b[<u\x1b[=1;1u\x1b[>4;2m\x1b[2 q\x1b[!p\x1b[512b\x1b[3S\x1b[3g",
        "\x1b]0;✳ Claude Code\x07\x1b]2;title\x1b\\\x1b]8;;https://example.org/a?b\x07x\x1b]8;;\x07",
        "\x1b]8;id=x1;http://example.org\x1b\\x\x1b]8;;\x1b\\\x1b]9;4;3;\x07\x1b]9;4;1;50\x07",
        "\x1b]4;1;rgb:ff/00/00\x07\x1b]10;#ffffff\x1b\\\x1b]104\x07\x1b]104;1;2\x07\x1b]112\x07",
    ]);
}

#[test]
fn huge_numbers_are_clamped() {
    check("\x1b[2147483647A", "\x1b[0000009999A", &[]);
    check("\x1b[99999;10000H", "\x1b[09999;09999H", &[]);
    check("\x1b[38:2::70000:1:2m", "\x1b[38:2::09999:1:2m", &[]);
    check("\x1b[00000000000000005A", "\x1b[00000000000000005A", &[]);
    for last in ["@", "P", "X", "I", "Z", "b", " @", " A", "'}", "'~", "S", "T", "L", "M"] {
        let max = if "STLM".contains(last) { 300 } else { 512 };
        check(format!("\x1b[2147483647{last}"), format!("\x1b[0000000{max}{last}"), &[]);
        check(format!("\x1b[513{last}"), format!("\x1b[{max}{last}"), &[]);
        check(format!("\x1b[{}{last}", "9".repeat(200)), format!("\x1b[{}{max}{last}", "0".repeat(197)), &[]);
    }
}

#[test]
fn queries_are_blanked_and_reported_once() {
    check_query("\x1b[c", Query::PrimaryAttributes);
    check_query("\x1b[0c", Query::PrimaryAttributes);
    check_query("\x1bZ", Query::PrimaryAttributes);
    check_query("\x1b[>c", Query::SecondaryAttributes);
    check_query("\x1b[>0c", Query::SecondaryAttributes);
    check_query("\x1b[=c", Query::TertiaryAttributes);
    check_query("\x1b[5n", Query::Status);
    check_query("\x1b[6n", Query::CursorPosition);
    check_query("\x1b[?6n", Query::ExtendedCursorPosition);
    check_query("\x1b[?996n", Query::PrivateStatus(996));
    check_query("\x1b[4$p", Query::AnsiMode(4));
    check_query("\x1b[?2026$p", Query::PrivateMode(2026));
    check_query("\x1bP$qm\x1b\\", Query::StatusString);
    check_query("\x1bP+q544e\x1b\\", Query::Termcap);
    check_query("\x1b[>0q", Query::Version);
    check_query("\x1b[>q", Query::Version);
    check_query("\x1b]4;7;?\x07", Query::Palette(7));
    check_query("\x1b]5;1;?\x07", Query::SpecialColour(1));
    check_query("\x1b]10;?\x07", Query::DynamicColour(10));
    check_query("\x1b]11;?\x1b\\", Query::DynamicColour(11));
    check_query("\x1b]011;?\x1b\\", Query::DynamicColour(11));
    check_query("\x1b]12;?\u{9c}", Query::DynamicColour(12));
    check_query("\x1b[?u", Query::KittyKeyboard);
    check_query("\x1b[18t", Query::Window(18));
    check_query("\x1b[21t", Query::Window(21));
    check_query("\x1b[x", Query::Parameters(0));
    check_query("\x1b[1;1;1;1;1;1*y", Query::Checksum);
    check_query("\x05", Query::Enquiry);
    check_query("\x1b[?4m", Query::Unsupported);
    let both = [Event::Query(Query::DynamicColour(10)), Event::Query(Query::DynamicColour(11))];
    check("\x1b]10;?;?\x07", "", &both);
    check("\x1b]10;red;?\x07", "", &both[1..]);
    check(
        "\x1b]4;1;?;2;red;3;?\x07",
        "",
        &[Event::Query(Query::Palette(1)), Event::Query(Query::Palette(3))],
    );
}

#[test]
fn queries_cannot_be_hidden() {
    let da = [Event::Query(Query::PrimaryAttributes)];
    check("\x1b\x00[\x000\x00c", "", &da);
    check("\x1b[\n0\x7fc", "\n", &da);
    check("\u{9b}c", "", &da);
    check("\u{9b}0\rc", "\r", &da);
    check("\x1b\x1b[c", "", &da);
    check("\x1b[3\x1b[c", "", &da);
    check("\x1b]0;t\x1b[c", "", &da);
    check("\x1bPx\u{9b}c", "", &da);
    check("\x1b[1\u{9b}c", "", &da);
    check("\x1b[\x05c", "", &[Event::Query(Query::Enquiry), da[0].clone()]);
    // An introducer as a raw byte is not UTF-8, and an overlong form is not an escape.
    check(b"\x9bc\x9d52;c;?\x07", "?c?52;c;?\x07", &[]);
    check(b"\xc0\x9b[c\xe0\x80\x9b[c\xf0\x80\x80\x9b[c", "??[c???[c????[c", &[]);
    check(b"\xe2\x1b[c\xf0\x9f\xc2\x9bc", "??", &[da[0].clone(), da[0].clone()]);
}

#[test]
fn c1_controls_become_their_seven_bit_form() {
    check("a\u{84}b\u{85}c\u{88}d\u{8d}", "a\x1bDb\x1bEc\x1bHd\x1bM", &[]);
    check("\u{9b}1;31mx", "\x1b[1;31mx", &[]);
    check("\u{9b}99999Ax", "\x1b[09999Ax", &[]);
    check("\u{9d}8;;http://a\u{9c}x", "\x1b]8;;http://a\x1b\\x", &[]);
    check("a\u{80}b\u{9c}c\u{8e}d", "abcd", &[]);
    check("\u{90}q#0\u{9c}\u{98}x\u{9c}\u{9e}y\u{9c}\u{9f}z\u{9c}", "", &[]);
    check("\u{c2}\u{a0}", "\u{c2}\u{a0}", &[]);
}

#[test]
fn sequences_end_as_the_standard_says() {
    check("\x1b[31\x18mx", "mx", &[]);
    check("\x1b[31\x1amx", "mx", &[]);
    check("\x1b]0;ti\x18tle\x07", "tle\x07", &[]);
    check("\x1b]0;ti\x1b[31mtle", "\x1b[31mtle", &[]);
    check("\x1b[3é1m", "é1m", &[]);
    check("\x1bé[2J", "é[2J", &[]);
    check("\x1b[3\r\n1mx", "\r\n\x1b[31mx", &[]);
    check("\x1b[?25\x7fhx", "\x1b[?25hx", &[]);
    check("\x1b[?1?2hx\x1b[1 2hx\x1b[??25hx", "xxx", &[]);
    check("\x1bPabc\x07def\x1b\\x", "x", &[]);
    check("\x1b_abc\x07def\x1b\\x", "x", &[]);
    check("\x1b\\x", "x", &[]);
}

#[test]
fn dangerous_sequences_are_blanked() {
    check_blanked(&[
        // Windows, printing, LEDs, VT52, 8-bit answers, charset away from UTF-8, macros, rectangles, locator.
        "\x1b[8;500;500t",
        "\x1b[2t",
        "\x1b[22;0t",
        "\x1b[23t",
        "\x1b[5i",
        "\x1b[?5i",
        "\x1b[1q",
        "\x1b[?2l",
        "\x1b F",
        "\x1b G",
        "\x1b%@",
        "\x1b%G",
        "\x1b#3",
        "\x1bN",
        "\x1bO",
        "\x1b[64;1\"p",
        "\x1b[1*z",
        "\x1b[1;1;9;9$z",
        "\x1b[1;2'z",
        "\x1b[?1s",
        "\x1b[?1r",
        "\x1b[2h",
        "\x1b[12l",
        "\x1b[?2048h",
        "\x1b[?9001h",
        "\x1b[?3h",
        "\x1b[?1001h",
        "\x1b[1;1;1;1;1T",
        "\x1b[1;2s",
        "\x1b[>2t",
        "\x1b[7n",
        "\x1b[1c",
        "\x1b[22t",
        "\x1b[        $p",
        "\x1b-A",
    ]);
    for input in [
        "\x1b_Ga=T;AAAA\x1b\\",
        "\x1b]1337;File=inline=1:AAAA\x07",
        "\x1b]52;c;?\x07",
        "\x1b]0052;c;?\x07",
        "\x1b]52;;?\x1b\\",
    ] {
        check_blanked(&[input]);
    }
    check("\x1b[?25;2048;1004h", "\x1b[?25;1004h", &[]);
    check("\x1b[2;4;12h", "\x1b[4h", &[]);
    check("\x1b(K{\x1b(%5}", "\x1b(B{\x1b(B}", &[]);
}

#[test]
fn strings_of_other_kinds_are_blanked() {
    check_blanked(&[
        "\x1b^pm\x1b\\",
        "\x1bXsos\x1b\\",
        "\x1b]7;file://h/p\x07",
        "\x1b]133;A\x07",
        "\x1b]633;A\x07",
        "\x1b]50;?\x07",
        "\x1b]4294967348;c;aGk=\x07",
        "\x1b]52;c;not base64!\x07",
        "\x1b]99;;hi\x07",
        "\x1b]l title\x07",
        "\x1b]Licon\x1b\\",
        "\x1b]\x07",
        "\x1b]13;red\x07",
        "\x1b]9;1;5\x07",
        "\x1b]8;x\x07",
        "\x1b]21;fg=?\x07",
    ]);
}

#[test]
fn titles_carry_no_controls() {
    check("\x1b]0;a\nb\u{202e}c\x7f\td\x07", "\x1b]0;abcd\x07", &[Event::Title("abcd".to_owned())]);
    check("\x1b]2;\x1b\\", "\x1b]2;\x1b\\", &[Event::Title(String::new())]);
    check("\x1b]1;icon\x07", "\x1b]1;icon\x07", &[]);
    let long = "ä".repeat(300);
    let cut = "ä".repeat(256);
    check(format!("\x1b]2;{long}\x07"), format!("\x1b]2;{cut}\x07"), &[Event::Title(cut)]);
    check(b"\x1b]2;a\xffb\x07", "", &[]);
}

#[test]
fn links_go_to_the_web_only() {
    check("\x1b]8;;javascript:alert(1)\x07x", "\x1b]8;;\x07x", &[]);
    check("\x1b]8;;file:///etc/passwd\x1b\\x", "\x1b]8;;\x1b\\x", &[]);
    check("\x1b]8;;x\x07", "\x1b]8;;\x07", &[]);
    check("\x1b]8;;HTTPS://A\x07", "\x1b]8;;HTTPS://A\x07", &[]);
    check("\x1b]8;;http:a\x07", "\x1b]8;;\x07", &[]);
    check("\x1b]8;;https://exämple\x07", "\x1b]8;;\x07", &[]);
    check("\x1b]8;;https://a b\x07", "\x1b]8;;\x07", &[]);
    check("\x1b]8;foo=1:id=7;https://a\x07", "\x1b]8;id=7;https://a\x07", &[]);
    check("\x1b]8;id=x;\x07", "\x1b]8;;\x07", &[]);
    check(format!("\x1b]8;;https://{}\x07", "a".repeat(3000)), "\x1b]8;;\x07", &[]);
}

#[test]
fn frames_are_cut_between_characters() {
    let output = "a—\u{1f600}b".as_bytes();
    let cuts: Vec<usize> = (0..=output.len() + 1).map(|at| character_boundary(output, at)).collect();
    assert_eq!(cuts, [0, 1, 1, 1, 4, 4, 4, 4, 8, 9, 9]);
    check("a\x7f\x7fb\x7f", "ab", &[]);
}

#[test]
fn clipboard_writes_become_offers_where_somebody_watches() {
    let check = |input: &str, expected: &str| {
        check(input, "", &[]);
        let mut sanitiser = Sanitiser::default();
        sanitiser.keep_offers(true);
        let (mut out, mut events) = (Vec::new(), Vec::new());
        sanitiser.push(input.as_bytes(), &mut out, &mut events);
        assert_eq!(out.len(), input.len());
        assert_eq!(String::from_utf8(out).unwrap().trim_end_matches('\0'), expected);
        assert_eq!(events, []);
        sanitiser.flush(&mut Vec::new());
        assert!(sanitiser.keeps_offers);
    };
    let long = "QUJD".repeat(16_000);
    for to in ["c", "", "p", "cps01234567"] {
        check(&format!("\x1b]52;{to};aGk=\x07"), "\x1b]952;aGk=\x07");
        check(&format!("\x1b]52;{to};{long}\x1b\\"), &format!("\x1b]952;{long}\x1b\\"));
        check(&format!("\x1b]52;{to};?\x07"), "");
        check(&format!("\x1b]52;{to};\x07"), "");
        check(&format!("\x1b]52;{to};a\u{202e}b\x07"), "");
        check(&format!("\x1b]52;{to};{long}{long}\x07"), "");
    }
    check("\x1b]952;aGk=\x07", "\x1b]952;aGk=\x07");
    check("\x1b]952;?\x07\x1b]52\x07\x1b]52;c\x07\x1b]952\x07\x1b]952;\x07", "");
}

#[test]
fn notifications_become_events() {
    check("\x1b]9;4;1;50\x07", "\x1b]9;4;1;50\x07", &[Event::Progress { state: 1, percent: 50 }]);
    check("\x1b]9;4;9;50\x07\x1b]9;4;1;101\x07\x1b]9;4;+1\x07", "", &[]);
    check("\x1b]9;done\x07", "", &[Event::Notification { title: None, body: "done".to_owned() }]);
    let event = Event::Notification { title: Some("Claude".to_owned()), body: "a;b".to_owned() };
    check("\x1b]777;notify;Claude;a;b\x07", "", &[event]);
}

#[test]
fn a_character_carries_eight_marks_at_most() {
    // Marked writing, a family, a flag of a region, a stack of Tibetan: all of it as it was.
    check_kept(&[
        "e\u{301}\u{323}",
        "👩\u{200d}👩\u{200d}👧",
        "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
        "ཧཱུྃ",
    ]);
    let marks = |count: usize| "\u{301}".repeat(count);
    check_kept(&[&format!("a{}b{}", marks(8), marks(8))]);
    for many in [9, 17, 100, 5000] {
        check(format!("a{}b", marks(many)), format!("a{}b", marks(8)), &[]);
        check(format!("{}b", marks(many)), format!("{}b", marks(8)), &[]);
        let long = "漢".repeat(100);
        check(format!("{long}{}{long}", marks(many)), format!("{long}{}{long}", marks(8)), &[]);
    }
    // The longest ones there are, and a new beginning behind whatever is no mark.
    check(format!("a{}", "\u{e0100}".repeat(20)), format!("a{}", "\u{e0100}".repeat(8)), &[]);
    check_kept(&[&format!("a{}\x1b[1m{}\r{}", marks(8), marks(8), marks(8))]);
    // Repeating a character repeats no marks.
    check("a\u{301}\x1b[512bb\x1b[3b", "a\u{301}b\x1b[3b", &[]);
    check("a\u{301}\u{9b}5b", "a\u{301}", &[]);
}

#[test]
fn endless_sequences_are_swallowed_within_bounds() {
    for (intro, end) in
        [("\x1b]0;", "\x07"), ("\x1bP", "\x1b\\"), ("\x1b_", "\u{9c}"), ("\x1b]52;c;", "\x1b\\")]
    {
        check(format!("{intro}{}{end}x", "A".repeat(300_000)), "x", &[]);
        check(format!("{intro}{}\x1b[31mx", "A".repeat(300_000)), "\x1b[31mx", &[]);
        for length in STRING_MAX - 10..STRING_MAX + 10 {
            let (out, _) = essence(format!("{intro}{}{end}x", "A".repeat(length)).as_bytes());
            assert!(
                out.ends_with('x') && !out.contains("AAAAAAAAAA".repeat(30).as_str()),
                "{intro:?} {length}"
            );
        }
    }
    check(format!("\x1b[{}mx", "1".repeat(3000)), "x", &[]);
    check(format!("\x1b[{}\n\x05\x1b[31mx", "1".repeat(3000)), "\n\x1b[31mx", &[]);
    let mut sanitiser = Sanitiser::default();
    let (mut out, mut events) = (Vec::new(), Vec::new());
    sanitiser.push(b"\x1b]0;", &mut out, &mut events);
    for _ in 0..5 * 1024 {
        sanitiser.push(&[b'A'; 1024], &mut out, &mut events);
        assert!(sanitiser.pending_len() <= STRING_MAX && sanitiser.pending.capacity() <= 2 * PENDING_KEEP);
    }
    assert!(sanitiser.is_ground() && out.ends_with(b"AAAA") && events.is_empty());
    let text = out.iter().filter(|byte| **byte == b'A').count();
    assert_eq!(text, 5 * 1024 * 1024 + 4 - STRING_MAX - STRING_SWALLOW_MAX);
}

#[test]
fn unfinished_input_is_held_back_until_flush() {
    for (input, rest, held) in [
        (&b"ab\x1b[3"[..], &b"ab\0\0\0"[..], 3),
        (b"ab\x1b]0;x", b"ab\0\0\0\0\0", 5),
        (b"ab\xe2\x9c", b"ab?\0", 2),
        (b"ab\xc2", b"ab?", 1),
        (b"ab\x1b", b"ab\0", 1),
    ] {
        let mut sanitiser = Sanitiser::default();
        let (mut out, mut events) = (Vec::new(), Vec::new());
        sanitiser.push(input, &mut out, &mut events);
        assert_eq!((&out[..], sanitiser.pending_len(), sanitiser.is_ground()), (&b"ab"[..], held, false));
        sanitiser.flush(&mut out);
        assert_eq!((&out[..], sanitiser.is_ground(), events.len()), (rest, true, 0));
    }
}

#[track_caller]
fn check_answer(query: Query, expected: Option<&str>) {
    let mode = |mode| if mode == Mode::Private(2026) { ModeState::Reset } else { ModeState::NotRecognised };
    let context = AnswerContext::dark((3, 7), (40, 120), &mode);
    let answer = answer(&query, &context).map(|answer| String::from_utf8(answer).unwrap());
    assert_eq!(answer.as_deref(), expected);
}

#[test]
fn answers_are_those_of_xterm() {
    check_answer(Query::PrimaryAttributes, Some("\x1b[?62;22c"));
    check_answer(Query::CursorPosition, Some("\x1b[3;7R"));
    check_answer(Query::ExtendedCursorPosition, Some("\x1b[?3;7R"));
    check_answer(Query::Status, Some("\x1b[0n"));
    check_answer(Query::PrivateStatus(996), Some("\x1b[?997;1n"));
    check_answer(Query::PrivateStatus(1), None);
    check_answer(Query::PrivateMode(2026), Some("\x1b[?2026;2$y"));
    check_answer(Query::AnsiMode(4), Some("\x1b[4;0$y"));
    check_answer(Query::StatusString, Some("\x1bP0$r\x1b\\"));
    check_answer(Query::Termcap, Some("\x1bP0+r\x1b\\"));
    check_answer(Query::DynamicColour(11), Some("\x1b]11;rgb:0000/0000/0000\x1b\\"));
    check_answer(Query::Palette(9), Some("\x1b]4;9;rgb:ffff/0000/0000\x1b\\"));
    check_answer(Query::Palette(231), Some("\x1b]4;231;rgb:ffff/ffff/ffff\x1b\\"));
    check_answer(Query::Palette(255), Some("\x1b]4;255;rgb:eeee/eeee/eeee\x1b\\"));
    check_answer(Query::Palette(256), None);
    check_answer(Query::KittyKeyboard, None);
    check_answer(Query::Window(18), Some("\x1b[8;40;120t"));
    check_answer(Query::Window(21), None);
    check_answer(Query::Parameters(1), Some("\x1b[3;1;1;128;128;1;0x"));
}
