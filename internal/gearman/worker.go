package gearman

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// Worker takes jobs from one job server, several at a time over one connection. It asks for a job only when a slot is free, so
// that it never holds a job that another worker could run.
//
// It never registers a function with CAN_DO_TIMEOUT: gearmand 1.1.20 then runs completed jobs again, with an empty workload.
type Worker struct {
	o       WorkerOptions
	jobs    sync.WaitGroup
	aborted chan struct{}
	abort   sync.Once
}

// WorkerOptions say what a Worker can do. All fields but ID and Notify are needed.
type WorkerOptions struct {
	Options
	ID        string   // what the admin table "workers" shows
	Functions []string // registered on every connection
	Slots     Slots    // may be shared with other workers
	// Run runs a job on a goroutine of its own, and ends it with Complete, Fail or Exception before it returns. The slot is
	// free again when it has returned.
	Run func(*Assignment)
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
	w.join() // jobs of a connection that is lost
}

// Abort makes a Run whose ctx has ended return soon, without waiting for jobs: the connection is closed, and the job server gives
// them to others.
func (w *Worker) Abort() { w.abort.Do(func() { close(w.aborted) }) }

// join waits for all jobs, or for Abort.
func (w *Worker) join() {
	ended := make(chan struct{})
	go func() { w.jobs.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-w.aborted:
	}
}

// workerSession is one life of a Worker's connection.
type workerSession struct {
	*link
	w      *Worker
	grab   wire.Type     // GRAB_JOB_UNIQ, or GRAB_JOB where the job server does not know it
	grabs  chan grabbed  // the replies to grab; at most one is on its way
	asking atomic.Bool   // a reply to grab is still to come
	noop   chan struct{} // has an element when there may be jobs
	echoed chan struct{} // the job server has answered the ECHO_REQ of drain
}

// grabbed is the reply to a grab: a job, or none, or that the job server does not know the request.
type grabbed struct {
	job     *Assignment
	unknown *ServerError
}

func (w *Worker) connect(ctx context.Context) (*workerSession, error) {
	nc, err := w.o.dial(ctx)
	if err != nil {
		return nil, err
	}
	s := &workerSession{
		link:   newLink(nc, w.o.Options),
		w:      w,
		grab:   wire.GrabJobUniq,
		grabs:  make(chan grabbed, 1),
		noop:   make(chan struct{}, 1),
		echoed: make(chan struct{}, 1),
	}
	unwatch := context.AfterFunc(ctx, func() { s.fail(ErrClosed) })
	err = s.greet()
	if !unwatch() {
		err = ErrClosed
	}
	if err != nil {
		err = s.fail(err)
		s.wait()
		return nil, err
	}
	w.o.Notify(WorkerConnected, nil)
	return s, nil
}

// work registers the functions and runs jobs until ctx ends or the connection does; its error is why the latter ended.
func (s *workerSession) work(ctx context.Context) error {
	s.wg.Go(func() { s.heartbeat(func() { _ = s.send(wire.EchoReq, []byte("alive?")) }) })
	s.wg.Go(s.read)
	s.wg.Go(func() {
		select {
		case <-s.w.aborted:
			s.fail(ErrClosed)
		case <-s.done:
		}
	})
	err := s.register()
	for err == nil && ctx.Err() == nil {
		err = s.take(ctx)
	}
	if err == nil {
		s.drain()
	}
	err = s.fail(ErrClosed)
	s.wait()
	return err
}

func (s *workerSession) register() error {
	s.w.o.Notify(WorkerRegistering, nil)
	if s.w.o.ID != "" {
		if err := s.send(wire.SetClientID, []byte(s.w.o.ID)); err != nil {
			return err
		}
	}
	for _, f := range s.w.o.Functions {
		if err := s.send(wire.CanDo, []byte(f)); err != nil {
			return err
		}
	}
	s.w.o.Notify(WorkerRegistered, nil)
	return nil
}

// take waits for a free slot, asks for one job, and starts it; where there is none it sleeps until the job server wakes it. It
// returns nil when ctx ends.
func (s *workerSession) take(ctx context.Context) error {
	slots := s.w.o.Slots
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil
	case <-s.done:
		return s.cause()
	}
	g, err := s.ask()
	if err == nil && g.job != nil {
		s.w.jobs.Go(func() {
			defer func() { <-slots }()
			s.w.o.Run(g.job)
		})
		return nil
	}
	<-slots
	switch {
	case err != nil:
		return err
	case g.unknown != nil && s.grab == wire.GrabJob:
		return g.unknown
	case g.unknown != nil:
		s.grab = wire.GrabJob
		return nil
	}
	return s.sleep(ctx)
}

// ask sends a grab and waits for its reply, which comes even when ctx has ended meanwhile: a job that was assigned must be run.
func (s *workerSession) ask() (grabbed, error) {
	s.asking.Store(true)
	if err := s.send(s.grab); err != nil {
		return grabbed{}, err
	}
	select {
	case g := <-s.grabs:
		return g, nil
	case <-s.done:
		return grabbed{}, s.cause()
	}
}

// sleep tells the job server that it may send NOOP, and waits for one. gearmand sends it at once when a job has come meanwhile.
func (s *workerSession) sleep(ctx context.Context) error {
	s.w.o.Notify(WorkerNoJobs, nil)
	if err := s.send(wire.PreSleep); err != nil {
		return err
	}
	s.w.o.Notify(WorkerIOWait, nil)
	select {
	case <-s.noop:
	case <-ctx.Done():
	case <-s.done:
		return s.cause()
	}
	return nil
}

// drain waits for the running jobs, and then until the job server has answered an ECHO: by then it has read their results.
func (s *workerSession) drain() {
	s.w.join()
	if s.send(wire.EchoReq, []byte(drainEcho)) != nil {
		return
	}
	t := time.NewTimer(s.o.EchoTimeout)
	defer t.Stop()
	select {
	case <-s.echoed:
	case <-s.done:
	case <-t.C:
	}
}

const drainEcho = "drained"

// read gives each packet to whom it is for, until the link ends.
func (s *workerSession) read() {
	for {
		p, err := s.next()
		if err == nil {
			err = s.handle(p)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *workerSession) handle(p wire.Packet) error {
	switch p.Type {
	case wire.NoJob:
		return s.grabReply(grabbed{})
	case wire.JobAssign:
		return s.grabReply(grabbed{job: s.assignment(p.Args[0], p.Args[1], nil, p.Args[2])})
	case wire.JobAssignUniq:
		return s.grabReply(grabbed{job: s.assignment(p.Args[0], p.Args[1], p.Args[2], p.Args[3])})
	case wire.Noop:
		select {
		case s.noop <- struct{}{}:
		default:
		}
	case wire.EchoRes:
		if string(p.Args[0]) == drainEcho {
			s.echoed <- struct{}{}
		}
	case wire.Error:
		e := &ServerError{Code: string(p.Args[0]), Text: string(p.Args[1])}
		if isJobNotFound(e) { // the answer to a WORK_* packet: somebody else has the job by now, or it ended
			s.o.Log.Debug().Err(e).Msg("job server did not take a packet of a job")
			return nil
		}
		return s.grabReply(grabbed{unknown: e})
	default:
		return fmt.Errorf("job server sent %v to a worker", p.Type)
	}
	return nil
}

// grabReply hands over the reply to a grab. An ERROR that comes unasked is about something else, CAN_DO say; but a job that comes
// unasked would wait for ever.
func (s *workerSession) grabReply(g grabbed) error {
	switch {
	case s.asking.Swap(false):
		s.grabs <- g
	case g.job != nil:
		return errors.New("job server assigned a job unasked")
	case g.unknown != nil:
		s.o.Log.Warn().Err(g.unknown).Msg("job server refused a worker's packet")
	}
	return nil
}
