//! Terminals over real sockets.

use std::time::Duration;

use claudenest_shared::code::ErrorCode;
use claudenest_shared::id::WriterId;
use claudenest_shared::machine::{GoodbyeReason, MachineState};
use claudenest_shared::wire::agent::{Op, Reply};
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_shared::wire::limits::{MAX_ATTACHMENTS, MAX_LAG_LIMIT_BYTES};

use super::machine::{Command, Machine};
use super::page::{Page, Seen};
use super::*;

#[test]
fn every_byte_arrives_once_and_in_order() {
    run(async {
        let relay = Relay::start().await;
        let (_, machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session_id(1), Some(0), None, Some(MAX_LAG_LIMIT_BYTES)).await;
        let output = pattern(20 << 20);
        for piece in output.chunks(1 << 20) {
            machine.output(session_id(1), piece.to_vec()).await;
        }
        let screen = page.until_screen(1, |screen| screen.bytes.len() == 20 << 20).await;
        assert!(screen.bytes == output, "the bytes differ");
        assert_eq!(screen.snapshots, 0);
        relay.stop().await;
    });
}

#[test]
fn a_late_viewer_gets_a_snapshot_and_then_the_same_bytes() {
    run(async {
        let relay = Relay::start().await;
        let (_, machine) = relay.machine(1, &[1]).await;
        machine.output(session_id(1), vec![b'a'; 1000]).await;
        machine.applied().await;
        let mut first = Page::open(&relay.address, &relay.ticket(1)).await;
        first.attach(3, session_id(1), None, None, None).await;
        first.until_screen(3, |screen| screen.snapshots == 1).await;
        machine.output(session_id(1), vec![b'b'; 1000]).await;
        first.until_screen(3, |screen| screen.bytes.len() == 1000).await;
        let mut late = Page::open(&relay.address, &relay.ticket(1)).await;
        late.attach(5, session_id(1), None, None, None).await;
        // A viewer that comes back from offset 1200 gets what it lacks.
        late.attach(6, session_id(1), Some(1200), None, None).await;
        machine.output(session_id(1), vec![b'c'; 500]).await;
        for (channel, len) in [(5, None), (6, Some(1300))] {
            let screen = late
                .until_screen(channel, |screen| screen.next.is_some_and(|next| next.offset == 2500))
                .await;
            assert_eq!((screen.snapshots, screen.gaps), (u64::from(len.is_none()), 0));
            if let Some(len) = len {
                assert_eq!(screen.bytes.len(), len);
            }
        }
        let screen = first.until_screen(3, |screen| screen.bytes.len() == 1500).await;
        assert_eq!(screen.snapshots, 1, "the late viewer's snapshot is only for the late viewer");
        relay.stop().await;
    });
}

#[test]
fn input_is_applied_and_acknowledged_and_refused_while_the_machine_is_away() {
    run(async {
        let relay = Relay::start().await;
        let (keys, machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session_id(1), Some(0), Some(WriterId(5)), None).await;
        page.until_screen(1, |screen| screen.is_attached && screen.acked == Some(0)).await;
        page.types(1, 1, b"ls").await;
        page.types(1, 2, b"\r").await;
        page.until_screen(1, |screen| screen.acked == Some(2)).await;
        assert_eq!(machine.applied().await, b"ls\r");

        let (_, disk) = machine.stop(Command::Cut).await;
        page.until_screen(1, |screen| screen.is_up == Some(false)).await;
        page.types(1, 3, b"rm").await;
        let screen = page.until_screen(1, |screen| !screen.refused.is_empty()).await;
        assert_eq!(screen.refused, [(3, "machine_offline".to_owned())]);
        screen.is_attached = false;

        let machine = Machine::start(&relay.address, &keys, disk).await;
        let screen = page.until_screen(1, |screen| screen.is_attached).await;
        assert_eq!(
            (screen.is_up, screen.acked),
            (Some(true), Some(2)),
            "attached again, with what was applied"
        );
        page.types(1, 3, b"pwd").await;
        page.until_screen(1, |screen| screen.acked == Some(3)).await;
        assert_eq!(machine.applied().await, b"ls\rpwd", "what was refused was not queued");
        relay.stop().await;
    });
}

#[test]
fn no_byte_is_lost_over_twenty_cuts() {
    run(async {
        let relay = Relay::start().await;
        let (keys, mut machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session_id(1), Some(0), None, Some(MAX_LAG_LIMIT_BYTES)).await;
        let output = pattern(21 * 300_000);
        for (round, piece) in output.chunks(300_000).enumerate() {
            machine.output(session_id(1), piece.to_vec()).await;
            // Cut at a different place each time: after some of the piece has arrived.
            let wanted = round * 300_000 + round * 10_000;
            page.until_screen(1, |screen| screen.bytes.len() >= wanted).await;
            if round < 20 {
                let (_, disk) = machine.stop(Command::Cut).await;
                machine = Machine::start(&relay.address, &keys, disk).await;
            }
        }
        let screen = page.until_screen(1, |screen| screen.bytes.len() == output.len()).await;
        assert!(screen.bytes == output, "the bytes differ");
        assert_eq!(screen.snapshots, 0);
        relay.stop().await;
    });
}

#[test]
fn a_viewer_that_never_reads_harms_nobody() {
    run(async {
        let relay = Relay::start().await;
        let (_, machine) = relay.machine(1, &[1]).await;
        let mut stuck = Page::open(&relay.address, &relay.ticket(1)).await;
        stuck.attach(1, session_id(1), Some(0), None, Some(MAX_LAG_LIMIT_BYTES)).await;
        let output = Arc::new(pattern(8 << 20));
        let mut readers = Vec::new();
        for _ in 0..99 {
            let (address, ticket, output) = (relay.address.clone(), relay.ticket(1), Arc::clone(&output));
            let (attached, is_attached) = tokio::sync::oneshot::channel();
            let reader = tokio::spawn(async move {
                let mut page = Page::open(&address, &ticket).await;
                page.attach(1, session_id(1), Some(0), None, Some(MAX_LAG_LIMIT_BYTES)).await;
                page.until_screen(1, |screen| screen.is_attached).await;
                attached.send(()).unwrap();
                let screen = page.until_screen(1, |screen| screen.bytes.len() == output.len()).await;
                assert!(screen.bytes == *output, "the bytes differ");
            });
            is_attached.await.unwrap();
            readers.push(reader);
        }
        for piece in output.chunks(64 << 10) {
            machine.output(session_id(1), piece.to_vec()).await;
        }
        for reader in readers {
            reader.await.unwrap();
        }
        // The one that was stuck still gets everything once it reads.
        let screen = stuck.until_screen(1, |screen| screen.bytes.len() == output.len()).await;
        assert!(screen.bytes == *output, "the bytes differ");
        relay.stop().await;
    });
}

#[test]
fn a_viewer_that_lags_jumps_to_a_marked_snapshot() {
    run(async {
        let relay = Relay::start().await;
        let (_, machine) = relay.machine(1, &[1]).await;
        let mut quick = Page::open(&relay.address, &relay.ticket(1)).await;
        quick.attach(1, session_id(1), Some(0), None, Some(MAX_LAG_LIMIT_BYTES)).await;
        let mut slow = Page::open(&relay.address, &relay.ticket(1)).await;
        slow.attach(1, session_id(1), Some(0), None, None).await;
        slow.until_screen(1, |screen| screen.is_attached).await;
        let output = pattern(6 << 20);
        machine.output(session_id(1), output.clone()).await;
        let screen = quick.until_screen(1, |screen| screen.bytes.len() == output.len()).await;
        assert_eq!(screen.snapshots, 0);
        let head = output.len() as u64;
        let screen = slow.until_screen(1, |screen| screen.next.is_some_and(|next| next.offset == head)).await;
        assert!(screen.gaps >= 1, "what was not sent is marked");
        relay.stop().await;
    });
}

#[test]
fn machine_states_are_true() {
    run(async {
        let relay = Relay::start().await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        let state = |wanted| move |seen: &Seen| matches!(seen, Seen::Message(ServerMessage::Machine { machine }) if machine.state == wanted);
        for (how, expected) in [
            (Command::Goodbye(GoodbyeReason::Stopping), MachineState::Stopped),
            (Command::Goodbye(GoodbyeReason::Sleeping), MachineState::Asleep),
            (Command::Cut, MachineState::Unreachable),
            (Command::Goodbye(GoodbyeReason::Unpairing), MachineState::Revoked),
        ] {
            let (keys, machine) = relay.machine(1, &[1]).await;
            page.until(state(MachineState::Online)).await;
            assert!(relay.hub.is_online(keys.machine));
            machine.stop(how).await;
            page.until(state(expected)).await;
            assert!(!relay.hub.is_online(keys.machine));
        }
        relay.stop().await;
    });
}

#[test]
fn requests_are_answered_or_say_why_not() {
    run(async {
        let relay = Relay::start().await;
        let (keys, machine) = relay.machine(1, &[]).await;
        let ask = |op, ms| relay.hub.request(keys.machine, op, Duration::from_millis(ms));
        let reply = ask(Op::SessionList {}, 10_000).await.unwrap();
        assert_eq!(reply, Reply::Sessions { sessions: Vec::new() });
        let get = || Op::SessionGet { session: session_id(1) };
        assert_eq!(ask(get(), 50).await.unwrap_err().code, ErrorCode::MachineTimeout);
        let pause = Op::SessionPause { session: session_id(1) };
        assert_eq!(ask(pause, 10_000).await.unwrap_err().code, ErrorCode::Conflict);
        let long = Op::DirectoryList { path: "x".repeat(300 * 1024) };
        assert_eq!(ask(long, 10_000).await.unwrap_err().code, ErrorCode::TooLarge);

        // A session that was just created can be attached to at once.
        let create = Op::SessionCreate { spec: Box::default() };
        let Reply::Session { session } = ask(create, 10_000).await.unwrap() else { panic!("a session") };
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session.id, None, None, None).await;
        page.until_screen(1, |screen| screen.is_attached).await;

        let hub = relay.hub.clone();
        let machine_id = keys.machine;
        let waiting = tokio::spawn(async move { hub.request(machine_id, get(), PATIENCE).await });
        machine.stop(Command::Cut).await;
        page.until_screen(1, |screen| screen.is_up == Some(false)).await;
        assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::MachineOffline);
        assert_eq!(ask(Op::SessionList {}, 50).await.unwrap_err().code, ErrorCode::MachineOffline);
        relay.stop().await;
    });
}

#[test]
fn attachments_come_and_go() {
    run(async {
        let relay = Relay::start().await;
        let (_, machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        let last = MAX_ATTACHMENTS as u16;
        for channel in 1..=last {
            page.attach(channel, session_id(1), Some(0), None, None).await;
        }
        page.until_screen(last, |screen| screen.is_attached).await;
        page.attach(last + 1, session_id(1), Some(0), None, None).await;
        let screen = page.until_screen(last + 1, |screen| screen.detached.is_some()).await;
        assert_eq!(screen.detached.take().flatten().unwrap().code, ErrorCode::Conflict);

        machine.output(session_id(1), "hello").await;
        for channel in 1..=last {
            page.until_screen(channel, |screen| screen.bytes == b"hello").await;
        }
        page.say(&BrowserMessage::Detach { channel: 7 }).await;
        let screen = page.until_screen(7, |screen| screen.detached.is_some()).await;
        assert_eq!(screen.detached, Some(None));
        page.attach(7, session_id(1), Some(5), None, None).await;
        page.until_screen(7, |screen| screen.is_attached).await;
        machine.output(session_id(1), "!").await;
        page.until_screen(7, |screen| screen.bytes == b"!").await;

        page.say(&BrowserMessage::Ping { nonce: 4 }).await;
        page.until(|seen| matches!(seen, Seen::Message(ServerMessage::Pong { nonce: 4 }))).await;
        relay.stop().await;
    });
}

#[test]
fn a_page_that_is_flooded_with_news_gets_the_whole_state_again() {
    run(async {
        let relay = Relay::start().await;
        let (keys, _machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        // Large enough that the socket's buffers cannot take them all while nobody reads.
        let mut info = super::machine::session_info(session_id(1));
        info.machine_id = Some(keys.machine);
        info.title = Some("x".repeat(16 * 1024));
        for _ in 0..2_000 {
            relay.hub.publish(user_id(1), ServerMessage::Session { session: Box::new(info.clone()) });
        }
        page.until(|seen| matches!(seen, Seen::Message(ServerMessage::Ready { .. }))).await;
        relay.hub.publish(user_id(1), ServerMessage::MachineRemoved { machine: keys.machine });
        page.until(|seen| matches!(seen, Seen::Message(ServerMessage::MachineRemoved { .. }))).await;
        relay.stop().await;
    });
}
