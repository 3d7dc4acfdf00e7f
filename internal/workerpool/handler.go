// Package workerpool runs registered handlers for jobs that it takes from job servers.
package workerpool

import (
	"context"
	"errors"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// A Handler runs jobs of one function. Run is called from many goroutines at once. It returns when ctx ends, whose cause then says
// why. The result goes to whoever waits for the job; an error's text too, as an exception, unless it is ErrFailed.
type Handler interface {
	Run(ctx context.Context, j *Job) ([]byte, error)
}

// HandlerFunc is a Handler that is one function.
type HandlerFunc func(ctx context.Context, j *Job) ([]byte, error)

// Run calls f.
func (f HandlerFunc) Run(ctx context.Context, j *Job) ([]byte, error) { return f(ctx, j) }

// ErrFailed ends a job as failed without a word to its client (WORK_FAIL).
var ErrFailed = errors.New("the handler reported a failure")

// ErrStopped is the cause of a job's context when the pool stops before the job has ended. The job server gives such a job to
// another worker, if its handler did not complete it all the same.
var ErrStopped = errors.New("the worker is stopping")

// Why else a job's context ends.
var (
	ErrCancelled = errors.New("the job was cancelled")
	ErrDeadline  = errors.New("the job's deadline has passed")
)

// Job is one run of a function. Its methods are safe for concurrent use until Run returns; they fail when the connection to the
// job server is lost, which a handler may ignore: the result is kept all the same where the gateway knows the job.
type Job struct {
	Handle   string
	Function string
	Unique   string // "" if there is none
	Workload []byte

	a       *gearman.Assignment
	observe func(t event.Type, d event.Data)
}

// Data sends a part of the result ahead; what Run returns is the rest. The bytes must not be changed afterwards.
func (j *Job) Data(b []byte) error {
	j.observe(event.JobData, event.Data{Chunk: b})
	return j.a.Data(b)
}

// Warning sends a message that is not part of the result. The bytes must not be changed afterwards.
func (j *Job) Warning(b []byte) error {
	j.observe(event.JobWarning, event.Data{Chunk: b})
	return j.a.Warning(b)
}

// Progress tells how far the job is.
func (j *Job) Progress(numerator, denominator uint64) error {
	j.observe(event.JobProgress, event.Data{
		Progress: &event.Progress{Numerator: float64(numerator), Denominator: float64(denominator)},
	})
	return j.a.Status(numerator, denominator)
}
