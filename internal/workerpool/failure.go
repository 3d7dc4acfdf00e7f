package workerpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"gearman-gateway/internal/event"
)

// A kinder is an error that knows its kind, as the job's record has it: "exit" for how a handler's process ended.
type kinder interface {
	error
	Kind() string
}

// describe says for the record what went wrong.
func describe(err error) *event.Error {
	kind := "exception"
	switch {
	case errors.Is(err, ErrCancelled): // first, because such a job is not tried again, whatever its handler says of that
		kind = "cancelled"
	case errors.As(err, new(*panicError)):
		kind = "panic"
	case errors.Is(err, ErrFailed):
		kind = "failed"
	case errors.Is(err, ErrDeadline), errors.Is(err, ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		kind = "timeout"
	default:
		// Last, because a process that was killed at its timeout has died by a signal too.
		if named, ok := errors.AsType[kinder](err); ok {
			kind = named.Kind()
		}
	}
	return &event.Error{Kind: kind, Message: strings.ToValidUTF8(err.Error(), "\uFFFD")}
}

// A dier is an error that knows whether the handler's process died of the job.
type dier interface {
	error
	Died() bool
}

// verdict says what a failure means for another try of its job. A process that was killed because its time was up is not dead of
// the job.
func (p *Pool) verdict(f *Function, err error, kind string) *event.Verdict {
	v := &event.Verdict{MaxDeaths: cmp.Or(f.MaxDeaths, p.o.MaxDeaths), Retries: f.Retry.Max, Backoff: f.Retry.Backoff}
	if ask, ok := errors.AsType[*RetryError](err); ok {
		v.After = ask.After
	}
	_, v.Never = errors.AsType[*NeverRetryError](err)
	if process, ok := errors.AsType[dier](err); ok && kind != "timeout" && kind != "cancelled" {
		v.Died = process.Died()
	}
	return v
}

// sizeError is a workload or result that is larger than its function allows, in bytes.
type sizeError struct {
	what    string
	n, most int64
}

func (e *sizeError) Error() string {
	return fmt.Sprintf("the %s is too large: %d bytes, at most %d are allowed", e.what, e.n, e.most)
}

// Kind is the kind of the failure in the job's record.
func (e *sizeError) Kind() string { return "failed" }
