package jobserver

import (
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// A worker that got NO_JOB says PRE_SLEEP and waits for NOOP. Waking all sleepers for every job would be a stampede to one
// job, so each job wakes one. What must not happen is that a job waits while a worker for it sleeps: the one that was woken may
// take another job, lose its ability, die or hang. Hence this rule, which every change of the state keeps:
//
//	as long as a function has sleepers, at least as many of its workers are woken as it has jobs ready.
//
// A worker counts as woken, for each function it can do, from NOOP until it grabs, says PRE_SLEEP again, leaves, or has done
// nothing for wakeGrace. Whenever it ceases to count, its functions are looked at again (rouse).

type rest uint8

const (
	awake rest = iota
	asleep
	woken
)

// wakeGrace is how long a woken worker has until another is woken in its place: it may be busy with another job server.
const wakeGrace = time.Second

// preSleep lets a worker sleep unless there is a job for it; then it is sent NOOP at once.
func (s *Server) preSleep(c *conn) {
	s.rise(c)
	if j, _ := c.next(); j != nil {
		s.wake(c)
		return
	}
	c.rest = asleep
	for _, a := range c.abilities {
		a.fn.sleepers.pushBack(&a.bed)
	}
}

// wake sends NOOP to a worker that is not counted as woken.
func (s *Server) wake(c *conn) {
	s.rise(c)
	c.rest = woken
	for _, a := range c.abilities {
		a.fn.woken++
	}
	s.alarms.ringIn(&c.wakeUp, s.wakeGrace)
	c.notify(wire.Noop, nil)
}

// rise takes a worker out of the accounts of the sleeping and the woken. It returns true if it was woken: then the caller
// rouses others for the worker's functions once it is done.
func (s *Server) rise(c *conn) (wasWoken bool) {
	was := c.rest
	c.rest = awake
	for _, a := range c.abilities {
		switch was {
		case asleep:
			a.bed.remove()
		case woken:
			a.fn.woken--
		}
	}
	if was == woken {
		s.alarms.cancel(&c.wakeUp)
	}
	return was == woken
}

// rouse wakes as many sleepers as the rule above asks for.
func (s *Server) rouse(f *function) {
	for f.woken < f.ready && f.sleepers.front != nil {
		s.wake(f.sleepers.front.item.conn)
	}
}

func (s *Server) rouseFor(c *conn) {
	for _, a := range c.abilities {
		s.rouse(a.fn)
	}
}

// overslept is called when a woken worker has let wakeGrace pass. Others may be as busy as it is, workers of two job servers say, and
// one at a time each would cost a job wakeGrace: where too few are woken, now all that sleep are.
func (s *Server) overslept(c *conn) {
	s.rise(c)
	for _, a := range c.abilities {
		if a.fn.woken < a.fn.ready {
			for a.fn.sleepers.front != nil {
				s.wake(a.fn.sleepers.front.item.conn)
			}
		}
	}
}
