//! A directory in memory, with the database's rules.

use std::collections::BTreeMap;
use std::sync::Mutex;

use claudenest_shared::approval::Approval;
use claudenest_shared::history::{HistoryOutcome, HistoryPosition};
use claudenest_shared::id::{ApprovalId, LockId, MachineId, SessionId, UserId};
use claudenest_shared::lock::Lock;
use claudenest_shared::machine::{MachineFacts, MachineState};
use claudenest_shared::session::SessionInfo;
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::browser::{ApprovalInfo, MachineInfo};
use uuid::Uuid;

use crate::db::history::NewChunk;
use crate::hub::directory::{Answer, Directory, KnownLogin, KnownMachine, LinkState, UserState};

#[derive(Default)]
pub(super) struct State {
    pub(super) machines: BTreeMap<[u8; 32], KnownMachine>,
    pub(super) states: BTreeMap<MachineId, (MachineState, u64)>,
    pub(super) sessions: BTreeMap<(MachineId, SessionId), SessionInfo>,
    pub(super) tickets: BTreeMap<String, KnownLogin>,
    pub(super) ended_logins: Vec<Uuid>,
    pub(super) history: BTreeMap<(MachineId, SessionId, u32), u64>,
    pub(super) approvals: BTreeMap<(MachineId, ApprovalId), (u64, Approval)>,
    pub(super) locks: BTreeMap<(MachineId, LockId), (u64, Lock)>,
}

#[derive(Default)]
pub(super) struct MemoryDirectory(pub(super) Mutex<State>);

impl MemoryDirectory {
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }

    fn answer<'a, R: Send + 'a>(&'a self, read: impl FnOnce(&mut State) -> R + Send + 'a) -> Answer<'a, R> {
        Box::pin(async move { Ok(self.with(read)) })
    }
}

fn is_present(state: &State, machine: MachineId, epoch: u64) -> bool {
    state.states.get(&machine).is_some_and(|(_, present)| *present == epoch)
}

fn info(state: &State, machine: &KnownMachine) -> MachineInfo {
    let found = state.states.get(&machine.id).map_or(MachineState::NeverConnected, |(state, _)| *state);
    MachineInfo {
        id: machine.id,
        name: machine.name.clone(),
        state: if machine.is_revoked { MachineState::Revoked } else { found },
        state_since: UnixMs(0),
        last_seen_at: None,
        paired_at: UnixMs(0),
        facts: MachineFacts::default(),
    }
}

impl Directory for MemoryDirectory {
    fn machine_by_token(&self, digest: [u8; 32]) -> Answer<'_, Option<KnownMachine>> {
        self.answer(move |state| state.machines.get(&digest).cloned())
    }

    fn connect<'a>(&'a self, machine: MachineId, _: &'a MachineFacts) -> Answer<'a, Option<u64>> {
        self.answer(move |state| {
            let entry = state.states.entry(machine).or_insert((MachineState::Online, 0));
            *entry = (MachineState::Online, entry.1 + 1);
            Some(entry.1)
        })
    }

    fn set_state(&self, machine: MachineId, epoch: u64, new: MachineState) -> Answer<'_, bool> {
        self.answer(move |state| {
            let is_present = is_present(state, machine, epoch);
            if is_present {
                state.states.insert(machine, (new, epoch));
            }
            is_present
        })
    }

    fn set_facts<'a>(&'a self, machine: MachineId, epoch: u64, _: &'a MachineFacts) -> Answer<'a, bool> {
        self.answer(move |state| is_present(state, machine, epoch))
    }

    fn unpair(&self, machine: MachineId, epoch: u64) -> Answer<'_, bool> {
        self.answer(move |state| {
            if !is_present(state, machine, epoch) {
                return false;
            }
            state
                .machines
                .values_mut()
                .filter(|known| known.id == machine)
                .for_each(|known| known.is_revoked = true);
            true
        })
    }

    fn machine(&self, user: UserId, machine: MachineId) -> Answer<'_, Option<MachineInfo>> {
        self.answer(move |state| {
            let known = state.machines.values().find(|known| known.id == machine && known.user == user)?;
            Some(info(state, known))
        })
    }

    fn set_sessions<'a>(&'a self, machine: MachineId, sessions: &'a [SessionInfo]) -> Answer<'a, ()> {
        self.answer(move |state| {
            for session in sessions {
                state.sessions.insert((machine, session.id), session.clone());
            }
        })
    }

    fn replace_sessions<'a>(
        &'a self,
        machine: MachineId,
        sessions: &'a [SessionInfo],
        others: &'a [SessionId],
    ) -> Answer<'a, Vec<SessionId>> {
        self.answer(move |state| {
            let is_gone = |(of, id): &(MachineId, SessionId)| {
                *of == machine && !others.contains(id) && !sessions.iter().any(|session| session.id == *id)
            };
            let gone: Vec<_> = state.sessions.keys().filter(|key| is_gone(key)).copied().collect();
            for key in &gone {
                state.sessions.remove(key);
            }
            for session in sessions {
                state.sessions.insert((machine, session.id), session.clone());
            }
            gone.into_iter().map(|(_, id)| id).collect()
        })
    }

    fn remove_session(&self, machine: MachineId, session: SessionId) -> Answer<'_, ()> {
        self.answer(move |state| {
            state.sessions.remove(&(machine, session));
        })
    }

    fn machine_of_session(&self, user: UserId, session: SessionId) -> Answer<'_, Option<MachineId>> {
        self.answer(move |state| {
            let owned =
                |id: &MachineId| state.machines.values().any(|known| known.id == *id && known.user == user);
            let mut keys = state.sessions.keys();
            keys.find(|(machine, id)| *id == session && owned(machine)).map(|(machine, _)| *machine)
        })
    }

    fn set_approval<'a>(
        &'a self,
        machine: MachineId,
        epoch: u64,
        approval: &'a Approval,
    ) -> Answer<'a, bool> {
        self.answer(move |state| {
            let key = (machine, approval.id);
            let known = state.approvals.get(&key).map(|(epoch, known)| (*epoch, known.version));
            let is_news = known.is_none_or(|known| known <= (epoch, approval.version));
            if is_news {
                state.approvals.insert(key, (epoch, approval.clone()));
            }
            is_news
        })
    }

    fn forget_approvals(&self, machine: MachineId, epoch: u64) -> Answer<'_, Vec<ApprovalId>> {
        self.answer(move |state| {
            let gone: Vec<_> = state
                .approvals
                .iter()
                .filter(|((of, _), (named, known))| {
                    *of == machine && *named < epoch && !known.state.is_final()
                })
                .map(|(key, _)| *key)
                .collect();
            gone.iter().for_each(|key| drop(state.approvals.remove(key)));
            gone.into_iter().map(|(_, id)| id).collect()
        })
    }

    fn set_lock<'a>(&'a self, machine: MachineId, epoch: u64, lock: &'a Lock) -> Answer<'a, bool> {
        self.answer(move |state| {
            state.locks.insert((machine, lock.id), (epoch, lock.clone()));
            true
        })
    }

    fn remove_lock(&self, machine: MachineId, lock: LockId) -> Answer<'_, bool> {
        self.answer(move |state| state.locks.remove(&(machine, lock)).is_some())
    }

    fn forget_locks(&self, machine: MachineId, epoch: u64) -> Answer<'_, Vec<LockId>> {
        self.answer(move |state| {
            let is_gone = |((of, _), (named, _)): &(&(MachineId, LockId), &(u64, Lock))| {
                *of == machine && *named < epoch
            };
            let gone: Vec<_> = state.locks.iter().filter(is_gone).map(|(key, _)| *key).collect();
            gone.iter().for_each(|key| drop(state.locks.remove(key)));
            gone.into_iter().map(|(_, id)| id).collect()
        })
    }

    fn state_of(&self, user: UserId) -> Answer<'_, UserState> {
        self.answer(move |state| {
            let known: Vec<_> = state.machines.values().filter(|known| known.user == user).collect();
            let is_owned = |machine: &MachineId| known.iter().any(|known| known.id == *machine);
            let sessions = state
                .sessions
                .iter()
                .filter(|((machine, _), _)| is_owned(machine))
                .map(|((machine, _), session)| SessionInfo { machine_id: Some(*machine), ..session.clone() })
                .collect();
            let approvals = state
                .approvals
                .iter()
                .filter(|((machine, _), (_, approval))| is_owned(machine) && !approval.state.is_final())
                .map(|((machine, _), (_, approval))| {
                    let approval = Approval { machine_id: Some(*machine), ..approval.clone() };
                    ApprovalInfo::new(approval, usize::MAX)
                })
                .collect();
            let locks = state
                .locks
                .iter()
                .filter(|((machine, _), _)| is_owned(machine))
                .map(|((machine, _), (_, lock))| Lock { machine_id: Some(*machine), ..lock.clone() })
                .collect();
            let machines = known.into_iter().map(|known| info(state, known)).collect();
            UserState { machines, sessions, approvals, locks }
        })
    }

    fn history_have<'a>(
        &'a self,
        machine: MachineId,
        runs: &'a [HistoryPosition],
    ) -> Answer<'a, Vec<HistoryPosition>> {
        self.answer(move |state| {
            let end = |run: &HistoryPosition| {
                state.history.get(&(machine, run.session, run.epoch)).copied().unwrap_or_default()
            };
            runs.iter().map(|run| HistoryPosition { end: end(run), ..*run }).collect()
        })
    }

    fn store_history<'a>(
        &'a self,
        machine: MachineId,
        chunk: &'a NewChunk,
    ) -> Answer<'a, (u64, HistoryOutcome)> {
        self.answer(move |state| {
            let end = state.history.entry((machine, chunk.session, chunk.epoch)).or_default();
            if *end != chunk.head.from {
                return (*end, HistoryOutcome::Elsewhere);
            }
            *end = chunk.head.end;
            (*end, HistoryOutcome::Stored)
        })
    }

    fn redeem<'a>(&'a self, ticket: &'a str) -> Answer<'a, Option<KnownLogin>> {
        self.answer(move |state| state.tickets.remove(ticket))
    }

    fn valid_logins<'a>(&'a self, logins: &'a [Uuid]) -> Answer<'a, Vec<Uuid>> {
        self.answer(move |state| {
            logins.iter().filter(|login| !state.ended_logins.contains(login)).copied().collect()
        })
    }

    fn link_states<'a>(&'a self, links: &'a [(MachineId, u64)]) -> Answer<'a, Vec<LinkState>> {
        self.answer(move |state| {
            let is_revoked =
                |id: MachineId| state.machines.values().any(|known| known.id == id && known.is_revoked);
            let of = |(machine, epoch): &(MachineId, u64)| match (
                is_revoked(*machine),
                is_present(state, *machine, *epoch),
            ) {
                (true, _) => LinkState::Revoked,
                (false, true) => LinkState::Current,
                (false, false) => LinkState::Replaced,
            };
            links.iter().map(of).collect()
        })
    }
}
