package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// happened returns an event of a subject, and promised one that must not be lost.
func happened(subject string, seq int) event.Event {
	return event.New(event.JobProgress, subject, uint64(seq), time.Now(), event.Data{Function: "f"})
}

func promised(subject string, seq int) event.Event {
	e := happened(subject, seq)
	e.Promised = true
	return e
}

// sent is what a body says.
type sent struct {
	ID      string
	Subject string
	Data    struct{ Seq uint64 }
}

// events returns what the log has, page by page.
func events(t testing.TB, d *DB, q webhook.EventQuery) (all []sent) {
	t.Helper()
	for q.Limit = cmp.Or(q.Limit, 100); ; {
		page, err := d.Events(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range page.Bodies {
			var e sent
			if err := json.Unmarshal(body, &e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		if page.End {
			return all
		}
		q.After, q.AfterID = page.Next, ""
	}
}

// told returns the sequence numbers of a subject's events in the order of the log.
func told(t testing.TB, d *DB, subject string) (seqs []uint64) {
	t.Helper()
	for _, e := range events(t, d, webhook.EventQuery{Subject: subject}) {
		seqs = append(seqs, e.Data.Seq)
	}
	return seqs
}

// gapless fails the test unless the log has each number from its first to its last.
func gapless(t testing.TB, d *DB) {
	t.Helper()
	d.flush(t.Context())
	var count, span, bytes, counted, useless int64
	err := d.read.QueryRow(`SELECT count(*) FILTER (WHERE n > floor), last - floor, coalesce(sum(length(body) + 1024), 0), bytes,
		count(*) FILTER (WHERE n <= floor AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.n = e.n AND state = 'pending'))
		FROM event_log LEFT JOIN events e`).Scan(&count, &span, &bytes, &counted, &useless)
	if err != nil || count != span || bytes != counted || useless != 0 {
		t.Errorf("%d events of %d numbers, %d bytes counted as %d, %d are left of what was before them and nobody's, %v", count, span, bytes, counted, useless, err)
	}
}

func TestEventsOfNoRecordAreStoredInOrder(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	release := hold(t, d)
	d.Publish(happened("w", 1))
	d.Apply(&ledger.Change{}, happened("w", 2), happened("v", 1))
	committed := make(chan error, 1)
	go func() { committed <- d.Commit(t.Context(), &ledger.Change{}, happened("w", 3)) }()
	eventually(t, "the commit waits", func() bool { return d.queue.len() == 3 })
	d.Publish(happened("w", 4))
	d.Publish()
	release()
	if err := <-committed; err != nil {
		t.Error(err)
	}
	diff(t, told(t, d, "w"), counted(4))
	gapless(t, d)
}

// A record's changes join in the queue; events of no record, of the same subject, are not overtaken by them.
func TestEventsOfOneSubjectKeepTheirOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := open(t, Options{Dir: t.TempDir()})
	const subjects, each = 20, 150
	var all sync.WaitGroup
	ids := make([]string, subjects)
	for i := range ids {
		ids[i] = newID()
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for seq := 1; seq <= each; seq++ {
				c := ledger.Change{Record: job(ids[i])}
				switch random.IntN(10) {
				case 0:
					if err := d.Commit(t.Context(), &c, happened(ids[i], seq)); err != nil {
						t.Error(err)
					}
				case 1:
					if err := d.Commit(t.Context(), &ledger.Change{}, happened(ids[i], seq)); err != nil {
						t.Error(err)
					}
				case 2, 3, 4:
					d.Publish(happened(ids[i], seq))
				default:
					d.Apply(&c, happened(ids[i], seq))
				}
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		diff(t, told(t, d, id), counted(each))
	}
	gapless(t, d)
}

func TestEventsThatAreNotWantedAreNotKept(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir(), Wanted: func(h webhook.Head) bool { return h.Function == "f" || h.Callback }})
	e := event.New(event.JobStarted, "s", 3, time.Now(), event.Data{Function: "g"})
	d.Publish(e, happened("s", 1))
	e.Callback = "https://h/"
	d.Publish(e)
	diff(t, told(t, d, "s"), []uint64{1, 3})
}

func TestAnEventThatIsThereAlreadyStays(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	e := happened("s", 1)
	d.Publish(e, happened("s", 2))
	r := job(newID())
	commit(t, d, ledger.Change{Record: r})
	if err := d.Commit(t.Context(), &ledger.Change{Record: r}, e, happened("s", 3)); err != nil {
		t.Error(err)
	}
	diff(t, told(t, d, "s"), counted(3))
	gapless(t, d)
}

func TestAVoidChangeHasNoEvents(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	first, second := job(newID()), job(newID())
	commit(t, d, ledger.Change{Record: first, Key: &ledger.Key{Key: "k", ID: first.ID, At: time.Now()}})
	c := ledger.Change{Record: second, Key: &ledger.Key{Key: "k", ID: second.ID, At: time.Now()}}
	if err := d.Commit(t.Context(), &c, happened(second.ID, 1)); !errors.Is(err, ledger.ErrKeyTaken) {
		t.Errorf("got %v, want ErrKeyTaken", err)
	}
	d.Apply(&ledger.Change{Record: first, Forget: true}, happened(first.ID, 1))
	diff(t, told(t, d, second.ID), []uint64(nil))
	diff(t, told(t, d, first.ID), counted(1))
}

// Parked: its transaction fails because another change in it can never be stored, and is begun anew without it.
func TestEventsBesideAChangeThatCannotBeStored(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	refuse(t, d)
	release := hold(t, d)
	bad, good := job(newID()), job(newID())
	d.Apply(&ledger.Change{Record: good}, happened(good.ID, 1))
	d.Apply(&ledger.Change{Record: bad, Workload: []byte{0}}, happened(bad.ID, 1))
	d.Publish(happened("w", 1))
	d.Apply(&ledger.Change{Record: good}, happened(good.ID, 2))
	release()
	diff(t, told(t, d, good.ID), counted(2))
	diff(t, told(t, d, "w"), counted(1))
	diff(t, told(t, d, bad.ID), []uint64(nil))
	gapless(t, d)
}

func TestALargePayloadDoesNotWait(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	entries := d.entries([]event.Event{
		event.New(event.JobCompleted, "s", 1, time.Now(), event.Data{Function: "f", Result: make([]byte, 1<<20)}),
		event.New(event.JobCompleted, "s", 2, time.Now(), event.Data{Function: "f", Result: make([]byte, 10)}),
	})
	if got := entries[0].size(); got > eventSize+1000 || entries[0].function != "f" {
		t.Errorf("%d bytes wait, function %q", got, entries[0].function)
	}
	if entries[1].body != nil {
		t.Error("a small body is made before it is needed")
	}
}

func TestGrownTellsOfEventsInTheLog(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	for seq := 1; seq <= 3; seq++ {
		grown := d.Grown()
		commit(t, d, ledger.Change{Record: job(newID())}) // brings none
		if isClosed(grown) {
			t.Error("it is told that the log has grown, and it has not")
		}
		if err := d.Commit(t.Context(), &ledger.Change{}, happened("s", seq)); err != nil {
			t.Fatal(err)
		}
		if !isClosed(grown) {
			t.Error("a commit returned before it was told of its event")
		}
	}
}

func TestPagesOfTheLog(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	var all []event.Event
	for i := range 2*maxLooked + 100 {
		e := event.New(event.JobProgress, fmt.Sprint("s", i%7), uint64(i), time.Now(), event.Data{})
		if i%1000 == 999 {
			e.Type = event.JobCompleted
		}
		all = append(all, e)
		d.Publish(e)
	}
	ids := func(wanted func(event.Event) bool) (ids []string) {
		for _, e := range all {
			if wanted(e) {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	for _, test := range []struct {
		q      webhook.EventQuery
		wanted func(event.Event) bool
	}{
		{webhook.EventQuery{}, func(event.Event) bool { return true }},
		{webhook.EventQuery{Limit: 1000}, func(event.Event) bool { return true }},
		{webhook.EventQuery{AfterID: all[9].ID}, func(e event.Event) bool { return e.Seq > 9 }},
		{webhook.EventQuery{After: 10, Subject: "s3"}, func(e event.Event) bool { return e.Seq > 9 && e.Subject == "s3" }},
		{webhook.EventQuery{Types: event.Patterns{"job.completed"}}, func(e event.Event) bool { return e.Type == event.JobCompleted }},
		{webhook.EventQuery{Types: event.Patterns{"worker.*"}}, func(event.Event) bool { return false }},
		{webhook.EventQuery{Types: event.Patterns{"job.completed"}, Subject: "s5", Limit: 1}, func(e event.Event) bool {
			return e.Type == event.JobCompleted && e.Subject == "s5"
		}},
	} {
		var got []string
		for _, e := range events(t, d, test.q) {
			got = append(got, e.ID)
		}
		diff(t, got, ids(test.wanted))
	}
	page, err := d.Events(t.Context(), webhook.EventQuery{Types: event.Patterns{"worker.*"}, Limit: 10})
	if err != nil || page.End || page.Next != maxLooked {
		t.Errorf("a page of which nothing is selected: %+v, %v", page, err)
	}
	last := int64(len(all))
	page, err = d.Events(t.Context(), webhook.EventQuery{Subject: "nobody", Limit: 10})
	if err != nil || !page.End || page.Next != last {
		t.Errorf("a page of nobody: %+v, %v, want the end at %d", page, err, last)
	}
	page, err = d.Events(t.Context(), webhook.EventQuery{After: last, Limit: 10})
	if err != nil || !page.End || page.Next != last || len(page.Bodies) != 0 {
		t.Errorf("a page of the end: %+v, %v", page, err)
	}
	if _, err := d.Events(t.Context(), webhook.EventQuery{AfterID: "evt_none", Limit: 10}); !errors.Is(err, webhook.ErrNoEvent) {
		t.Errorf("got %v, want ErrNoEvent", err)
	}
}

func TestACursorThatCannotBeReadIsNotUnknown(t *testing.T) {
	dir := t.TempDir()
	d := open(t, Options{Dir: dir})
	db, err := connect(filepath.Join(dir, "gateway.db"), 1, writing)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("ALTER TABLE events RENAME TO away"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Events(t.Context(), webhook.EventQuery{AfterID: "evt_none", Limit: 10}); err == nil || errors.Is(err, webhook.ErrNoEvent) {
		t.Errorf("got %v, want the database's error", err)
	}
}

func TestDroppedEventsAreCounted(t *testing.T) {
	var logged lockedBuffer
	l := newLosses(zerolog.New(&logged))
	l.full.add(0)
	l.full.add(2)
	l.full.add(3)
	l.report(true)
	l.full.add(7)
	l.report(false) // too soon
	l.report(true)
	l.report(true) // it has ended
	l.full.add(1)
	var lines []string
	for line := range strings.Lines(logged.String()) {
		var fields struct{ Events int }
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(fields.Events))
	}
	if want := []string{"0", "5", "7", "0"}; !slices.Equal(lines, want) {
		t.Errorf("lines with %v events, want %v:\n%s", lines, want, logged.String())
	}
}
