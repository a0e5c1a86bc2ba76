-- Rules of the policy that people have made on the command line or with "always allow…". `rule` is JSON (shared/src/policy.rs);
-- rules of the configuration file are not here.
CREATE TABLE policy_rules (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL UNIQUE,
    rule     TEXT NOT NULL
) STRICT;
