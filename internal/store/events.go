package store

import (
	"sync"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store/query"
	"gearman-gateway/internal/webhook"
)

// eventLog is where the log ends and how large it is.
type eventLog = query.GetEventLogRow

const (
	eventSize    = 1 << 10 // what an event counts besides its body: its other columns, its places in the indexes, its deliveries
	largePayload = 20_000  // bytes; no body has room for one, so that it need not wait for the disk
)

// An entry is an event on its way into the log.
type entry struct {
	event.Event        // without its Data once it has a body
	function    string //
	owner       string //
	body        []byte // made when it is first needed
}

func (e entry) size() int { return eventSize + len(e.body) + len(e.Data.Result) + len(e.Data.Chunk) }

// encode makes the body, and lets go of what it is made of.
func (e *entry) encode(source string) {
	if e.body == nil {
		e.body = webhook.Encode(source, e.Event)
		e.Data = event.Data{}
	}
}

// entries returns the events that anybody may want. A body is made later, off the publisher's path, where it is not cheap.
func (d *DB) entries(events []event.Event) []entry {
	var kept []entry
	for i := range events {
		e := &events[i]
		if !d.o.Wanted(webhook.HeadOf(e)) {
			continue
		}
		kept = append(kept, entry{Event: *e, function: e.Data.Function, owner: e.Data.Owner})
		if len(e.Data.Result) >= largePayload || len(e.Data.Chunk) >= largePayload {
			kept[len(kept)-1].encode(d.o.Source)
		}
	}
	return kept
}

// Publish implements webhook.Outbox: it is an Apply that changes no record.
func (d *DB) Publish(events ...event.Event) { d.Apply(&ledger.Change{}, events...) }

// Full implements webhook.Outbox.
func (d *DB) Full() bool { return d.full.Load() }

// Grown implements webhook.Outbox.
func (d *DB) Grown() <-chan struct{} { return d.grown.wait() }

// keep puts events at the end of the log. When it is full, those that are not Promised are dropped. An event that is there already
// stays as it is: its change was written by a disk that said it was not.
func (t *tx) keep(events []entry) error {
	for i := range events {
		e := &events[i]
		if err := t.makeRoom(); err != nil {
			return err
		}
		if t.full() && !e.Promised {
			t.dropped++
			continue
		}
		e.encode(t.d.o.Source)
		n, err := t.PutEvent(background, query.PutEventParams{
			N: t.log.Last + 1, ID: e.ID, Type: string(e.Type), Function: e.function, Subject: e.Subject,
			Time: e.Time.UnixMicro(), Traceparent: e.Traceparent, Callback: e.Callback, Body: e.body, Owner: e.owner,
		})
		if err != nil {
			return err
		}
		t.kept += int(n)
		t.log.Last += n
		t.log.Bytes += n * (int64(len(e.body)) + eventSize)
	}
	return nil
}

// finish notes the log as the transaction leaves it.
func (t *tx) finish() error {
	if err := t.makeRoom(); err != nil || t.log == t.d.log {
		return err
	}
	return t.PutEventLog(background, query.PutEventLogParams(t.log))
}

// accept takes over what a transaction has stored, and tells of it.
func (d *DB) accept(t *tx) {
	d.log = t.log
	d.overdue = t.over() && !t.stuck
	d.losses.full.add(t.dropped)
	if was := d.full.Swap(t.full()); was && !t.full() {
		d.losses.report(true)
	}
	if t.kept > 0 {
		d.grown.tell()
	}
}

// signal tells whoever waits that something has happened.
type signal struct {
	mu sync.Mutex
	c  chan struct{} // nil: nobody waits
}

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
