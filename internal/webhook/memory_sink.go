package webhook

import (
	"slices"
	"time"
)

// A memorySink is how far a sink has come: its deliveries by state, and those that are pending in lines by subject. Whoever calls it
// holds the Memory's lock.
type memorySink struct {
	name     string
	standing Standing
	gone     bool // it was unregistered
	position int64
	states   map[DeliveryState]*numbers // of the events of its deliveries
	lines    map[string]*memoryLine     // by subject; those with deliveries
	byDue    ordered[*memoryLine]
}

// A memoryLine is the pending deliveries of one subject.
type memoryLine struct {
	subject string
	pending ordered[*memoryDelivery] // by number
	first   *memoryDelivery          // of pending; its due is the line's, the others have none
	index   int                      // in memorySink.byDue
}

func (l *memoryLine) before(other *memoryLine) bool {
	if c := l.first.due.Compare(other.first.due); c != 0 {
		return c < 0
	}
	return l.first.event.n < other.first.event.n
}

func (l *memoryLine) moved(to int) { l.index = to }

// A memoryDelivery is one event on its way to one sink. There may be as many as events times sinks, so it is small.
type memoryDelivery struct {
	event    *memoryEvent
	sink     *memorySink
	sibling  *memoryDelivery // another sink's of the same event
	state    DeliveryState
	attempts int
	index    int // in memoryLine.pending
	due      time.Time
	log      []Attempt
}

func (d *memoryDelivery) before(other *memoryDelivery) bool { return d.event.n < other.event.n }
func (d *memoryDelivery) moved(to int)                      { d.index = to }

func newMemorySink(name string, position int64) *memorySink {
	return &memorySink{
		name: name, position: position, lines: map[string]*memoryLine{},
		states: map[DeliveryState]*numbers{Pending: {}, Delivered: {}, Dead: {}},
	}
}

// givenUp reports whether nothing is kept for the sink.
func (k *memorySink) givenUp() bool { return k.gone || k.standing.Disabled != "" }

// add makes a delivery of e.
func (k *memorySink) add(e *memoryEvent, now time.Time) {
	d := &memoryDelivery{event: e, sink: k, sibling: e.deliveries, state: Pending}
	e.deliveries = d
	k.states[Pending].add(e.n)
	k.lineUp(d, now)
}

// end notes how an attempt ended. A delivery may have ended before, or been given up: then there is nothing to note.
func (k *memorySink) end(d *memoryDelivery, e Ended, now time.Time) {
	if d.state != Pending {
		return
	}
	d.attempts = e.Attempts
	d.log = slices.Clone(e.Log[max(0, len(e.Log)-maxAttempts):])
	if e.State != Pending {
		k.move(d, e.State)
		k.leave(d, now)
		return
	}
	l := k.lines[d.event.event.Subject]
	if l.first == d { // else it has been put behind one that was requeued, and is due when that has ended
		d.due = e.Due
		k.byDue.fix(l.index)
	}
}

// requeue makes a delivery that has ended pending again.
func (k *memorySink) requeue(d *memoryDelivery, now time.Time) {
	d.attempts = 0
	k.move(d, Pending)
	k.lineUp(d, now)
}

// forget takes d out of everything.
func (k *memorySink) forget(d *memoryDelivery) {
	k.states[d.state].remove(d.event.n)
	if d.state == Pending {
		k.leave(d, time.Now())
	}
}

func (k *memorySink) move(d *memoryDelivery, to DeliveryState) {
	k.states[d.state].remove(d.event.n)
	d.state = to
	k.states[to].add(d.event.n)
}

// lineUp puts d among the pending ones of its subject, which are in the order of the log: one that is requeued goes in front of the
// later ones.
func (k *memorySink) lineUp(d *memoryDelivery, now time.Time) {
	subject := d.event.event.Subject
	l := k.lines[subject]
	if l != nil {
		l.pending.push(d)
		k.lead(l, now)
		return
	}
	d.due = now
	l = &memoryLine{subject: subject, first: d}
	l.pending.push(d)
	k.lines[subject] = l
	k.byDue.push(l)
}

// leave takes d out of its line; the next is due at once.
func (k *memorySink) leave(d *memoryDelivery, now time.Time) {
	l := k.lines[d.event.event.Subject]
	l.pending.remove(d.index)
	if len(l.pending) == 0 {
		k.byDue.remove(l.index)
		delete(k.lines, l.subject)
	} else {
		k.lead(l, now)
	}
	d.due = time.Time{}
}

// lead sees to it that the first of a line is the one that is due.
func (k *memorySink) lead(l *memoryLine, now time.Time) {
	first := l.pending[0]
	if first == l.first {
		return
	}
	l.first.due = time.Time{}
	l.first = first
	first.due = now
	k.byDue.fix(l.index)
}

// hasten makes the lines that wait due now.
func (k *memorySink) hasten(now time.Time) {
	for _, l := range k.byDue {
		if l.first.due.After(now) {
			l.first.due = now
		}
	}
	k.byDue.init()
}

// ready chooses lines as Outbox.Due does.
func (k *memorySink) ready(q DueQuery) (lines []*memoryLine, next time.Time) {
	for l := range inOrder(k.byDue) {
		if q.Skip != nil && q.Skip(l.subject) {
			continue
		}
		due := l.first.due
		// Either all lines are due that are chosen, or none is.
		early := due.After(q.Now) && (!q.Early || len(lines) > 0 && !lines[0].first.due.After(q.Now))
		if early || len(lines) >= q.Lines {
			return lines, due
		}
		lines = append(lines, l)
	}
	return lines, time.Time{}
}
