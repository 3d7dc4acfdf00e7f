package workerpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Options say what a pool runs. Servers and Handlers are needed.
type Options struct {
	Servers     []gearman.Options
	Handlers    map[string]Handler // by function
	ID          string             // what the worker calls itself; "": host name, process id and time
	Concurrency int                // jobs at a time, over all functions and servers; 0: 8
	Grace       time.Duration      // how long Stop waits for jobs whose contexts it has cancelled; 0: 5 s
	MaxDeaths   int                // runs of a tracked job in which the handler died, after which it is not tried again; 0: 3
	Observer    Observer           // may be nil
	Events      event.Sink         // gets the worker's own events; may be nil
	Log         zerolog.Logger
}

// An Observer hears what the pool does with a job before the job server does: event.FunctionBeforeExecute first, then JobProgress,
// JobData and JobWarning, and last FunctionAfterExecute or FunctionOnFailure. It must not block.
type Observer interface {
	Observe(a *gearman.Assignment, t event.Type, d event.Data)
	// Begin returns what is known of the job of a run whose FunctionBeforeExecute was observed.
	Begin(a *gearman.Assignment) event.Facts
}

// ErrNoFunctions: a pool without handlers has nothing to do.
var ErrNoFunctions = errors.New("no function given: a worker needs at least one handler")

// Pool is one worker with a connection to each job server. Start it once and Stop it once.
type Pool struct {
	o         Options
	functions []string
	workers   []*gearman.Worker
	wg        sync.WaitGroup
	quit      context.CancelFunc // take no more jobs
	soft      context.Context
	cancel    context.CancelCauseFunc // end those that run
	jobs      context.Context
	running   atomic.Int64

	mu   sync.Mutex // makes the order of the worker's events that of their seq
	seq  uint64
	runs map[*gearman.Assignment]context.CancelCauseFunc
}

// New checks the options and returns a pool that is not running yet.
func New(o Options) (*Pool, error) {
	if len(o.Handlers) == 0 {
		return nil, ErrNoFunctions
	}
	if len(o.Servers) == 0 {
		return nil, errors.New("no job server given")
	}
	for f := range o.Handlers {
		if err := gearman.CheckFunction(f); err != nil {
			return nil, fmt.Errorf("handler %q: %w", f, err)
		}
	}
	if o.ID == "" {
		host, _ := os.Hostname() // without one the process id must do
		// In a container the process id is always the same; the events of each life are to have a subject of their own.
		o.ID = fmt.Sprintf("gateway-%s-%d-%s", host, os.Getpid(), strconv.FormatInt(time.Now().UnixMilli(), 36))
	}
	o.Concurrency = cmp.Or(o.Concurrency, 8)
	o.MaxDeaths = cmp.Or(o.MaxDeaths, 3)
	o.Grace = cmp.Or(o.Grace, 5*time.Second)
	p := &Pool{o: o, functions: slices.Sorted(maps.Keys(o.Handlers)), runs: map[*gearman.Assignment]context.CancelCauseFunc{}}
	p.soft, p.quit = context.WithCancel(context.Background())
	p.jobs, p.cancel = context.WithCancelCause(context.Background())
	return p, nil
}

// Start begins to take jobs, as soon as a job server is connected. It does not block.
func (p *Pool) Start() {
	p.publish(event.WorkerBeforeRun, event.Data{Functions: p.functions})
	slots := make(gearman.Slots, p.o.Concurrency)
	for _, server := range p.o.Servers {
		w := gearman.NewWorker(gearman.WorkerOptions{
			Options:   server,
			ID:        p.o.ID,
			Functions: p.functions,
			Slots:     slots,
			Run:       p.run,
			Notify:    func(e gearman.WorkerEvent, cause error) { p.notify(server.Addr, e, cause) },
		})
		p.workers = append(p.workers, w)
		p.wg.Go(func() { w.Run(p.soft) })
	}
}

// Stop takes no more jobs and waits until those that run have ended. When ctx ends it cancels their contexts and waits for Grace;
// what runs then is abandoned: the connections are closed, the job servers give the jobs to others, and the error says how many.
func (p *Pool) Stop(ctx context.Context) error {
	defer p.publish(event.WorkerOnBeforeDestroy, event.Data{})
	p.quit()
	left := make(chan struct{})
	go func() { p.wg.Wait(); close(left) }()
	select {
	case <-left:
		return nil
	case <-ctx.Done():
	}
	p.cancel(ErrStopped)
	grace := time.NewTimer(p.o.Grace)
	defer grace.Stop()
	select {
	case <-left:
		return nil
	case <-grace.C:
	}
	abandoned := p.running.Load()
	for _, w := range p.workers {
		w.Abort()
	}
	<-left
	return fmt.Errorf("%d jobs did not end within %v of being cancelled", abandoned, p.o.Grace)
}

// Cancel ends the context of a run, with the cause ErrCancelled. It does nothing if the run has ended, and does not block.
func (p *Pool) Cancel(a *gearman.Assignment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel := p.runs[a]; cancel != nil {
		cancel(ErrCancelled)
	}
}

// notify turns what a connection does into the events that dmank/gearman has for it.
func (p *Pool) notify(server string, e gearman.WorkerEvent, cause error) {
	d := event.Data{Servers: []string{server}}
	switch e {
	case gearman.WorkerConnecting:
		p.publish(event.WorkerServerOnConnect, d)
	case gearman.WorkerConnected:
		p.publish(event.WorkerServerOnConnected, d)
	case gearman.WorkerRegistering:
		d.Functions = p.functions
		p.publish(event.WorkerOnBeforeRegisterFunctions, d)
	case gearman.WorkerRegistered:
		d.Functions = p.functions
		p.publish(event.WorkerOnAfterRegisterFunctions, d)
	case gearman.WorkerNoJobs:
		p.publish(event.WorkerOnNoJobs, d)
		p.publish(event.WorkerOnWork, d)
	case gearman.WorkerIOWait:
		p.publish(event.WorkerOnIOWait, d)
	case gearman.WorkerLost:
		d.Reason = cause.Error()
		p.publish(event.WorkerOnFailure, d)
	}
}

func (p *Pool) publish(t event.Type, d event.Data) {
	if p.o.Events == nil {
		return
	}
	d.Worker = p.o.ID
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	p.o.Events.Publish(event.New(t, p.o.ID, p.seq, time.Now(), d))
}
