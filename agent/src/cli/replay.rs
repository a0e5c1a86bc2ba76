//! `session replay`: a recording in this terminal, or on a pipe.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use claudenest_shared::session::TermSize;
use tokio::time::Instant;

use super::args::ReplayArgs;
use super::attach::fit::Fit;
use super::attach::signals::{SignalEvent, Signals};
use super::attach::terminal::{self, Display, Keyboard, RawMode};
use super::{Context, recorded};
use crate::config::keys::has_key;
use crate::history::{Piece, PieceKind, Play, Player, Reader};

/// What the arrow keys move.
const STEP_US: i64 = 5_000_000;
/// What the arrow keys up and down move.
const LEAP_US: i64 = 60_000_000;
/// How often the title tells the position.
const TITLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the title tells of a gap.
const GAP_SHOWN: Duration = Duration::from_secs(3);
/// Ctrl-C, which is a key in raw mode.
const INTERRUPT: u8 = 3;

pub(super) async fn run(context: &Context, args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let (info, run) = recorded::run(context, &args.target.session, args.run).await?;
    let cannot = || format!("The recording of {} cannot be read", info.name);
    let reader = Reader::open(&run.dir, true).with_context(cannot)?;
    let from_us = args.from.map_or(0, |from| u64::try_from(from.as_micros()).unwrap_or(u64::MAX));
    let speed = args.speed.unwrap_or(1.0);
    let player = Player::new(reader.timeline(), from_us, speed, args.idle_limit, Duration::ZERO);
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        let is_timed = args.speed.is_some();
        return pipe(reader, player, is_timed).await.with_context(cannot).map(|()| ExitCode::SUCCESS);
    }
    let mut view = View::new(info.name.clone(), reader, player).context("This terminal cannot be used")?;
    let end = view.play().await;
    view.display.finish().await;
    drop(view.raw);
    let at = position_text(end.with_context(cannot)?);
    eprintln!("[replay of {} left at {at}]", info.name);
    Ok(ExitCode::SUCCESS)
}

/// A position in a recording for people: `1:02:03` or `2:03`.
pub(super) fn position_text(us: u64) -> String {
    let s = us / 1_000_000;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// Offset up to which output has been shown before event number `to`.
fn until(reader: &Reader, to: usize) -> u64 {
    reader.timeline().events.get(to).map_or(u64::MAX, |event| event.offset)
}

/// Writes the output, at once or in its time. A reader that goes away is no error.
async fn pipe(mut reader: Reader, mut player: Player, is_timed: bool) -> std::io::Result<()> {
    let line = reader.timeline().clone();
    let begin = Instant::now();
    let mut out = std::io::stdout();
    let mut write = |bytes: &[u8]| out.write_all(bytes).and_then(|()| out.flush()).is_ok();
    loop {
        let to = match player.poll(&line, begin.elapsed()) {
            Play::Jump { to } => {
                let screen = reader.seek(until(&reader, to))?;
                if !write(&screen.snapshot) {
                    return Ok(());
                }
                continue;
            }
            Play::Events { to } => until(&reader, to),
            Play::Wait { .. } if !is_timed => u64::MAX,
            Play::Wait { until } => {
                tokio::time::sleep_until(begin + until).await;
                continue;
            }
            Play::Paused | Play::End => u64::MAX,
        };
        loop {
            let pieces = reader.read(to)?;
            let outputs = pieces.iter().filter_map(|piece| match &piece.kind {
                PieceKind::Output(bytes) => Some(bytes),
                PieceKind::Resize(_) | PieceKind::Gap { .. } => None,
            });
            for bytes in outputs {
                if !write(bytes) {
                    return Ok(());
                }
            }
            if pieces.is_empty() {
                break;
            }
        }
        if to == u64::MAX {
            return Ok(());
        }
    }
}

/// What a key of the replay does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Leave,
    Pause,
    Move(i64),
    Begin,
    Faster,
    Slower,
}

/// The keys in what was typed, in whatever form the terminal sends them: a recording may have changed that.
fn keys(mut typed: &[u8]) -> Vec<Key> {
    let plain = [
        (INTERRUPT, Key::Leave),
        (b'q', Key::Leave),
        (b' ', Key::Pause),
        (b'+', Key::Faster),
        (b'=', Key::Faster),
        (b'-', Key::Slower),
        (b'0', Key::Begin),
    ];
    let mut found = Vec::new();
    while let Some((first, rest)) = typed.split_first() {
        let arrow = typed.strip_prefix(b"\x1b[").or_else(|| typed.strip_prefix(b"\x1bO"));
        let Some(body) = arrow else {
            found.extend(plain.iter().find(|(byte, _)| byte == first).map(|(_, key)| *key));
            typed = rest;
            continue;
        };
        let length = body.iter().position(|byte| byte.is_ascii_alphabetic() || *byte == b'~');
        let Some(length) = length else { break };
        let (sequence, after) = typed.split_at(typed.len() - body.len() + length + 1);
        typed = after;
        found.extend(match body[length] {
            b'C' => Some(Key::Move(STEP_US)),
            b'D' => Some(Key::Move(-STEP_US)),
            b'A' => Some(Key::Move(LEAP_US)),
            b'B' => Some(Key::Move(-LEAP_US)),
            b'H' => Some(Key::Begin),
            b'u' | b'~' => plain.iter().find(|(byte, _)| has_key(sequence, *byte)).map(|(_, key)| *key),
            _ => None,
        });
    }
    found
}

struct View {
    name: String,
    reader: Reader,
    player: Player,
    begin: Instant,
    keyboard: Keyboard,
    signals: Signals,
    display: Display,
    raw: RawMode,
    /// Set while this terminal has another size than the recording.
    fit: Option<Fit>,
    titled_at: Option<Instant>,
    gap: Option<(Instant, u64)>,
}

impl View {
    fn new(name: String, reader: Reader, player: Player) -> std::io::Result<Self> {
        let (keyboard, signals) = (Keyboard::new()?, Signals::new()?);
        let raw = RawMode::enter()?;
        Ok(Self {
            name,
            reader,
            player,
            begin: Instant::now(),
            keyboard,
            signals,
            display: Display::new()?,
            raw,
            fit: None,
            titled_at: None,
            gap: None,
        })
    }

    /// Plays until the end, or until the person leaves. Answers the position.
    async fn play(&mut self) -> std::io::Result<u64> {
        let rows = terminal::size().map_or(24, |size| size.rows);
        self.show(terminal::keep_screen(rows)).await;
        self.redraw().await;
        let line = self.reader.timeline().clone();
        loop {
            let now = self.begin.elapsed();
            let wake_at = match self.player.poll(&line, now) {
                Play::Events { to } => {
                    let until = until(&self.reader, to);
                    loop {
                        let pieces = self.reader.read(until)?;
                        if pieces.is_empty() {
                            break;
                        }
                        for piece in pieces {
                            self.piece(piece).await;
                        }
                    }
                    self.title(false).await;
                    None
                }
                Play::Jump { to } => {
                    self.reader.seek(until(&self.reader, to))?;
                    self.redraw().await;
                    self.title(true).await;
                    None
                }
                Play::Wait { until } => Some(self.begin + until),
                Play::Paused => Some(Instant::now() + TITLE_INTERVAL),
                Play::End => {
                    self.draw().await;
                    return Ok(line.duration_us);
                }
            };
            // A flood of output must not keep the keys from being heard.
            let wake_at = wake_at.unwrap_or_else(Instant::now);
            let draw_at = self.fit.as_ref().and_then(Fit::deadline);
            tokio::select! {
                typed = self.keyboard.read() => {
                    let typed = keys(typed?);
                    if typed.is_empty() {
                        continue;
                    }
                    let now = self.begin.elapsed();
                    for key in typed {
                        match key {
                            Key::Leave => return Ok(self.player.position_us(now).min(line.duration_us)),
                            Key::Pause => self.player.pause(!self.player.is_paused(), now),
                            Key::Move(by_us) => self.player.jump_by(&line, by_us, now),
                            Key::Begin => self.player.jump(&line, 0, now),
                            Key::Faster => self.player.set_speed(self.player.speed() * 2.0, now),
                            Key::Slower => self.player.set_speed(self.player.speed() / 2.0, now),
                        }
                    }
                    self.title(true).await;
                }
                event = self.signals.next() => match event {
                    SignalEvent::Resize | SignalEvent::Continue => {
                        if event == SignalEvent::Continue {
                            self.raw.again()?;
                        }
                        self.redraw().await;
                    }
                    SignalEvent::End => return Ok(self.player.position_us(self.begin.elapsed()).min(line.duration_us)),
                },
                () = tokio::time::sleep_until(draw_at.unwrap_or(wake_at).min(wake_at)) => {
                    if draw_at.is_some_and(|at| at <= Instant::now()) {
                        self.draw().await;
                    }
                    self.title(false).await;
                }
            }
        }
    }

    async fn show(&self, bytes: Vec<u8>) {
        self.display.show(bytes.into()).await;
    }

    async fn piece(&mut self, piece: Piece) {
        match piece.kind {
            PieceKind::Output(bytes) => match &mut self.fit {
                Some(fit) => fit.process(&bytes),
                None => self.show(bytes.to_vec()).await,
            },
            PieceKind::Resize(_) => self.redraw().await,
            PieceKind::Gap { to } => {
                self.gap = Some((Instant::now(), to - piece.offset));
                self.title(true).await;
            }
        }
    }

    /// Shows the reader's screen anew: as it is, or drawn into a terminal of another size.
    async fn redraw(&mut self) {
        let screen = self.reader.screen();
        let own = terminal::size().unwrap_or_default();
        if own == screen.size {
            self.fit = None;
            let mut bytes = terminal::blank();
            bytes.extend_from_slice(&screen.snapshot);
            self.show(bytes).await;
        } else {
            self.fit = Some(Fit::new(screen.size, &screen.snapshot));
            self.draw().await;
        }
    }

    async fn draw(&mut self) {
        let own: TermSize = terminal::size().unwrap_or_default();
        if let Some(bytes) = self.fit.as_mut().and_then(|fit| fit.draw(own)) {
            self.show(bytes).await;
        }
    }

    /// The position, in the title of the terminal: the screen belongs to the recording.
    async fn title(&mut self, is_due: bool) {
        if !is_due && self.titled_at.is_some_and(|at| at.elapsed() < TITLE_INTERVAL) {
            return;
        }
        self.titled_at = Some(Instant::now());
        let duration_us = self.reader.timeline().duration_us;
        let at = position_text(self.player.position_us(self.begin.elapsed()).min(duration_us));
        let mark = if self.player.is_paused() { "paused" } else { "replay" };
        let speed = self.player.speed();
        let gap = match self.gap {
            Some((since, bytes)) if since.elapsed() < GAP_SHOWN => format!(" · {bytes} bytes missing here"),
            _ => String::new(),
        };
        let (name, of) = (&self.name, position_text(duration_us));
        self.show(format!("\x1b]2;{mark} {name} {at} / {of} ×{speed}{gap}\x07").into_bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_every_form() {
        assert_eq!(keys(b" q"), [Key::Pause, Key::Leave]);
        assert_eq!(
            keys(b"\x1b[C\x1bOD\x1b[1;1A"),
            [Key::Move(STEP_US), Key::Move(-STEP_US), Key::Move(LEAP_US)]
        );
        assert_eq!(keys(b"\x1b[113u\x1b[99;5u"), [Key::Leave, Key::Leave], "a kitty keyboard");
        assert_eq!(keys(b"+-0x\x1b[<0;1;1M"), [Key::Faster, Key::Slower, Key::Begin]);
        assert_eq!(keys(b"\x1b["), []);
    }

    #[test]
    fn positions_are_short() {
        assert_eq!(position_text(0), "0:00");
        assert_eq!(position_text(83_999_999), "1:23");
        assert_eq!(position_text(3_723_000_000), "1:02:03");
    }
}
