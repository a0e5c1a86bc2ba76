//! Tells a relay of approvals and locks: all of them once, then what changes. The relay's copies follow this machine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use claudenest_shared::approval::Approval;
use claudenest_shared::id::LockId;
use claudenest_shared::lock::LockEnd;
use claudenest_shared::wire::agent::{AgentMessage, Reply};
use claudenest_shared::wire::limits::MAX_TEXT_BYTES;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;

use super::actor::LinkHost;
use crate::channel::Outgoing;
use crate::guard::GuardEvent;

/// Pause before the store is read again after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// What an approval may take of a message, which holds its envelope as well.
const MAX_APPROVAL_BYTES: usize = MAX_TEXT_BYTES - 4 * 1024;

/// The connection is over.
struct Over;

/// Tells all, then changes, until the connection is over.
pub(super) async fn tell<H: LinkHost>(
    host: Arc<H>,
    out: mpsc::Sender<Outgoing>,
    mut events: broadcast::Receiver<GuardEvent>,
) {
    let mut told = BTreeSet::new();
    while tell_all(&*host, &out, &mut told).await.is_ok() {
        loop {
            let message = match events.recv().await {
                Ok(GuardEvent::Approval(approval)) => approval_message(*approval),
                Ok(GuardEvent::Lock(lock)) => {
                    told.insert(lock.id);
                    AgentMessage::Lock { lock }
                }
                Ok(GuardEvent::LockEnded { lock, end }) => {
                    told.remove(&lock);
                    AgentMessage::LockEnded { lock, end }
                }
                // Some were missed: everything is told again.
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if send(&out, message).await.is_err() {
                return;
            }
        }
    }
}

/// Tells everything, and what has ended of the locks that were told before.
async fn tell_all<H: LinkHost>(
    host: &H,
    out: &mpsc::Sender<Outgoing>,
    told: &mut BTreeSet<LockId>,
) -> Result<(), Over> {
    let approvals = loop {
        match host.approvals().await {
            Ok(approvals) => break approvals,
            Err(error) => {
                tracing::warn!(%error, "a relay waits to be told of approvals: they could not be read");
                sleep(RETRY_PAUSE).await;
            }
        }
    };
    for approval in approvals {
        send(out, approval_message(approval)).await?;
    }
    send(out, AgentMessage::ApprovalsSent {}).await?;
    let locks = host.locks();
    let ids: BTreeSet<LockId> = locks.iter().map(|lock| lock.id).collect();
    for lock in locks {
        send(out, AgentMessage::Lock { lock: Box::new(lock) }).await?;
    }
    for lock in std::mem::replace(told, ids).difference(told) {
        // How it ended was missed as well.
        send(out, AgentMessage::LockEnded { lock: *lock, end: LockEnd::Released }).await?;
    }
    send(out, AgentMessage::LocksSent {}).await
}

async fn send(out: &mpsc::Sender<Outgoing>, message: AgentMessage) -> Result<(), Over> {
    out.send(Outgoing::Message(message)).await.map_err(|_| Over)
}

fn approval_message(mut approval: Approval) -> AgentMessage {
    fit(&mut approval);
    AgentMessage::Approval { approval: Box::new(approval) }
}

/// Makes an answer fit into a message.
pub(super) fn fit_reply(mut reply: Reply) -> Reply {
    if let Reply::Approval { approval } = &mut reply {
        fit(approval);
    }
    reply
}

/// Leaves out what a message has no room for: escaped, an input or a diff can take several times its length. The digest
/// stays that of the exact input.
fn fit(approval: &mut Approval) {
    let is_fitting = |approval: &Approval| {
        serde_json::to_string(approval).is_ok_and(|text| text.len() <= MAX_APPROVAL_BYTES)
    };
    if !is_fitting(approval) {
        approval.diff = None;
    }
    if !is_fitting(approval) {
        approval.input = Value::Null;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn approval(input: Value, diff: &str) -> Approval {
        serde_json::from_value(json!({
            "id": "01900000-0000-7000-8000-000000000001", "session": "01900000-0000-7000-8000-000000000002",
            "session_name": "a", "kind": "tool", "tool": "Bash", "summary": "s", "input": input,
            "input_sha256": "d", "diff": diff, "cwd": "/", "risk": "low", "why": "w", "state": "pending",
            "state_since": 0, "created_at": 0, "version": 1,
        }))
        .unwrap()
    }

    #[test]
    fn what_has_no_room_in_a_message_is_left_out_and_the_rest_stays() {
        let escapes = "\u{1}".repeat(30 * 1024);
        let cases = [
            (json!({ "command": "ls" }), "d", (true, true)),
            (json!({ "command": "x".repeat(100 * 1024) }), &*escapes, (true, false)),
            (json!({ "command": "\u{1}".repeat(100 * 1024) }), "d", (false, false)),
        ];
        for (input, diff, (has_input, has_diff)) in cases {
            let reply = fit_reply(Reply::Approval { approval: Box::new(approval(input, diff)) });
            let Reply::Approval { approval } = &reply else { panic!("another reply") };
            assert_eq!((!approval.input.is_null(), approval.diff.is_some()), (has_input, has_diff));
            assert_eq!(approval.input_sha256, "d");
            let message = AgentMessage::Response { request: u64::MAX, reply };
            assert!(serde_json::to_string(&message).unwrap().len() <= MAX_TEXT_BYTES);
        }
    }
}
