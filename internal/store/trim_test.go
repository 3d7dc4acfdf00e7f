package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// publish publishes so many events of a subject and waits until they are stored or dropped.
func publish(t testing.TB, d *DB, subject string, n int, promised bool) {
	t.Helper()
	for i := range n {
		e := happened(subject, i+1)
		e.Promised = promised
		d.Publish(e)
	}
	d.flush(t.Context())
}

// kept returns how many events the log has.
func kept(t testing.TB, d *DB) (n int) {
	t.Helper()
	if err := d.read.QueryRow("SELECT count(*) FROM events").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// logBegins returns the number of the first event of the log, without those that are left of what was before it.
func logBegins(t testing.TB, d *DB) int64 {
	t.Helper()
	log, err := d.queries.GetEventLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return log.Floor + 1
}

const (
	fewBytes = 20_000 // room for few events
	few      = 10     // for these at least
	many     = 50     // not for these
)

func TestTheOldestEventsMakeRoom(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir(), MaxEventBytes: fewBytes})
	const rounds = 40
	for round := range rounds {
		publish(t, d, fmt.Sprint("s", round), many, round%2 == 0)
		if d.Full() {
			t.Fatal("it is full of events that nobody is to get")
		}
	}
	if n := kept(t, d); n < few || n > many {
		t.Errorf("%d events are kept, want %d to %d", n, few, many)
	}
	got := told(t, d, fmt.Sprint("s", rounds-1))
	if len(got) < few || got[len(got)-1] != many {
		t.Errorf("of the last events %v are kept", got)
	}
	if _, err := d.Events(t.Context(), webhook.EventQuery{After: 5, Limit: 10}); !errors.Is(err, webhook.ErrEventsExpired) {
		t.Errorf("got %v, want ErrEventsExpired", err)
	}
	first := logBegins(t, d)
	for after, want := range map[int64]error{0: nil, first - 2: webhook.ErrEventsExpired, first - 1: nil} {
		if _, err := d.Events(t.Context(), webhook.EventQuery{After: after, Limit: 10}); !errors.Is(err, want) {
			t.Errorf("after %d, where %d is the first: %v, want %v", after, first, err, want)
		}
	}
	gapless(t, d)
}

func TestAFullLogKeepsWhatIsPromised(t *testing.T) {
	var logged lockedBuffer
	dir := t.TempDir()
	o := Options{Dir: dir, MaxEventBytes: fewBytes, Log: zerolog.New(&logged), Sweep: time.Hour}
	d := open(t, o)
	register(t, d, "a")
	publish(t, d, "other", many, false)
	if !d.Full() {
		t.Fatal("it is not full")
	}
	stored := kept(t, d)
	publish(t, d, "promised", many, true)
	publish(t, d, "other", many, false)
	if got := kept(t, d); got != stored+many {
		t.Errorf("%d events are kept, want %d", got, stored+many)
	}
	diff(t, told(t, d, "promised"), counted(many))
	if got := strings.Count(logged.String(), "too many events wait for their sinks"); got != 1 {
		t.Errorf("it was logged %d times that events are dropped, want 1", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`"events":%d,`, 2*many-stored); !strings.Contains(logged.String(), want) {
		t.Errorf("the log does not say %s:\n%s", want, logged.String())
	}

	d = open(t, o)
	if !d.Full() {
		t.Error("it is not full after a restart, before its sinks are registered")
	}
	register(t, d, "a")
	had := deliver(t, d, "a")
	if len(had["promised"]) != many || len(had["other"]) != stored {
		t.Errorf("the sink had %d and %d events, want %d and %d", len(had["promised"]), len(had["other"]), many, stored)
	}
	if d.Full() {
		t.Error("it is full, though all is delivered")
	}
	publish(t, d, "again", few, false)
	diff(t, told(t, d, "again"), counted(few))
	gapless(t, d)
}

func TestWhatLetsGoOfEvents(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	disable := webhook.Step{Standing: &webhook.Standing{Disabled: "410"}}
	settle := func(state webhook.DeliveryState) func(*testing.T, *DB, *clock) *DB {
		return func(t *testing.T, d *DB, _ *clock) *DB {
			looked := advance(t, d, "a", webhook.Step{Look: 1000})
			if !d.Full() {
				t.Error("looking at events is enough to give them up")
			}
			var ends []webhook.Ended
			for n := range looked {
				ends = append(ends, webhook.Ended{N: int64(n + 1), Subject: "s", State: state})
			}
			advance(t, d, "a", webhook.Step{Ends: ends})
			return d
		}
	}
	for name, letGo := range map[string]func(*testing.T, *DB, *clock) *DB{
		"delivered": settle(webhook.Delivered),
		"dead":      settle(webhook.Dead),
		"disabled": func(t *testing.T, d *DB, _ *clock) *DB {
			advance(t, d, "a", disable)
			return d
		},
		"not wanted": func(t *testing.T, d *DB, _ *clock) *DB {
			advance(t, d, "a", webhook.Step{Look: 1000, Wants: func(webhook.Head) bool { return false }})
			return d
		},
		"unregistered": func(t *testing.T, d *DB, now *clock) *DB {
			now.set(at.Add(earlierLife + time.Second))
			if err := d.Unregister(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			return d
		},
		"of an earlier life": func(t *testing.T, d *DB, now *clock) *DB {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, d.o)
			if !d.Full() {
				t.Error("events are given up at once")
			}
			now.set(at.Add(earlierLife + time.Second))
			d.Publish(happened("s", 1))
			d.flush(t.Context())
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := newClock(at)
			d := open(t, Options{Dir: t.TempDir(), MaxEventBytes: fewBytes, Sweep: time.Hour, Now: now.get})
			register(t, d, "a")
			publish(t, d, "s", many, true)
			if !d.Full() {
				t.Fatal("it is not full")
			}
			d = letGo(t, d, now)
			if d.Full() {
				t.Error("it is still full")
			}
			if n := kept(t, d); n > many/2 {
				t.Errorf("%d events are kept", n)
			}
			gapless(t, d)
		})
	}
}

// A delivery that fails for days holds nothing back but its own event.
func TestWhatIsSettledGoesThoughAnOlderEventWaits(t *testing.T) {
	dir := t.TempDir()
	d := open(t, Options{Dir: dir, MaxEventBytes: fewBytes, Sweep: time.Hour})
	register(t, d, "a")
	first := happened("waits", 1)
	d.Publish(first)
	advance(t, d, "a", webhook.Step{Look: 1})
	last := int64(1)
	for range 5 * many / few {
		publish(t, d, "s", few, true)
		var ends []webhook.Ended
		for range few {
			last++
			ends = append(ends, webhook.Ended{N: last, Subject: "s", State: webhook.Delivered})
		}
		advance(t, d, "a", webhook.Step{Look: few})
		advance(t, d, "a", webhook.Step{Ends: ends})
		if d.Full() {
			t.Fatal("it is full of one event that waits")
		}
	}
	gapless(t, d)
	if n := kept(t, d); n > many {
		t.Errorf("%d events are kept, want %d at most", n, many)
	}
	for _, q := range []webhook.EventQuery{{After: 1, Limit: 10}, {AfterID: first.ID, Limit: 10}} {
		if _, err := d.Events(t.Context(), q); !errors.Is(err, webhook.ErrEventsExpired) && !errors.Is(err, webhook.ErrNoEvent) {
			t.Errorf("%+v, after which events are gone: %v", q, err)
		}
	}
	if b, err := d.Backlog(t.Context(), "a"); err != nil || b.Pending != 1 || b.Behind != 0 || !b.Oldest.Equal(first.Time.Truncate(time.Microsecond)) {
		t.Errorf("the backlog is %+v, %v, want one that is pending", b, err)
	}

	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Options{Dir: dir, MaxEventBytes: fewBytes, Sweep: time.Hour})
	register(t, d, "a")
	lines := due(t, d, "a", webhook.DueQuery{Lines: 10, Letters: 10}).Lines
	if len(lines) != 1 || lines[0].Letters[0].EventID != first.ID {
		t.Fatalf("%+v is due, want the first event", lines)
	}
	register(t, d, "b") // which is not to get what is left of before
	publish(t, d, "s", 1, true)
	if had := deliver(t, d, "b"); len(had) != 1 || len(had["s"]) != 1 {
		t.Errorf("a later sink had %v", had)
	}
	advance(t, d, "a", webhook.Step{Ends: []webhook.Ended{{N: 1, Subject: "waits", State: webhook.Dead}}})
	if _, err := d.Delivery(t.Context(), "a", first.ID); !errors.Is(err, webhook.ErrNoDelivery) {
		t.Errorf("of a dead letter that was left: %v, want it to be gone with its event", err)
	}
	gapless(t, d)
}

// left returns a DB in which many events of the subject s are left of before the log, which has one of t, for the sink a.
func left(t *testing.T, o Options) *DB {
	t.Helper()
	d := open(t, o)
	register(t, d, "a")
	publish(t, d, "s", many, true)
	publish(t, d, "t", 1, true)
	advance(t, d, "a", webhook.Step{Look: many + 1})
	advance(t, d, "a", webhook.Step{Ends: []webhook.Ended{{N: many + 1, Subject: "t", State: webhook.Delivered}}})
	publish(t, d, "t", 1, true)
	if got := logBegins(t, d); got != many+2 || !d.Full() {
		t.Fatalf("the log begins with %d, and full is %v, want all that waits to be left of before it", got, d.Full())
	}
	gapless(t, d)
	return d
}

// What only a sink that is given up waits for does not stay for good.
func TestASinkThatIsGivenUpHoldsNothing(t *testing.T) {
	d := left(t, Options{Dir: t.TempDir(), MaxEventBytes: fewBytes, Sweep: time.Hour})
	advance(t, d, "a", webhook.Step{Standing: &webhook.Standing{Disabled: "410"}})
	publish(t, d, "u", few, true)
	if d.Full() {
		t.Error("it is full of what a disabled sink waits for")
	}
	gapless(t, d)
	advance(t, d, "a", webhook.Step{Standing: &webhook.Standing{}})
	if had := deliver(t, d, "a"); len(had["u"]) != few {
		t.Errorf("the sink had %v when it was enabled again", had)
	}
	gapless(t, d)
}

// It stays as long as there is room, though.
func TestWhatIsLeftForADisabledSinkStaysWhileThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	d := left(t, Options{Dir: dir, MaxEventBytes: fewBytes, Sweep: time.Hour})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Options{Dir: dir, Sweep: time.Hour})
	register(t, d, "a")
	advance(t, d, "a", webhook.Step{Standing: &webhook.Standing{Disabled: "410"}})
	if err := d.do(t.Context(), 0, func(t *tx) error { _, err := t.expireEvents(maxExpired); return err }); err != nil {
		t.Fatal(err)
	}
	advance(t, d, "a", webhook.Step{Standing: &webhook.Standing{}})
	if had := deliver(t, d, "a"); len(had["s"]) != many {
		t.Errorf("the sink had %d events when it was enabled again, want %d", len(had["s"]), many)
	}
	gapless(t, d)
}

// What waits stays in the feed unless something settled behind it has to go.
func TestALogThatIsFullShowsWhatItHas(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir(), MaxEventBytes: fewBytes, Sweep: time.Hour})
	register(t, d, "a")
	publish(t, d, "s", many, true)
	page, err := d.Events(t.Context(), webhook.EventQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, d, "s", 3, true)
	advance(t, d, "a", webhook.Step{Look: 1000})
	if page, err = d.Events(t.Context(), webhook.EventQuery{After: page.Next, Limit: 1000}); err != nil || len(page.Bodies) != 3 {
		t.Errorf("who has read all before is shown %d more, %v, want 3", len(page.Bodies), err)
	}
}

// A sink that is enabled again goes on with what is left, though that waited for what is not.
func TestADisabledSinkGoesOnWithWhatIsLeft(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir(), MaxEventBytes: fewBytes, Sweep: time.Hour})
	register(t, d, "a")
	publish(t, d, "s", few, true)
	advance(t, d, "a", webhook.Step{Look: few, Standing: &webhook.Standing{Disabled: "410"}})
	publish(t, d, "t", few, true)
	lined(t, d)
	first := logBegins(t, d)
	if first == 1 || first > few {
		t.Fatalf("the log begins with %d, want it to begin in the middle of what is pending", first)
	}
	advance(t, d, "a", webhook.Step{Standing: &webhook.Standing{}})
	had := deliver(t, d, "a")
	if len(had["s"]) != few+1-int(first) || had["s"][0] != first || len(had["t"]) != few {
		t.Errorf("the sink had %v, where the log begins with %d", had, first)
	}
}

// A bound that is lower than it was is reached bit by bit, without anything that is published, and nothing is dropped meanwhile.
func TestALargeLogShrinksBitByBit(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	d := open(t, o)
	const events = 5*maxExpired + 10
	publish(t, d, "s", events, false)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	o.MaxEventBytes, o.Sweep = fewBytes, time.Hour
	d = open(t, o)
	eventually(t, "the log is small", func() bool { return kept(t, d) < many })
	if d.Full() {
		t.Error("it is full")
	}
	publish(t, d, "t", few, false)
	diff(t, told(t, d, "t"), counted(few))
	gapless(t, d)
}

func TestEventsExpireWhenTheirSinksAreThrough(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := newClock(at)
	d := open(t, Options{Dir: t.TempDir(), Now: now.get, Sweep: time.Millisecond, Retention: 24 * time.Hour})
	register(t, d, "a")
	register(t, d, "off")
	const events = maxExpired + 100
	for i := range events {
		d.Publish(event.New(event.JobProgress, "s", uint64(i+1), at, event.Data{}))
	}
	advance(t, d, "off", webhook.Step{Standing: &webhook.Standing{Disabled: "410"}, Look: 10})
	var ends []webhook.Ended
	for n := range 100 {
		ends = append(ends, webhook.Ended{N: int64(n + 1), Subject: "s", State: webhook.Delivered})
	}
	advance(t, d, "a", webhook.Step{Look: 200})
	advance(t, d, "a", webhook.Step{Ends: ends})
	if got := kept(t, d); got != events {
		t.Errorf("%d events are kept, want %d", got, events)
	}

	now.set(at.Add(25 * time.Hour))
	eventually(t, "those that are settled go", func() bool { return kept(t, d) == events-100 })
	d.Publish(event.New(event.JobProgress, "s", events+1, now.get(), event.Data{}))
	diff(t, told(t, d, "s")[0], uint64(101))
	if got := len(deliver(t, d, "a")["s"]); got != events-100+1 {
		t.Errorf("the sink had %d more events, want %d", got, events-100+1)
	}
	eventually(t, "all go but the last", func() bool { return kept(t, d) == 1 })
	var left int
	if err := d.read.QueryRow("SELECT count(*) FROM deliveries").Scan(&left); err != nil || left != 1 {
		t.Errorf("%d deliveries are left, %v, want 1", left, err)
	}
	gapless(t, d)
}

// The numbers go on where they were, even when nothing is left of the log.
func TestAnEmptyLogKnowsWhereItEnded(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := newClock(at)
	o := Options{Dir: t.TempDir(), Now: now.get, Sweep: time.Millisecond}
	d := open(t, o)
	d.Publish(event.New(event.JobProgress, "s", 1, at, event.Data{}), event.New(event.JobProgress, "s", 2, at, event.Data{}))
	now.set(at.Add(8 * 24 * time.Hour))
	d.flush(t.Context())
	eventually(t, "nothing is left", func() bool { return kept(t, d) == 0 })
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	register(t, d, "a")
	for after, want := range map[int64]error{1: webhook.ErrEventsExpired, 2: nil, 0: nil} {
		page, err := d.Events(t.Context(), webhook.EventQuery{After: after, Limit: 10})
		if !errors.Is(err, want) || err == nil && (page.Next != 2 || !page.End) {
			t.Errorf("after %d: %+v, %v, want %v", after, page, err, want)
		}
	}
	if err := d.Commit(t.Context(), &ledger.Change{}, event.New(event.JobProgress, "s", 3, now.get(), event.Data{})); err != nil {
		t.Fatal(err)
	}
	diff(t, deliver(t, d, "a"), map[string][]int64{"s": {3}})
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
