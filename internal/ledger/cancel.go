package ledger

import (
	"context"
	"errors"
	"fmt"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Why a job cannot be cancelled.
var (
	ErrEnded   = errors.New("the job has ended")
	ErrRunning = errors.New("the job is running on a worker that is not the gateway's, which cannot be told")
)

// Cancel ends a job that is scheduled or queued, and one that runs in our own pool, whose handler then sees its context end. It
// returns the record; of a job of our own pool it may still be running. The error is ErrNotFound, ErrEnded, ErrRunning, or why the
// job server could not be told.
func (l *Ledger) Cancel(ctx context.Context, who Caller, ref string) (*Record, error) {
	j, old, err := l.lookUp(ctx, who, ref)
	switch {
	case errors.Is(err, ErrNotFound):
		return l.cancelStranger(ctx, who, ref)
	case err != nil:
		return nil, err
	case j == nil:
		return &old, ErrEnded
	}
	defer l.release(j)
	l.mu.Lock()
	r, run, where := j.shown(), j.run, gearman.Job{Server: j.Server, Handle: j.Handle, Generation: j.generation}
	waits := j.ours == 0 && (r.State == Scheduled || j.pending && r.State == Queued)
	if waits && j.live() {
		l.end(j, Cancelled, event.JobCancelled, cancelled())
		r = j.shown()
		l.mu.Unlock()
		return r, nil
	}
	l.mu.Unlock()
	switch {
	case r.State.Ended():
		return r, ErrEnded
	case run != nil && l.o.CancelRun != nil:
		l.o.CancelRun(run)
		return r, nil
	case r.State == Running:
		return r, ErrRunning
	}
	if err := l.o.Servers.CancelJob(ctx, where); err != nil {
		return r, refusedCancel(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.live() {
		l.end(j, Cancelled, event.JobCancelled, cancelled())
	}
	return j.shown(), nil
}

// cancelStranger cancels a job that is not in the ledger.
func (l *Ledger) cancelStranger(ctx context.Context, who Caller, ref string) (*Record, error) {
	where, r, err := l.stranger(ctx, who, ref)
	if err != nil {
		return nil, err
	}
	if r.State == Running {
		return &r, ErrRunning
	}
	if err := l.o.Servers.CancelJob(ctx, where); err != nil {
		return &r, refusedCancel(err)
	}
	r.State, r.Gearman = Cancelled, nil
	return &r, nil
}

func cancelled() *event.Error {
	return &event.Error{Kind: "cancelled", Message: "the job was cancelled before it ran"}
}

// refusedCancel tells a job server that does not have the job in its queue from one that could not be asked.
func refusedCancel(err error) error {
	if _, refused := errors.AsType[*gearman.ServerError](err); refused {
		return ErrRunning
	}
	if err != nil {
		return fmt.Errorf("%w: %w", gearman.ErrUnavailable, err)
	}
	return nil
}
