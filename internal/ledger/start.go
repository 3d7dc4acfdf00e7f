package ledger

import (
	"context"
	"fmt"
	"time"

	"gearman-gateway/internal/event"
)

// Start takes up what the store has from an earlier life of the gateway, and begins to submit what is due. It blocks while it
// reads, and must be called before anything else.
func (l *Ledger) Start(ctx context.Context) error {
	n := 0
	err := l.o.Store.Unfinished(ctx, func(r Record) error {
		n++
		l.mu.Lock()
		defer l.mu.Unlock()
		l.resume(r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading unfinished jobs: %w", err)
	}
	if n > 0 {
		l.o.Log.Info().Int("jobs", n).Msg("took up the unfinished jobs of an earlier life")
	}
	if !l.stored {
		l.o.Log.Warn().Msg("no data directory: tracked and scheduled jobs are kept in memory, and are lost when the gateway ends")
	}
	run, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.running.Go(func() { l.run(run, &l.clock, func(do func(context.Context)) { l.apart(run, do) }) })
	l.running.Go(func() { l.run(run, &l.deadlines, func(do func(context.Context)) { do(run) }) })
	return nil
}

// Stop submits no more, and returns when all that the ledger has begun by itself has ended.
func (l *Ledger) Stop() {
	if l.stop != nil {
		l.stop()
	}
	l.running.Wait()
}

// takeUp makes a job of the ledger, held, of one in the background that was forgotten before its end, which nobody may have heard.
func (l *Ledger) takeUp(r Record) *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.byID[r.ID]
	if j == nil { // else another was as quick
		j = l.resume(r)
	}
	j.waiters++
	return j
}

// resume takes up one job. The connection that submitted it is gone: a handle that it has is never asked for again.
func (l *Ledger) resume(r Record) *job {
	for len(l.byID) >= l.o.MaxRecords && l.forgetOldest() {
	}
	j := &job{
		Record:    r,
		durable:   r.Mode == Tracked || !r.RunAt.IsZero() && !r.handedOver(),
		submitted: r.Handle != "",
		// Whoever followed the log before has seen smaller numbers, and sees by the step that some are missing.
		logSeq: uint64(max(0, time.Since(r.SubmittedAt).Microseconds())),
	}
	j.Record.Log = nil
	j.wire = l.wireUnique(&j.Record)
	if j.Mode != Background && j.Attempt > 0 {
		j.wire = attemptWire(j)
	}
	l.insert(j)
	if newer := l.byHandle[j.Handle]; j.Handle != "" && (newer == nil || newer.ID < j.ID) { // a job server that starts anew gives its handles again
		l.byHandle[j.Handle] = j
	}
	switch {
	case j.State == Scheduled:
		l.submitAt(j, j.RunAt)
	case j.Mode == Tracked && j.Sent:
		l.end(j, Lost, event.JobLost, &event.Error{Kind: "lost", Message: "the gateway was restarted while a job server had the job"})
		return j
	case j.Mode == Tracked:
		j.doubt = true // it may be there, doomed, even if its handle was never read
		l.submitAt(j, time.Now())
	case j.Mode == Sync:
		l.end(j, Lost, event.JobLost, &event.Error{Kind: "lost", Message: "the gateway was restarted while the job ran"})
		return j
	case j.handedOver():
		j.there = true
	case !j.RunAt.IsZero(): // due, and it may have been on its way: a job server that has it joins the two
		l.submitAt(j, time.Now())
	default:
		l.end(j, Unknown, "", nil)
		return j
	}
	l.expireAt(j)
	return j
}
