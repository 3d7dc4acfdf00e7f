package handler

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"gearman-gateway/internal/workerpool"
)

// defaultMaxResult bounds results where nothing else is configured.
const defaultMaxResult = 64 << 20

// ExecOptions say how a handler runs a command for each job. Only Argv is needed.
type ExecOptions struct {
	Command
	MaxResult int64 // bytes of standard output; 0: 64 MiB
	Stream    bool  // send standard output as data while it comes: the result is then empty
}

// Exit codes of a command that mean more than a failure.
const (
	exitRetry = 75 // EX_TEMPFAIL of sysexits.h
	exitNever = 100
)

// ErrTooLarge: what a handler returned is larger than its MaxResult.
var ErrTooLarge = fmt.Errorf("the result is too large")

// NewExec returns a handler that runs a command for each job: the workload is its standard input, which it need not read, and
// what it writes to standard output the result. The last lines of standard error, at most 20 and 8 KiB, become one warning. To file
// descriptor 3 it may write lines of JSON, {"progress":[3,14]} and {"warning":"…"}, each at most 64 KiB; other lines are logged and
// ignored.
//
// Exit code 0 completes the job. Every other end is a ProcessError, which is in a RetryError for 75 and in a NeverRetryError for
// 100. A result over MaxResult kills the command and is ErrTooLarge.
//
// In the environment are, besides Command.Env, JOB_ID, JOB_HANDLE, JOB_UNIQUE, JOB_FUNCTION, JOB_ATTEMPT (0: not known),
// JOB_DEADLINE (RFC 3339, UTC) and TRACEPARENT; empty where there is none.
//
// When the context of a job ends, the command's process group is sent SIGTERM and after Command.Grace SIGKILL, and the error is the
// context's cause, however the command exits: one that was told to stop may say that all is well. Once the command has exited, what
// it left running in its group has a second to finish writing and is killed.
//
// NewExec fails when the command cannot be found or the options make no sense here.
func NewExec(o ExecOptions) (workerpool.Handler, error) {
	c, err := o.Command.settle()
	if err != nil {
		return nil, err
	}
	if o.MaxResult < 0 {
		return nil, fmt.Errorf("the largest result is negative")
	}
	return &execHandler{c: &c, max: cmp.Or(o.MaxResult, defaultMaxResult), stream: o.Stream}, nil
}

type execHandler struct {
	c      *Command
	max    int64
	stream bool
}

func (h *execHandler) Run(ctx context.Context, j *workerpool.Job) ([]byte, error) {
	p, err := h.c.start(jobEnv(ctx, j), true)
	if err != nil {
		return nil, err
	}
	r := execRun{h: h, p: p, j: j}
	stopped := r.finish(ctx)
	stderr := r.stderr.String()
	if stderr != "" {
		_ = j.Warning([]byte(stderr)) // the result counts, whoever hears this
	}
	switch {
	case r.err != nil:
		return nil, &interrupted{r.err, stderr}
	case stopped:
		return nil, &interrupted{context.Cause(ctx), stderr}
	}
	if failure := p.outcome(stderr); failure != nil {
		return nil, verdict(failure)
	}
	return r.result, nil
}

// verdict says what a failure means for the job.
func verdict(failure *ProcessError) error {
	switch failure.Code {
	case exitRetry:
		return retry(0, failure)
	case exitNever:
		return &workerpool.NeverRetryError{Err: failure}
	}
	return failure
}

func retry(after time.Duration, err error) error {
	return &workerpool.RetryError{After: after, Err: err}
}

// jobEnv returns what a command learns of its job.
func jobEnv(ctx context.Context, j *workerpool.Job) []string {
	return []string{
		"JOB_ID=" + j.ID, "JOB_HANDLE=" + j.Handle, "JOB_UNIQUE=" + j.Unique, "JOB_FUNCTION=" + j.Function,
		"JOB_ATTEMPT=" + strconv.Itoa(j.Attempt), "JOB_DEADLINE=" + deadline(ctx, j), "TRACEPARENT=" + j.Traceparent,
	}
}

// deadline returns when a run is to be over at the latest, as the job or its context says; "" if never.
func deadline(ctx context.Context, j *workerpool.Job) string {
	d := j.Deadline
	if c, ok := ctx.Deadline(); ok && (d.IsZero() || c.Before(d)) {
		d = c
	}
	if d.IsZero() {
		return ""
	}
	return d.UTC().Format(time.RFC3339Nano)
}

// execRun is one job of an execHandler.
type execRun struct {
	h      *execHandler
	p      *process
	j      *workerpool.Job
	stderr tail
	result []byte
	err    error // what is wrong with the output
}

// finish feeds the process and reads what it writes until it is gone, and says whether that was because ctx ended.
func (r *execRun) finish(ctx context.Context) (stopped bool) {
	var feeder, readers sync.WaitGroup
	feeder.Go(func() {
		_, _ = r.p.stdin.Write(r.j.Workload) // whoever does not read it does not need it
		_ = r.p.stdin.Close()
	})
	readers.Go(func() {
		if r.result, r.err = r.read(); r.err != nil {
			r.p.kill()
		}
	})
	readers.Go(func() { _, _ = io.Copy(&r.stderr, onlyReader{r.p.stderr}) })
	readers.Go(func() { readSide(r.p.side, r.j, r.h.c.Log) })
	drained := make(chan struct{})
	go func() { readers.Wait(); close(drained) }()
	stopped = r.p.finish(ctx, drained)
	feeder.Wait()
	return stopped
}

// onlyReader hides what else a File can do: io.Copy would try to splice.
type onlyReader struct{ io.Reader }

// read returns all of standard output, or sends it on. That the other end of the pipe is gone, or ours was closed, is the end.
func (r *execRun) read() ([]byte, error) {
	if !r.h.stream {
		all, _ := io.ReadAll(io.LimitReader(r.p.stdout, r.h.max+1))
		if int64(len(all)) > r.h.max {
			return nil, tooLarge(r.h.max)
		}
		return all, nil
	}
	buf := make([]byte, 64<<10)
	for sent := int64(0); ; {
		n, err := r.p.stdout.Read(buf)
		if sent += int64(n); sent > r.h.max {
			return nil, tooLarge(r.h.max)
		}
		if n > 0 {
			_ = r.j.Data(append([]byte(nil), buf[:n]...))
		}
		if err != nil {
			return nil, nil
		}
	}
}

func tooLarge(most int64) error { return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, most) }
