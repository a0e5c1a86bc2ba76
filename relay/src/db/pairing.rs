//! Pairings. Each arrow of `shared::pairing::PairingState` is one conditional statement here; the two are compared by a
//! differential property test.
//!
//! A pairing whose time ran out counts as expired from that moment on, whether or not its row says so yet.

use claudenest_shared::id::{MachineId, PairingId, UserId};
use claudenest_shared::machine::MachineFacts;
use claudenest_shared::pairing::{PairingCode, PairingState};
use claudenest_shared::time::UnixMs;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{Db, DbError, at, from_json, from_word, machine, ms, new_id, to_json};

/// A pairing that begins.
#[derive(Clone, Debug)]
pub struct NewPairing<'a> {
    /// Identity.
    pub id: PairingId,
    /// Its code.
    pub code: &'a PairingCode,
    /// The agent's Ed25519 public key.
    pub public_key: &'a [u8; 32],
    /// Commitment to the agent's nonce.
    pub commitment: &'a [u8; 32],
    /// What the machine says about itself.
    pub facts: &'a MachineFacts,
    /// The agent's address as the relay saw it.
    pub address: &'a str,
    /// When its time is over.
    pub expires_at: UnixMs,
}

/// A pairing as stored.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// Identity.
    pub id: PairingId,
    /// State; `Expired` as soon as its time is over.
    pub state: PairingState,
    /// The agent's public key.
    pub public_key: [u8; 32],
    /// Commitment to the agent's nonce.
    pub commitment: [u8; 32],
    /// What the machine says about itself.
    pub facts: MachineFacts,
    /// The agent's address.
    pub address: String,
    /// When it began.
    pub started_at: UnixMs,
    /// When its time is over.
    pub expires_at: UnixMs,
    /// The agent's nonce, once revealed.
    pub agent_nonce: Option<[u8; 32]>,
    /// Who claimed it.
    pub user: Option<UserId>,
    /// The claimant's account, as shown on the machine.
    pub account: Option<String>,
    /// From which address it was claimed.
    pub claim_address: Option<String>,
    /// The claimant's nonce.
    pub browser_nonce: Option<[u8; 32]>,
    /// The machine that came of it.
    pub machine_id: Option<MachineId>,
}

struct Row {
    id: Uuid,
    state: String,
    public_key: Vec<u8>,
    commitment: Vec<u8>,
    facts: serde_json::Value,
    address: String,
    started_at: time::OffsetDateTime,
    expires_at: time::OffsetDateTime,
    agent_nonce: Option<Vec<u8>>,
    user_id: Option<Uuid>,
    account: Option<String>,
    claim_address: Option<String>,
    browser_nonce: Option<Vec<u8>>,
    machine_id: Option<Uuid>,
}

impl Row {
    fn pairing(self, now: UnixMs) -> Result<Pairing, DbError> {
        let stored: PairingState = from_word("pairing state", &self.state)?;
        let is_over = !stored.is_final() && ms(self.expires_at) <= now;
        Ok(Pairing {
            id: PairingId(self.id),
            state: if is_over { PairingState::Expired } else { stored },
            public_key: bytes("public key", self.public_key)?,
            commitment: bytes("commitment", self.commitment)?,
            facts: from_json("facts", self.facts)?,
            address: self.address,
            started_at: ms(self.started_at),
            expires_at: ms(self.expires_at),
            agent_nonce: self.agent_nonce.map(|nonce| bytes("nonce", nonce)).transpose()?,
            user: self.user_id.map(UserId),
            account: self.account,
            claim_address: self.claim_address,
            browser_nonce: self.browser_nonce.map(|nonce| bytes("nonce", nonce)).transpose()?,
            machine_id: self.machine_id.map(MachineId),
        })
    }
}

fn bytes(what: &'static str, bytes: Vec<u8>) -> Result<[u8; 32], DbError> {
    bytes.try_into().map_err(|_| DbError::Word { what })
}

/// Begins a pairing. False if the code is in use by a live one: try another.
///
/// # Errors
/// When the database is away.
pub async fn initiate(db: &Db, new: NewPairing<'_>, now: UnixMs) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "insert into pairings (id, code, state, public_key, commitment, facts, address, started_at, expires_at)
         values ($1, $2, 'pending', $3, $4, $5, $6, $7, $8)
         on conflict (code) where state in ('pending', 'claimed', 'confirmed') do nothing",
        new.id.0,
        new.code.to_string(),
        &new.public_key[..],
        &new.commitment[..],
        to_json("facts", new.facts)?,
        new.address,
        at(now),
        at(new.expires_at)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How many pairings are live: the share of the code space that a guess could hit.
///
/// # Errors
/// When the database is away.
pub async fn count_live(db: &Db, now: UnixMs) -> Result<u64, DbError> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from pairings
          where state in ('pending', 'claimed', 'confirmed') and expires_at > $1",
        at(now)
    )
    .fetch_one(db.pool())
    .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Finds the pending pairing with this code, or the one that this user has claimed already.
///
/// # Errors
/// When the database is away.
pub async fn lookup(
    db: &Db,
    code: &PairingCode,
    user: UserId,
    now: UnixMs,
) -> Result<Option<Pairing>, DbError> {
    let row = sqlx::query_as!(
        Row,
        "select id, state, public_key, commitment, facts, address, started_at, expires_at, agent_nonce,
                user_id, account, claim_address, browser_nonce, machine_id
           from pairings
          where code = $1 and expires_at > $3
            and (state = 'pending' or (state = 'claimed' and user_id = $2))",
        code.to_string(),
        user.0,
        at(now)
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| row.pairing(now)).transpose()
}

/// Finds a pairing for the agent, by id and code, whatever its state.
///
/// # Errors
/// When the database is away.
pub async fn for_agent(
    db: &Db,
    id: PairingId,
    code: &PairingCode,
    now: UnixMs,
) -> Result<Option<Pairing>, DbError> {
    let row = sqlx::query_as!(
        Row,
        "select id, state, public_key, commitment, facts, address, started_at, expires_at, agent_nonce,
                user_id, account, claim_address, browser_nonce, machine_id
           from pairings where id = $1 and code = $2",
        id.0,
        code.to_string()
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| row.pairing(now)).transpose()
}

/// Finds a pairing for the user who claimed it.
///
/// # Errors
/// When the database is away.
pub async fn for_claimant(
    db: &Db,
    id: PairingId,
    user: UserId,
    now: UnixMs,
) -> Result<Option<Pairing>, DbError> {
    let row = sqlx::query_as!(
        Row,
        "select id, state, public_key, commitment, facts, address, started_at, expires_at, agent_nonce,
                user_id, account, claim_address, browser_nonce, machine_id
           from pairings where id = $1 and user_id = $2",
        id.0,
        user.0
    )
    .fetch_optional(db.pool())
    .await?;
    row.map(|row| row.pairing(now)).transpose()
}

/// Who claims a pairing.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The user.
    pub user: UserId,
    /// The account as the machine will show it.
    pub account: &'a str,
    /// The claimant's nonce.
    pub browser_nonce: &'a [u8; 32],
    /// The claimant's address.
    pub address: &'a str,
}

/// `pending → claimed`, for the first claimant only. Returns the deadline.
///
/// # Errors
/// When the database is away.
pub async fn claim(
    db: &Db,
    id: PairingId,
    code: &PairingCode,
    claim: Claim<'_>,
    now: UnixMs,
) -> Result<Option<UnixMs>, DbError> {
    let expires_at = sqlx::query_scalar!(
        "update pairings
            set state = 'claimed', user_id = $3, account = $4, browser_nonce = $5, claim_address = $6
          where id = $1 and code = $2 and state = 'pending' and expires_at > $7
          returning expires_at",
        id.0,
        code.to_string(),
        claim.user.0,
        claim.account,
        &claim.browser_nonce[..],
        claim.address,
        at(now)
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(expires_at.map(ms))
}

/// Notes a signed poll. False if its number is not above every earlier one: a replay.
///
/// # Errors
/// When the database is away.
pub async fn note_poll(db: &Db, id: PairingId, sequence: u64) -> Result<bool, DbError> {
    let Ok(sequence) = i64::try_from(sequence) else { return Ok(false) };
    let done = sqlx::query!(
        "update pairings set poll_sequence = $2 where id = $1 and poll_sequence < $2 and state <> 'consumed'",
        id.0,
        sequence
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Stores the agent's nonce, which the caller has checked against the commitment. Only after the claim, only once.
///
/// # Errors
/// When the database is away.
pub async fn reveal(db: &Db, id: PairingId, nonce: &[u8; 32], now: UnixMs) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update pairings set agent_nonce = $2
          where id = $1 and state = 'claimed' and agent_nonce is null and expires_at > $3",
        id.0,
        &nonce[..],
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// `pending | claimed → denied`; with `claimant`, only if that user has claimed it. True if it was done.
///
/// # Errors
/// When the database is away.
pub async fn deny(db: &Db, id: PairingId, claimant: Option<UserId>, now: UnixMs) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update pairings set state = 'denied'
          where id = $1 and state in ('pending', 'claimed') and expires_at > $3 and ($2::uuid is null or user_id = $2)",
        id.0,
        claimant.map(|user| user.0),
        at(now)
    )
    .execute(db.pool())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What a machine gets when it is paired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMachine {
    /// Identity.
    pub id: MachineId,
    /// Its name at this relay.
    pub name: String,
    /// Its owner.
    pub user: UserId,
    /// The owner's e-mail address.
    pub account: String,
}

/// `claimed → confirmed → consumed` in one transaction, which makes the machine: the token, of which this is the
/// digest, exists if and only if the pairing is consumed, and only one caller ever gets it.
///
/// # Errors
/// When the database is away.
pub async fn consume(
    db: &Db,
    id: PairingId,
    token_digest: &[u8; 32],
    now: UnixMs,
) -> Result<Option<NewMachine>, DbError> {
    let mut tx = db.pool().begin().await?;
    if !confirm(&mut tx, id, now).await? {
        return Ok(None);
    }
    let machine = deliver(&mut tx, id, token_digest, now).await?;
    tx.commit().await?;
    Ok(machine)
}

/// `claimed → confirmed`. The agent's nonce must be known: without it nobody has compared digits.
async fn confirm(tx: &mut PgConnection, id: PairingId, now: UnixMs) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "update pairings set state = 'confirmed'
          where id = $1 and state = 'claimed' and agent_nonce is not null and expires_at > $2",
        id.0,
        at(now)
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// `confirmed → consumed`, and the machine.
async fn deliver(
    tx: &mut Transaction<'static, Postgres>,
    id: PairingId,
    token_digest: &[u8; 32],
    now: UnixMs,
) -> Result<Option<NewMachine>, DbError> {
    let row = sqlx::query!(
        "update pairings set state = 'consumed' where id = $1 and state = 'confirmed' and expires_at > $2
         returning user_id, public_key, facts",
        id.0,
        at(now)
    )
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let user = UserId(row.user_id.ok_or(DbError::Word { what: "claimant" })?);
    let machine = insert_machine(tx, user, &row.public_key, &row.facts, token_digest, now).await?;
    sqlx::query!("update pairings set machine_id = $2 where id = $1", id.0, machine.id.0)
        .execute(&mut **tx)
        .await?;
    Ok(Some(machine))
}

/// Uses up an enrolment token and makes the machine, in one transaction.
///
/// # Errors
/// When the database is away.
pub async fn enrol(
    db: &Db,
    enrolment_digest: &[u8; 32],
    public_key: &[u8; 32],
    facts: &MachineFacts,
    token_digest: &[u8; 32],
    now: UnixMs,
) -> Result<Option<NewMachine>, DbError> {
    let mut tx = db.pool().begin().await?;
    let row = sqlx::query!(
        "update enrolment_tokens t set used_at = $2 from users u
          where t.digest = $1 and t.used_at is null and t.expires_at > $2
            and u.id = t.user_id and u.disabled_at is null
          returning t.id, t.user_id",
        &enrolment_digest[..],
        at(now)
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let facts = to_json("facts", facts)?;
    let machine = insert_machine(&mut tx, UserId(row.user_id), public_key, &facts, token_digest, now).await?;
    sqlx::query!("update enrolment_tokens set machine_id = $2 where id = $1", row.id, machine.id.0)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Some(machine))
}

/// The same identity of the same user is the same machine: it keeps its id, its name and its sessions.
async fn insert_machine(
    tx: &mut Transaction<'static, Postgres>,
    user: UserId,
    public_key: &[u8],
    facts: &serde_json::Value,
    token_digest: &[u8; 32],
    now: UnixMs,
) -> Result<NewMachine, DbError> {
    let hostname = facts.get("hostname").and_then(serde_json::Value::as_str).unwrap_or_default();
    let others = machine::names(tx, user, Some(public_key)).await?;
    let name = machine::free_name(if hostname.is_empty() { "machine" } else { hostname }, &others);
    let row = sqlx::query!(
        "insert into machines (id, user_id, name, public_key, token_digest, state, state_since, paired_at, facts)
         values ($1, $2, $3, $4, $5, 'never_connected', $6, $6, $7)
         on conflict (user_id, public_key) do update
            set token_digest = excluded.token_digest, state = excluded.state, state_since = excluded.state_since,
                paired_at = excluded.paired_at, facts = excluded.facts, last_seen_at = null,
                connection_epoch = machines.connection_epoch + 1, revoked_at = null, removed_at = null,
                name = case when machines.removed_at is null then machines.name else excluded.name end
         returning id, name, (select email from users where users.id = machines.user_id) as \"account!\"",
        new_id(),
        user.0,
        name,
        public_key,
        &token_digest[..],
        at(now),
        facts
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(NewMachine { id: MachineId(row.id), name: row.name, user, account: row.account })
}

/// Marks what has run out as expired, and forgets what ended before `before`.
///
/// # Errors
/// When the database is away.
pub async fn clean_up(db: &Db, now: UnixMs, before: UnixMs) -> Result<u64, DbError> {
    sqlx::query!(
        "update pairings set state = 'expired'
          where state in ('pending', 'claimed', 'confirmed') and expires_at <= $1",
        at(now)
    )
    .execute(db.pool())
    .await?;
    let done =
        sqlx::query!("delete from pairings where expires_at <= $1", at(before)).execute(db.pool()).await?;
    Ok(done.rows_affected())
}
