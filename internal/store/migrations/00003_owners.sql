-- Whose a job is, and with it its events and their deliveries; '': nobody's. Where nobody is known the indexes are empty.

-- +goose Up
ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_by_owner ON jobs (owner, state, mode, id) WHERE owner <> '';
CREATE INDEX jobs_by_owner_and_function ON jobs (owner, function, state, mode, id) WHERE owner <> '';

ALTER TABLE events ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE INDEX events_by_owner ON events (owner, n) WHERE owner <> '';

ALTER TABLE deliveries ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE INDEX deliveries_by_owner ON deliveries (owner, sink, state, n DESC) WHERE owner <> '';
