-- name: PutJob :exec
INSERT INTO jobs (id, handle, server, function, uniq, mode, priority, state, numerator, denominator, kept, error_kind,
    error_message, run_at, deadline, on_lost, retry_max, retry_backoff, attempt, deaths, sent, retry_of, traceparent,
    submitted_at, started_at, ended_at, callback, event_seq, owner)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    handle = excluded.handle, server = excluded.server, function = excluded.function, uniq = excluded.uniq,
    mode = excluded.mode, priority = excluded.priority, state = excluded.state, numerator = excluded.numerator,
    denominator = excluded.denominator, kept = excluded.kept, error_kind = excluded.error_kind,
    error_message = excluded.error_message, run_at = excluded.run_at, deadline = excluded.deadline,
    on_lost = excluded.on_lost, retry_max = excluded.retry_max, retry_backoff = excluded.retry_backoff,
    attempt = excluded.attempt, deaths = excluded.deaths, sent = excluded.sent, retry_of = excluded.retry_of,
    traceparent = excluded.traceparent, submitted_at = excluded.submitted_at,
    started_at = excluded.started_at, ended_at = excluded.ended_at,
    callback = excluded.callback, event_seq = excluded.event_seq, owner = excluded.owner;

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

-- name: ExpireUnheard :execrows
-- A job server has had these, and nobody may ever tell their end.
DELETE FROM jobs WHERE id IN (
    SELECT j.id FROM jobs j WHERE j.state IN ('queued', 'running') AND j.mode IN ('background', 'sync') AND j.id < @id
    AND (j.handle <> '' OR j.server <> '') AND coalesce(j.started_at, j.run_at, 0) < @before LIMIT @most);

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

-- name: GetEventLog :one
SELECT last, bytes, floor FROM event_log;

-- name: PutEventLog :exec
UPDATE event_log SET last = ?, bytes = ?, floor = ?;

-- name: PutEvent :execrows
-- No row: it is in the log already.
INSERT INTO events (n, id, type, function, subject, time, traceparent, callback, body, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- name: EventNumber :one
SELECT n FROM events WHERE id = ?;

-- name: EventNumberOf :one
SELECT n FROM events WHERE id = ? AND owner = ?;

-- name: EventTime :one
SELECT n, time FROM events WHERE n >= ? ORDER BY n LIMIT 1;

-- name: Heads :many
SELECT n, type, function, subject, callback FROM events WHERE n > ? ORDER BY n LIMIT ?;

-- name: GetBodies :many
SELECT body FROM events WHERE n IN (sqlc.slice('numbers')) ORDER BY n;

-- name: OldestEvents :many
SELECT n, time, CAST(length(body) AS INTEGER) AS size FROM events WHERE n > @floor AND n < @needed ORDER BY n LIMIT ?;

-- name: TrimEvents :exec
DELETE FROM events WHERE n > @after AND n < @before;

-- name: TrimSettled :one
DELETE FROM events WHERE events.n = ? AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.n = events.n AND d.state = 'pending')
RETURNING CAST(length(body) AS INTEGER) AS size;

-- name: GetSink :one
SELECT * FROM sinks WHERE name = ?;

-- name: GetSinks :many
SELECT * FROM sinks ORDER BY name;

-- name: AddSink :exec
INSERT INTO sinks (name, position, paused, disabled, last_error) VALUES (?, ?, 0, '', '') ON CONFLICT (name) DO NOTHING;

-- name: PutSink :exec
UPDATE sinks SET position = ?, paused = ?, disabled = ?, failing_since = ?, last_error = ?, last_error_at = ?, last_success = ?
WHERE name = ?;

-- name: AddDelivery :exec
-- It is due if no other of its subject is pending.
INSERT INTO deliveries (n, sink, subject, state, owner, attempts, due)
VALUES (@n, @sink, @subject, 'pending', (SELECT e.owner FROM events e WHERE e.n = @n), 0, CASE WHEN EXISTS (SELECT 1 FROM deliveries d
    WHERE d.sink = @sink AND d.subject = @subject AND d.state = 'pending') THEN NULL ELSE @due END);

-- name: EndDelivery :exec
UPDATE deliveries SET state = ?, attempts = ?, due = NULL, log = ? WHERE n = ? AND sink = ? AND state = 'pending';

-- name: RetryDelivery :exec
-- It is not due while another of its subject is in front of it, which may have been requeued while it was tried.
UPDATE deliveries SET attempts = @attempts, log = @log, due = CASE WHEN EXISTS (SELECT 1 FROM deliveries d
    WHERE d.sink = @sink AND d.subject = @subject AND d.state = 'pending' AND d.n < @n) THEN NULL ELSE @due END
WHERE n = @n AND sink = @sink AND state = 'pending';

-- name: FirstPending :one
SELECT n, due FROM deliveries WHERE sink = ? AND subject = ? AND state = 'pending' ORDER BY n LIMIT 1;

-- name: SetDue :exec
UPDATE deliveries SET due = ? WHERE n = ? AND sink = ?;

-- name: Awaken :exec
-- The first that is pending is due, at the latest now.
UPDATE deliveries SET due = @due WHERE due IS NULL AND rowid = (SELECT d.rowid FROM deliveries d
    WHERE d.sink = @sink AND d.subject = @subject AND d.state = 'pending' ORDER BY d.n LIMIT 1);

-- name: OldestPending :one
SELECT n FROM deliveries WHERE sink = ? AND state = 'pending' ORDER BY n LIMIT 1;

-- name: Pending :many
SELECT n, subject FROM deliveries WHERE sink = @sink AND state = 'pending' AND n > @after AND n <= @last ORDER BY n LIMIT ?;

-- name: DropDelivery :exec
DELETE FROM deliveries WHERE n = ? AND sink = ?;

-- name: CountDeliveries :one
SELECT count(*) FROM deliveries WHERE sink = ? AND state = ?;

-- name: Letters :many
SELECT d.n, d.attempts, d.log, e.id, e.type, e.body, e.callback, e.traceparent
FROM deliveries d CROSS JOIN events e ON e.n = d.n
WHERE d.sink = ? AND d.subject = ? AND d.state = 'pending' ORDER BY d.n LIMIT ?;

-- name: GetDelivery :one
SELECT d.subject, d.state, d.owner, d.attempts, d.due, e.id, e.type, e.time
FROM deliveries d CROSS JOIN events e ON e.n = d.n WHERE d.n = ? AND d.sink = ?;

-- name: GetDeliveryLog :one
SELECT log FROM deliveries WHERE n = ? AND sink = ?;

-- name: RequeueDelivery :exec
UPDATE deliveries SET state = 'pending', attempts = 0, due = ? WHERE n = ? AND sink = ?;

-- name: DeadDeliveries :many
SELECT d.n, d.subject, e.time FROM deliveries d CROSS JOIN events e ON e.n = d.n
WHERE d.sink = ? AND d.state = 'dead' AND d.n > ? ORDER BY d.n LIMIT ?;

-- name: HastenDeliveries :execrows
UPDATE deliveries SET due = @now WHERE rowid IN (
    SELECT d.rowid FROM deliveries d WHERE d.sink = @sink AND d.due > @now ORDER BY d.due LIMIT @most);
