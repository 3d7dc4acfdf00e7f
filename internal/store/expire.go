package store

import (
	"context"
	"fmt"
	"time"

	"gearman-gateway/internal/store/query"
)

// maxExpired is how many rows one transaction lets expire, so that no change waits long for it.
const maxExpired = 500

// expire deletes what is older than it may get, a bounded number of rows, and reports whether there may be more.
func (d *DB) expire() (more bool, err error) {
	now := d.o.Now()
	var left int64
	err = d.transaction(func(t *tx) error {
		left = maxExpired
		n, err := t.ExpireJobs(background, query.ExpireJobsParams{EndedAt: new(now.Add(-d.o.Retention).UnixMicro()), Limit: left})
		if err != nil {
			return err
		}
		left -= n
		n, err = t.expireUnheard(now.Add(-d.o.Retention), left)
		if err != nil {
			return err
		}
		left -= n
		n, err = t.ExpireKeys(background, query.ExpireKeysParams{At: now.Add(-d.o.KeyTTL).UnixMicro(), Limit: left})
		if err != nil {
			return err
		}
		left -= n
		n, err = t.expireResults(now.Add(-d.o.ResultTTL).UnixMicro(), left)
		if err != nil {
			return err
		}
		left -= n
		n, err = t.expireEvents(left)
		left -= n
		return err
	})
	return left == 0, err
}

// expireUnheard deletes jobs that a job server has had, and whose end nobody has told since the time: it was told to nobody, or to one
// that had forgotten them.
func (t *tx) expireUnheard(before time.Time, limit int64) (n int64, err error) {
	return t.ExpireUnheard(background, query.ExpireUnheardParams{ID: firstID(before), Before: new(before.UnixMicro()), Most: limit})
}

// firstID returns what no id of a job that is submitted at the time or later is less than (RFC 9562, section 5.7).
func firstID(at time.Time) string {
	ms := at.UnixMilli()
	return fmt.Sprintf("%08x-%04x", ms>>16, ms&0xffff)
}

// expireResults drops the results of jobs that ended before the time, and the workloads, which nobody will replay. What a job's
// stream showed, its log and its warnings, stays as long as the job.
func (t *tx) expireResults(before, limit int64) (n int64, err error) {
	ids, err := t.ExpiredResults(background, query.ExpiredResultsParams{EndedAt: &before, Limit: limit})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		for _, drop := range []func(context.Context, string) error{t.DropResult, t.DropWorkload, t.MarkDropped} {
			if err := drop(background, id); err != nil {
				return 0, err
			}
		}
	}
	return int64(len(ids)), nil
}
