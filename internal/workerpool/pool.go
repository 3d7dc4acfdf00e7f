package workerpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/tracing"
)

// Options say what a pool runs. Servers and Functions are needed.
type Options struct {
	Servers []gearman.Options
	// Functions are by name. Their handlers are the pool's from New on: one that has a method Close, with an error or without, and is
	// comparable, as pointers are, is closed when no function has it any more and its last run has ended, at the latest by Stop.
	Functions   map[string]Function
	Kept        []Handler // may come back by a Reload, so that they are closed by Stop alone
	Limits      Limits
	ID          string        // what the worker calls itself; "": host name, process id and time
	Concurrency int           // jobs at a time, over all functions and servers; 0: 8
	Grace       time.Duration // how long Stop waits for jobs whose contexts it has cancelled; 0: 5 s
	MaxDeaths   int           // runs of a tracked job in which the handler died, after which it is not tried again; 0: 3
	Observer    Observer      // may be nil
	Meter       Meter         // may be nil
	Events      event.Sink    // gets the worker's own events; may be nil
	// Exit is called once, when a worker has left at a limit and none is to follow. It must not block, and Stop is still to be called;
	// nil: nobody is told.
	Exit   func(reason string)
	Memory func() int64 // bytes that the process uses; nil: see Limits.MemoryLimit
	Log    zerolog.Logger
	Tracer *tracing.Tracer // nil: there are no traces
}

// An Observer hears what the pool does with a job before the job server does: event.FunctionBeforeExecute first, then JobProgress,
// JobData and JobWarning, and last FunctionAfterExecute or FunctionOnFailure. It must not block.
type Observer interface {
	// Observe may change d, and does not keep it.
	Observe(a *gearman.Assignment, t event.Type, d *event.Data)
	// Begin returns what is known of the job of a run whose FunctionBeforeExecute was observed.
	Begin(a *gearman.Assignment) event.Facts
}

// ErrNoFunctions: a pool without functions has nothing to do.
var ErrNoFunctions = errors.New("no function given: a worker needs at least one handler")

// Pool is a worker with connections to each job server, and its successors. Start it once and Stop it once.
type Pool struct {
	o       Options
	slots   gearman.Slots
	main    *gearman.Roster    // the functions without limits
	lived   sync.WaitGroup     // the goroutine that has one worker follow the other
	closing sync.WaitGroup     // handlers that are not used any more
	quit    context.CancelFunc // take no more jobs
	soft    context.Context
	cancel  context.CancelCauseFunc // end those that run
	jobs    context.Context
	running atomic.Int64

	reloading sync.Mutex // for one Reload at a time
	handlers  struct {
		sync.Mutex
		uses    map[Handler]int // of those that are to be closed
		stopped bool
	}

	mu        sync.Mutex
	functions map[string]Function
	paused    map[string]bool            // of the functions
	apart     map[string]*gearman.Roster // the functions with limits
	limits    Limits
	lives     int
	life      *life // the latest
	runs      map[*gearman.Assignment]context.CancelCauseFunc
}

// New checks the options and returns a pool that is not running yet.
func New(o Options) (*Pool, error) {
	if len(o.Functions) == 0 {
		return nil, ErrNoFunctions
	}
	if len(o.Servers) == 0 {
		return nil, errors.New("no job server given")
	}
	if err := errors.Join(check(o.Functions), o.Limits.check()); err != nil {
		return nil, err
	}
	if o.ID == "" {
		host, _ := os.Hostname() // without one the process id must do
		// In a container the process id is always the same; the events of each life are to have a subject of their own.
		o.ID = fmt.Sprintf("gateway-%s-%d-%s", host, os.Getpid(), strconv.FormatInt(time.Now().UnixMilli(), 36))
	}
	if o.Exit == nil {
		o.Exit = func(string) {}
	}
	if o.Memory == nil {
		o.Memory = memory
	}
	o.Concurrency = cmp.Or(o.Concurrency, 8)
	o.MaxDeaths = cmp.Or(o.MaxDeaths, 3)
	o.Grace = cmp.Or(o.Grace, 5*time.Second)
	p := &Pool{
		o: o, slots: make(gearman.Slots, o.Concurrency), limits: o.Limits,
		main: gearman.NewRoster(nil), apart: map[string]*gearman.Roster{}, paused: map[string]bool{},
		runs: map[*gearman.Assignment]context.CancelCauseFunc{},
	}
	p.handlers.uses = map[Handler]int{}
	p.soft, p.quit = context.WithCancel(context.Background())
	p.jobs, p.cancel = context.WithCancelCause(context.Background())
	for _, h := range o.Kept {
		p.hold(h)
	}
	p.apply(o.Functions)
	return p, nil
}

// Start begins to take jobs, as soon as a job server is connected. It does not block.
func (p *Pool) Start() {
	l := p.begin()
	p.lived.Go(func() { p.follow(l) })
}

// Stop takes no more jobs and waits until those that run have ended. When ctx ends it cancels their contexts and waits for Grace;
// what runs then is abandoned: the connections are closed, the job servers give the jobs to others, and the error says how many. At last
// it closes the handlers; see Options.Functions.
func (p *Pool) Stop(ctx context.Context) error {
	p.mu.Lock()
	p.quit()
	p.mu.Unlock()
	left := make(chan struct{})
	go func() {
		p.lived.Wait()
		close(left)
	}()
	err := p.wait(ctx, left)
	p.reloading.Lock()
	p.apply(nil)
	p.reloading.Unlock()
	for _, h := range p.o.Kept {
		p.letGo(h)
	}
	p.o.Kept = nil // Stop may be called again
	p.handlers.Lock()
	p.handlers.stopped = true
	p.handlers.Unlock()
	p.closing.Wait()
	return err
}

func (p *Pool) wait(ctx context.Context, left <-chan struct{}) error {
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
	p.mu.Lock()
	for w := range p.life.workers {
		w.Abort()
	}
	p.mu.Unlock()
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

// current returns the worker that is.
func (p *Pool) current() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

func (p *Pool) currentLimits() Limits {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limits
}
