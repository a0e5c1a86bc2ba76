//! Approvals: what Claudes on the user's machines ask, and the answers. The relay keeps copies; only the machine decides
//! which answer was the first.

use axum::Json;
use axum::extract::State;
use claudenest_shared::approval::{Answer, Approval, MAX_REASON_CHARS, Verdict};
use claudenest_shared::code::{ErrorCode, WireError};
use claudenest_shared::id::{ApprovalId, MachineId, SessionId};
use claudenest_shared::time::UnixMs;
use claudenest_shared::wire::agent::{Op, Reply};
use claudenest_shared::wire::browser::{ApprovalInfo, ServerMessage};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody};
use super::extract::{Body, Id, Parameters};
use super::machine::{ASK_TIMEOUT, unexpected};
use crate::app::App;
use crate::auth::address::Client;
use crate::auth::login::LoggedIn;
use crate::db::approval::{self, Answered, Place};
use crate::db::audit::{self, Entry};
use crate::hub::directory::MAX_BRIEF_BYTES;

/// Answered approvals of one page.
const MAX_LISTED: u32 = 200;
/// Approvals that one request may answer: more alike ones than a person has sessions.
const MAX_BULK: usize = 100;
/// Longest answers to a question, as JSON.
const MAX_ANSWERS_BYTES: usize = 64 * 1024;
/// How long "always" may last, in seconds; see [`claudenest_shared::approval::Remember`].
const REMEMBER_S: std::ops::RangeInclusive<u32> = 60..=31_536_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(decide_all))
        .routes(routes!(get))
        .routes(routes!(decide))
}

/// Which approvals.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// Those that are not final: nobody has answered, or Claude Code was not seen to follow yet.
    #[default]
    Open,
    /// The others: applied, expired, withdrawn.
    Answered,
}

/// Which approvals.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListApprovals {
    /// Which; `open` when absent.
    #[serde(default)]
    #[param(inline)]
    which: Which,
    /// Only of this machine.
    machine_id: Option<MachineId>,
    /// Only of this session.
    session_id: Option<SessionId>,
    /// Most, 1 to 200; 50 when absent. For `answered` only.
    limit: Option<u32>,
    /// From the last answer's `next`, to go on. For `answered` only.
    cursor: Option<String>,
}

/// Approvals, newest first.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApprovalList {
    /// They; long inputs and diffs are left out of those that are answered.
    pub approvals: Vec<ApprovalInfo>,
    /// For the next request, if there are more.
    pub next: Option<String>,
}

fn cursor_of(place: Place) -> String {
    format!("{}_{}_{}", place.at.0, place.machine, place.approval)
}

fn place_of(cursor: &str) -> Option<Place> {
    let mut parts = cursor.splitn(3, '_');
    let at = UnixMs(parts.next()?.parse().ok()?);
    Some(Place { at, machine: parts.next()?.parse().ok()?, approval: parts.next()?.parse().ok()? })
}

/// Approvals on the user's machines, as last known.
#[utoipa::path(get, path = "/api/approvals", tag = "approvals", params(ListApprovals), responses(
    (status = 200, body = ApprovalList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
async fn list(
    State(app): State<App>,
    user: LoggedIn,
    Parameters(wanted): Parameters<ListApprovals>,
) -> Result<Json<ApprovalList>, ApiError> {
    if wanted.which == Which::Open {
        let (machine, session) = (wanted.machine_id, wanted.session_id);
        let approvals =
            approval::list_open(&app.db, user.user_id(), machine, session, approval::MAX_OPEN).await?;
        let approvals = approvals.into_iter().map(|one| ApprovalInfo::new(one, MAX_BRIEF_BYTES)).collect();
        return Ok(Json(ApprovalList { approvals, next: None }));
    }
    let after = match wanted.cursor.as_deref().map(place_of) {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => {
            return Err(ApiError::new(ErrorCode::BadRequest, "`cursor` is not one of an earlier answer."));
        }
    };
    let limit = wanted.limit.unwrap_or(50).clamp(1, MAX_LISTED) as usize;
    let which = Answered { machine: wanted.machine_id, session: wanted.session_id, after };
    // One more tells whether there are more.
    let mut found = approval::list_answered(&app.db, user.user_id(), which, limit as i64 + 1).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|(_, place)| cursor_of(*place));
    let approvals = found.into_iter().map(|(one, _)| ApprovalInfo::new(one, MAX_BRIEF_BYTES)).collect();
    Ok(Json(ApprovalList { approvals, next }))
}

/// One approval, whole, as last known.
#[utoipa::path(get, path = "/api/machines/{machine_id}/approvals/{id}", tag = "approvals", params(
    ("machine_id" = MachineId, Path, description = "Its machine"),
    ("id" = ApprovalId, Path, description = "The approval")), responses(
    (status = 200, body = Approval), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get(
    State(app): State<App>,
    user: LoggedIn,
    Id((machine, id)): Id<(MachineId, ApprovalId)>,
) -> Result<Json<Approval>, ApiError> {
    Ok(Json(find(&app, &user, machine, id).await?))
}

async fn find(app: &App, user: &LoggedIn, machine: MachineId, id: ApprovalId) -> Result<Approval, ApiError> {
    let found = approval::get(&app.db, user.user_id(), machine, id).await?;
    found.ok_or_else(|| ApiError::not_found("approval"))
}

/// An answer to one approval.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecideApproval {
    /// The digest of what was looked at: the answer is refused if the machine asks something else.
    pub input_sha256: String,
    /// The answer.
    pub answer: Answer,
}

/// Answers an approval. The machine takes the first answer and refuses later ones, saying who was first. While it is away
/// the answer is refused, not kept.
#[utoipa::path(post, path = "/api/machines/{machine_id}/approvals/{id}/decide", tag = "approvals",
    request_body = DecideApproval, params(
    ("machine_id" = MachineId, Path, description = "Its machine"),
    ("id" = ApprovalId, Path, description = "The approval")), responses(
    (status = 200, body = Approval, description = "The approval as it is now, on the machine"),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "Somebody was faster, or the machine is offline"),
    (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
async fn decide(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Id((machine, id)): Id<(MachineId, ApprovalId)>,
    Body(body): Body<DecideApproval>,
) -> Result<Json<Approval>, ApiError> {
    find(&app, &user, machine, id).await?;
    check(&body.answer)?;
    Ok(Json(tell(&app, &user, &client, (machine, id), &body.input_sha256, &body.answer).await?))
}

/// An approval by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApprovalName {
    /// Its machine.
    pub machine_id: MachineId,
    /// It.
    pub id: ApprovalId,
}

/// One answer to several approvals that ask exactly the same.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecideApprovals {
    /// Which, at most 100.
    pub approvals: Vec<ApprovalName>,
    /// The digest of what was looked at, and of every one of them.
    pub input_sha256: String,
    /// The answer.
    pub answer: Answer,
}

/// What became of one of them.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidedOne {
    /// Which.
    #[serde(flatten)]
    pub name: ApprovalName,
    /// It, as it is now on its machine; absent if the answer was not taken.
    pub approval: Option<ApprovalInfo>,
    /// Why the answer was not taken.
    pub error: Option<WireError>,
}

/// What became of them.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidedAll {
    /// In the order of the request.
    pub results: Vec<DecidedOne>,
}

/// Answers several approvals that ask exactly the same: same tool, same input. Each machine decides for itself.
#[utoipa::path(post, path = "/api/approvals/decide", tag = "approvals", request_body = DecideApprovals, responses(
    (status = 200, body = DecidedAll), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "They do not ask the same"), (status = 422, body = ErrorBody)))]
async fn decide_all(
    State(app): State<App>,
    client: Client,
    user: LoggedIn,
    Body(body): Body<DecideApprovals>,
) -> Result<Json<DecidedAll>, ApiError> {
    check(&body.answer)?;
    if body.approvals.len() > MAX_BULK {
        return Err(ApiError::new(
            ErrorCode::Invalid,
            format!("One request answers at most {MAX_BULK} approvals; {} were given.", body.approvals.len()),
        ));
    }
    let mut first: Option<Approval> = None;
    for name in &body.approvals {
        let found = find(&app, &user, name.machine_id, name.id).await?;
        // A machine says its own digests: what it asks is compared itself, so that none gets another's answer.
        let is_same = first.as_ref().is_none_or(|first| {
            (first.kind, &first.tool, &first.input) == (found.kind, &found.tool, &found.input)
        });
        if !is_same || found.input_sha256 != body.input_sha256 || found.input.is_null() {
            return Err(ApiError::new(
                ErrorCode::Conflict,
                "These approvals do not ask exactly the same. Answer them one by one.",
            ));
        }
        first.get_or_insert(found);
    }
    let answers = body.approvals.iter().map(async |name| {
        let place = (name.machine_id, name.id);
        let told = tell(&app, &user, &client, place, &body.input_sha256, &body.answer).await;
        let (approval, error) = match told {
            Ok(approval) => (Some(ApprovalInfo::new(approval, MAX_BRIEF_BYTES)), None),
            Err(ApiError(error)) => (None, Some(error)),
        };
        DecidedOne { name: *name, approval, error }
    });
    Ok(Json(DecidedAll { results: join_all(answers).await }))
}

/// Refuses an answer that no machine would take.
fn check(answer: &Answer) -> Result<(), ApiError> {
    let invalid = |sentence: String| Err(ApiError::new(ErrorCode::Invalid, sentence));
    if answer.reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
        return invalid(format!("A reason has at most {MAX_REASON_CHARS} characters. Make it shorter."));
    }
    if answer.answers.as_ref().is_some_and(|answers| answers.to_string().len() > MAX_ANSWERS_BYTES) {
        return invalid("The answers are longer than 64 KiB. Make them shorter.".to_owned());
    }
    let Some(remember) = &answer.remember else { return Ok(()) };
    if answer.verdict != Verdict::Allow {
        return invalid("Only what is allowed can be allowed always.".to_owned());
    }
    if remember.duration_s.is_some_and(|seconds| !REMEMBER_S.contains(&seconds)) {
        return invalid("\"Always\" lasts 60 to 31,536,000 seconds, or until it is removed.".to_owned());
    }
    Ok(())
}

/// Says in its drop that nobody waits for the machine's word any more, also when the request is cut off.
struct Answering<'a> {
    app: &'a App,
    user: &'a LoggedIn,
    place: (MachineId, ApprovalId),
}

impl<'a> Answering<'a> {
    fn new(app: &'a App, user: &'a LoggedIn, place: (MachineId, ApprovalId)) -> Self {
        let this = Self { app, user, place };
        this.publish(false);
        this
    }

    fn publish(&self, is_over: bool) {
        let (machine, approval) = self.place;
        let by = self.user.user().email.clone();
        let message = ServerMessage::ApprovalAnswering { machine, approval, by, is_over };
        self.app.hub.publish(self.user.user_id(), message);
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.publish(true);
    }
}

/// Hands an answer to the machine and waits for its word.
async fn tell(
    app: &App,
    user: &LoggedIn,
    client: &Client,
    place: (MachineId, ApprovalId),
    input_sha256: &str,
    answer: &Answer,
) -> Result<Approval, ApiError> {
    let (machine, id) = place;
    let op = Op::ApprovalDecide {
        approval: id,
        input_sha256: input_sha256.to_owned(),
        answer: answer.clone(),
        by: Some(user.user().email.clone()),
    };
    let reply = {
        let _answering = app.hub.is_online(machine).then(|| Answering::new(app, user, place));
        app.hub.request(machine, op, ASK_TIMEOUT).await?
    };
    let mut approval = match reply {
        Reply::Approval { approval } if approval.id == id => *approval,
        other => return Err(unexpected(&other)),
    };
    crate::hub::guard::clean_approval(&mut approval);
    approval.machine_id = Some(machine);
    audit::note(
        &app.db,
        Entry {
            user: Some(user.user_id()),
            machine: Some(machine),
            action: "approval.decided",
            address: &client.to_string(),
            detail: json!({ "approval": id, "session": approval.session, "tool": approval.tool,
                "input_sha256": input_sha256, "verdict": answer.verdict, "remember": answer.remember }),
        },
        app.clock.now(),
    )
    .await;
    Ok(approval)
}
