//! Past output of sessions: from the recording on the machine while it is online, otherwise from the relay's copy.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::history::{HistoryChunk, HistoryMatch, HistoryRun, HistorySource, SessionHistory};
use claudenest_shared::id::{MachineId, SessionId};
use claudenest_shared::machine::MachineState;
use claudenest_shared::wire::agent::{Op, Reply};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use time::Date;
use time::macros::format_description;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::{ApiError, ErrorBody};
use super::extract::{Id, Parameters};
use super::machine::{ASK_TIMEOUT, unexpected};
use super::session::find;
use crate::app::App;
use crate::auth::login::LoggedIn;
use crate::db::history::{self, SearchIn, SearchPlace, StoredChunk, StoredMatch};
use crate::db::machine;
use crate::ws::history::unpacked;

/// Lines of one answer of a search.
const MAX_MATCHES: usize = 200;
/// Longest text that is looked for.
const MAX_TEXT_CHARS: usize = 200;
/// Machines that are asked by one search; a person has a handful.
const MAX_MACHINES: usize = 16;
/// Longest line in an answer; machines cut theirs alike.
const MAX_LINE_CHARS: usize = 300;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(chunk)).routes(routes!(search))
}

/// Where past output is to come from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// From the machine if it is online and has a recording, otherwise from the relay.
    #[default]
    Auto,
    /// From the machine.
    Machine,
    /// From the relay's copy.
    Relay,
}

/// Where from.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListHistory {
    /// Where it is to come from; `auto` when absent.
    #[serde(default)]
    #[param(inline)]
    source: Wanted,
}

/// What there is of a session's past output. `source` is `none` when neither the machine nor the relay has any now.
#[utoipa::path(get, path = "/api/sessions/{id}/history", tag = "history", params(
    ("id" = SessionId, Path, description = "The session"), ListHistory), responses(
    (status = 200, body = SessionHistory), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn list(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
    Parameters(parameters): Parameters<ListHistory>,
) -> Result<Json<SessionHistory>, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    if parameters.source != Wanted::Relay {
        let asked = app.hub.request(machine, Op::HistoryList { session: id }, ASK_TIMEOUT).await;
        match (asked, parameters.source) {
            (Ok(Reply::History { history }), _) if history.source != HistorySource::None => {
                return Ok(Json(history));
            }
            (Ok(Reply::History { history }), Wanted::Machine) => return Ok(Json(history)),
            (Ok(Reply::History { .. }), _) => {}
            (Ok(other), _) => return Err(unexpected(&other)),
            (Err(error), Wanted::Machine) => return Err(error.into()),
            // Away, of an older version, or unwilling: what the relay has is an answer as well.
            (Err(_), _) => {}
        }
    }
    let stored = history::list(&app.db, user.user_id(), machine, id).await?;
    let runs: Vec<HistoryRun> = stored
        .into_iter()
        .map(|run| HistoryRun {
            epoch: run.epoch,
            end: run.end,
            bytes: run.bytes,
            started_at: run.started_at,
            duration_ms: run.duration_ms,
            size: run.size,
            points: run.points,
            resizes: run.resizes,
            gaps: run.gaps,
        })
        .collect();
    let source = if runs.is_empty() { HistorySource::None } else { HistorySource::Relay };
    Ok(Json(SessionHistory { source, runs }))
}

/// Which part.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadHistory {
    /// The run; the last one the relay has when absent.
    #[serde(default)]
    epoch: u32,
    /// Offset of the first byte wanted.
    #[serde(default)]
    offset: u64,
    /// True to begin with a screen: the chunk may then begin far below `offset`.
    #[serde(default)]
    screen: bool,
    /// Where it is to come from, as the list said; the relay when absent.
    #[serde(default)]
    #[param(inline)]
    source: Wanted,
}

/// A part of past output.
#[derive(Serialize, utoipa::ToSchema)]
pub struct HistoryPart {
    /// The part; absent when there is nothing at that offset or behind it.
    pub chunk: Option<HistoryChunk>,
}

/// A part of a session's past output: that at an offset, or the first one behind it.
#[utoipa::path(get, path = "/api/sessions/{id}/history/chunk", tag = "history", params(
    ("id" = SessionId, Path, description = "The session"), ReadHistory), responses(
    (status = 200, body = HistoryPart), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
async fn chunk(
    State(app): State<App>,
    user: LoggedIn,
    Id(id): Id<SessionId>,
    Parameters(parameters): Parameters<ReadHistory>,
) -> Result<Json<HistoryPart>, ApiError> {
    let (machine, _) = find(&app, &user, id).await?;
    let ReadHistory { epoch, offset, screen: with_screen, source } = parameters;
    if source == Wanted::Machine {
        let op = Op::HistoryRead { session: id, epoch, offset, with_screen };
        return match app.hub.request(machine, op, ASK_TIMEOUT).await? {
            Reply::HistoryChunk { chunk } => Ok(Json(HistoryPart { chunk: chunk.map(|chunk| *chunk) })),
            other => Err(unexpected(&other)),
        };
    }
    let found = history::read(&app.db, user.user_id(), (machine, id, epoch), offset, with_screen).await?;
    let chunk = found.map(answer).transpose()?;
    Ok(Json(HistoryPart { chunk }))
}

/// A stored chunk as a page gets it; its bytes are unpacked and not looked at.
fn answer(stored: StoredChunk) -> Result<HistoryChunk, ApiError> {
    let damaged = || ApiError::new(ErrorCode::Internal, "A stored part of this session is damaged.");
    let data = unpacked(&stored.data).ok_or_else(damaged)?;
    let screen = match stored.screen {
        Some(screen) => Some(STANDARD.encode(unpacked(&screen).ok_or_else(damaged)?)),
        None => None,
    };
    let head = stored.head;
    Ok(HistoryChunk {
        epoch: stored.epoch,
        from: head.from,
        start: stored.start,
        end: head.end,
        at_ms: head.at_ms,
        size: head.size,
        marks: head.marks,
        resizes: head.resizes,
        screen,
        data: STANDARD.encode(data),
        next: stored.has_next.then_some(head.end),
    })
}

/// What to look for.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchHistory {
    /// The text, 1 to 200 characters; case counts if it has capitals.
    q: String,
    /// Only in this session.
    session_id: Option<SessionId>,
    /// Go on behind an earlier answer (its `next`).
    cursor: Option<String>,
}

/// What was found.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Found {
    /// Lines, newest output first.
    pub matches: Vec<HistoryMatch>,
    /// Ask again with this to search older output; absent when everything was searched.
    pub next: Option<String>,
    /// Machines that were asked themselves; of the others the relay's copy was searched.
    pub asked: Vec<MachineId>,
    /// True if a machine found more than it answered, or did not finish.
    pub is_cut: bool,
}

/// Searches what sessions have shown: on machines that are online, and in the relay's copy for all others.
#[utoipa::path(get, path = "/api/history/search", tag = "history", params(SearchHistory), responses(
    (status = 200, body = Found), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody)))]
async fn search(
    State(app): State<App>,
    user: LoggedIn,
    Parameters(parameters): Parameters<SearchHistory>,
) -> Result<Json<Found>, ApiError> {
    let SearchHistory { q: text, session_id: session, cursor } = parameters;
    let only = match session {
        Some(session) => Some(find(&app, &user, session).await?.0),
        None => None,
    };
    if text.trim().is_empty() || text.chars().count() > MAX_TEXT_CHARS || text.contains('\0') {
        let message = format!("The text to look for has 1 to {MAX_TEXT_CHARS} characters.");
        return Err(ApiError::new(ErrorCode::Invalid, message));
    }
    let behind = cursor.as_deref().map(place).transpose()?;
    let machines = machine::list_for_user(&app.db, user.user_id()).await?;
    let online: Vec<MachineId> = machines
        .iter()
        .filter(|machine| machine.state == MachineState::Online && only.is_none_or(|only| only == machine.id))
        .map(|machine| machine.id)
        .take(MAX_MACHINES)
        .collect();
    let limit = u32::try_from(MAX_MATCHES).unwrap_or(u32::MAX);
    let op = || Op::HistorySearch { session, text: text.clone(), limit };
    let asking = online.iter().map(|machine| app.hub.request(*machine, op(), ASK_TIMEOUT));
    let (mut matches, mut asked, mut is_cut) = (Vec::new(), Vec::new(), false);
    for (machine, reply) in online.iter().zip(join_all(asking).await) {
        // One that does not answer is searched in the relay's copy.
        let Ok(Reply::HistoryMatches { matches: found, is_cut: is_more }) = reply else { continue };
        asked.push(*machine);
        is_cut |= is_more;
        // On the first page only: a machine answers everything at once.
        if behind.is_none() {
            matches.extend(found.into_iter().map(|one| HistoryMatch { machine_id: Some(*machine), ..one }));
        }
    }
    let without: Vec<Uuid> = asked.iter().map(|machine| machine.0).collect();
    let place = SearchIn { session, without: &without, behind };
    let (found, next) = history::search(&app.db, user.user_id(), &text, place, MAX_MATCHES).await?;
    matches.extend(found.into_iter().map(stored_match));
    matches.sort_by_key(|one| std::cmp::Reverse(one.time));
    Ok(Json(Found { matches, next: next.as_ref().map(cursor_of), asked, is_cut }))
}

fn stored_match(found: StoredMatch) -> HistoryMatch {
    let short = |line: String| line.chars().take(MAX_LINE_CHARS).collect::<String>();
    HistoryMatch {
        session_id: found.session,
        machine_id: Some(found.machine),
        name: found.name,
        epoch: found.epoch,
        offset: found.offset,
        at_ms: found.at_ms,
        time: found.time,
        line: short(found.line),
        before: found.before.map(short),
        after: found.after.map(short),
    }
}

/// A place of a search as text; whoever changes it searches elsewhere in his own history.
fn cursor_of(place: &SearchPlace) -> String {
    let (machine, session, epoch, start) = place.key;
    format!("{}.{machine}.{session}.{epoch}.{start}", place.day)
}

fn place(cursor: &str) -> Result<SearchPlace, ApiError> {
    let bad = || ApiError::new(ErrorCode::BadRequest, "`cursor` is not the `next` of an earlier answer.");
    let format = format_description!("[year]-[month]-[day]");
    let parts: Vec<&str> = cursor.split('.').collect();
    let [day, machine, session, epoch, start] = parts.as_slice() else { return Err(bad()) };
    let day = Date::parse(day, &format).map_err(|_| bad())?;
    let id = |text: &str| text.parse::<Uuid>().map_err(|_| bad());
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    Ok(SearchPlace { day, key: (id(machine)?, id(session)?, number(epoch)?, number(start)?) })
}
