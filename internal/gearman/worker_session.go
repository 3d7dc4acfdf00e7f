package gearman

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"gearman-gateway/internal/gearman/wire"
)

// workerSession is one life of a Worker's connection.
type workerSession struct {
	*link
	w      *Worker
	grab   wire.Type     // GRAB_JOB_UNIQ, or GRAB_JOB where the job server does not know it
	grabs  chan grabbed  // the replies to grab
	asking atomic.Int32  // replies to grab that are still to come
	width  int           // how many grabs are sent at once; for the goroutine of work alone
	noop   chan struct{} // has an element when there may be jobs
	echoed chan struct{} // the job server has answered the ECHO_REQ of drain

	registered map[string]bool // the functions; for the goroutine of work alone
	jobs       sync.WaitGroup

	heldMu sync.Mutex
	held   map[string]int // running jobs by function
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
		grabs:  make(chan grabbed, maxWidth),
		width:  1,
		noop:   make(chan struct{}, 1),
		echoed: make(chan struct{}, 1),

		registered: map[string]bool{},
		held:       map[string]int{},
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
	w.notify(WorkerConnected, nil)
	return s, nil
}

// errRenew: another connection is to take this one's place.
var errRenew = errors.New("the connection is replaced")

// work registers the functions and runs jobs until ctx ends or the connection does; its error is why the latter ended. After errRenew the
// connection lives until its jobs have ended.
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
	switch err {
	case errRenew:
		for f := range s.registered { // the job server is not to count on this connection meanwhile
			_ = s.takeBack(f, false) // what is held stays, and an error ends the connection anyway
		}
		s.w.leaving.Go(func() { _ = s.leave() })
		return err
	case nil:
		return s.leave()
	}
	err = s.fail(ErrClosed)
	s.wait()
	return err
}

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
	case s.expected():
		s.grabs <- g
	case g.job != nil:
		return errors.New("job server assigned a job unasked")
	case g.unknown != nil:
		s.o.Log.Warn().Err(g.unknown).Msg("job server refused a worker's packet")
	}
	return nil
}

// expected takes one from the replies that are still to come, if there is any.
func (s *workerSession) expected() bool {
	for {
		n := s.asking.Load()
		if n == 0 {
			return false
		}
		if s.asking.CompareAndSwap(n, n-1) {
			return true
		}
	}
}
