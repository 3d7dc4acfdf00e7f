package workerpool

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"gearman-gateway/internal/gearman"
)

// Function is how jobs of one function are run. Only Handler is needed. Of the limits, 0 means none.
type Function struct {
	Handler Handler
	// Timeout is how long a run may take. Its context then ends with ErrTimeout for its cause.
	Timeout time.Duration
	// Concurrency is how many jobs may run at a time, over all job servers, and Rate how many may begin a second; as many as may begin
	// in a second, at least one, may begin at once. Jobs beyond are not taken: they wait with the job servers, where other workers can have
	// them. Such a function has a connection of its own to each job server.
	Concurrency int
	Rate        float64
	// MaxWorkload and MaxResult are in bytes. A job whose workload is larger fails without a run, and is never tried again; one whose
	// result is larger, with what was sent ahead, fails.
	MaxWorkload int64
	MaxResult   int64
	// Retry is the policy of tracked jobs that have none of their own.
	Retry RetryPolicy
	// MaxDeaths is that of Options for this function; 0: as there.
	MaxDeaths int
}

// RetryPolicy says how a failed job is tried again.
type RetryPolicy struct {
	Max     int           // times it is tried again; 0: never
	Backoff time.Duration // before the first of them; it doubles each time, up to an hour. 0: 1 s
}

// check says what is wrong with functions.
func check(functions map[string]Function) error {
	for name, f := range functions {
		if err := gearman.CheckFunction(name); err != nil {
			return fmt.Errorf("function %q: %w", name, err)
		}
		if err := f.check(); err != nil {
			return fmt.Errorf("function %q: %w", name, err)
		}
	}
	return nil
}

func (f *Function) check() error {
	switch {
	case f.Handler == nil:
		return errors.New("it has no handler")
	case f.Timeout < 0, f.Concurrency < 0, f.MaxWorkload < 0, f.MaxResult < 0, f.MaxDeaths < 0, f.Retry.Max < 0, f.Retry.Backoff < 0:
		return errors.New("a limit is negative")
	case !(f.Rate >= 0): // NaN neither
		return errors.New("the rate is negative")
	}
	return nil
}

// limited says whether a pool of some slots must count the function's runs.
func (f *Function) limited(slots int) bool {
	return f.Concurrency > 0 && f.Concurrency < slots || f.Rate > 0
}

// hold and letGo count the functions by which a handler is used that is to be closed when there is none any more. Handlers that are
// not comparable cannot be told apart, and are not closed.
func (p *Pool) hold(h Handler) {
	if closer(h) == nil {
		return
	}
	p.handlers.Lock()
	defer p.handlers.Unlock()
	p.handlers.uses[h]++
}

func (p *Pool) letGo(h Handler) {
	closing := closer(h)
	if closing == nil {
		return
	}
	p.handlers.Lock()
	defer p.handlers.Unlock()
	if p.handlers.uses[h]--; p.handlers.uses[h] > 0 {
		return
	}
	delete(p.handlers.uses, h)
	if p.handlers.stopped { // that was an abandoned run, for which nobody waits
		closing()
		return
	}
	p.closing.Go(closing) // which may wait for processes to end
}

func closer(h Handler) func() {
	if !reflect.ValueOf(h).Comparable() {
		return nil
	}
	switch c := h.(type) {
	case interface{ Close() }:
		return c.Close
	case interface{ Close() error }:
		return func() { _ = c.Close() }
	}
	return nil
}
