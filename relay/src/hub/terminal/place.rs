//! Where viewers are: placing them, moving them between streams, and handing them their output.

use claudenest_shared::wire::agent::StreamPosition;
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_shared::wire::limits::DEFAULT_LAG_LIMIT_BYTES;

use super::core::{Core, Effect, Pulled, Role, ViewerId, out_of_order};
use super::ring::RING_BYTES;
use super::track::Track;
use super::viewer::{Cursor, Item, Place, Stop, Viewer};

/// A snapshot in the ring serves a late viewer if no more than this came after it; otherwise a new one is asked for.
const SNAPSHOT_REUSE_BYTES: u64 = 64 * 1024;

impl Core {
    /// Moves what the viewer may have now to `out`, about `budget` bytes of it.
    pub(crate) fn pull(&mut self, id: ViewerId, mut budget: usize, out: &mut Vec<Item>) -> Pulled {
        let Some(viewer) = self.viewers.get_mut(&id) else { return Pulled::Gone };
        if let Some(error) = viewer.closing.take() {
            out.push(Item::Message(ServerMessage::Detached { channel: viewer.channel, error }));
            self.detach(id);
            return Pulled::Gone;
        }
        if let Some(is_up) = viewer.link_notice.take() {
            out.push(Item::Message(ServerMessage::Link { channel: viewer.channel, is_up }));
        }
        let is_open = match &viewer.place {
            Place::Wanting => false,
            Place::Own(track, _) => track.is_open(),
            Place::Awaiting | Place::Following(_) => self.shared.is_open(),
        };
        if is_open && !viewer.is_attached && viewer.is_writer_settled() {
            let position = self.shared.ring.position().filter(|position| position.epoch == self.epoch);
            viewer.is_attached = true;
            viewer.was_attached = true;
            out.push(Item::Message(ServerMessage::Attached {
                channel: viewer.channel,
                epoch: self.epoch,
                head: self.head.max(position.map_or(0, |position| position.offset)),
                size: self.size,
                acked: viewer.writer.as_ref().and_then(|writer| writer.acked),
            }));
        }
        viewer.take_acks(self.session, out);
        if viewer.was_attached { self.pull_output(id, &mut budget, out) } else { Pulled::All }
    }

    fn pull_output(&mut self, id: ViewerId, budget: &mut usize, out: &mut Vec<Item>) -> Pulled {
        // Each turn but the last changes the place; three turns reach any place from any other.
        for _ in 0..4 {
            let Some(viewer) = self.viewers.get_mut(&id) else { return Pulled::Gone };
            match std::mem::replace(&mut viewer.place, Place::Wanting) {
                Place::Following(cursor) => {
                    if let Some(pulled) = self.pull_shared(id, cursor, budget, out) {
                        return pulled;
                    }
                }
                Place::Own(track, cursor) => {
                    if let Some(pulled) = self.pull_own(id, track, cursor, budget, out) {
                        return pulled;
                    }
                }
                place => {
                    viewer.place = place;
                    return Pulled::All;
                }
            }
        }
        Pulled::All
    }

    /// Delivers from the shared ring; absent if the viewer has got another place instead.
    fn pull_shared(
        &mut self,
        id: ViewerId,
        mut cursor: Cursor,
        budget: &mut usize,
        out: &mut Vec<Item>,
    ) -> Option<Pulled> {
        let viewer = self.viewers.get_mut(&id)?;
        let ring = &mut self.shared.ring;
        if cursor.seq < ring.first_seq()
            && let Some(seq) = viewer.position.and_then(|position| match ring.is_behind(position) {
                true => Some(ring.end_seq()),
                false => ring.locate_whole(position),
            })
        {
            cursor = Cursor::at(seq); // What has left the ring is nothing that it lacks.
        }
        let has_fallen_out = cursor.seq < ring.first_seq();
        if viewer.has_credit() {
            // Decided only now: a viewer that takes nothing costs nothing.
            let lag = ring.lag(cursor.seq, viewer.position);
            if has_fallen_out && viewer.wants_every_byte() && viewer.position.is_some() {
                self.open_own(id);
                return None;
            }
            if has_fallen_out || (lag > viewer.lag_limit && !cursor.takes_snapshot) {
                self.jump(id);
                return None;
            }
        }
        let stop = if has_fallen_out {
            Stop::Dry
        } else {
            viewer.deliver(self.session, ring, &mut cursor, budget, out)
        };
        viewer.place = Place::Following(cursor);
        if !has_fallen_out {
            let taken = ring.index_of(cursor.seq);
            self.shared.consume(taken, &mut self.effects);
        }
        Some(if stop == Stop::Budget { Pulled::Part } else { Pulled::All })
    }

    /// Delivers from the viewer's own stream, or moves it to the shared one when that has its bytes.
    fn pull_own(
        &mut self,
        id: ViewerId,
        mut track: Box<Track>,
        mut cursor: Cursor,
        budget: &mut usize,
        out: &mut Vec<Item>,
    ) -> Option<Pulled> {
        let viewer = self.viewers.get_mut(&id)?;
        let ring = &self.shared.ring;
        if let Some(seq) = viewer.position.and_then(|position| ring.locate_whole(position)) {
            let lag = ring.received() - ring.index_of(seq);
            // Half of the ring, so that it does not fall out again at once.
            if lag <= viewer.lag_limit.min(RING_BYTES as u64 / 2) {
                viewer.place = Place::Following(Cursor::at(seq));
                self.close_track(*track);
                self.reconcile(); // The shared stream must now be as patient as this viewer.
                return None;
            }
        }
        let stop = viewer.deliver(self.session, &mut track.ring, &mut cursor, budget, out);
        track.ring.trim_to(cursor.seq);
        let taken = track.ring.index_of(cursor.seq);
        track.consume(taken, &mut self.effects);
        let is_over = track.is_over() && cursor.seq == track.ring.end_seq();
        viewer.place = Place::Own(track, cursor);
        if is_over && viewer.position.is_some_and(|position| position.epoch < self.named_epoch) {
            self.leave_own(id); // Its process has ended and another runs: the shared stream has that.
            self.reconcile();
            return Some(Pulled::All);
        }
        Some(match stop {
            Stop::Dry => Pulled::All,
            Stop::Budget => Pulled::Part,
            Stop::FellOut => {
                self.end(id, Some(out_of_order())); // It sent far more than it was granted.
                self.reconcile();
                Pulled::All
            }
        })
    }

    /// The viewer goes on at a snapshot: a new one, or a recent one of the ring.
    fn jump(&mut self, id: ViewerId) {
        let Some(viewer) = self.viewers.get_mut(&id) else { return };
        let ring = &mut self.shared.ring;
        // One behind the viewer would only send it what it has.
        let recent = ring.recent_snapshot(SNAPSHOT_REUSE_BYTES).filter(|seq| {
            let at = ring.get_mut(*seq).map(|entry| StreamPosition { epoch: entry.epoch, offset: entry.offset });
            !matches!((at, viewer.position), (Some(at), Some(here)) if at.epoch == here.epoch && at.offset <= here.offset)
        });
        if let Some(seq) = recent {
            viewer.place = Place::Following(Cursor { seq, takes_snapshot: true });
            self.wake(id);
            return;
        }
        viewer.place = Place::Awaiting;
        // Who waits for a snapshot has given up all bytes before it; without the credit it could not come.
        let received = self.shared.ring.received();
        self.shared.consume(received, &mut self.effects);
        self.want_snapshot();
    }

    /// Asks for a snapshot on the shared stream; one that is over is opened anew for it.
    fn want_snapshot(&mut self) {
        if self.shared.stream.as_ref().is_some_and(|stream| stream.is_over && !stream.awaits_snapshot)
            && let Some(stream) = self.shared.stream.take()
        {
            self.close(stream.key);
            let key = self.role(Role::Shared);
            self.shared.open(key, None, stream.lag_limit, &mut self.effects);
        }
        self.shared.want_snapshot(&mut self.effects);
    }

    /// Gives the viewer a stream of its own from its position; without a link it is placed when that is back.
    fn open_own(&mut self, id: ViewerId) {
        if !self.is_link_up {
            return;
        }
        let key = self.role(Role::Own(id));
        let Some(viewer) = self.viewers.get_mut(&id) else { return };
        let mut track = Box::<Track>::default();
        track.open(key, viewer.position, viewer.lag_limit, &mut self.effects);
        viewer.place = Place::Own(track, Cursor::at(0));
        self.reconcile();
    }

    /// Brings what is open in line with what the viewers need. Called after every event that may change that.
    pub(super) fn reconcile(&mut self) {
        if !self.is_link_up {
            return;
        }
        self.open_writers();
        if !self.active().any(|(_, viewer)| viewer.is_on_shared()) {
            // Nobody follows the shared stream: the viewer that is furthest becomes its first.
            let furthest = self.active().max_by_key(|(_, viewer)| order(viewer.position)).map(|(id, _)| id);
            self.reset_shared();
            let Some(id) = furthest else { return };
            self.leave_own(id);
        }
        let needed = self
            .active()
            .filter(|(_, viewer)| viewer.is_on_shared())
            .map(|(_, viewer)| viewer.lag_limit)
            .fold(DEFAULT_LAG_LIMIT_BYTES, u64::max);
        if self.shared.stream.as_ref().is_some_and(|stream| stream.lag_limit != needed)
            && let Some(stream) = self.shared.stream.take()
        {
            self.close(stream.key); // Opened anew below, from where it is.
        }
        if self.shared.stream.is_none() {
            let wanted = self
                .active()
                .filter(|(_, viewer)| matches!(viewer.place, Place::Wanting))
                .filter_map(|(_, viewer)| viewer.position)
                .max_by_key(|position| order(Some(*position)));
            let from = self.shared.ring.position().or(wanted);
            let key = self.role(Role::Shared);
            self.shared.open(key, from, needed, &mut self.effects);
            return;
        }
        let wanting: Vec<ViewerId> = self
            .active()
            .filter(|(_, viewer)| matches!(viewer.place, Place::Wanting))
            .map(|(id, _)| id)
            .collect();
        for id in wanting {
            // Placing one may place others too, or open the stream anew; the rest is placed when that is open.
            let is_wanting =
                self.viewers.get(&id).is_some_and(|viewer| matches!(viewer.place, Place::Wanting));
            if is_wanting && self.shared.is_open() {
                self.place(id);
            }
        }
        if self.active().any(|(_, viewer)| matches!(viewer.place, Place::Awaiting)) {
            self.want_snapshot();
        }
    }

    /// Finds the place of a viewer that has said what it wants; the shared stream is open.
    fn place(&mut self, id: ViewerId) {
        self.wake(id);
        let is_alone = !self.active().any(|(other, viewer)| other != id && viewer.is_on_shared());
        let (head, epoch) = (self.head, self.epoch);
        let Some(viewer) = self.viewers.get_mut(&id) else { return };
        let Some(wanted) = viewer.position else { return self.jump(id) };
        let ring = &self.shared.ring;
        let asked = self.shared.stream.as_ref().and_then(|stream| stream.asked);
        // Another viewer's older wish may have opened the stream; the bytes up to this one's are skipped.
        let is_ahead = wanted.epoch == epoch && wanted.offset <= head && ring.is_behind(wanted);
        let located = if viewer.wants_every_byte() { ring.locate_whole(wanted) } else { ring.locate(wanted) };
        if let Some(seq) = located {
            viewer.place = Place::Following(Cursor::at(seq));
        } else if is_ahead {
            viewer.place = Place::Following(Cursor::at(ring.end_seq()));
        } else if asked == Some(wanted) {
            self.jump(id); // The machine no longer has these bytes.
        } else if is_alone {
            self.reset_shared();
            self.reconcile();
        } else {
            self.open_own(id);
        }
    }

    fn open_writers(&mut self) {
        let missing: Vec<ViewerId> =
            self.active().filter(|(_, viewer)| viewer.lacks_writer()).map(|(id, _)| id).collect();
        for id in missing {
            let key = self.role(Role::Writer(id));
            let Some(writer) = self.viewers.get_mut(&id).and_then(|viewer| viewer.writer.as_mut()) else {
                continue;
            };
            writer.key = Some(key);
            let (writer, label, may_size) = (writer.id, writer.label.clone(), writer.may_size);
            self.effects.push(Effect::OpenWriter { key, writer, label, may_size });
        }
    }

    fn leave_own(&mut self, id: ViewerId) {
        let Some(viewer) = self.viewers.get_mut(&id) else { return };
        if let Place::Own(track, _) = std::mem::replace(&mut viewer.place, Place::Wanting) {
            self.close_track(*track);
        }
    }

    /// Closes the shared stream and forgets its bytes.
    pub(super) fn reset_shared(&mut self) {
        if let Some(stream) = self.shared.stream.take() {
            self.close(stream.key);
        }
        self.shared.ring.clear();
    }

    pub(super) fn close_track(&mut self, track: Track) {
        if let Some(stream) = track.stream {
            self.close(stream.key);
        }
    }

    /// Viewers that are not about to be told that they are gone.
    fn active(&self) -> impl Iterator<Item = (ViewerId, &Viewer)> {
        self.viewers.iter().filter(|(_, viewer)| viewer.closing.is_none()).map(|(id, viewer)| (*id, viewer))
    }
}

fn order(position: Option<StreamPosition>) -> Option<(u32, u64)> {
    position.map(|position| (position.epoch, position.offset))
}
