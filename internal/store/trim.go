package store

import (
	"database/sql"
	"errors"
	"maps"
	"slices"
	"time"

	"gearman-gateway/internal/store/query"
)

// earlierLife is how long after Open a sink of an earlier life counts as registered, since they are registered one after the other.
const earlierLife = time.Minute

// over reports whether the log has reached its bound, and full whether nothing can be done about it.
func (t *tx) over() bool { return t.log.Bytes >= t.d.o.MaxEventBytes }

func (t *tx) full() bool { return t.over() && t.stuck }

// makeRoom gives up the oldest events for new ones when the log is over its bound: as many as one transaction may, so that no change
// waits long for it, and at least twice as many as it has put there. It gives up a little more than it must, and need not do it for
// every event.
func (t *tx) makeRoom() error {
	if !t.over() || t.stuck || t.given > int64(2*t.kept+maxExpired) {
		return nil
	}
	most := t.d.o.MaxEventBytes
	enough := most - most/64
	passed, err := t.giveUp(maxExpired, func(query.OldestEventsRow) bool { return t.log.Bytes > enough })
	t.given += passed
	t.stuck = passed < maxExpired && t.over()
	return err
}

// expireEvents gives up events that are older than they may get, a bounded number.
func (t *tx) expireEvents(limit int64) (passed int64, err error) {
	before := t.now().Add(-t.d.o.Retention).UnixMicro()
	return t.giveUp(limit, func(e query.OldestEventsRow) bool { return e.Time < before })
}

// giveUp lets go of the oldest events that every sink has looked at, as long as wanted says so, a bounded number: those that a sink is
// still to get stay behind, and the others are deleted. So the log has gaps up to its floor, and none from there on. Nothing leaves the log
// unless something settled does that comes behind it, or may: it does not look further than the number. It returns how many it has passed.
func (t *tx) giveUp(limit int64, wanted func(query.OldestEventsRow) bool) (passed int64, err error) {
	sinks, err := t.GetSinks(background)
	if err != nil {
		return 0, err
	}
	passed, err = t.letGo(sinks, limit, wanted)
	if err != nil {
		return passed, err
	}
	floor := t.log.Floor
	events, err := t.OldestEvents(background, query.OldestEventsParams{Floor: floor, Needed: t.needed(sinks), Limit: limit - passed})
	if err != nil || len(events) == 0 {
		return passed, err
	}
	held, err := t.held(sinks, floor, events[len(events)-1].N)
	if err != nil {
		return passed, err
	}
	more := passed+int64(len(events)) == limit // and settled ones may be among them
	seen := passed
	for _, e := range events {
		if !wanted(e) {
			more = false
			break
		}
		seen++
		if !held[e.N] {
			t.log.Bytes -= e.Size + eventSize
			t.log.Floor, passed = e.N, seen
		}
	}
	if more {
		t.log.Floor, passed = events[len(events)-1].N, seen
	}
	if t.log.Floor == floor {
		return passed, nil
	}
	return passed, t.trim(floor, held, sinks)
}

// trim deletes the events between a former floor and the floor that are not held, and their deliveries. Of a sink that is given up some
// were pending, and others waited for them.
func (t *tx) trim(from int64, held map[int64]bool, sinks []query.Sink) error {
	orphans := map[query.AwakenParams]bool{}
	for _, s := range sinks {
		if !t.givenUp(s) {
			continue
		}
		pending, err := t.Pending(background, query.PendingParams{Sink: s.Name, After: from, Last: t.log.Floor, Limit: noLimit})
		if err != nil {
			return err
		}
		for _, d := range pending {
			orphans[query.AwakenParams{Sink: s.Name, Subject: d.Subject, Due: micros(t.now())}] = true
		}
	}
	for _, n := range append(slices.Sorted(maps.Keys(held)), t.log.Floor+1) {
		if err := t.TrimEvents(background, query.TrimEventsParams{After: from, Before: min(n, t.log.Floor+1)}); err != nil {
			return err
		}
		from = n
	}
	for orphan := range orphans {
		if err := t.Awaken(background, orphan); err != nil {
			return err
		}
	}
	return nil
}

const noLimit = -1 // of a query

// held returns which events a sink is still to get, of those behind a number and up to a last one.
func (t *tx) held(sinks []query.Sink, after, last int64) (map[int64]bool, error) {
	held := map[int64]bool{}
	for _, s := range sinks {
		if t.givenUp(s) {
			continue
		}
		pending, err := t.Pending(background, query.PendingParams{Sink: s.Name, After: after, Last: last, Limit: noLimit})
		if err != nil {
			return nil, err
		}
		for _, d := range pending {
			held[d.N] = true
		}
	}
	return held, nil
}

// letGo has sinks that are given up hold nothing up to the floor any more, as long as wanted says so, a bounded number of events, and returns
// how many.
func (t *tx) letGo(sinks []query.Sink, limit int64, wanted func(query.OldestEventsRow) bool) (gone int64, err error) {
	for _, s := range sinks {
		if !t.givenUp(s) || gone == limit {
			continue
		}
		pending, err := t.Pending(background, query.PendingParams{Sink: s.Name, Last: t.log.Floor, Limit: limit - gone})
		if err != nil {
			return gone, err
		}
		for _, d := range pending {
			e, err := t.EventTime(background, d.N)
			if err != nil {
				return gone, err
			}
			if !wanted(query.OldestEventsRow{N: e.N, Time: e.Time}) {
				break
			}
			gone++
			if err := t.drop(s.Name, d); err != nil {
				return gone, err
			}
		}
	}
	return gone, nil
}

// drop deletes a pending delivery, and its event if no other holds it.
func (t *tx) drop(sink string, d query.PendingRow) error {
	if err := t.DropDelivery(background, query.DropDeliveryParams{N: d.N, Sink: sink}); err != nil {
		return err
	}
	if err := t.Awaken(background, query.AwakenParams{Sink: sink, Subject: d.Subject, Due: micros(t.now())}); err != nil {
		return err
	}
	return t.trimSettled(d.N)
}

// trimSettled deletes an event up to the floor that no delivery holds any more.
func (t *tx) trimSettled(n int64) error {
	size, err := t.TrimSettled(background, n)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		t.log.Bytes -= size + eventSize
	}
	return err
}

// needed returns the number of the first event that a sink has not looked at.
func (t *tx) needed(sinks []query.Sink) int64 {
	first := t.log.Last + 1
	for _, s := range sinks {
		if !t.givenUp(s) {
			first = min(first, s.Position+1)
		}
	}
	return first
}

// givenUp reports whether nothing is kept for a sink: it is disabled, or it was one of an earlier life.
func (t *tx) givenUp(s query.Sink) bool {
	return s.Disabled != "" || !t.d.registered[s.Name] && t.now().Sub(t.d.opened) > earlierLife
}
