-- Accounts, browser logins, machines, pairing, sessions, audit.
-- Ids are UUIDv7 and made by the relay. Only SHA-256 digests of tokens are stored.
-- Times come from the relay's clock as parameters, never from now(): tests move the clock.

create table users (
    id uuid primary key,
    -- As given, with lower-case ASCII; the unique index folds the rest.
    email text not null,
    name text not null,
    role text not null check (role in ('admin', 'operator', 'viewer')),
    created_at timestamptz not null,
    disabled_at timestamptz
);
create unique index users_email on users (lower(email));

create table login_links (
    digest bytea primary key check (length(digest) = 32),
    user_id uuid not null references users on delete cascade,
    created_at timestamptz not null,
    expires_at timestamptz not null
);

-- Browser logins; the cookie holds the token.
create table logins (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    digest bytea not null unique check (length(digest) = 32),
    created_at timestamptz not null,
    last_used_at timestamptz not null,
    expires_at timestamptz not null,
    address text not null,
    user_agent text not null
);
create index logins_user on logins (user_id);

-- Single-use tickets for the browser's WebSocket; they end with their login.
create table tickets (
    digest bytea primary key check (length(digest) = 32),
    login_id uuid not null references logins on delete cascade,
    expires_at timestamptz not null
);
create index tickets_login on tickets (login_id);

create table machines (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    name text not null,
    public_key bytea not null check (length(public_key) = 32),
    -- Kept after a revocation, so that the machine can be told "revoked" and not just "unknown".
    token_digest bytea not null unique check (length(token_digest) = 32),
    state text not null,
    state_since timestamptz not null,
    last_seen_at timestamptz,
    paired_at timestamptz not null,
    facts jsonb not null,
    -- Grows with every link of the machine; what an older link says is ignored.
    connection_epoch bigint not null default 0,
    -- The token is void: unpaired by the machine or removed by the user.
    revoked_at timestamptz,
    -- Removed by the user: not listed any more.
    removed_at timestamptz,
    -- The same identity paired again is the same machine, with its sessions.
    unique (user_id, public_key)
);

create table pairings (
    id uuid primary key,
    code text not null,
    state text not null check (state in ('pending', 'claimed', 'confirmed', 'consumed', 'denied', 'expired')),
    public_key bytea not null check (length(public_key) = 32),
    commitment bytea not null check (length(commitment) = 32),
    facts jsonb not null,
    address text not null,
    started_at timestamptz not null,
    expires_at timestamptz not null,
    -- Highest sequence number of a signed poll: no poll can be replayed.
    poll_sequence bigint not null default 0,
    agent_nonce bytea check (length(agent_nonce) = 32),
    user_id uuid references users on delete cascade,
    account text,
    claim_address text,
    browser_nonce bytea check (length(browser_nonce) = 32),
    machine_id uuid references machines on delete set null,
    check (state in ('pending', 'denied', 'expired')
           or (user_id is not null and account is not null and browser_nonce is not null))
);
-- A code is unique among the live ones only; an old one may come again.
create unique index pairings_live_code on pairings (code) where state in ('pending', 'claimed', 'confirmed');
create index pairings_expiry on pairings (expires_at);

create table enrolment_tokens (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    digest bytea not null unique check (length(digest) = 32),
    label text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    machine_id uuid references machines on delete set null
);
create index enrolment_tokens_user on enrolment_tokens (user_id);

-- The last thing that a machine said about each of its sessions.
create table sessions (
    machine_id uuid not null references machines on delete cascade,
    id uuid not null,
    name text not null,
    mode text not null,
    state text not null,
    cwd text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- `SessionInfo` without `machine_id`.
    info jsonb not null,
    -- The machine chooses session ids: two machines can never get in each other's way.
    primary key (machine_id, id)
);
create index sessions_id on sessions (id);

create table audit_log (
    id uuid primary key,
    at timestamptz not null,
    -- No foreign keys: the record outlives what it is about.
    user_id uuid,
    machine_id uuid,
    action text not null,
    address text not null,
    detail jsonb not null
);
create index audit_log_user on audit_log (user_id, at);

-- Tries to enter a pairing code that failed, and those under way. The budgets hold over restarts and for a whole fleet.
create table pairing_attempts (
    id uuid primary key,
    at timestamptz not null,
    user_id uuid not null references users on delete cascade,
    -- /24 of IPv4, /56 of IPv6.
    network text not null
);
create index pairing_attempts_at on pairing_attempts (at);
