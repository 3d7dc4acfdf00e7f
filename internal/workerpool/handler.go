// Package workerpool runs registered handlers for jobs that it takes from job servers.
package workerpool

import (
	"context"
	"errors"
	"time"

	"gearman-gateway/internal/event"
)

// A Handler runs jobs of one function. Run is called from many goroutines at once. It returns when ctx ends, whose cause then says
// why. The result goes to whoever waits for the job; an error's text too, as an exception, unless it is ErrFailed. An error may
// be a RetryError or a NeverRetryError, may have a method Kind() string that names its kind in the job's record, and a method
// Died() bool that says whether the handler's process died of the job; see Options.MaxDeaths.
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
	ErrTimeout   = errors.New("the run took longer than its function may") // the cause wraps it, and says how long that is
)

// RetryError is a failure that may well be over when the job runs again: the handler asks for that. A tracked job whose retry policy,
// or else its function's, has a try left is tried again, not before After. The gateway cannot try sync and background jobs
// again, nor those of other clients: they fail with Err, as a tracked job does that has no try left.
type RetryError struct {
	After time.Duration // how long the handler wants to be left alone at least; 0: as the retry policy has it
	Err   error         // what failed; may be nil
}

func (e *RetryError) Error() string {
	if e.Err == nil {
		return "the handler asks for a retry"
	}
	return e.Err.Error()
}

// Unwrap returns what failed.
func (e *RetryError) Unwrap() error { return e.Err }

// NeverRetryError is a failure that will be the same however often the job runs: it is not tried again, whatever its retry policy.
type NeverRetryError struct {
	Err error // what failed; may be nil
}

func (e *NeverRetryError) Error() string {
	if e.Err == nil {
		return "the handler asks for no retry"
	}
	return e.Err.Error()
}

// Unwrap returns what failed.
func (e *NeverRetryError) Unwrap() error { return e.Err }

// Job is one run of a function. Its methods are safe for concurrent use until Run returns; they fail when the connection to the
// job server is lost, which a handler may ignore: the result is kept all the same where the gateway knows the job.
type Job struct {
	Handle   string
	Function string
	Unique   string // "" if there is none
	Workload []byte

	// What the gateway knows of a job that it submitted itself; zero for other clients' jobs.
	ID          string
	Attempt     int       // 1 for the first run
	Deadline    time.Time // when the run is to be over; zero: whenever
	Traceparent string    // of the run, or where there are no traces of the request that submitted the job, as W3C Trace Context has it

	out Output
	run *run // nil: nobody observes
}

func (j *Job) tell(t event.Type, d event.Data) {
	if j.run != nil {
		j.run.observe(t, &d)
	}
}

// Output takes what a handler sends while its job runs, as a gearman.Assignment does.
type Output interface {
	Data(b []byte) error
	Warning(b []byte) error
	Status(numerator, denominator uint64) error
}

// NewJob returns a copy of j that sends what its handler sends to out, and tells nobody else: a handler can so be run without
// a pool and a job server, as tests of handlers do.
func NewJob(j Job, out Output) *Job {
	j.out, j.run = out, nil
	return &j
}

// Data sends a part of the result ahead; what Run returns is the rest. The bytes must not be changed afterwards.
func (j *Job) Data(b []byte) error {
	j.tell(event.JobData, event.Data{Chunk: b})
	return j.out.Data(b)
}

// Warning sends a message that is not part of the result. The bytes must not be changed afterwards.
func (j *Job) Warning(b []byte) error {
	j.tell(event.JobWarning, event.Data{Chunk: b})
	return j.out.Warning(b)
}

// Progress tells how far the job is.
func (j *Job) Progress(numerator, denominator uint64) error {
	j.tell(event.JobProgress, event.Data{
		Progress: &event.Progress{Numerator: float64(numerator), Denominator: float64(denominator)},
	})
	return j.out.Status(numerator, denominator)
}
