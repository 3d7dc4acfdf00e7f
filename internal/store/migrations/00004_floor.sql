-- Settled events go though older ones are not.

-- +goose Up
-- The log is whole behind its floor. Of the events up to it only those are left that a sink is still to get.
ALTER TABLE event_log ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
UPDATE event_log SET floor = coalesce((SELECT n FROM events ORDER BY n LIMIT 1), last + 1) - 1;
