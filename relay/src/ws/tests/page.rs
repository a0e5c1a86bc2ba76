//! A page for tests: real socket, keeps the bytes of its terminals, grants credit as it reads.

use std::collections::BTreeMap;

use bytes::Bytes;
use claudenest_shared::code::WireError;
use claudenest_shared::id::{SessionId, WriterId};
use claudenest_shared::wire::BROWSER_SUBPROTOCOL;
use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_shared::wire::frame::{FLAG_GAP, FLAG_REFUSED, Frame, FrameKind};
use claudenest_shared::wire::limits::VIEWER_WINDOW_BYTES;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Ws;

/// Connects without a word.
pub(super) async fn dial(address: &str, origin: Option<&str>, protocol: &str) -> Result<Ws, Error> {
    let mut request = format!("ws://{address}/ws").into_client_request()?;
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    Ok(tokio_tungstenite::connect_async(request).await?.0)
}

/// What a page sees.
#[derive(Debug)]
pub(super) enum Seen {
    Message(ServerMessage),
    Frame,
    Closed(Option<u16>),
}

/// One attachment of the page.
#[derive(Default)]
pub(super) struct Screen {
    pub(super) next: Option<StreamPosition>,
    /// Bytes since the last snapshot or the attachment.
    pub(super) bytes: Vec<u8>,
    pub(super) snapshots: u64,
    pub(super) gaps: u64,
    pub(super) received: u64,
    pub(super) granted: u64,
    pub(super) is_attached: bool,
    pub(super) acked: Option<u64>,
    pub(super) refused: Vec<(u64, String)>,
    pub(super) is_up: Option<bool>,
    pub(super) detached: Option<Option<WireError>>,
    session: Option<SessionId>,
}

pub(super) struct Page {
    pub(super) ws: Ws,
    pub(super) screens: BTreeMap<u16, Screen>,
}

impl Page {
    /// Connects and shows the ticket.
    pub(super) async fn knock(address: &str, ticket: &str) -> Self {
        let origin = format!("http://{address}");
        let mut ws = dial(address, Some(&origin), BROWSER_SUBPROTOCOL).await.unwrap();
        let auth = BrowserMessage::Auth { ticket: ticket.into() };
        ws.send(Message::text(serde_json::to_string(&auth).unwrap())).await.unwrap();
        Self { ws, screens: BTreeMap::new() }
    }

    /// The same, and is let in.
    pub(super) async fn open(address: &str, ticket: &str) -> Self {
        let mut page = Self::knock(address, ticket).await;
        page.until(|seen| matches!(seen, Seen::Message(ServerMessage::Ready { .. }))).await;
        page
    }

    pub(super) async fn say(&mut self, message: &BrowserMessage) {
        self.ws.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    pub(super) async fn attach(
        &mut self,
        channel: u16,
        session: SessionId,
        from: Option<u64>,
        writer: Option<WriterId>,
        lag_limit_bytes: Option<u64>,
    ) {
        let from = from.map(|offset| StreamPosition { epoch: 0, offset });
        let screen =
            Screen { next: from, granted: VIEWER_WINDOW_BYTES, session: Some(session), ..Screen::default() };
        self.screens.insert(channel, screen);
        let credit = VIEWER_WINDOW_BYTES;
        let attach = BrowserMessage::Attach {
            channel,
            session,
            from,
            writer,
            may_size: false,
            lag_limit_bytes,
            credit,
        };
        self.say(&attach).await;
    }

    pub(super) async fn frame(&mut self, channel: u16, kind: FrameKind, offset: u64, payload: &'static [u8]) {
        let session = self.screens[&channel].session.unwrap();
        let payload = Bytes::from_static(payload);
        let frame = Frame { kind, flags: 0, channel, epoch: 0, session, offset, payload };
        self.ws.send(Message::binary(frame.encode())).await.unwrap();
    }

    pub(super) async fn types(&mut self, channel: u16, seq: u64, text: &'static [u8]) {
        self.frame(channel, FrameKind::Input, seq, text).await;
    }

    /// The next thing, applied to the page's screens.
    pub(super) async fn next(&mut self) -> Seen {
        loop {
            match self.ws.next().await {
                Some(Ok(Message::Text(text))) => {
                    let message = serde_json::from_str(&text).unwrap();
                    self.on_message(&message);
                    return Seen::Message(message);
                }
                Some(Ok(Message::Binary(bytes))) => {
                    let frame = Frame::decode(&bytes).unwrap();
                    self.on_frame(&frame).await;
                    return Seen::Frame;
                }
                Some(Ok(Message::Close(frame))) => return Seen::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Seen::Closed(None),
            }
        }
    }

    /// Reads until something is seen.
    pub(super) async fn until(&mut self, is_it: impl Fn(&Seen) -> bool) -> Seen {
        loop {
            let seen = self.next().await;
            if is_it(&seen) {
                return seen;
            }
            assert!(!matches!(seen, Seen::Closed(_)), "closed while waiting: {seen:?}");
        }
    }

    /// Reads until a screen is as it should be.
    pub(super) async fn until_screen(
        &mut self,
        channel: u16,
        is_it: impl Fn(&Screen) -> bool,
    ) -> &mut Screen {
        while !is_it(&self.screens[&channel]) {
            let seen = self.next().await;
            assert!(!matches!(seen, Seen::Closed(_)), "closed while waiting: {seen:?}");
        }
        self.screens.get_mut(&channel).unwrap()
    }

    fn on_message(&mut self, message: &ServerMessage) {
        match message {
            ServerMessage::Attached { channel, acked, .. } => {
                let screen = self.screens.get_mut(channel).unwrap();
                screen.is_attached = true;
                screen.acked = *acked;
            }
            ServerMessage::Link { channel, is_up } => {
                self.screens.get_mut(channel).unwrap().is_up = Some(*is_up);
            }
            ServerMessage::Detached { channel, error } => {
                self.screens.get_mut(channel).unwrap().detached = Some(error.clone());
            }
            _ => {}
        }
    }

    async fn on_frame(&mut self, frame: &Frame) {
        let screen = self.screens.get_mut(&frame.channel).expect("a frame of an attachment");
        assert!(screen.is_attached, "frames come after `attached`");
        assert_eq!(Some(frame.session), screen.session);
        let at = StreamPosition { epoch: frame.epoch, offset: frame.offset };
        match frame.kind {
            FrameKind::Output => {
                assert_eq!(screen.next, Some(at), "a hole");
                screen.bytes.extend_from_slice(&frame.payload);
                screen.next = Some(StreamPosition { offset: at.offset + frame.payload.len() as u64, ..at });
            }
            FrameKind::Snapshot => {
                assert_eq!(&frame.payload[4..], format!("screen at {}", at.offset).as_bytes());
                assert_eq!(frame.flags & FLAG_GAP != 0, screen.next.is_some_and(|next| next != at));
                screen.gaps += u64::from(frame.flags & FLAG_GAP);
                screen.snapshots += 1;
                screen.bytes.clear();
                screen.next = Some(at);
            }
            FrameKind::InputAck if frame.flags & FLAG_REFUSED != 0 => {
                screen.refused.push((frame.offset, String::from_utf8(frame.payload.to_vec()).unwrap()));
            }
            FrameKind::InputAck => screen.acked = Some(frame.offset),
            _ => {}
        }
        if matches!(frame.kind, FrameKind::Output | FrameKind::Snapshot) {
            screen.received += frame.payload.len() as u64;
            let total = screen.received + VIEWER_WINDOW_BYTES;
            if total >= screen.granted + 32 * 1024 {
                screen.granted = total;
                self.frame(frame.channel, FrameKind::Credit, total, b"").await;
            }
        }
    }
}
