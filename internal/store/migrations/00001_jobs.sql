-- Times are microseconds since 1970 in UTC, NULL for the zero time; durations are nanoseconds.

-- +goose Up
CREATE TABLE jobs (
    id             TEXT PRIMARY KEY, -- UUIDv7: their order is that of the submissions
    handle         TEXT    NOT NULL,
    server         TEXT    NOT NULL,
    function       TEXT    NOT NULL,
    uniq           TEXT    NOT NULL,
    mode           TEXT    NOT NULL,
    priority       INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    numerator      REAL, -- NULL, both: no progress was reported
    denominator    REAL,
    kept           INTEGER NOT NULL,
    error_kind     TEXT, -- NULL, both: no error
    error_message  TEXT,
    run_at         INTEGER,
    deadline       INTEGER,
    on_lost        TEXT    NOT NULL,
    retry_max      INTEGER NOT NULL,
    retry_backoff  INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    deaths         INTEGER NOT NULL,
    sent           INTEGER NOT NULL,
    retry_of       TEXT    NOT NULL,
    traceparent    TEXT    NOT NULL,
    submitted_at   INTEGER,
    started_at     INTEGER,
    ended_at       INTEGER
) STRICT, WITHOUT ROWID;

-- Lists: there are few states and modes, so that any filter is a merge of a few ranges of one of these, each in the order of id.
CREATE INDEX jobs_by_function ON jobs (function, state, mode, id);
CREATE INDEX jobs_by_state ON jobs (state, mode, id);
CREATE INDEX jobs_by_handle ON jobs (handle, id) WHERE handle <> '';

-- Expiry.
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_by_end_kept ON jobs (ended_at) WHERE kept = 1;

-- What may be large lives apart from the rows that lists read, in tables that have a rowid: without one, a b-tree's inner
-- pages hold whole rows.
CREATE TABLE workloads (
    id       TEXT NOT NULL PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    workload BLOB NOT NULL
) STRICT;

CREATE TABLE payloads (
    id       TEXT NOT NULL PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    result   BLOB,
    warnings BLOB, -- JSON
    log      BLOB  -- JSON
) STRICT;

-- A key may outlive its job.
CREATE TABLE keys (
    key         TEXT PRIMARY KEY,
    fingerprint BLOB    NOT NULL,
    job         TEXT    NOT NULL,
    at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_job ON keys (job);
CREATE INDEX keys_by_age ON keys (at);
