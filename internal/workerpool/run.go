package workerpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/tracing"
)

// run runs one job, from what its observer hears first to the packet that ends it.
func (p *Pool) run(f *Function, a *gearman.Assignment) {
	l := p.current()
	p.running.Add(1)
	defer p.running.Add(-1)
	l.work(1)
	defer l.work(-1)
	observe := func(t event.Type, d event.Data) {
		if p.o.Observer != nil {
			d.Worker = l.id
			p.o.Observer.Observe(a, t, d)
		}
	}
	begin := time.Now()
	observe(event.FunctionBeforeExecute, event.Data{})
	var result []byte
	err := errExited // stays so when the handler leaves by runtime.Goexit, which only deferred calls outlive
	var span tracing.Span
	defer func() {
		l.finish(f, a, observe, begin, result, err)
		if err != nil {
			span.Fail(describe(err).Kind, "") // what it says may quote the workload
		}
		span.End()
	}()
	var facts event.Facts
	if p.o.Observer != nil {
		facts = p.o.Observer.Begin(a)
	}
	span = p.o.Tracer.Run(facts.Traceparent, a.Function, facts.ID, a.Handle, facts.Attempt)
	ctx, end := p.context(f, a, facts.Deadline)
	defer end()
	out := &counted{Assignment: a}
	result, err = p.execute(ctx, f, &Job{
		Handle: a.Handle, Function: a.Function, Unique: a.Unique, Workload: a.Workload,
		ID: facts.ID, Attempt: facts.Attempt, Deadline: facts.Deadline, Traceparent: cmp.Or(span.Traceparent(), facts.Traceparent),
		out: out, observe: observe,
	})
	if n := out.sent.Load() + int64(len(result)); err == nil && f.MaxResult > 0 && n > f.MaxResult {
		result, err = nil, &sizeError{"result", n, f.MaxResult}
	}
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

// context returns the context of a run, which ends when the pool stops, the job's deadline or the function's timeout comes, or the
// run is cancelled.
func (p *Pool) context(f *Function, a *gearman.Assignment, deadline time.Time) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(p.jobs)
	p.mu.Lock()
	p.runs[a] = cancel
	p.mu.Unlock()
	late, out := func() {}, func() {}
	if !deadline.IsZero() {
		ctx, late = context.WithDeadlineCause(ctx, deadline, ErrDeadline)
	}
	if f.Timeout > 0 {
		ctx, out = context.WithTimeoutCause(ctx, f.Timeout, fmt.Errorf("%w: %v", ErrTimeout, f.Timeout))
	}
	return ctx, func() {
		p.mu.Lock()
		delete(p.runs, a)
		p.mu.Unlock()
		out()
		late()
		cancel(nil)
	}
}

var errExited = errors.New("the handler ended its goroutine")

// finish tells the observer, and then the job server, how a run has ended.
func (l *life) finish(
	f *Function, a *gearman.Assignment, observe func(event.Type, event.Data), begin time.Time, result []byte, err error,
) {
	p := l.p
	ran := time.Since(begin)
	took := float64(ran.Microseconds()) / 1000
	if err == nil {
		d := event.Data{DurationMS: took, Result: result}
		p.meter(a.Function, d, ran)
		observe(event.FunctionAfterExecute, d)
		p.sent(a, a.Complete(result))
		l.ran(a)
		return
	}
	failure := describe(err)
	d := event.Data{DurationMS: took, Error: failure, Verdict: p.verdict(f, err, failure.Kind)}
	// When the pool stops it is most likely not the job's fault: closing the connection gives it to another worker.
	if p.jobs.Err() != nil && !errors.Is(err, ErrFailed) {
		d.Reason = event.HandedBack
		p.meter(a.Function, d, ran)
		observe(event.FunctionOnFailure, d)
		return
	}
	p.meter(a.Function, d, ran)
	observe(event.FunctionOnFailure, d)
	if errors.Is(err, ErrFailed) {
		p.sent(a, a.Fail())
	} else {
		p.sent(a, a.Exception([]byte(failure.Message)))
	}
	l.ran(a)
}

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
			result, err = nil, &panicError{v}
		}
	}()
	if n := int64(len(j.Workload)); f.MaxWorkload > 0 && n > f.MaxWorkload {
		return nil, &NeverRetryError{Err: &sizeError{"workload", n, f.MaxWorkload}}
	}
	if ctx.Err() != nil { // its deadline has passed while it was queued
		return nil, context.Cause(ctx)
	}
	result, err = f.Handler.Run(ctx, j)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return result, err
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
