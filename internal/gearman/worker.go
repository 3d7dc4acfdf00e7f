package gearman

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Worker takes jobs from one job server, several at a time over one connection. It asks for a job only when a slot is free, so
// that it never holds a job that another worker could run.
//
// It never registers a function with CAN_DO_TIMEOUT: gearmand 1.1.20 then runs completed jobs again, with an empty workload.
type Worker struct {
	o       WorkerOptions
	jobs    sync.WaitGroup
	leaving sync.WaitGroup // connections that end with their jobs
	renewal bool           // the connection is replaced by choice, of which nobody is told
	aborted chan struct{}
	abort   sync.Once
}

// WorkerOptions say what a Worker can do. Slots is needed, and either Roster or Functions and Run.
type WorkerOptions struct {
	Options
	ID     string  // what the admin table "workers" shows
	Slots  Slots   // may be shared with other workers
	Roster *Roster // may be shared with other workers
	// Where there is no Roster: functions without limits, and what runs their jobs as an Ability's Run does.
	Functions []string
	Run       func(*Assignment)
	// Notify is told what the worker does, one event at a time; it must not block.
	Notify func(e WorkerEvent, cause error)
}

// Slots bounds how many jobs run at a time: a place in the channel is taken before a job is asked for.
type Slots chan struct{}

// WorkerEvent is something that a worker does.
type WorkerEvent uint8

// The events in their order; the last three as it goes. After WorkerLost, which has a cause, it begins anew.
const (
	WorkerConnecting WorkerEvent = iota
	WorkerConnected
	WorkerRegistering
	WorkerRegistered
	WorkerNoJobs
	WorkerIOWait
	WorkerLost
)

// NewWorker returns a worker, which does nothing before Run.
func NewWorker(o WorkerOptions) *Worker {
	o.Options = o.withDefaults()
	if o.Notify == nil {
		o.Notify = func(WorkerEvent, error) {}
	}
	if o.Roster == nil {
		abilities := map[string]*Ability{}
		for _, f := range o.Functions {
			abilities[f] = &Ability{Run: o.Run}
		}
		o.Roster = NewRoster(abilities)
	}
	return &Worker{o: o, aborted: make(chan struct{})}
}

// Run takes jobs, and connects again whenever the connection is lost, until ctx ends. It then asks for no more jobs, waits
// until those that run have ended and the job server has their results, and returns. Call it once.
func (w *Worker) Run(ctx context.Context) {
	pause := w.o.newBackoff()
	announced, down := false, false // the attempt, and the loss before it, are told once an outage
	for ctx.Err() == nil {
		if !announced {
			announced = true
			w.o.Notify(WorkerConnecting, nil)
		}
		s, err := w.connect(ctx)
		if err == nil {
			down = false
			pause.Reset()
			err = s.work(ctx)
		}
		if w.renewal = errors.Is(err, errRenew); w.renewal {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		if !down {
			announced, down = false, true
			w.o.Log.Warn().Err(err).Msg("worker has no connection to the job server, trying again")
			w.o.Notify(WorkerLost, err)
		}
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
		}
	}
	w.leaving.Wait()
	w.join(&w.jobs) // those of a connection that is lost
}

// notify tells what the worker does, but for a connection that merely takes another's place.
func (w *Worker) notify(e WorkerEvent, cause error) {
	if !w.renewal || e > WorkerRegistered {
		w.o.Notify(e, cause)
	}
}

// Abort makes a Run whose ctx has ended return soon, without waiting for jobs: the connection is closed, and the job server gives
// them to others.
func (w *Worker) Abort() { w.abort.Do(func() { close(w.aborted) }) }

// join waits for jobs, or for Abort.
func (w *Worker) join(jobs *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() { jobs.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-w.aborted:
	}
}
