//! Past output of sessions: chunks as machines send them, ranges and parts for pages, search, and what goes when.
//!
//! Invariants: the chunks of a run are contiguous, or name what is missing; the same chunk twice changes nothing; every
//! read names the user.

use claudenest_shared::history::{
    ChunkHead, ChunkLine, HistoryGap, HistoryOutcome, HistoryPoint, HistoryPosition, HistoryResize,
    MAX_MARKS, MAX_POINTS,
};
use claudenest_shared::id::{MachineId, SessionId, UserId};
use claudenest_shared::session::TermSize;
use claudenest_shared::time::UnixMs;
use sqlx::AssertSqlSafe;
use time::{Date, Duration, macros::format_description};
use uuid::Uuid;

use super::{Db, DbError, at, big, from_json, ms, to_json};

/// Chunks that are listed of one run: two days of a session that never pauses.
const MAX_LISTED: i64 = 40_000;
/// Chunks that one search looks at; the next one goes on behind them.
pub const MAX_SEARCHED: i64 = 2_000;
/// Above the limit of a user by this factor nothing more is taken until the job has made room.
const REFUSED_ABOVE: f64 = 1.1;

/// A chunk to be stored.
#[derive(Clone, Debug)]
pub struct NewChunk {
    /// The session.
    pub session: SessionId,
    /// The run.
    pub epoch: u32,
    /// Offset of its first byte.
    pub start: u64,
    /// What it is.
    pub head: ChunkHead,
    /// Text that was seen.
    pub lines: Vec<ChunkLine>,
    /// Compressed screen, or empty.
    pub screen: Vec<u8>,
    /// Compressed output.
    pub data: Vec<u8>,
}

fn small(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

/// How far these runs of a machine are stored, in their order.
///
/// # Errors
/// When the database is away.
pub async fn have(
    db: &Db,
    machine: MachineId,
    runs: &[HistoryPosition],
) -> Result<Vec<HistoryPosition>, DbError> {
    let ids: Vec<Uuid> = runs.iter().map(|run| run.session.0).collect();
    let rows = sqlx::query!(
        "select session_id, epoch, end_offset from history_runs where machine_id = $1 and session_id = any($2)",
        machine.0,
        &ids
    )
    .fetch_all(db.pool())
    .await?;
    let end = |run: &HistoryPosition| {
        let row =
            rows.iter().find(|row| row.session_id == run.session.0 && row.epoch == i64::from(run.epoch));
        row.map_or(0, |row| small(row.end_offset))
    };
    Ok(runs.iter().map(|run| HistoryPosition { end: end(run), ..*run }).collect())
}

/// Stores a chunk, once, and only where the copy of its run ends. Answers where that is now.
///
/// # Errors
/// When the database is away.
pub async fn store(
    db: &Db,
    machine: MachineId,
    chunk: &NewChunk,
    limit_bytes: u64,
    now: UnixMs,
) -> Result<(u64, HistoryOutcome), DbError> {
    let epoch = i64::from(chunk.epoch);
    sqlx::query!(
        "insert into history_runs (machine_id, session_id, epoch, end_offset, stored_bytes)
         select machine_id, id, $3, 0, 0 from sessions where machine_id = $1 and id = $2
         on conflict do nothing",
        machine.0,
        chunk.session.0,
        epoch
    )
    .execute(db.pool())
    .await?;
    let used = sqlx::query_scalar!(
        "select coalesce(sum(r.stored_bytes), 0)::bigint as \"used!\"
           from history_runs r join machines m on m.id = r.machine_id
          where m.user_id = (select user_id from machines where id = $1)",
        machine.0
    )
    .fetch_one(db.pool())
    .await?;
    if used as f64 > limit_bytes as f64 * REFUSED_ABOVE {
        return Ok((end_of(db, machine, chunk).await?.unwrap_or_default(), HistoryOutcome::Later));
    }
    let is_stored = match insert(db, machine, chunk, now).await {
        Err(DbError::Sql(sqlx::Error::Database(error)))
            if error.code().is_some_and(|code| code == "23514") =>
        {
            make_day(db, at(now).date()).await?;
            insert(db, machine, chunk, now).await?
        }
        done => done?,
    };
    if is_stored {
        return Ok((chunk.head.end, HistoryOutcome::Stored));
    }
    Ok(match end_of(db, machine, chunk).await? {
        Some(end) => (end, HistoryOutcome::Elsewhere),
        None => (0, HistoryOutcome::Unknown),
    })
}

async fn end_of(db: &Db, machine: MachineId, chunk: &NewChunk) -> Result<Option<u64>, DbError> {
    let end = sqlx::query_scalar!(
        "select end_offset from history_runs where machine_id = $1 and session_id = $2 and epoch = $3",
        machine.0,
        chunk.session.0,
        i64::from(chunk.epoch)
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(end.map(small))
}

/// Moves the end of the run and adds the chunk, both or none. False if the run does not end there.
async fn insert(db: &Db, machine: MachineId, chunk: &NewChunk, now: UnixMs) -> Result<bool, DbError> {
    let head = &chunk.head;
    let texts: Vec<&str> = chunk.lines.iter().map(|line| line.text.as_str()).collect();
    let lines = texts.join("\n").replace('\0', "");
    let offsets: Vec<i64> = chunk.lines.iter().map(|line| big(line.offset)).collect();
    let times: Vec<i64> = chunk.lines.iter().map(|line| big(line.at_ms)).collect();
    let stored = chunk.data.len() + chunk.screen.len() + lines.len();
    let screen = (!chunk.screen.is_empty()).then_some(chunk.screen.as_slice());
    let done = sqlx::query!(
        "with moved as (
            update history_runs set end_offset = $7, stored_bytes = stored_bytes + $18
             where machine_id = $2 and session_id = $3 and epoch = $4 and end_offset = $5
            returning machine_id)
         insert into history_chunks (day, machine_id, session_id, epoch, from_offset, start_offset, end_offset,
                received_at, at_ms, end_ms, time, head, data, screen, lines, line_offsets, line_ms, stored_bytes)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18 from moved",
        at(now).date(),
        machine.0,
        chunk.session.0,
        i64::from(chunk.epoch),
        big(head.from),
        big(chunk.start),
        big(head.end),
        at(now),
        big(head.at_ms),
        big(head.end_ms),
        at(head.time),
        to_json("history chunk", head)?,
        chunk.data,
        screen,
        lines,
        &offsets,
        &times,
        big(stored as u64)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes the table of a day.
async fn make_day(db: &Db, day: Date) -> Result<(), DbError> {
    let format = format_description!("[year][month][day]");
    let (Ok(name), Some(next)) = (day.format(&format), day.next_day()) else { return Ok(()) };
    let made = sqlx::query(AssertSqlSafe(format!(
        "create table if not exists history_chunks_{name} partition of history_chunks for values from ('{day}') to ('{next}')"
    )))
    .execute(db.pool())
    .await;
    match made {
        // Another relay of the fleet was faster.
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| ["42P07", "23505", "42P17"].contains(&&*code)) =>
        {
            Ok(())
        }
        made => Ok(made.map(drop)?),
    }
}

/// What is stored of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredRun {
    /// Its number.
    pub epoch: u32,
    /// Offset behind the last byte.
    pub end: u64,
    /// Bytes that are there.
    pub bytes: u64,
    /// When it began, by the machine's clock.
    pub started_at: UnixMs,
    /// Its length in milliseconds.
    pub duration_ms: u64,
    /// Size at the first byte that is there.
    pub size: TermSize,
    /// Its time line.
    pub points: Vec<HistoryPoint>,
    /// Changes of size.
    pub resizes: Vec<HistoryResize>,
    /// What is missing.
    pub gaps: Vec<HistoryGap>,
}

/// What is stored of a session of a user, oldest run first.
///
/// # Errors
/// When the database is away.
pub async fn list(
    db: &Db,
    user: UserId,
    machine: MachineId,
    session: SessionId,
) -> Result<Vec<StoredRun>, DbError> {
    let rows = sqlx::query!(
        "select c.epoch, c.from_offset, c.start_offset, c.end_offset, c.at_ms, c.end_ms, c.time,
                c.head->'size' as size, c.head->'resizes' as resizes
           from history_chunks c join machines m on m.id = c.machine_id
          where m.user_id = $1 and m.removed_at is null and c.machine_id = $2 and c.session_id = $3
          order by c.epoch, c.start_offset limit $4",
        user.0,
        machine.0,
        session.0,
        MAX_LISTED
    )
    .fetch_all(db.pool())
    .await?;
    let mut runs: Vec<StoredRun> = Vec::new();
    for row in rows {
        let epoch = u32::try_from(row.epoch).unwrap_or_default();
        let (start, end) = (small(row.start_offset), small(row.end_offset));
        let (at_ms, end_ms) = (small(row.at_ms), small(row.end_ms));
        if runs.last().is_none_or(|run| run.epoch != epoch) {
            let size = row.size.map(|size| from_json("size", size)).transpose()?;
            runs.push(StoredRun {
                epoch,
                end: 0,
                bytes: 0,
                started_at: ms(row.time).plus(-row.at_ms),
                duration_ms: 0,
                size: size.unwrap_or_default(),
                points: Vec::new(),
                resizes: Vec::new(),
                gaps: Vec::new(),
            });
        }
        let Some(run) = runs.last_mut() else { continue };
        // Pruned chunks leave a hole that no later one names.
        if start > run.end {
            run.gaps.push(HistoryGap { from: run.end, to: start, at_ms });
        }
        run.bytes += end - start;
        (run.end, run.duration_ms) = (end, end_ms.max(run.duration_ms));
        run.points.push(HistoryPoint { offset: start, at_ms });
        if end_ms > at_ms {
            run.points.push(HistoryPoint { offset: end.saturating_sub(1), at_ms: end_ms });
        }
        if let Some(resizes) = row.resizes {
            run.resizes.extend(from_json::<Vec<HistoryResize>>("resizes", resizes)?);
        }
    }
    for run in &mut runs {
        let step = run.points.len().div_ceil(MAX_POINTS).max(1);
        let points = std::mem::take(&mut run.points);
        run.points = points.into_iter().step_by(step).collect();
        run.resizes.truncate(MAX_MARKS);
        run.gaps.truncate(MAX_MARKS);
    }
    Ok(runs)
}

/// A stored chunk.
#[derive(Clone, Debug)]
pub struct StoredChunk {
    /// The run.
    pub epoch: u32,
    /// Offset of the first byte.
    pub start: u64,
    /// What it is.
    pub head: ChunkHead,
    /// Compressed screen.
    pub screen: Option<Vec<u8>>,
    /// Compressed output.
    pub data: Vec<u8>,
    /// True if there is more behind it.
    pub has_next: bool,
}

/// The chunk of a run at `offset`, or the first behind it; with `wants_screen` the last one up to there that has a
/// screen, if there is one. Run 0 is the last one.
///
/// # Errors
/// When the database is away.
pub async fn read(
    db: &Db,
    user: UserId,
    (machine, session, epoch): (MachineId, SessionId, u32),
    offset: u64,
    wants_screen: bool,
) -> Result<Option<StoredChunk>, DbError> {
    let row = sqlx::query!(
        "select c.epoch, c.start_offset, c.head, c.screen, c.data,
                exists (select 1 from history_chunks n
                         where n.machine_id = c.machine_id and n.session_id = c.session_id and n.epoch = c.epoch
                           and n.start_offset >= c.end_offset) as \"has_next!\"
           from history_chunks c join machines m on m.id = c.machine_id
          where m.user_id = $1 and m.removed_at is null and c.machine_id = $2 and c.session_id = $3
            and c.epoch = case when $4::bigint > 0 then $4 else
                (select max(l.epoch) from history_chunks l where l.machine_id = $2 and l.session_id = $3) end
            and (c.end_offset > $5 or ($6 and c.screen is not null))
          order by ($6 and c.screen is not null and c.start_offset <= $5) desc,
                   case when $6 and c.screen is not null and c.start_offset <= $5 then -c.start_offset else c.start_offset end
          limit 1",
        user.0,
        machine.0,
        session.0,
        i64::from(epoch),
        big(offset),
        wants_screen
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| {
        Ok(StoredChunk {
            epoch: u32::try_from(row.epoch).unwrap_or_default(),
            start: small(row.start_offset),
            head: from_json("history chunk", row.head)?,
            screen: row.screen.filter(|_| wants_screen),
            data: row.data,
            has_next: row.has_next,
        })
    })
    .transpose()
}

/// Where a search goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchPlace {
    /// Arrival of the last chunk that was looked at.
    pub day: Date,
    /// Its key.
    pub key: (Uuid, Uuid, i64, i64),
}

/// A line that was found.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredMatch {
    /// The machine.
    pub machine: MachineId,
    /// The session.
    pub session: SessionId,
    /// Its name.
    pub name: String,
    /// The run.
    pub epoch: u32,
    /// Offset by which the line stood there.
    pub offset: u64,
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// When the chunk began, by the machine's clock.
    pub time: UnixMs,
    /// The line.
    pub line: String,
    /// The line before it.
    pub before: Option<String>,
    /// The line after it.
    pub after: Option<String>,
}

/// Where to search.
#[derive(Clone, Debug, Default)]
pub struct SearchIn<'a> {
    /// Only in this session.
    pub session: Option<SessionId>,
    /// Not on these machines.
    pub without: &'a [Uuid],
    /// Behind this place.
    pub behind: Option<SearchPlace>,
}

/// Looks for `text` in the lines of a user's sessions, the last that arrived first: at most [`MAX_SEARCHED`] chunks.
/// Case counts if the text has capitals. Answers the place to go on from, if there is more.
///
/// # Errors
/// When the database is away.
pub async fn search(
    db: &Db,
    user: UserId,
    text: &str,
    place: SearchIn<'_>,
    limit: usize,
) -> Result<(Vec<StoredMatch>, Option<SearchPlace>), DbError> {
    let is_exact = text.chars().any(char::is_uppercase);
    let fold = |text: &str| if is_exact { text.to_owned() } else { text.to_lowercase() };
    let wanted = fold(text);
    let (day, key) = match &place.behind {
        Some(behind) => (Some(behind.day), behind.key),
        None => (None, (Uuid::nil(), Uuid::nil(), 0, 0)),
    };
    let rows = sqlx::query!(
        "select c.day, c.machine_id, c.session_id, c.epoch, c.start_offset, c.at_ms, c.time, s.name,
                case when position($3 in case when $4 then c.lines else lower(c.lines) end) > 0
                     then c.lines end as lines,
                c.line_offsets, c.line_ms
           from history_chunks c
           join machines m on m.id = c.machine_id
           join sessions s on s.machine_id = c.machine_id and s.id = c.session_id
          where m.user_id = $1 and m.removed_at is null and ($2::uuid is null or c.session_id = $2)
            and c.machine_id <> all($5)
            and ($6::date is null
                 or (c.day, c.machine_id, c.session_id, c.epoch, c.start_offset) < ($6, $7, $8, $9, $10))
          order by c.day desc, c.machine_id desc, c.session_id desc, c.epoch desc, c.start_offset desc
          limit $11",
        user.0,
        place.session.map(|session| session.0),
        wanted,
        is_exact,
        place.without,
        day,
        key.0,
        key.1,
        key.2,
        key.3,
        MAX_SEARCHED
    )
    .fetch_all(db.pool())
    .await?;
    let mut matches = Vec::new();
    let mut last = None;
    for row in &rows {
        if matches.len() >= limit {
            return Ok((matches, last));
        }
        last = Some(SearchPlace {
            day: row.day,
            key: (row.machine_id, row.session_id, row.epoch, row.start_offset),
        });
        let Some(lines) = &row.lines else { continue };
        let lines: Vec<&str> = lines.split('\n').collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| fold(line).contains(&wanted)) {
            let at_ms = row.line_ms.get(at).copied().unwrap_or(row.at_ms);
            matches.push(StoredMatch {
                machine: MachineId(row.machine_id),
                session: SessionId(row.session_id),
                name: row.name.clone(),
                epoch: u32::try_from(row.epoch).unwrap_or_default(),
                offset: small(row.line_offsets.get(at).copied().unwrap_or(row.start_offset)),
                at_ms: small(at_ms),
                time: ms(row.time).plus(at_ms - row.at_ms),
                line: (*line).to_owned(),
                before: at.checked_sub(1).map(|before| lines[before].to_owned()),
                after: lines.get(at + 1).map(|after| (*after).to_owned()),
            });
        }
    }
    let is_whole = (rows.len() as i64) < MAX_SEARCHED;
    Ok((matches, last.filter(|_| !is_whole)))
}

/// Drops the days that are older than `keep_days`, and then the oldest chunks of users above `limit_bytes`. Returns
/// the number of days and chunks that went.
///
/// # Errors
/// When the database is away.
pub async fn prune(db: &Db, keep_days: u32, limit_bytes: u64, now: UnixMs) -> Result<u64, DbError> {
    let oldest = at(now).date().checked_sub(Duration::days(i64::from(keep_days))).unwrap_or(Date::MIN);
    let days = sqlx::query_scalar!(
        "select c.relname::text as \"name!\"
           from pg_inherits i join pg_class c on c.oid = i.inhrelid
          where i.inhparent = 'history_chunks'::regclass"
    )
    .fetch_all(db.pool())
    .await?;
    let format = format_description!("[year][month][day]");
    let mut gone = 0;
    for name in days {
        let day = name.strip_prefix("history_chunks_").and_then(|day| Date::parse(day, &format).ok());
        if day.is_some_and(|day| day < oldest) {
            // The name was just parsed: it holds digits only.
            sqlx::query(AssertSqlSafe(format!("drop table if exists {name}"))).execute(db.pool()).await?;
            gone += 1;
        }
    }
    let done = sqlx::query!(
        "with used as (
            select m.user_id from history_runs r join machines m on m.id = r.machine_id
             group by m.user_id having sum(r.stored_bytes) > $1),
         sized as (
            select c.day, c.machine_id, c.session_id, c.epoch, c.start_offset,
                   sum(c.stored_bytes) over (partition by m.user_id
                       order by c.received_at desc, c.machine_id, c.session_id, c.epoch desc, c.start_offset desc) as newer
              from history_chunks c join machines m on m.id = c.machine_id
             where m.user_id in (select user_id from used))
         delete from history_chunks c using sized s
          where c.day = s.day and c.machine_id = s.machine_id and c.session_id = s.session_id
            and c.epoch = s.epoch and c.start_offset = s.start_offset and s.newer > $1",
        big(limit_bytes) as i64
    )
    .execute(db.pool())
    .await?;
    gone += done.rows_affected();
    if gone > 0 {
        sqlx::query!(
            "update history_runs r set stored_bytes = coalesce((
                select sum(c.stored_bytes) from history_chunks c
                 where c.machine_id = r.machine_id and c.session_id = r.session_id and c.epoch = r.epoch), 0)"
        )
        .execute(db.pool())
        .await?;
    }
    Ok(gone)
}
