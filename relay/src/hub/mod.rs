//! Live links of machines and sockets of browsers, and what flows between them.
//!
//! Terminal bytes go from the task that reads a machine's link into the ring of the session's [`terminal`], and from there
//! to the tasks that write the viewers' sockets; nothing waits, and no viewer can hold up another. Everything that needs
//! the directory (the database) happens beside that path. In a fleet this hub serves the machines whose link it holds.

pub mod directory;
pub(crate) mod guard;
pub(crate) mod link;
pub(crate) mod outbox;
pub(crate) mod recorder;
pub(crate) mod socket;
pub(crate) mod terminal;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::wire::agent::{Op, RelayMessage, Reply};
use claudenest_shared::wire::browser::ServerMessage;
use claudenest_shared::wire::limits::MAX_ATTACHMENTS;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::directory::{DbDirectory, Directory, DirectoryError, LinkState};
use self::link::Link;
use self::outbox::{Outgoing, to_json};
use self::socket::{Attachment, Socket};
use self::terminal::Terminal;
use self::terminal::core::{Attach, ViewerId};
use crate::clock::Clock;
use crate::db::Db;

/// How often the directory is asked whether the logins of open sockets and the tokens of open links are still valid. A
/// revocation elsewhere in a fleet, by the command line, or by a request that was cut off, must close them within 5 s.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// WebSocket close codes, see docs/PROTOCOL.md.
pub(crate) mod close_code {
    /// A message was malformed; the reason says which.
    pub(crate) const PROTOCOL: u16 = 4400;
    /// Not or no longer authenticated.
    pub(crate) const UNAUTHENTICATED: u16 = 4401;
    /// A newer link of the same machine is up.
    pub(crate) const REPLACED: u16 = 4409;
    /// The relay goes away, or cannot serve now.
    pub(crate) const RESTARTING: u16 = 4503;
}

/// Why a machine's link is closed by the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectReason {
    /// Its token was revoked (close code 4401).
    Revoked,
}

#[derive(Default)]
struct MachineEntry {
    link: Option<Arc<Link>>,
    terminals: HashMap<SessionId, Arc<Terminal>>,
}

impl MachineEntry {
    fn is_empty(&self) -> bool {
        self.link.is_none() && self.terminals.is_empty()
    }
}

#[derive(Default)]
struct Registry {
    machines: HashMap<MachineId, MachineEntry>,
    sockets: HashMap<UserId, Vec<Arc<Socket>>>,
    is_closing: bool,
}

struct Inner {
    directory: Arc<dyn Directory>,
    clock: Clock,
    registry: Mutex<Registry>,
    is_watching: AtomicBool,
}

/// Handle of the hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

impl Hub {
    /// Starts an empty hub on the relay's database.
    pub fn new(db: Db, clock: Clock, history_bytes: u64) -> Self {
        Self::with_directory(Arc::new(DbDirectory::new(db, clock.clone(), history_bytes)), clock)
    }

    /// Starts an empty hub on any directory.
    pub fn with_directory(directory: Arc<dyn Directory>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            directory,
            clock,
            registry: Mutex::default(),
            is_watching: AtomicBool::new(false),
        }))
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory(&self) -> &dyn Directory {
        &*self.0.directory
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Asks a machine to do something and waits for its answer, at most `timeout`.
    ///
    /// # Errors
    /// `machine_offline`, `machine_timeout`, or the machine's own refusal.
    ///
    /// # Cancel safety
    /// Dropping it forgets the answer; the machine does what was asked.
    pub async fn request(&self, machine: MachineId, op: Op, timeout: Duration) -> Result<Reply, WireError> {
        let link = self.link(machine).ok_or_else(link::offline)?;
        link.request(op, timeout).await
    }

    /// True if the machine's link is up.
    pub fn is_online(&self, machine: MachineId) -> bool {
        self.link(machine).is_some()
    }

    /// Closes the machine's link, if there is one.
    pub fn disconnect_machine(&self, machine: MachineId, reason: DisconnectReason) {
        let Some(link) = self.link(machine) else { return };
        match reason {
            DisconnectReason::Revoked => self.revoke(&link),
        }
    }

    fn revoke(&self, link: &Arc<Link>) {
        let message = "This machine was removed from the relay. Pair it again: claudenest-agent pair".into();
        let last = Outgoing::json(&RelayMessage::Revoked { message });
        link.out.close(close_code::UNAUTHENTICATED, "revoked", Some(last));
        // Nothing of a revoked machine is forwarded any more, even if it never reads its close frame.
        self.link_down(link);
    }

    /// Closes every socket of a browser login.
    pub fn disconnect_login(&self, login: Uuid) {
        for socket in self.sockets().into_iter().filter(|socket| socket.login == login) {
            let error = WireError::new(ErrorCode::Revoked, "This login was ended. Log in again.");
            let last = Outgoing::json(&ServerMessage::Closing { error, retry_after_ms: None });
            socket.out.close(close_code::UNAUTHENTICATED, "login ended", Some(last));
        }
    }

    /// Sends a message to every socket of a user.
    pub fn publish(&self, user: UserId, message: ServerMessage) {
        let sockets = self.registry().sockets.get(&user).cloned().unwrap_or_default();
        if sockets.is_empty() {
            return;
        }
        let text = to_json(&message);
        for socket in sockets {
            socket.event(&text);
        }
    }

    /// Tells every peer that the relay restarts, and closes their sockets. New ones are turned away.
    ///
    /// # Cancel safety
    /// Does not wait; the sockets' own tasks end afterwards.
    pub async fn restarting(&self, retry_after: Duration) {
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        let links: Vec<Arc<Link>> = {
            let mut registry = self.registry();
            registry.is_closing = true;
            registry.machines.values().filter_map(|entry| entry.link.clone()).collect()
        };
        for link in links {
            let last = Outgoing::json(&RelayMessage::Restarting { retry_after_ms });
            link.out.close(close_code::RESTARTING, "restarting", Some(last));
        }
        let error =
            WireError::new(ErrorCode::Unavailable, "The relay restarts. This page reconnects by itself.");
        let last = Outgoing::json(&ServerMessage::Closing { error, retry_after_ms: Some(retry_after_ms) });
        for socket in self.sockets() {
            socket.out.close(close_code::RESTARTING, "restarting", Some(last.clone()));
        }
    }

    fn link(&self, machine: MachineId) -> Option<Arc<Link>> {
        self.registry().machines.get(&machine)?.link.clone()
    }

    fn sockets(&self) -> Vec<Arc<Socket>> {
        self.registry().sockets.values().flatten().cloned().collect()
    }

    /// Makes a new link the machine's link; an older one is closed. False if a newer one is up or the relay is closing.
    pub(crate) fn link_up(&self, link: &Arc<Link>) -> bool {
        let mut registry = self.registry();
        if registry.is_closing {
            return false;
        }
        let entry = registry.machines.entry(link.machine).or_default();
        if entry.link.as_ref().is_some_and(|present| present.epoch >= link.epoch) {
            return false;
        }
        if let Some(old) = entry.link.replace(Arc::clone(link)) {
            old.down();
            old.out.close(close_code::REPLACED, "a newer link of this machine is up", None);
        }
        for terminal in entry.terminals.values() {
            terminal.link_up(link);
        }
        true
    }

    /// The link is gone. True if it was the machine's present link.
    pub(crate) fn link_down(&self, link: &Arc<Link>) -> bool {
        link.down();
        let mut registry = self.registry();
        let Some(entry) = registry.machines.get_mut(&link.machine) else { return false };
        if !entry.link.as_ref().is_some_and(|present| Arc::ptr_eq(present, link)) {
            return false;
        }
        entry.link = None;
        for terminal in entry.terminals.values() {
            terminal.link_down(link);
        }
        if entry.is_empty() {
            registry.machines.remove(&link.machine);
        }
        true
    }

    /// A machine says which epoch one of its sessions is in.
    pub(crate) fn named_epoch(&self, machine: MachineId, session: SessionId, epoch: u32) {
        let terminal =
            self.registry().machines.get(&machine).and_then(|entry| entry.terminals.get(&session)).cloned();
        if let Some(terminal) = terminal {
            terminal.named_epoch(epoch);
        }
    }

    /// Reads a machine from the directory and tells its user.
    pub(crate) async fn publish_machine(
        &self,
        user: UserId,
        machine: MachineId,
    ) -> Result<(), DirectoryError> {
        if let Some(machine) = self.directory().machine(user, machine).await? {
            self.publish(user, ServerMessage::Machine { machine: Box::new(machine) });
        }
        Ok(())
    }

    /// Adds a socket of a browser. False if the relay is closing.
    pub(crate) fn join(&self, socket: &Arc<Socket>) -> bool {
        let mut registry = self.registry();
        if registry.is_closing {
            return false;
        }
        registry.sockets.entry(socket.user).or_default().push(Arc::clone(socket));
        true
    }

    /// Removes a socket and its attachments.
    pub(crate) fn leave(&self, socket: &Arc<Socket>) {
        {
            let mut registry = self.registry();
            if let Some(sockets) = registry.sockets.get_mut(&socket.user) {
                sockets.retain(|other| !Arc::ptr_eq(other, socket));
                if sockets.is_empty() {
                    registry.sockets.remove(&socket.user);
                }
            }
        }
        for attachment in socket.take_all() {
            self.detach(&attachment);
        }
    }

    /// The linked machine of that user that has named the session.
    ///
    /// Asked before the directory: a session that its machine has just named may not be there yet, and a directory that
    /// is away keeps nobody from a machine that is there.
    pub(crate) fn linked_machine_of(&self, user: UserId, session: SessionId) -> Option<MachineId> {
        let registry = self.registry();
        let links = registry.machines.values().filter_map(|entry| entry.link.as_ref());
        links.filter(|link| link.user == user && link.has_session(session)).map(|link| link.machine).next()
    }

    /// Attaches a free slot of a socket to a session's terminal.
    pub(crate) fn attach(
        &self,
        machine: MachineId,
        session: SessionId,
        wish: Attach,
        socket: &Arc<Socket>,
    ) -> Result<ViewerId, WireError> {
        let channel = wish.channel;
        // One lock from looking up the link to adding the viewer: no link can come or go unnoticed in between.
        let mut registry = self.registry();
        let sockets = registry.sockets.get(&socket.user);
        if !sockets.is_some_and(|sockets| sockets.iter().any(|joined| Arc::ptr_eq(joined, socket))) {
            return Err(WireError::new(ErrorCode::Unavailable, "This connection has ended."));
        }
        let Some(slot) = socket.free_slot() else {
            return Err(WireError::new(
                ErrorCode::Conflict,
                format!("This page has {MAX_ATTACHMENTS} terminals open. Close one to open another."),
            ));
        };
        let entry = registry.machines.entry(machine).or_default();
        let link = entry.link.clone();
        let terminal = Arc::clone(
            entry.terminals.entry(session).or_insert_with(|| Terminal::new(machine, session, link)),
        );
        let attached = terminal.attach(wish, socket, slot);
        match attached {
            Ok(viewer) => socket.store(slot, Attachment { channel, terminal, viewer }),
            Err(_) => Self::release(&mut registry, &terminal),
        }
        attached
    }

    /// Removes a viewer.
    pub(crate) fn detach(&self, attachment: &Attachment) {
        let mut registry = self.registry();
        if attachment.terminal.detach(attachment.viewer) {
            Self::release(&mut registry, &attachment.terminal);
        }
    }

    /// Forgets a terminal that nobody watches.
    fn release(registry: &mut Registry, terminal: &Arc<Terminal>) {
        let Some(entry) = registry.machines.get_mut(&terminal.machine) else { return };
        let is_known =
            entry.terminals.get(&terminal.session).is_some_and(|known| Arc::ptr_eq(known, terminal));
        if is_known && terminal.is_idle() {
            entry.terminals.remove(&terminal.session);
        }
        if entry.is_empty() {
            registry.machines.remove(&terminal.machine);
        }
    }

    /// True for the first caller, who must see to it that [`Hub::watch`] runs.
    pub(crate) fn is_first_watch(&self) -> bool {
        !self.0.is_watching.swap(true, Ordering::AcqRel)
    }

    /// Ends sockets and links whose login or token has ended elsewhere, until `shutdown`.
    pub(crate) async fn watch(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            let (logins, links) = tokio::join!(self.check_logins(), self.check_links());
            // They stay: a database that is away ends nobody's terminal.
            if let Err(error) = logins.and(links) {
                tracing::warn!(%error, "logins and links that are open could not be checked");
            }
        }
    }

    async fn check_logins(&self) -> Result<(), DirectoryError> {
        let mut logins: Vec<Uuid> = self.sockets().iter().map(|socket| socket.login).collect();
        logins.sort_unstable();
        logins.dedup();
        if logins.is_empty() {
            return Ok(());
        }
        let valid = self.directory().valid_logins(&logins).await?;
        for login in logins.into_iter().filter(|login| !valid.contains(login)) {
            self.disconnect_login(login);
        }
        Ok(())
    }

    async fn check_links(&self) -> Result<(), DirectoryError> {
        let links: Vec<Arc<Link>> =
            self.registry().machines.values().filter_map(|entry| entry.link.clone()).collect();
        if links.is_empty() {
            return Ok(());
        }
        let named: Vec<(MachineId, u64)> = links.iter().map(|link| (link.machine, link.epoch)).collect();
        let states = self.directory().link_states(&named).await?;
        for (link, state) in links.iter().zip(states) {
            match state {
                LinkState::Current => {}
                LinkState::Revoked => self.revoke(link),
                LinkState::Replaced => {
                    link.out.close(close_code::REPLACED, "this link is outdated", None);
                    self.link_down(link);
                }
            }
        }
        Ok(())
    }
}

/// True if `link` is its machine's present link.
pub(crate) fn is_current(hub: &Hub, link: &Link) -> bool {
    hub.link(link.machine).is_some_and(|present| std::ptr::eq(&*present, link))
}
