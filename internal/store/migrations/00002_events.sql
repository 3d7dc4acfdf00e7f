-- Events and what becomes of them. Times are microseconds since 1970 in UTC.

-- +goose Up
ALTER TABLE jobs ADD COLUMN callback TEXT; -- JSON; NULL: none
ALTER TABLE jobs ADD COLUMN event_seq INTEGER NOT NULL DEFAULT 0;

-- The log. It is numbered by the writer, one by one; only its oldest events go.
CREATE TABLE events (
    n           INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    function    TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    time        INTEGER NOT NULL,
    traceparent TEXT    NOT NULL,
    callback    TEXT    NOT NULL, -- URL
    body        BLOB    NOT NULL  -- last, so that who wants the others alone does not read a large one
) STRICT;

CREATE UNIQUE INDEX events_by_id ON events (id);
CREATE INDEX events_by_subject ON events (subject); -- and n, as every index

-- Where the log ends and how large it is, in one row: to count it would be to read it.
CREATE TABLE event_log (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    last  INTEGER NOT NULL, -- n of the newest event there ever was
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO event_log (one, last, bytes) VALUES (1, 0, 0);

-- due is set of the first that is pending of a sink and a subject, and of no other.
CREATE TABLE deliveries (
    n        INTEGER NOT NULL REFERENCES events ON DELETE CASCADE,
    sink     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    state    TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    due      INTEGER,
    log      BLOB -- JSON; NULL: no attempt was made
) STRICT;

CREATE UNIQUE INDEX deliveries_by_event ON deliveries (n DESC, sink);
CREATE INDEX deliveries_by_state ON deliveries (sink, state, n DESC);
CREATE INDEX deliveries_pending ON deliveries (sink, subject, n) WHERE state = 'pending';
CREATE INDEX deliveries_due ON deliveries (sink, due, n, subject) WHERE due IS NOT NULL;

CREATE TABLE sinks (
    name          TEXT PRIMARY KEY,
    position      INTEGER NOT NULL, -- n of the last event that it has looked at
    paused        INTEGER NOT NULL,
    disabled      TEXT    NOT NULL,
    failing_since INTEGER,
    last_error    TEXT    NOT NULL,
    last_error_at INTEGER,
    last_success  INTEGER
) STRICT, WITHOUT ROWID;
