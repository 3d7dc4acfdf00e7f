package webhook

import (
	"context"
	"time"
)

// lookAtOnce is how many events of the log a sink looks at in one step.
const lookAtOnce = 500

// storeRetry is how long a sink waits when the outbox has failed.
const storeRetry = time.Second

// exchange is a sink's side of its dealings with the outbox, of which there is one at a time: what has ended is stored, more of the
// log is looked at, and then more lines are taken. While it goes on attempts go on as well, with what is in hand. That order is what
// keeps the events of a subject in theirs: lines are only ever taken after all that became of the subject before is stored.
type exchange struct {
	grown   <-chan struct{}
	stored  chan stored
	storing bool
	failed  bool      // the last one
	storeAt time.Time // not before

	ends    []Ended      // to be stored
	dirty   bool         // the standing is to be stored
	hasten  bool         // all that waits is to become due
	waiters []chan error // of those who want to know when it is stored
	look    bool         // there may be more in the log than was looked at
	check   bool         // there may be lines that are due
	dry     bool         // of what was looked at nothing is pending
	next    time.Time    // when a line will be due; zero: none waits
}

// stored is how an exchange went.
type stored struct {
	step    Step
	query   *DueQuery // nil: no lines were asked for
	hasten  bool
	waiters []chan error

	done  bool // the step was
	moved Advanced
	ready Ready
	err   error
}

// due reports whether there is something to ask the outbox, or to tell it.
func (k *sink) due(now time.Time) bool {
	return len(k.ends) > 0 || k.dirty || k.hasten || k.wantsLines(now)
}

// wantsLines reports whether the hand is to be filled. That of a failing sink holds one line, and only when it may be sent.
func (k *sink) wantsLines(now time.Time) bool {
	switch {
	case k.idle():
		return false
	case k.failing():
		return len(k.hand.ready) == 0 && k.inFlight == 0 && !now.Before(k.gates.of("").until) && (k.check || k.look && k.dry)
	}
	return len(k.hand.ready) < k.hand.most/2 && (k.look || k.check || !k.next.IsZero() && !k.next.After(now))
}

// alarm returns when run has something to do again that no channel tells of. next is when start has. What is over start and begin have
// done, or a channel tells when it can be: it must not hide what is still to come, nor set the timer again and again.
func (k *sink) alarm(now, next time.Time) time.Time {
	at := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	sooner(next)
	switch {
	case k.storing:
	case now.Before(k.storeAt):
		sooner(k.storeAt)
	case k.idle():
	case k.failing():
		sooner(k.gates.of("").until)
	default:
		sooner(k.next)
	}
	return at
}

// begin starts an exchange if there is reason to.
func (k *sink) begin(now time.Time) {
	if k.storing || now.Before(k.storeAt) || !k.due(now) {
		return
	}
	var s Step
	var q *DueQuery
	if k.wantsLines(now) {
		q = &DueQuery{Now: now, Early: k.failing(), Lines: k.hand.most, Letters: lineLetters}
		if k.failing() {
			q.Lines, q.Letters = 1, 1
		}
		if k.look && (k.dry || !k.failing()) {
			s.Look = lookAtOnce
		}
	}
	k.store(s, q)
}

// store begins an exchange with a step, to which it adds what is to be stored.
func (k *sink) store(s Step, q *DueQuery) {
	s.Ends, s.Wants = k.ends, k.wants
	if k.dirty {
		standing := k.standing
		s.Standing = &standing
	}
	e := stored{step: s, query: q, hasten: k.hasten, waiters: k.waiters}
	if q != nil {
		q.Skip = k.held(s.Ends)
		k.check = false
	}
	if s.Look > 0 {
		k.look = false
	}
	k.ends, k.dirty, k.hasten, k.waiters, k.storing, k.storeAt = nil, false, false, nil, true, time.Time{}
	go func() { k.stored <- e.exchange(k.outbox, k.name) }()
}

// held returns which subjects are in hand, but for those that will not be any more once the ends are stored: these may be offered again.
func (k *sink) held(ends []Ended) func(subject string) bool {
	subjects := make(map[string]bool, len(k.hand.lines))
	saved := map[string]int{}
	for _, e := range ends {
		saved[e.Subject]++
	}
	for subject, l := range k.hand.lines {
		if l.busy || len(l.Letters) > 0 || l.unsaved > saved[subject] {
			subjects[subject] = true
		}
	}
	return func(subject string) bool { return subjects[subject] }
}

// exchange does it. It does not end with the sender's context: what has happened is to be stored.
func (e stored) exchange(outbox Outbox, sink string) stored {
	ctx := context.Background()
	if e.moved, e.err = outbox.Advance(ctx, sink, e.step); e.err != nil {
		return e
	}
	e.done = true
	if e.hasten {
		if e.err = outbox.Hasten(ctx, sink); e.err != nil {
			return e
		}
	}
	if e.query != nil {
		e.ready, e.err = outbox.Due(ctx, sink, *e.query)
	}
	return e
}

// settled does what follows from an exchange.
func (k *sink) settled(e stored) {
	k.storing = false
	k.noteStore(e.err)
	if e.err != nil {
		k.storeAt = time.Now().Add(storeRetry)
		k.look, k.check = true, true
		k.hasten = k.hasten || e.hasten
	}
	if !e.done {
		k.ends = append(e.step.Ends, k.ends...)
		k.dirty = k.dirty || e.step.Standing != nil
		k.waiters = append(e.waiters, k.waiters...)
		k.answer(e.err)
		return
	}
	for _, end := range e.step.Ends {
		k.hand.saved(end.Subject)
	}
	for _, waiter := range e.waiters {
		waiter <- nil
	}
	if e.query == nil {
		k.check = k.check || len(e.step.Ends) > 0 || e.hasten // others of their subjects may be due now
	} else if e.err == nil {
		k.fetched(e)
	}
}

// fetched takes the lines of an exchange.
func (k *sink) fetched(e stored) {
	lines := e.ready.Lines
	k.look = k.look || e.step.Look > 0 && e.moved.Looked == e.step.Look
	k.dry = len(lines) == 0 && e.ready.Next.IsZero() && len(k.hand.lines) == 0
	k.check = k.check || len(lines) >= e.query.Lines || k.failing() && len(lines) > 0
	k.next = e.ready.Next
	if !k.idle() {
		k.hand.take(lines)
	} else {
		k.check = true
	}
}

// answer tells those who wait for something to be stored why it is not.
func (k *sink) answer(err error) {
	for _, waiter := range k.waiters {
		waiter <- err
	}
	k.waiters = nil
}

// noteStore logs when the outbox begins to fail, and when it is well again.
func (k *sink) noteStore(err error) {
	switch {
	case err != nil && !k.exchange.failed:
		k.log.Error().Err(err).Msg("webhook outbox fails: what became of deliveries cannot be stored, trying again until it can")
	case err == nil && k.exchange.failed:
		k.log.Info().Msg("webhook outbox is well again")
	}
	k.exchange.failed = err != nil
}
