//! `attach` on a real terminal.

use rustix::process::{Pid, Signal, kill_process};

use crate::own::Own;

const RESET_ALTERNATE: &str = "\x1b[?1049l";

#[test]
fn detach_keys_leave_in_every_keyboard_protocol_and_the_session_goes_on() {
    let own = Own::started("exit");
    own.shell("s");
    for keys in [&b"\x1dd"[..], b"\x1b[93;5ud", b"\x1b[27;5;93~d"] {
        let mut terminal = own.terminal(&["attach", "s"], 90, 30);
        terminal.write(b"echo ma''rk\r");
        terminal.until("mark");
        assert_ne!(terminal.modes(), terminal.first_modes, "raw mode");
        terminal.write(keys);
        let (code, said) = terminal.wait();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("[detached: s goes on") && said.contains(RESET_ALTERNATE), "{said:?}");
    }
    assert_eq!(own.json(&["session", "show", "s"])["state"], "running");
}

#[test]
fn the_size_follows_the_window_and_late_and_silent_viewers_disturb_nobody() {
    let own = Own::started("exit");
    own.shell("s");
    let mut first = own.terminal(&["attach", "s"], 90, 30);
    first.write(b"stty size\r");
    first.until("30 90");
    first.resize(70, 20);
    // The machine waits a moment before it follows a window.
    first.write(b"until [ \"$(stty size)\" = '20 70' ]; do :; done; echo si''zed\r");
    first.until("sized");
    let mut silent = own.terminal(&["attach", "--read-only", "s"], 70, 20);
    silent.until("sized");
    silent.write(b"echo from-a-silent-viewer\r");
    let mut small = own.terminal(&["attach", "--no-size", "s"], 40, 10);
    // Its own terminal shows the session's screen drawn anew, not its raw output.
    small.until("\x1b[?2026h").until("\x1b[?2026l");
    first.write(b"echo aft''er; stty size\r");
    first.until("after").until("20 70");
    assert!(!own.run(&["session", "screen", "s"]).1.contains("from-a-silent-viewer"));
    small.until("after");
    small.write(b"\x1dd");
    let (_, said) = small.wait();
    assert!(said.contains("s is 70 × 20, this terminal 40 × 10"), "{said}");
    silent.write(&[3]);
    assert_eq!(silent.wait().0, 0, "Ctrl-C leaves where nothing can be typed");
}

#[test]
fn the_end_of_the_session_and_signals_restore_the_terminal() {
    let own = Own::started("exit");
    own.shell("s");
    let mut terminal = own.terminal(&["attach", "s"], 80, 24);
    terminal.write(b"echo ma''rk\r");
    terminal.until("mark");
    kill_process(Pid::from_raw(terminal.pid()).unwrap(), Signal::TERM).unwrap();
    let (code, said) = terminal.wait();
    assert_eq!(code, 129);
    assert!(said.contains(RESET_ALTERNATE), "{said:?}");
    let mut terminal = own.terminal(&["attach", "--wait-exit", "s"], 80, 24);
    terminal.write(b"exit 7\r");
    let (code, said) = terminal.wait();
    assert_eq!(code, 7);
    assert!(said.contains("[s: exit code 7]") && said.contains(RESET_ALTERNATE), "{said:?}");
    // Its last screen can still be seen.
    let (code, said) = own.terminal(&["attach", "s"], 80, 24).wait();
    assert!(code == 0 && said.contains("exit 7"), "{said}");
}

/// The session ends while the daemon is away, or at the moment in which it is killed: one end, told once.
#[test]
fn an_end_around_a_killed_daemon_is_told_once() {
    for is_away in [true, false] {
        let mut own = Own::started("exit");
        own.shell("s");
        let go = own.path("go");
        let mut terminal = own.terminal(&["attach", "--wait-exit", "s"], 80, 24);
        // What is typed before it is attached is shown by the terminal itself.
        terminal.write(b"echo ma''rk\r");
        terminal.until("mark");
        let line = format!("echo wait''ing; until [ -e {} ]; do sleep 0.02; done; exit 7\r", go.display());
        terminal.write(line.as_bytes());
        terminal.until("waiting");
        if is_away {
            own.kill_daemon();
            std::fs::write(&go, "").unwrap();
        } else {
            std::fs::write(&go, "").unwrap();
            own.kill_daemon();
        }
        own.start();
        let (code, said) = terminal.wait();
        assert_eq!((code, said.matches("[s: exit code 7]").count()), (7, 1), "{said:?}");
        // Whoever attaches again is told again: that is the same end.
        let (code, said) = own.terminal(&["attach", "--wait-exit", "s"], 80, 24).wait();
        assert_eq!((code, said.matches("[s: exit code 7]").count()), (7, 1), "{said:?}");
    }
}

#[test]
fn the_size_is_taken_by_asking_for_it() {
    let own = Own::started("exit");
    own.shell("s");
    let mut first = own.terminal(&["attach", "s"], 90, 30);
    first.write(b"stty size\r");
    first.until("30 90");
    // The first terminal keeps the size for one that does not ask, and loses it to one that does.
    let mut modest = own.terminal(&["attach", "--no-size", "s"], 70, 20);
    first.write(b"echo mo''dest; stty size\r");
    first.until("modest").until("30 90");
    let mut greedy = own.terminal(&["attach", "--take-size", "s"], 60, 25);
    greedy.write(b"until [ \"$(stty size)\" = '25 60' ]; do :; done; echo ta''ken\r");
    greedy.until("taken");
    // A resize of one that does not own the size changes nothing.
    first.resize(100, 35);
    greedy.write(b"echo st''ill; stty size\r");
    greedy.until("still").until("25 60");
    assert!(own.json(&["session", "show", "s"])["size_owner"].as_str().unwrap().starts_with("attach"));
    modest.write(b"\x1dd");
    assert_eq!(modest.wait().0, 0);
}

#[test]
fn a_killed_daemon_is_waited_for_and_typing_goes_on() {
    let mut own = Own::started("exit");
    own.shell("s");
    let mut terminal = own.terminal(&["attach", "s"], 80, 24);
    terminal.write(b"echo ma''rk\r");
    terminal.until("mark");
    own.kill_daemon();
    terminal.write(b"echo in-bet''ween\r");
    own.start();
    terminal.until("in-between");
    terminal.write(b"echo after''wards\r");
    terminal.until("afterwards");
    terminal.write(b"\x1dd");
    let (code, said) = terminal.wait();
    assert!(code == 0 && !said.contains("did not reach"), "{said}");
}

#[test]
fn a_megabyte_and_thousands_of_keys_wait_for_a_program_that_does_not_read() {
    let own = Own::started("exit");
    own.shell("s");
    let mut terminal = own.terminal(&["attach", "s"], 80, 24);
    let paste: Vec<u8> = (0..1_000_000u32).map(|at| b'!' + (at.wrapping_mul(7919) % 90) as u8).collect();
    let go = own.path("go");
    let read = |size: usize, file: &str| {
        format!(
            "stty raw -echo; echo read''y; until [ -e {} ]; do sleep 0.05; done; head -c {size} > {}; stty sane; echo do''ne\r",
            go.display(),
            own.path(file).display()
        )
    };
    terminal.write(read(paste.len(), "paste").as_bytes());
    terminal.until("ready");
    terminal.write(&paste);
    std::fs::write(&go, "").unwrap();
    terminal.until("done");
    assert!(std::fs::read(own.path("paste")).unwrap() == paste);
    std::fs::remove_file(&go).unwrap();
    // More single keys than the machine lets wait.
    terminal.write(read(6000, "keys").as_bytes());
    terminal.until("ready");
    for key in paste[..6000].chunks(1) {
        terminal.write(key);
    }
    std::fs::write(&go, "").unwrap();
    terminal.until("done");
    assert!(std::fs::read(own.path("keys")).unwrap() == paste[..6000]);
    // A paste into a program that never reads does not hold up the way out, and what is lost is told in bytes.
    terminal.write(b"stty raw -echo; echo re''ady; sleep 1000\r");
    terminal.until("ready");
    terminal.write(&paste);
    terminal.write(b"\x1dd");
    let (code, said) = terminal.wait();
    assert!(code == 0 && said.contains("bytes that were typed or pasted did not reach"), "{said}");
}

#[test]
fn a_session_is_not_attached_to_itself() {
    let own = Own::started("exit");
    own.shell("s");
    let mut terminal = own.terminal(&["attach", "s"], 80, 24);
    let attach = format!(
        "CLAUDENEST_AGENT_DATA_DIR={} {} attach s; echo code $?\r",
        own.path("data").display(),
        crate::holder::program().display()
    );
    terminal.write(attach.as_bytes());
    terminal.until("may look at itself only").until("code 5");
}
