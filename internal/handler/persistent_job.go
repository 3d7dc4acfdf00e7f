package handler

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// smallRequest is written at once, without a goroutine: it fits into any pipe that is empty.
const smallRequest = 4 << 10

// run runs one job. If its process cannot be given another it is gone afterwards.
func (w *worker) run(c *call) ([]byte, error) {
	unwatch := context.AfterFunc(c.ctx, func() { w.stop(context.Cause(c.ctx)) })
	written := w.write(c)
	f, err := w.answer(c)
	if err == nil {
		if stderr := w.lines.take(); stderr != "" {
			_ = c.j.Warning([]byte(stderr)) // the answer counts, whoever hears this
		}
		// What it has not read of the workload would be taken for the next job.
		if !unwatch() || !awaitAny(time.Second, written) {
			w.killNow()
			w.leave()
		}
		<-written
		return f.end()
	}
	err = w.broken(c, err)
	unwatch()
	<-written
	return nil, err
}

// write writes the job to the process, and returns a channel that is closed when it has. What goes wrong shows when the answer is
// read.
func (w *worker) write(c *call) (written chan struct{}) {
	written = make(chan struct{})
	request := appendJob(make([]byte, 0, 512+min(len(c.j.Workload), smallRequest)), c.ctx, c.j)
	if len(request)+len(c.j.Workload) <= smallRequest {
		_, _ = w.stdin.Write(append(request, c.j.Workload...))
		close(written)
		return written
	}
	go func() { // run waits for it; it ends when the process is gone, if not before
		defer close(written)
		_, _ = w.stdin.Write(request)
		_, _ = w.stdin.Write(c.j.Workload)
	}()
	return written
}

// answer passes on frames until one ends the job, and returns that.
func (w *worker) answer(c *call) (frame, error) {
	for most := w.p.o.MaxResult; ; {
		f, err := readFrame(w.out, most)
		if err != nil {
			return f, err
		}
		switch f.kind {
		case "data":
			most -= int64(len(f.body))
			_ = c.j.Data(f.body)
		case "warning":
			_ = c.j.Warning(f.body)
		case "progress":
			_ = c.j.Progress(f.n, f.d)
		case "ready":
			return f, fmt.Errorf("%w: ready before an answer", errGarbage)
		default:
			return f, nil
		}
	}
}

// broken ends a process that did not answer, and says why the job failed.
func (w *worker) broken(c *call, err error) error {
	said := errors.Is(err, ErrTooLarge) || errors.Is(err, errGarbage)
	if said {
		w.killNow()
	} else if !awaitAny(settleTime, w.exited) { // otherwise it closed standard output because it exited
		w.stop(errOutputClosed)
	}
	w.leave()
	if errors.Is(err, ErrTooLarge) {
		return &interrupted{tooLarge(w.p.o.MaxResult), w.warn(c)}
	}
	if said {
		return &interrupted{err, w.warn(c)}
	}
	if w.stopped && c.ctx.Err() != nil {
		return &interrupted{context.Cause(c.ctx), w.warn(c)}
	}
	if w.stopped {
		return &interrupted{errOutputClosed, w.warn(c)}
	}
	failure := w.end("it did not answer")
	if exit, ok := failure.(*ProcessError); ok {
		failure = verdict(exit)
	}
	return failure
}

// warn passes on the last lines on standard error, and returns them.
func (w *worker) warn(c *call) string {
	stderr := w.lines.take()
	if stderr != "" {
		_ = c.j.Warning([]byte(stderr))
	}
	return stderr
}
