//! Who is not let in, and what is not believed.

use std::time::Duration;

use bytes::Bytes;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::machine::MachineState;
use claudenest_shared::wire::BROWSER_SUBPROTOCOL;
use claudenest_shared::wire::agent::{AgentMessage, RelayMessage};
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_shared::wire::frame::{Frame, FrameKind};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::machine::{Command, Disk, Machine, dial, dial_with, next_message, session_info};
use super::page::{self, Page, Seen};
use super::*;
use crate::hub::DisconnectReason;

fn status(result: Result<Ws, Error>) -> (u16, String) {
    match result {
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8_lossy(body).into_owned())
        }
        other => panic!("expected an HTTP refusal, got {other:?}"),
    }
}

async fn close_code(ws: &mut Ws) -> Option<u16> {
    loop {
        match ws.next().await {
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

#[test]
fn sessions_that_a_hello_has_no_room_for_are_kept() {
    run(async {
        for (has_unnamed, wanted) in [(false, &[1, 2][..]), (true, &[1, 2, 3])] {
            let relay = Relay::start().await;
            let keys = relay.pair(1);
            relay.directory.with(|state| {
                for id in [1, 2, 3].map(session_id) {
                    state.sessions.insert((keys.machine, id), session_info(id));
                }
            });
            let list = (&[session_id(1)][..], &[session_id(2)][..], has_unnamed);
            let mut ws = dial_with(&relay.address, &keys, list, false).await.unwrap();
            assert!(matches!(next_message(&mut ws).await, RelayMessage::Welcome { .. }));
            let directory = Arc::clone(&relay.directory);
            relay.stop().await;
            let kept: Vec<_> = directory.with(|state| state.sessions.keys().map(|(_, id)| *id).collect());
            assert_eq!(kept, wanted.iter().map(|number| session_id(*number)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn only_the_own_pages_may_open_the_browser_socket() {
    run(async {
        let relay = Relay::start().await;
        let own = format!("http://{}", relay.address);
        for origin in [None, Some("null"), Some("http://evil.example"), Some("http://localhost:1")] {
            let (status, body) = status(page::dial(&relay.address, origin, BROWSER_SUBPROTOCOL).await);
            assert_eq!(status, 403, "{origin:?}");
            assert!(body.contains("\"forbidden\""), "{body}");
        }
        let (status, body) = status(page::dial(&relay.address, Some(&own), "claudenest.browser.v0").await);
        assert_eq!(status, 426);
        assert!(body.contains("version_mismatch"), "{body}");
        assert!(page::dial(&relay.address, Some(&own), BROWSER_SUBPROTOCOL).await.is_ok());
        relay.stop().await;
    });
}

#[test]
fn a_ticket_works_once() {
    run(async {
        let relay = Relay::start().await;
        let ticket = relay.ticket(1);
        let _first = Page::open(&relay.address, &ticket).await;
        for bad in [ticket.as_str(), "cnt_nonsense"] {
            let mut page = Page::knock(&relay.address, bad).await;
            let Seen::Message(ServerMessage::Closing { error, retry_after_ms }) = page.next().await else {
                panic!("a reason comes first")
            };
            assert_eq!((error.code, retry_after_ms), (ErrorCode::Unauthenticated, None));
            assert!(matches!(page.next().await, Seen::Closed(Some(4401))));
        }
        relay.stop().await;
    });
}

#[test]
fn a_page_that_says_nothing_is_closed() {
    run(async {
        let timing = Timing { handshake_timeout: Duration::from_millis(50), ..Timing::default() };
        let relay = Relay::start_with(timing).await;
        let own = format!("http://{}", relay.address);
        let mut ws = page::dial(&relay.address, Some(&own), BROWSER_SUBPROTOCOL).await.unwrap();
        assert_eq!(close_code(&mut ws).await, Some(4401));
        relay.stop().await;
    });
}

#[test]
fn machines_need_a_known_token_and_the_key() {
    run(async {
        let relay = Relay::start().await;
        let keys = relay.pair(1);
        let stranger = Keys {
            machine: keys.machine,
            token: relay.ticket(1),
            signing: ed25519_dalek::SigningKey::from_bytes(&[1; 32]),
        };
        let (code, body) = status(dial(&relay.address, &stranger, &[], false).await);
        assert_eq!(code, 401);
        assert!(body.contains("\"unauthenticated\""), "{body}");

        // The token alone is worth nothing.
        let mut ws = dial(&relay.address, &keys, &[], true).await.unwrap();
        assert_eq!(close_code(&mut ws).await, Some(4401));
        let thief = Keys { machine: keys.machine, token: keys.token.clone(), signing: stranger.signing };
        let mut ws = dial(&relay.address, &thief, &[], false).await.unwrap();
        assert_eq!(close_code(&mut ws).await, Some(4401));
        assert!(!relay.hub.is_online(keys.machine));

        relay.directory.with(|state| state.machines.values_mut().for_each(|known| known.is_revoked = true));
        let (code, body) = status(dial(&relay.address, &keys, &[], false).await);
        assert_eq!(code, 401);
        assert!(body.contains("\"revoked\""), "{body}");
        relay.stop().await;
    });
}

#[test]
fn the_newest_link_wins_and_the_older_changes_nothing() {
    run(async {
        let relay = Relay::start().await;
        let (keys, first) = relay.machine(1, &[1]).await;
        let second = Machine::start(&relay.address, &keys, Disk::default()).await;
        assert!(second.epoch > first.epoch);
        let (code, _) = first.task.await.unwrap();
        assert_eq!(code, Some(4409));
        assert!(relay.hub.is_online(keys.machine));
        relay.directory.with(|state| assert_eq!(state.states[&keys.machine].0, MachineState::Online));
        relay.stop().await;
    });
}

#[test]
fn a_machine_that_breaks_the_protocol_is_told_how() {
    run(async {
        let relay = Relay::start().await;
        let frame = |channel| Frame {
            kind: FrameKind::Output,
            flags: 0,
            channel,
            epoch: 0,
            session: session_id(1),
            offset: 0,
            payload: Bytes::from_static(b"x"),
        };
        let hello = AgentMessage::Hello {
            signature: String::new(),
            facts: Box::default(),
            sessions: vec![],
            others: vec![],
            has_unnamed: false,
        };
        for broken in [
            Command::Text("{".into()),
            Command::Text("{\"type\": \"from_the_future\"}".into()),
            Command::Text(" ".repeat(300 * 1024)),
            Command::Text(serde_json::to_string(&hello).unwrap()),
            Command::Frame(frame(9)),
            Command::Frame(frame(0)),
        ] {
            let (_, machine) = relay.machine(1, &[1]).await;
            assert!(machine.commands.send(broken).await.is_ok());
            assert_eq!(machine.task.await.unwrap().0, Some(4400));
        }
        relay.stop().await;
    });
}

#[test]
fn frames_of_another_session_end_the_link() {
    run(async {
        let relay = Relay::start().await;
        let (_, machine) = relay.machine(1, &[1, 2]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session_id(1), None, None, None).await;
        page.until_screen(1, |screen| screen.snapshots == 1).await;
        // The relay's first channel on this link is 1, and it belongs to session 1.
        let foreign = Frame {
            kind: FrameKind::Output,
            flags: 0,
            channel: 1,
            epoch: 0,
            session: session_id(2),
            offset: 0,
            payload: Bytes::from_static(b"not yours"),
        };
        assert!(machine.commands.send(Command::Frame(foreign)).await.is_ok());
        assert_eq!(machine.task.await.unwrap().0, Some(4400));
        let screen = page.until_screen(1, |screen| screen.is_up == Some(false)).await;
        assert!(screen.bytes.is_empty());
        relay.stop().await;
    });
}

#[test]
fn sessions_of_others_do_not_exist() {
    run(async {
        let relay = Relay::start().await;
        let (_, _mine) = relay.machine(1, &[1]).await;
        let (_, theirs) = relay.machine(2, &[2]).await;
        // A machine that claims another user's session changes nothing for that user.
        let claim = AgentMessage::Session { session: Box::new(session_info(session_id(1))) };
        assert!(theirs.commands.send(Command::Text(serde_json::to_string(&claim).unwrap())).await.is_ok());
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        for (channel, session) in [(1, 2), (2, 9)] {
            page.attach(channel, session_id(session), None, None, None).await;
            let screen = page.until_screen(channel, |screen| screen.detached.is_some()).await;
            assert_eq!(screen.detached.take().flatten().unwrap().code, ErrorCode::NotFound);
        }
        page.attach(3, session_id(1), None, None, None).await;
        theirs.output(session_id(2), "secret").await;
        let screen = page.until_screen(3, |screen| screen.snapshots == 1).await;
        assert!(screen.bytes.is_empty());
        relay.stop().await;
    });
}

#[test]
fn a_page_that_breaks_the_protocol_is_closed() {
    run(async {
        let relay = Relay::start().await;
        let (_, _machine) = relay.machine(1, &[1]).await;
        for broken in 0..5 {
            let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
            page.attach(1, session_id(1), None, None, None).await;
            page.until_screen(1, |screen| screen.is_attached).await;
            match broken {
                0 => page.ws.send(Message::text("{}")).await.unwrap(),
                1 => page.ws.send(Message::binary(vec![0; 40])).await.unwrap(),
                2 => page.frame(1, FrameKind::Exit, 0, b"\0\0").await,
                channel => {
                    // Taken, and never valid.
                    let channel = if channel == 3 { 1 } else { 0 };
                    let session = session_id(1);
                    page.say(&BrowserMessage::Attach {
                        channel,
                        session,
                        from: None,
                        writer: None,
                        may_size: false,
                        lag_limit_bytes: None,
                        credit: 1,
                    })
                    .await;
                }
            }
            let seen = page.until(|seen| matches!(seen, Seen::Closed(_))).await;
            assert!(matches!(seen, Seen::Closed(Some(4400))), "{broken}: {seen:?}");
        }
        relay.stop().await;
    });
}

#[test]
fn credit_beyond_the_window_ends_the_attachment() {
    run(async {
        let relay = Relay::start().await;
        let (_, _machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session_id(1), None, None, None).await;
        page.until_screen(1, |screen| screen.is_attached).await;
        page.frame(1, FrameKind::Credit, 10 << 20, b"").await;
        let screen = page.until_screen(1, |screen| screen.detached.is_some()).await;
        assert_eq!(screen.detached.take().flatten().unwrap().code, ErrorCode::BadRequest);
        relay.stop().await;
    });
}

#[test]
fn revoking_closes_links_and_pages() {
    run(async {
        let relay = Relay::start().await;
        let (keys, machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        let mut other = Page::open(&relay.address, &relay.ticket(2)).await;
        relay.hub.disconnect_machine(keys.machine, DisconnectReason::Revoked);
        assert!(!relay.hub.is_online(keys.machine));
        assert_eq!(machine.task.await.unwrap().0, Some(4401));

        relay.hub.disconnect_login(Uuid::from_bytes([1; 16]));
        assert!(matches!(page.until(|seen| matches!(seen, Seen::Closed(_))).await, Seen::Closed(Some(4401))));
        // A login that ended behind the relay's back is found.
        relay.directory.with(|state| state.ended_logins.push(Uuid::from_bytes([2; 16])));
        let began = std::time::Instant::now();
        assert!(matches!(
            other.until(|seen| matches!(seen, Seen::Closed(_))).await,
            Seen::Closed(Some(4401))
        ));
        assert!(began.elapsed() < Duration::from_secs(5));
        relay.stop().await;
    });
}

#[test]
fn a_restart_is_announced() {
    run(async {
        let relay = Relay::start().await;
        let keys = relay.pair(1);
        let mut link = dial(&relay.address, &keys, &[], false).await.unwrap();
        assert!(matches!(next_message(&mut link).await, RelayMessage::Welcome { .. }));
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        relay.hub.restarting(Duration::from_millis(700)).await;
        assert_eq!(next_message(&mut link).await, RelayMessage::Restarting { retry_after_ms: 700 });
        assert_eq!(close_code(&mut link).await, Some(4503));
        let seen = page.until(|seen| matches!(seen, Seen::Message(ServerMessage::Closing { .. }))).await;
        assert!(matches!(seen, Seen::Message(ServerMessage::Closing { retry_after_ms: Some(700), .. })));
        assert!(matches!(page.until(|seen| matches!(seen, Seen::Closed(_))).await, Seen::Closed(Some(4503))));
        relay.stop().await;
    });
}

#[test]
fn silent_peers_are_lost() {
    run(async {
        let timing = Timing { heartbeat: Duration::from_millis(40), ..Timing::default() };
        let relay = Relay::start_with(timing).await;
        let keys = relay.pair(1);
        // This one never reads, so it never answers a ping.
        let _silent = dial(&relay.address, &keys, &[], false).await.unwrap();
        // This one reads, and lives longer than three heartbeats.
        let (alive, machine) = relay.machine(1, &[]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.until(|seen| {
            matches!(seen, Seen::Message(ServerMessage::Machine { machine })
                if machine.id == keys.machine && machine.state == MachineState::Unreachable)
        })
        .await;
        assert!(!relay.hub.is_online(keys.machine));
        assert!(relay.hub.is_online(alive.machine));
        machine.stop(Command::Cut).await;
        relay.stop().await;
    });
}
