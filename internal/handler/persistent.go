package handler

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"gearman-gateway/internal/workerpool"
)

// PersistentOptions say how many processes of a command a handler keeps, and for how long. Only Argv is needed. A process is
// replaced between jobs when it has reached one of its limits; zero is no limit.
type PersistentOptions struct {
	Command
	Processes int           // kept at a time, each of which runs one job at a time; 0: 1
	MaxResult int64         // bytes of a job's data and result together; 0: 64 MiB
	MaxJobs   int           // jobs that a process runs
	MaxMemory int64         // bytes of its resident memory, looked at after each job; Linux only
	TTL       time.Duration // age
	IdleTTL   time.Duration // time without a job; the next process is started when there is one
	// ReadyTimeout is how long a process may take to be ready, at its start and after each job. 0: 30 s.
	ReadyTimeout time.Duration
}

// Persistent is a handler that feeds jobs to processes that it keeps. docs/persistent.md says what such a process reads and writes.
type Persistent struct {
	o       PersistentOptions
	calls   chan *call
	closing context.Context
	close   context.CancelFunc
	keepers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	runs   sync.WaitGroup
	down   int           // keepers whose process could not start, and which wait before they start another
	until  time.Time     // when the first of them will
	cause  error         // of the last of them
	none   chan struct{} // closed while all of them wait
}

// A call is one job on its way through a process.
type call struct {
	ctx    context.Context
	j      *workerpool.Job
	ended  chan struct{}
	result []byte
	err    error
}

func (c *call) end(result []byte, err error) {
	c.result, c.err = result, err
	close(c.ended)
}

const (
	minRestart = 100 * time.Millisecond
	maxRestart = 10 * time.Second
)

var errClosed = errors.New("the handler is closed")

// NewPersistent starts the processes and returns a handler that feeds them jobs until Close.
//
// Run waits for a process that is ready. The job ends with what the process answers; with a ProcessError when it dies instead, with
// an error when it writes what is no frame, or with ErrTooLarge. When a job's context ends while a process runs it, the process is
// ended as one of NewExec is, and the error is the cause, unless it has answered by then. In all these cases another process takes
// its place. A process that exits when it is ready, or instead, costs no job anything. One that is gone before it has been
// given a job is replaced after a pause that grows from 0.1 to 10 s; while all processes are in such a pause, jobs are a RetryError.
//
// What a process writes to standard error while it runs a job becomes one warning, of the last 20 lines and 8 KiB. Between jobs it
// is kept for the next one.
//
// A process that is to go finds the end of its standard input. It has Command.Grace to exit, and is then ended as above.
func NewPersistent(o PersistentOptions) (*Persistent, error) {
	c, err := o.Command.settle()
	if err != nil {
		return nil, err
	}
	if o.Processes < 0 || o.MaxResult < 0 || o.MaxJobs < 0 || o.MaxMemory < 0 || o.TTL < 0 || o.IdleTTL < 0 || o.ReadyTimeout < 0 {
		return nil, errors.New("a limit is negative")
	}
	if o.MaxMemory > 0 && resident(os.Getpid()) < 0 {
		return nil, errors.New("a limit of resident memory needs Linux and /proc")
	}
	o.Command = c
	o.Processes = cmp.Or(o.Processes, 1)
	o.MaxResult = cmp.Or(o.MaxResult, defaultMaxResult)
	o.ReadyTimeout = cmp.Or(o.ReadyTimeout, 30*time.Second)
	p := &Persistent{o: o, calls: make(chan *call), none: make(chan struct{})}
	p.closing, p.close = context.WithCancel(context.Background())
	for range o.Processes {
		p.keepers.Go(p.keep)
	}
	return p, nil
}

// Close takes no more jobs, waits until those that were taken have ended, and ends the processes. It blocks as long as jobs run,
// and then for at most twice Command.Grace and 2 s. It may be called again.
func (p *Persistent) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.runs.Wait()
	p.close()
	p.keepers.Wait()
}

// Run runs one job in the next process that is ready.
func (p *Persistent) Run(ctx context.Context, j *workerpool.Job) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	none, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer p.runs.Done()
	c := &call{ctx: ctx, j: j, ended: make(chan struct{})}
	select {
	case p.calls <- c:
		<-c.ended
		return c.result, c.err
	case <-none:
		return nil, p.refusal()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// enter counts a run, and returns the channel that is closed when there is no process for it.
func (p *Persistent) enter() (none <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, retry(0, errClosed)
	}
	p.runs.Add(1)
	return p.none, nil
}

// refusal says why there is no process, and when there may be one.
func (p *Persistent) refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return retry(max(0, time.Until(p.until)), p.cause)
}

// keep keeps one process until Close, and its successors.
func (p *Persistent) keep() {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = minRestart, maxRestart*2/3 // the jitter adds up to half
	var next *call
	for {
		w, err := p.start()
		if err == nil {
			next, err = w.serve(next)
		}
		if err == nil {
			pauses.Reset()
		} else {
			pause := pauses.NextBackOff()
			if next != nil { // it has not been run
				next.end(nil, retry(pause, err))
				next = nil
			}
			p.o.Log.Warn().Err(err).Msg("a persistent handler's process could not start, trying again after a pause")
			p.rest(pause, err)
		}
		if p.closing.Err() != nil {
			return
		}
	}
}

// rest waits before another process is started, and has jobs refused meanwhile if no process is there for them.
func (p *Persistent) rest(pause time.Duration, cause error) {
	p.mu.Lock()
	p.down++
	if until := time.Now().Add(pause); p.down == 1 || until.Before(p.until) {
		p.until = until
	}
	p.cause = cause
	if p.down == p.o.Processes {
		close(p.none)
	}
	p.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closing.Done():
	}
	p.mu.Lock()
	if p.down == p.o.Processes {
		p.none = make(chan struct{})
	}
	p.down--
	p.mu.Unlock()
}
