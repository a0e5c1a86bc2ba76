//! What a client hears that has subscribed: everything as it is, then every change.

use std::collections::BTreeSet;

use claudenest_shared::id::SessionId;
use claudenest_shared::wire::agent::AgentMessage;
use tokio::sync::broadcast;

use super::DaemonMessage;
use super::server::{Answers, send};
use crate::guard::{Guard, GuardEvent};
use crate::supervisor::{SessionEvent, Supervisor};

/// Sends every session, then every change. After a lag, sends everything again and what is gone.
pub(super) async fn tell_changes(supervisor: &Supervisor, answers: &Answers) {
    let mut events = supervisor.subscribe();
    let mut known: BTreeSet<SessionId> = BTreeSet::new();
    let mut is_behind = true;
    loop {
        if is_behind {
            let sessions = supervisor.sessions();
            let now: BTreeSet<SessionId> = sessions.iter().map(|info| info.id).collect();
            for session in known.difference(&now) {
                send(answers, &AgentMessage::SessionRemoved { session: *session }).await;
            }
            for info in sessions {
                send(answers, &AgentMessage::Session { session: Box::new(info) }).await;
            }
            known = now;
        }
        is_behind = false;
        match events.recv().await {
            Ok(SessionEvent::Changed(info)) => {
                known.insert(info.id);
                send(answers, &AgentMessage::Session { session: info }).await;
            }
            Ok(SessionEvent::Removed(session)) => {
                known.remove(&session);
                send(answers, &AgentMessage::SessionRemoved { session }).await;
            }
            Err(broadcast::error::RecvError::Lagged(_)) => is_behind = true,
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Sends approvals and locks, then every change of them. After a lag, sends everything again.
pub(super) async fn tell_guard(guard: &Guard, answers: &Answers) {
    let (mut events, mut alerts) = (guard.subscribe(), guard.alerts());
    let mut is_behind = true;
    loop {
        if is_behind {
            match guard.told().await {
                Ok(approvals) => {
                    for approval in approvals {
                        send(answers, &AgentMessage::Approval { approval: Box::new(approval) }).await;
                    }
                    send(answers, &AgentMessage::ApprovalsSent {}).await;
                }
                Err(error) => send(answers, &DaemonMessage::Failed { request: 0, error }).await,
            }
            for lock in guard.locks().list() {
                send(answers, &AgentMessage::Lock { lock: Box::new(lock) }).await;
            }
            send(answers, &AgentMessage::LocksSent {}).await;
        }
        is_behind = false;
        let event = tokio::select! {
            event = events.recv() => event,
            alert = alerts.recv() => {
                // Who is behind finds the alerts in the audit log.
                if let Ok(alert) = alert {
                    send(answers, &DaemonMessage::LockAlert { alert: Box::new(alert) }).await;
                }
                continue;
            }
        };
        match event {
            Ok(GuardEvent::Approval(approval)) => send(answers, &AgentMessage::Approval { approval }).await,
            Ok(GuardEvent::Lock(lock)) => send(answers, &AgentMessage::Lock { lock }).await,
            Ok(GuardEvent::LockEnded { lock, end }) => {
                send(answers, &AgentMessage::LockEnded { lock, end }).await;
            }
            Err(broadcast::error::RecvError::Lagged(_)) => is_behind = true,
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
