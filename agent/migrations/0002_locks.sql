-- File locks that are held. `record` is the lock as JSON (agent/src/store/locks.rs). A fencing number is never given twice:
-- the counter outlives the locks.
CREATE TABLE locks (
    id     TEXT NOT NULL PRIMARY KEY,
    fence  INTEGER NOT NULL UNIQUE,
    record TEXT NOT NULL
) STRICT;

-- One row. `boot` names the run of the machine whose monotonic clock the leases are measured with.
CREATE TABLE lock_counters (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    next_fence INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    boot       TEXT NOT NULL
) STRICT;
