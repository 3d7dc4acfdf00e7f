package workerpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/tracing"
)

// A run is one job on its way through the pool.
type run struct {
	*life
	f     *Function
	a     *gearman.Assignment
	begin time.Time
	facts event.Facts
	span  tracing.Span
	job   Job
	out   counted
	d     event.Data // of the event that is told: large, and so not on the stack

	result []byte
	err    error
}

// run runs one job, from what its observer hears first to the packet that ends it.
func (p *Pool) run(f *Function, a *gearman.Assignment) {
	r := &run{life: p.current(), f: f, a: a, out: counted{Assignment: a}, begin: time.Now()}
	ctx, end := p.context(a) // before the observer hears of the run: from then on it may be cancelled
	defer end()
	p.running.Add(1)
	defer p.running.Add(-1)
	r.work(1)
	defer r.work(-1)
	r.observe(event.FunctionBeforeExecute, &r.d)
	r.err = errExited // stays so when the handler leaves by runtime.Goexit, which only deferred calls outlive
	defer r.end()
	if p.o.Observer != nil {
		r.facts = p.o.Observer.Begin(a)
	}
	r.span = p.o.Tracer.Run(r.facts.Traceparent, a.Function, r.facts.ID, a.Handle, r.facts.Attempt)
	ctx, out := inTime(ctx, f, r.facts.Deadline)
	defer out()
	r.job = Job{
		Handle: a.Handle, Function: a.Function, Unique: a.Unique, Workload: a.Workload,
		ID: r.facts.ID, Attempt: r.facts.Attempt, Deadline: r.facts.Deadline,
		Traceparent: cmp.Or(r.span.Traceparent(), r.facts.Traceparent),
		out:         &r.out, run: r,
	}
	r.result, r.err = p.execute(ctx, f, &r.job)
	if n := r.out.sent.Load() + int64(len(r.result)); r.err == nil && f.MaxResult > 0 && n > f.MaxResult {
		r.result, r.err = nil, &sizeError{"result", n, f.MaxResult}
	}
}

// observe tells the observer something of the run, which d says.
func (r *run) observe(t event.Type, d *event.Data) {
	if r.p.o.Observer != nil {
		d.Worker = r.id
		r.p.o.Observer.Observe(r.a, t, d)
	}
}

// end tells the observer, and then the job server, how the run has ended.
func (r *run) end() {
	took := time.Since(r.begin)
	r.d = event.Data{DurationMS: float64(took.Microseconds()) / 1000}
	if r.err == nil {
		r.d.Result = r.result
		r.meter(took)
		r.observe(event.FunctionAfterExecute, &r.d)
		r.p.sent(r.a, r.a.Complete(r.result))
		r.ran(r.a)
	} else {
		r.fail(took)
	}
	r.span.End()
}

func (r *run) fail(took time.Duration) {
	failure := describe(r.err)
	r.d.Error, r.d.Verdict = failure, r.p.verdict(r.f, r.err, failure.Kind)
	// When the pool stops it is most likely not the job's fault: closing the connection gives it to another worker. But not a job that
	// was over before, and whose handler only took its time to end.
	over := slices.ContainsFunc([]error{ErrFailed, ErrCancelled, ErrDeadline, ErrTimeout}, func(e error) bool { return errors.Is(r.err, e) })
	stopped := r.p.jobs.Err() != nil && !over
	if stopped {
		r.d.Reason = event.HandedBack
	}
	r.meter(took)
	r.observe(event.FunctionOnFailure, &r.d)
	switch {
	case stopped:
	case errors.Is(r.err, ErrFailed):
		r.p.sent(r.a, r.a.Fail())
		r.ran(r.a)
	default:
		r.p.sent(r.a, r.a.Exception([]byte(failure.Message)))
		r.ran(r.a)
	}
	r.span.Fail(failure.Kind, "") // what the error says may quote the workload
}

// counted counts the bytes that a handler sends ahead of its result.
type counted struct {
	*gearman.Assignment
	sent atomic.Int64
}

func (c *counted) Data(b []byte) error {
	c.sent.Add(int64(len(b)))
	return c.Assignment.Data(b)
}

// context returns the context of a run, which ends when the pool stops, or the run is cancelled.
func (p *Pool) context(a *gearman.Assignment) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(p.jobs)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs[a] = cancel
	return ctx, func() {
		p.mu.Lock()
		delete(p.runs, a)
		p.mu.Unlock()
		cancel(nil)
	}
}

// inTime returns a context that ends at the job's deadline, too, and after the function's timeout.
func inTime(ctx context.Context, f *Function, deadline time.Time) (_ context.Context, end func()) {
	late, out := func() {}, func() {}
	if !deadline.IsZero() {
		ctx, late = context.WithDeadlineCause(ctx, deadline, ErrDeadline)
	}
	if f.Timeout > 0 {
		ctx, out = context.WithTimeoutCause(ctx, f.Timeout, fmt.Errorf("%w: %v", ErrTimeout, f.Timeout))
	}
	return ctx, func() {
		out()
		late()
	}
}

var errExited = errors.New("the handler ended its goroutine")

func (l *life) ran(a *gearman.Assignment) {
	l.publish(event.WorkerAfterRun, event.Data{Function: a.Function, Handle: a.Handle})
	l.afterJob()
}

// execute calls the handler. A panic becomes an error: without an answer the job would run forever in the job server's eyes.
func (p *Pool) execute(ctx context.Context, f *Function, j *Job) (result []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.o.Log.Error().Str("function", j.Function).Str("job", j.ID).Str("handle", j.Handle).Bytes("stack", debug.Stack()).
				Msg("handler panicked")
			result, err = nil, because(ctx, &panicError{v})
		}
	}()
	if n := int64(len(j.Workload)); f.MaxWorkload > 0 && n > f.MaxWorkload {
		return nil, &NeverRetryError{Err: &sizeError{"workload", n, f.MaxWorkload}}
	}
	if ctx.Err() != nil { // its deadline has passed while it was queued
		return nil, context.Cause(ctx)
	}
	result, err = f.Handler.Run(ctx, j)
	return result, because(ctx, err)
}

// because adds to what went wrong why ctx has ended, if it has.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// sent logs a job's end that did not get through: the job server will have the job run again.
func (p *Pool) sent(a *gearman.Assignment, err error) {
	if err != nil {
		p.o.Log.Warn().Err(err).Str("function", a.Function).Str("handle", a.Handle).Str("server", a.Server).
			Msg("the job server did not get the outcome of a job, and will give it to another worker")
	}
}
