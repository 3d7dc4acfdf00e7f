-- name: PutJob :exec
INSERT INTO jobs (id, handle, server, function, uniq, mode, priority, state, numerator, denominator, kept, error_kind,
    error_message, run_at, deadline, on_lost, retry_max, retry_backoff, attempt, deaths, sent, retry_of, traceparent,
    submitted_at, started_at, ended_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    handle = excluded.handle, server = excluded.server, function = excluded.function, uniq = excluded.uniq,
    mode = excluded.mode, priority = excluded.priority, state = excluded.state, numerator = excluded.numerator,
    denominator = excluded.denominator, kept = excluded.kept, error_kind = excluded.error_kind,
    error_message = excluded.error_message, run_at = excluded.run_at, deadline = excluded.deadline,
    on_lost = excluded.on_lost, retry_max = excluded.retry_max, retry_backoff = excluded.retry_backoff,
    attempt = excluded.attempt, deaths = excluded.deaths, sent = excluded.sent, retry_of = excluded.retry_of,
    traceparent = excluded.traceparent, submitted_at = excluded.submitted_at,
    started_at = excluded.started_at, ended_at = excluded.ended_at;

-- name: PutWorkload :exec
INSERT INTO workloads (id, workload) VALUES (?, ?)
ON CONFLICT (id) DO UPDATE SET workload = excluded.workload;

-- name: PutPayload :exec
-- What the change does not bring stays as it is.
INSERT INTO payloads (id, result, warnings, log) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET result = coalesce(excluded.result, payloads.result),
    warnings = coalesce(excluded.warnings, payloads.warnings), log = coalesce(excluded.log, payloads.log);

-- name: DropKey :exec
DELETE FROM keys WHERE key = ? AND at < ?;

-- name: PutKey :execrows
-- No row: the key is another job's.
INSERT INTO keys (key, fingerprint, job, at) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, at = excluded.at WHERE keys.job = excluded.job;

-- name: DeleteJob :exec
DELETE FROM jobs WHERE id = ?;

-- name: DeleteKeysOf :exec
DELETE FROM keys WHERE job = ?;

-- name: GetJob :one
SELECT sqlc.embed(jobs), payloads.result, payloads.warnings, payloads.log
FROM jobs LEFT JOIN payloads ON payloads.id = jobs.id WHERE jobs.id = ?;

-- name: GetJobs :many
SELECT * FROM jobs WHERE id IN (sqlc.slice('ids'));

-- name: NewestWithHandle :one
SELECT id FROM jobs WHERE handle = ? AND handle <> '' ORDER BY id DESC LIMIT 1;

-- name: GetWorkload :one
SELECT workload FROM workloads WHERE id = ?;

-- name: GetKey :one
SELECT * FROM keys WHERE key = ?;

-- name: ExpireJobs :execrows
DELETE FROM jobs WHERE id IN (
    SELECT j.id FROM jobs j WHERE j.ended_at IS NOT NULL AND j.ended_at < ? ORDER BY j.ended_at LIMIT ?);

-- name: ExpireKeys :execrows
DELETE FROM keys WHERE key IN (SELECT k.key FROM keys k WHERE k.at < ? ORDER BY k.at LIMIT ?);

-- name: ExpiredResults :many
SELECT id FROM jobs WHERE kept = 1 AND ended_at < ? ORDER BY ended_at LIMIT ?;

-- name: DropResult :exec
UPDATE payloads SET result = NULL WHERE id = ?;

-- name: DropWorkload :exec
DELETE FROM workloads WHERE id = ?;

-- name: MarkDropped :exec
UPDATE jobs SET kept = 0 WHERE id = ?;
