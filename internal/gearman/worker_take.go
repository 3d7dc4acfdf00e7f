package gearman

import (
	"context"
	"maps"
	"runtime"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

func (s *workerSession) register() error {
	s.w.notify(WorkerRegistering, nil)
	if s.w.o.ID != "" {
		if err := s.send(wire.SetClientID, []byte(s.w.o.ID)); err != nil {
			return err
		}
	}
	for _, f := range s.w.o.Roster.open() {
		if err := s.canDo(f); err != nil {
			return err
		}
	}
	s.w.notify(WorkerRegistered, nil)
	return nil
}

func (s *workerSession) canDo(function string) error {
	s.registered[function] = true
	return s.send(wire.CanDo, []byte(function))
}

func (s *workerSession) cantDo(function string) error {
	delete(s.registered, function)
	return s.send(wire.CantDo, []byte(function))
}

// takeBack unregisters a function that no job of the connection has. Where one has, the function stays, if it may.
func (s *workerSession) takeBack(function string, must bool) error {
	s.heldMu.Lock()
	held := s.held[function] > 0
	s.heldMu.Unlock()
	switch {
	case !held:
		return s.cantDo(function)
	case must || !s.w.o.Roster.has(function):
		return errRenew
	}
	return nil
}

func (s *workerSession) hold(function string, n int) {
	s.heldMu.Lock()
	defer s.heldMu.Unlock()
	if s.held[function] += n; s.held[function] == 0 {
		delete(s.held, function)
	}
}

// offer registers what there are places for, and takes back the rest: packets keep their order, so the next request can only bring
// one of these. The error is errRenew where something cannot be taken back.
func (s *workerSession) offer(p places) error {
	for f := range s.registered {
		if p[f] != nil {
			continue
		}
		if err := s.takeBack(f, len(p) > 0); err != nil {
			return err
		}
	}
	for f := range p {
		if !s.registered[f] {
			if err := s.canDo(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxWidth bounds how many jobs are asked for at once.
const maxWidth = 8

// take waits for a free slot, asks for a job, and starts it; where there is none it sleeps until the job server wakes it. It returns nil
// when ctx ends. As long as every request brings a job it asks for more at once, as many as there are free slots for: else a worker
// runs no more jobs a second than there are round trips.
func (s *workerSession) take(ctx context.Context) error {
	slots, roster := s.w.o.Slots, s.w.o.Roster
	if s.width > 1 {
		runtime.Gosched() // short jobs that were just started end first: their results and the next requests share a system call
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil
	case <-s.done:
		return s.cause()
	}
	first, changed := roster.reserve()
	if ctx.Err() != nil {
		s.giveBack(first)
		return nil
	}
	if len(first) == 0 {
		<-slots
		if err := s.offer(nil); err != nil {
			return err
		}
		return s.await(ctx, changed)
	}
	requests := s.widen(first)
	full, err := s.ask(requests)
	switch {
	case err != nil:
		return err
	case full:
		s.width = min(2*s.width, maxWidth)
		return nil
	}
	s.width = 1
	return s.sleep(ctx)
}

// widen adds to a request what else may be asked for at once: while there are free slots, and places of the same functions.
func (s *workerSession) widen(first places) []places {
	requests := []places{first}
	for len(requests) < s.width {
		select {
		case s.w.o.Slots <- struct{}{}:
		default:
			return requests
		}
		p, _ := s.w.o.Roster.reserve()
		if !maps.EqualFunc(p, first, func(*Ability, *Ability) bool { return true }) {
			s.giveBack(p)
			return requests
		}
		requests = append(requests, p)
	}
	return requests
}

// giveBack settles a request that brought no job.
func (s *workerSession) giveBack(p places) {
	s.w.o.Roster.settle(p, "")
	<-s.w.o.Slots
}

// await waits for a channel to be closed. It returns nil when ctx ends.
func (s *workerSession) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
	case <-ctx.Done():
	case <-s.done:
		return s.cause()
	}
	return nil
}

// start runs a job, which has a slot and a place.
func (s *workerSession) start(job *Assignment, a *Ability) {
	s.hold(job.Function, 1)
	s.jobs.Add(1)
	s.w.jobs.Go(func() {
		defer s.jobs.Done()
		defer func() { <-s.w.o.Slots }()
		if a != nil {
			defer s.w.o.Roster.ended(job.Function, a)
		}
		defer s.hold(job.Function, -1)
		if a == nil { // it was never asked for
			_ = job.Exception([]byte("this worker does not do the function"))
			return
		}
		a.Run(job)
	})
}

// ask sends a grab for each request, waits for the replies, and starts the jobs that they bring. The replies come even when ctx has
// ended meanwhile: a job that was assigned must be run. It reports whether the next is to be asked for at once, because each brought a
// job, or the job server did not know the kind of request.
func (s *workerSession) ask(requests []places) (again bool, err error) {
	if err = s.offer(requests[0]); err == nil {
		s.asking.Store(int32(len(requests)))
		for range requests {
			if err == nil {
				err = s.send(s.grab)
			}
		}
	}
	again = true
	for _, p := range requests {
		var g grabbed
		if err == nil {
			g, err = s.reply()
		}
		if err == nil && g.job != nil {
			s.start(g.job, s.w.o.Roster.settle(p, g.job.Function))
			continue
		}
		s.giveBack(p)
		switch {
		case g.unknown != nil && s.grab == wire.GrabJob:
			err = g.unknown
		case g.unknown != nil: // the first request, which is alone
			s.grab = wire.GrabJob
		default:
			again = false
		}
	}
	return again, err
}

func (s *workerSession) reply() (grabbed, error) {
	select {
	case g := <-s.grabs:
		return g, nil
	case <-s.done:
		return grabbed{}, s.cause()
	}
}

// sleep tells the job server that it may send NOOP, and waits for one, or for a function to be asked for that was not registered:
// gearmand does not wake a worker by itself that registers one whose jobs wait. What there is no place for is taken back meanwhile, or
// the job server would wake this worker for a job rather than another that can run it. gearmand sends NOOP at once when a job has come
// before PRE_SLEEP.
func (s *workerSession) sleep(ctx context.Context) error {
	s.w.o.Notify(WorkerNoJobs, nil)
	if err := s.send(wire.PreSleep); err != nil {
		return err
	}
	s.w.o.Notify(WorkerIOWait, nil)
	for {
		back, more, changed := s.w.o.Roster.review(s.registered)
		for _, f := range back {
			if err := s.takeBack(f, false); err != nil {
				return err
			}
		}
		if more {
			return nil
		}
		select {
		case <-changed:
		case <-s.noop:
			return nil
		case <-ctx.Done():
			return nil
		case <-s.done:
			return s.cause()
		}
	}
}

// leave waits for the connection's jobs and closes it.
func (s *workerSession) leave() error {
	s.drain()
	err := s.fail(ErrClosed)
	s.wait()
	return err
}

// drain waits for the running jobs, and then until the job server has answered an ECHO: by then it has read their results.
func (s *workerSession) drain() {
	s.w.join(&s.jobs)
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
