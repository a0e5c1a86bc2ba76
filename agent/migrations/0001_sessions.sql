-- Sessions of this machine. `record` is the whole record as JSON (agent/src/supervisor/record.rs); the other
-- columns repeat what queries and constraints need. Environment values that a user gave for a session are in
-- the record, because a restart needs them: the database file is readable by its owner only.
CREATE TABLE sessions (
    id         TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    record     TEXT NOT NULL
) STRICT;
