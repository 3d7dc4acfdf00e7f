package ledger

import (
	"cmp"
	"errors"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/tracing"
)

// trace begins the span of a task, whose context the task and its job then have. A job that the ledger submits by itself, when it is due,
// is only created by it.
func (l *Ledger) trace(t *Task) tracing.Span {
	begin := l.o.Tracer.Submit
	if t.Mode == Tracked || !t.RunAt.IsZero() {
		begin = l.o.Tracer.Create
	}
	span := begin(t.Traceparent, t.Function, string(t.Mode), len(t.Workload))
	t.Traceparent = cmp.Or(span.Traceparent(), t.Traceparent)
	return span
}

// traceAgain begins the span of a submit of the ledger's own.
func (l *Ledger) traceAgain(j *job) tracing.Span {
	if l.o.Tracer == nil {
		return tracing.Span{}
	}
	l.mu.Lock()
	parent, attempt := j.Traceparent, j.Attempt+1
	l.mu.Unlock()
	return l.o.Tracer.Resubmit(parent, j.Function, string(j.Mode), j.ID, attempt)
}

// failed notes why a task was not taken, if err is not nil.
func failed(span tracing.Span, err error) {
	if err == nil {
		return
	}
	kind := "_OTHER"
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrEventsFull):
		kind = "full"
	case errors.Is(err, ErrStoreFailed):
		kind = "store_failed"
	case errors.Is(err, ErrKeyReused), errors.Is(err, ErrKeyPending):
		kind = "idempotency_key"
	case errors.Is(err, gearman.ErrOutcomeUnknown):
		kind = "outcome_unknown"
	case errors.Is(err, gearman.ErrNotSent):
		kind = "not_sent"
	}
	span.Fail(kind, err.Error())
}
