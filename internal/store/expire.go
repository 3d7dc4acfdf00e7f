package store

import (
	"context"

	"gearman-gateway/internal/store/query"
)

// maxExpired is how many rows one transaction lets expire, so that no change waits long for it.
const maxExpired = 500

// expire deletes what is older than it may get, a bounded number of rows, and reports whether there may be more.
func (d *DB) expire() (more bool, err error) {
	ctx := context.Background()
	now := d.o.Now()
	var left int64
	err = d.transaction(func(q *query.Queries) error {
		left = maxExpired
		n, err := q.ExpireJobs(ctx, query.ExpireJobsParams{EndedAt: new(now.Add(-d.o.Retention).UnixMicro()), Limit: left})
		if err != nil {
			return err
		}
		left -= n
		n, err = q.ExpireKeys(ctx, query.ExpireKeysParams{At: now.Add(-d.o.KeyTTL).UnixMicro(), Limit: left})
		if err != nil {
			return err
		}
		left -= n
		n, err = expireResults(ctx, q, now.Add(-d.o.ResultTTL).UnixMicro(), left)
		left -= n
		return err
	})
	return left == 0, err
}

// expireResults drops the results of jobs that ended before the time, and the workloads, which nobody will replay. What a job's
// stream showed, its log and its warnings, stays as long as the job.
func expireResults(ctx context.Context, q *query.Queries, before, limit int64) (n int64, err error) {
	ids, err := q.ExpiredResults(ctx, query.ExpiredResultsParams{EndedAt: &before, Limit: limit})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		for _, drop := range []func(context.Context, string) error{q.DropResult, q.DropWorkload, q.MarkDropped} {
			if err := drop(ctx, id); err != nil {
				return 0, err
			}
		}
	}
	return int64(len(ids)), nil
}
