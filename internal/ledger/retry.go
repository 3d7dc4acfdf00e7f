package ledger

import (
	"context"
	"errors"
	"fmt"
)

// Why a job cannot be run again.
var (
	ErrNotEnded   = errors.New("the job has not ended")
	ErrCompleted  = errors.New("the job has completed")
	ErrNoWorkload = errors.New("the job's workload was not kept")
)

// RunAgain submits a tracked job that failed, was lost or cancelled as a new job of the same owner, whose RetryOf names the old one. The error is
// ErrNotFound, one of the above, or one of Submit.
func (l *Ledger) RunAgain(ctx context.Context, who Caller, ref string) (*Record, error) {
	old, workload, err := l.ended(ctx, who, ref)
	switch {
	case err != nil:
		return nil, err
	case !old.State.Ended():
		return nil, ErrNotEnded
	case old.State == Completed:
		return nil, ErrCompleted
	case old.Mode != Tracked:
		return nil, ErrNoWorkload
	}
	if workload == nil {
		if workload, err = l.o.Store.Workload(ctx, old.ID); errors.Is(err, ErrNotFound) {
			return nil, ErrNoWorkload
		} else if err != nil {
			return nil, fmt.Errorf("reading the workload of job %s: %w", old.ID, err)
		}
	}
	return l.Submit(ctx, &Task{
		Owner: old.Owner, Function: old.Function, Workload: workload, Mode: old.Mode, Priority: old.Priority, Unique: old.Unique,
		OnLost: old.OnLost, Retry: old.Retry, RetryOf: old.ID, Callback: old.Callback, Traceparent: old.Traceparent,
	})
}

// ended returns a job's record, and its workload where that is in memory.
func (l *Ledger) ended(ctx context.Context, who Caller, ref string) (r Record, workload []byte, err error) {
	j, r, err := l.lookUp(ctx, who, ref)
	if j == nil {
		return r, nil, err
	}
	defer l.release(j)
	l.mu.Lock()
	defer l.mu.Unlock()
	return j.Record, j.workload, nil
}
