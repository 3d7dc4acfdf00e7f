package webhook

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// What is looked at under one hold of the lock, for which publishers wait.
const (
	maxPageLook   = 5_000 // events that Events looks at for one page
	maxReplayLook = 1_000
	maxListLook   = 1_000
)

// Due implements Outbox. Bodies are made here, outside the lock.
func (m *Memory) Due(_ context.Context, sink string, q DueQuery) (Ready, error) {
	m.mu.Lock()
	k := m.sinks[sink]
	if k == nil {
		m.mu.Unlock()
		return Ready{}, ErrNoSink
	}
	chosen, next := k.ready(q)
	r := Ready{Lines: make([]Line, len(chosen)), Next: next}
	var messages []*message
	for i, l := range chosen {
		letters := make([]Letter, 0, min(q.Letters, len(l.pending)))
		for d := range inOrder(l.pending) {
			letters = append(letters, d.letter())
			messages = append(messages, &d.event.message)
			if len(letters) >= q.Letters {
				break
			}
		}
		r.Lines[i] = Line{l.subject, letters}
	}
	m.mu.Unlock()
	for _, l := range r.Lines {
		for i := range l.Letters {
			l.Letters[i].Body, messages = messages[0].bytes(m.o.Source), messages[1:]
		}
	}
	return r, nil
}

// letter returns d's without its body.
func (d *memoryDelivery) letter() Letter {
	e := &d.event.event
	return Letter{
		N: d.event.n, EventID: e.ID, Type: e.Type, Callback: e.Callback, Traceparent: e.Traceparent,
		Attempts: d.attempts, Log: slices.Clip(d.log), // the caller may append to it
	}
}

// Events implements Outbox.
func (m *Memory) Events(_ context.Context, q EventQuery) (EventPage, error) {
	messages, page, err := m.page(q)
	for _, e := range messages {
		page.Bodies = append(page.Bodies, e.bytes(m.o.Source))
	}
	return page, err
}

func (m *Memory) page(q EventQuery) (selected []*message, page EventPage, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := q.After
	switch n, known := m.ids[q.AfterID]; {
	case q.AfterID != "" && (!known || n < m.first-1 || q.Owner != "" && q.Owner != m.at(n).event.Data.Owner):
		return nil, EventPage{}, ErrNoEvent
	case q.AfterID != "":
		after = n
	case after == 0:
		after = m.first - 1 // no cursor: from the oldest that is kept
	case after < m.first-1, after > m.last():
		return nil, EventPage{}, ErrEventsExpired
	}
	look := min(after+maxPageLook, m.last())
	for after < look && len(selected) < q.Limit {
		after++
		m := &m.at(after).message
		e := &m.event
		if (q.Types == nil || q.Types.Match(e.Type)) && (q.Subject == "" || q.Subject == e.Subject) &&
			(q.Owner == "" || q.Owner == e.Data.Owner) {
			selected = append(selected, m)
		}
	}
	return selected, EventPage{Next: after, End: after >= m.last()}, nil
}

// Grown implements Outbox.
func (m *Memory) Grown() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.grown == nil {
		m.grown = make(chan struct{})
	}
	return m.grown
}

// Backlog implements Outbox.
func (m *Memory) Backlog(_ context.Context, sink string) (Backlog, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.sinks[sink]
	if k == nil {
		return Backlog{}, nil
	}
	position := m.position(k)
	b := Backlog{Behind: m.last() - position, Pending: int64(k.states[Pending].len), Dead: int64(k.states[Dead].len)}
	oldest := position + 1
	if n := k.states[Pending].above(0); n != 0 {
		oldest = n // a sink has looked at what it has deliveries of
	}
	if e := m.at(oldest); e != nil {
		b.Oldest = e.event.Time
	}
	return b, nil
}

// Deliveries implements Outbox. It takes many short holds of the lock: there may be few deliveries that are selected among many.
func (m *Memory) Deliveries(ctx context.Context, q DeliveryQuery) ([]Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &listing{m: m, q: q, states: DeliveryStates, sinks: slices.SortedFunc(maps.Values(m.sinks), func(a, b *memorySink) int {
		return cmp.Compare(a.name, b.name)
	})}
	if q.Sink != "" {
		l.sinks = slices.DeleteFunc(l.sinks, func(k *memorySink) bool { return k.name != q.Sink })
	}
	if q.State != "" {
		l.states = []DeliveryState{q.State}
	}
	l.n = m.last() + 1
	if q.Before > 0 {
		l.n = min(l.n, q.Before)
		if q.BeforeSink != "" {
			l.take(q.Before, q.BeforeSink)
		}
	}
	for l.more() && ctx.Err() == nil {
		m.mu.Unlock()
		m.mu.Lock()
	}
	return l.found, ctx.Err()
}

// A listing looks for the deliveries that a query selects. Whoever calls it holds the Memory's lock.
type listing struct {
	m      *Memory
	q      DeliveryQuery
	sinks  []*memorySink
	states []DeliveryState
	n      int64 // of the event that was looked at last
	found  []Delivery
}

// more looks at some older events, and reports whether there are more to look at.
func (l *listing) more() bool {
	for range maxListLook {
		if l.n = newestBelow(l.n, l.sinks, l.states); l.n == 0 || len(l.found) >= l.q.Limit {
			return false
		}
		l.take(l.n, "")
	}
	return true
}

// take takes what is selected of the deliveries of an event to the sinks after one.
func (l *listing) take(n int64, after string) {
	for _, k := range l.sinks {
		d := l.m.delivery(k, n)
		if d != nil && k.name > after && slices.Contains(l.states, d.state) && len(l.found) < l.q.Limit &&
			(l.q.Owner == "" || l.q.Owner == d.event.event.Data.Owner) {
			l.found = append(l.found, d.shown())
		}
	}
}

// newestBelow returns the newest event older than n of which any of the sinks has a delivery in one of the states; 0: there is none.
func newestBelow(n int64, sinks []*memorySink, states []DeliveryState) (newest int64) {
	for _, k := range sinks {
		for _, s := range states {
			if in := k.states[s]; in != nil {
				newest = max(newest, in.below(n))
			}
		}
	}
	return newest
}

// shown returns d without its Log.
func (d *memoryDelivery) shown() Delivery {
	e := &d.event.event
	return Delivery{
		N: d.event.n, Sink: d.sink.name, Owner: e.Data.Owner, EventID: e.ID, Type: e.Type, Subject: e.Subject, Time: e.Time,
		State: d.state, Attempts: d.attempts, Due: d.due,
	}
}

// Delivery implements Outbox.
func (m *Memory) Delivery(_ context.Context, sink, eventID string) (Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.find(sink, eventID)
	if d == nil {
		return Delivery{}, ErrNoDelivery
	}
	shown := d.shown()
	shown.Log = slices.Clone(d.log)
	return shown, nil
}

// find returns a sink's delivery of an event; nil: there is none.
func (m *Memory) find(sink, eventID string) *memoryDelivery {
	k := m.sinks[sink]
	if k == nil {
		return nil
	}
	return m.delivery(k, m.ids[eventID])
}

// Requeue implements Outbox.
func (m *Memory) Requeue(_ context.Context, sink, eventID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.find(sink, eventID)
	switch {
	case d == nil:
		return ErrNoDelivery
	case d.state == Pending:
		return ErrPending
	}
	d.sink.requeue(d, time.Now())
	return nil
}

// Replay implements Outbox. It takes many short holds of the lock, and goes on where it was: oldest first, so that order is kept.
func (m *Memory) Replay(ctx context.Context, sink string, since, until time.Time) (int, error) {
	total := 0
	for after := int64(0); ; {
		count, next := m.replay(sink, since, until, after)
		total += count
		if next == 0 || ctx.Err() != nil {
			return total, ctx.Err()
		}
		after = next
	}
}

// replay goes through some of the dead deliveries of events after a number, and returns the last one's; 0: that were all.
func (m *Memory) replay(sink string, since, until time.Time, after int64) (count int, last int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.sinks[sink]
	if k == nil {
		return 0, 0
	}
	last = after
	for range maxReplayLook {
		if last = k.states[Dead].above(last); last == 0 {
			break
		}
		d := m.delivery(k, last)
		if at := d.event.event.Time; at.Before(since) || !until.IsZero() && !at.Before(until) {
			continue
		}
		k.requeue(d, time.Now())
		count++
	}
	return count, last
}

// Hasten implements Outbox.
func (m *Memory) Hasten(_ context.Context, sink string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.sinks[sink]; k != nil {
		k.hasten(time.Now())
	}
	return nil
}
