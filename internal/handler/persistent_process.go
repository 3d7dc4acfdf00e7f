package handler

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// A worker is one process of a Persistent, in the hands of one goroutine.
type worker struct {
	*process
	p       *Persistent
	out     *bufio.Reader
	lines   *lastLines // of standard error
	born    time.Time
	given   int // jobs
	late    *time.Timer
	ctx     context.Context         // of its life; the cause is why it was ended
	stop    context.CancelCauseFunc // has the process ended
	left    chan struct{}           // closed when nobody reads standard output any more
	gone    chan struct{}           // closed when the process is
	stopped bool                    // after gone: it did not exit by itself
	killed  bool                    // likewise
}

func (p *Persistent) start() (*worker, error) {
	process, err := p.o.Command.start(nil, false)
	if err != nil {
		return nil, err
	}
	w := &worker{
		process: process, p: p, out: bufio.NewReaderSize(process.stdout, 64<<10), born: time.Now(),
		left: make(chan struct{}), gone: make(chan struct{}),
	}
	ctx, stop := context.WithCancelCause(context.Background())
	w.ctx, w.stop = ctx, stop
	w.lines = newLastLines(process.stderr)
	drained := make(chan struct{})
	go func() { // finish waits for it
		defer close(drained)
		w.lines.run()
		<-w.left
	}()
	go func() { // leave waits for it
		defer close(w.gone)
		w.stopped = process.finish(ctx, drained)
	}()
	w.late = time.AfterFunc(p.o.ReadyTimeout, func() { stop(errNotReady) })
	return w, nil
}

var (
	errNotReady     = errors.New("the process was not ready in time")
	errOutputClosed = errors.New("the process closed its standard output")
)

// serve feeds the process jobs, c first if there is one, until it is to go or has gone. Its error says that the process was gone
// before it had been given one. A job that the process was not given is left for its successor.
func (w *worker) serve(c *call) (next *call, err error) {
	// When the handler closes, no job runs: whatever this goroutine waits for, the process may go.
	dismissed := make(chan struct{})
	unwatch := context.AfterFunc(w.p.closing, func() { defer close(dismissed); w.dismiss() })
	defer func() {
		w.leave()
		if !unwatch() {
			<-dismissed
		}
	}()
	idle, old := newTimer(w.p.o.IdleTTL), newTimer(w.p.o.TTL)
	defer idle.Stop()
	defer old.Stop()
	for {
		if err := w.ready(); err != nil {
			return c, w.died(err)
		}
		if c == nil {
			select {
			case c = <-w.p.calls:
			case <-w.exited:
				return nil, w.died(nil)
			case <-old.C:
				return nil, w.retire()
			case <-idle.C:
				return w.sleep(), nil
			}
		}
		if err := w.fresh(); err != nil {
			return c, w.died(err)
		}
		w.given++
		c.end(w.run(c))
		c = nil
		select {
		case <-w.gone:
			return nil, nil
		default:
		}
		if w.spent() {
			return nil, w.retire()
		}
		w.late.Reset(w.p.o.ReadyTimeout)
		if w.p.o.IdleTTL > 0 {
			idle.Reset(w.p.o.IdleTTL)
		}
	}
}

// ready waits until the process can take a job.
func (w *worker) ready() error {
	f, err := readFrame(w.out, 0)
	inTime := w.late.Stop()
	switch {
	case err != nil:
		return err
	case f.kind != "ready":
		return fmt.Errorf("%w: %q instead of ready", errGarbage, f.kind)
	case !inTime:
		return errNotReady
	}
	return nil
}

// newTimer returns a timer that never fires if d is 0.
func newTimer(d time.Duration) *time.Timer {
	t := time.NewTimer(cmp.Or(d, time.Hour))
	if d == 0 {
		t.Stop()
	}
	return t
}

// fresh says that the process has written nothing since it was ready, and has not exited.
func (w *worker) fresh() error {
	if w.out.Buffered() == 0 && silent(w.stdout) {
		return nil
	}
	return fmt.Errorf("%w: it wrote to standard output without a job, or closed it", errGarbage)
}

// spent says that the process has reached a limit.
func (w *worker) spent() bool {
	o := &w.p.o
	return o.MaxJobs > 0 && w.given >= o.MaxJobs ||
		o.TTL > 0 && time.Since(w.born) >= o.TTL ||
		o.MaxMemory > 0 && resident(w.cmd.Process.Pid) > o.MaxMemory
}

// dismiss tells the process to go, and ends it if it does not.
func (w *worker) dismiss() {
	_ = w.stdin.Close()
	awaitAny(w.c.Grace, w.exited)
	w.stop(nil)
}

// retire ends the process in peace.
func (w *worker) retire() error {
	w.dismiss()
	w.leave()
	return nil
}

// sleep retires the process and waits for a job that needs another; nil if there is none before Close.
func (w *worker) sleep() *call {
	_ = w.retire()
	select {
	case c := <-w.p.calls:
		return c
	case <-w.p.closing.Done():
		return nil
	}
}

// killNow ends the process without a grace: it cannot be talked to.
func (w *worker) killNow() {
	select {
	case <-w.exited:
	default:
		w.killed = true
	}
	w.kill()
}

// leave ends the process if it is still there, and waits until it is gone.
func (w *worker) leave() {
	select {
	case <-w.left:
	default:
		close(w.left)
	}
	w.late.Stop()
	select {
	case <-w.exited: // as it wanted to
	default:
		w.stop(nil)
	}
	<-w.gone
	w.stop(nil)
}

// died ends a process that said err instead of being ready, and returns what was wrong with it if it had not been given any job:
// then its successor needs some time.
func (w *worker) died(err error) error {
	if errors.Is(err, errGarbage) || errors.Is(err, ErrTooLarge) {
		w.killNow()
	} else if !awaitAny(settleTime, w.exited) {
		w.stop(errOutputClosed)
	}
	w.leave()
	switch {
	case w.p.closing.Err() != nil:
		return nil
	case w.killed: // for err
	case w.stopped:
		err = context.Cause(w.ctx)
	default:
		err = w.end("it was not ready")
	}
	if w.given == 0 {
		return err
	}
	exit, ok := errors.AsType[*ProcessError](err)
	if ok && exit.Code == 0 { // it may go when it wants to
		return nil
	}
	switch { // what it has said may quote a workload
	case ok:
		err = &ProcessError{Code: exit.Code, Signal: exit.Signal, OOM: exit.OOM}
	case errors.Is(err, errGarbage):
		err = errGarbage
	}
	w.c.Log.Warn().Err(err).Msg("a persistent handler's process is replaced")
	return nil
}

// end returns how a process ended that is gone, and what it did not do if it ended well.
func (w *worker) end(what string) error {
	stderr := w.lines.take()
	if failure := w.outcome(stderr); failure != nil {
		return failure
	}
	return fmt.Errorf("%s: %w", what, &ProcessError{Stderr: stderr})
}
