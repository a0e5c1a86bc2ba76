-- Approvals of this machine. `record` is the whole record as JSON (agent/src/guard/approval/record.rs); the other
-- columns repeat what queries need. `call` names the run of the hook program that waits for the answer.
CREATE TABLE approvals (
    id         TEXT NOT NULL PRIMARY KEY,
    session    TEXT NOT NULL,
    call       TEXT NOT NULL,
    state      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    record     TEXT NOT NULL
) STRICT;
CREATE INDEX approvals_by_state ON approvals (state, created_at);
CREATE INDEX approvals_by_time ON approvals (created_at);

-- What was asked, decided and done, in order. Each row's hash covers its content and the hash of the row before
-- (agent/src/guard/audit.rs), so that a row that was changed, taken out or put in is found.
CREATE TABLE audit (
    number   INTEGER NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    session  TEXT,
    body     TEXT NOT NULL,
    hash     TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
