package store

import (
	"database/sql"
	"errors"
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
	given, err := t.giveUp(maxExpired, func(query.OldestEventsRow) bool { return t.log.Bytes > enough })
	t.given += given
	t.stuck = given < maxExpired && t.over()
	return err
}

// expireEvents gives up events that are older than they may get, a bounded number.
func (t *tx) expireEvents(limit int64) (given int64, err error) {
	before := t.now().Add(-t.d.o.Retention).UnixMicro()
	return t.giveUp(limit, func(e query.OldestEventsRow) bool { return e.Time < before })
}

// giveUp deletes the oldest events that no sink is still to get, as long as wanted says so, a bounded number. Nothing but the
// beginning of the log ever goes, so that it has no gaps.
func (t *tx) giveUp(limit int64, wanted func(query.OldestEventsRow) bool) (given int64, err error) {
	sinks, err := t.GetSinks(background)
	if err != nil {
		return 0, err
	}
	needed, err := t.needed(sinks)
	if err != nil {
		return 0, err
	}
	events, err := t.OldestEvents(background, query.OldestEventsParams{N: needed, Limit: limit})
	if err != nil {
		return 0, err
	}
	for _, e := range events {
		if !wanted(e) {
			break
		}
		t.log.Bytes -= e.Size + eventSize
		given++
	}
	if given == 0 {
		return 0, nil
	}
	return given, t.trim(events[given-1].N, sinks)
}

// trim deletes the events up to n, and their deliveries. Of a sink that is disabled some were pending, and others waited for them.
func (t *tx) trim(n int64, sinks []query.Sink) error {
	orphans := make([][]string, len(sinks))
	for i, s := range sinks {
		var err error
		if orphans[i], err = t.PendingUpTo(background, query.PendingUpToParams{Sink: s.Name, N: n}); err != nil {
			return err
		}
	}
	if err := t.TrimEvents(background, n); err != nil {
		return err
	}
	now := micros(t.now())
	for i, s := range sinks {
		for _, subject := range orphans[i] {
			if err := t.Awaken(background, query.AwakenParams{Sink: s.Name, Subject: subject, Due: now}); err != nil {
				return err
			}
		}
	}
	return nil
}

// needed returns the number of the first event that a sink is still to get.
func (t *tx) needed(sinks []query.Sink) (int64, error) {
	first := t.log.Last + 1
	for _, s := range sinks {
		if s.Disabled != "" || !t.d.registered[s.Name] && t.now().Sub(t.d.opened) > earlierLife {
			continue
		}
		first = min(first, s.Position+1)
		switch n, err := t.OldestPending(background, s.Name); {
		case err == nil:
			first = min(first, n)
		case !errors.Is(err, sql.ErrNoRows):
			return 0, err
		}
	}
	return first, nil
}
