// Package outboxtest says what every webhook.Outbox promises, as a test.
package outboxtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// Test runs the tests. Open returns an empty outbox that keeps the events which wanted selects, all if it is nil, and is closed by
// t.Cleanup. It has room for a few thousand events.
func Test(t *testing.T, open func(t *testing.T, wanted func(webhook.Head) bool) webhook.Outbox) {
	t.Run("wanted", func(t *testing.T) { testWanted(t, open) })
	for name, test := range map[string]func(*bench){
		"the log is in order":             testLog,
		"events page by number":           testEventsAfter,
		"events page by id":               testEventsAfterID,
		"events of types and subjects":    testEventsSelect,
		"events and deliveries of owners": testOwners,
		"grown":                           testGrown,
		"a new sink begins at the end":    testRegister,
		"a sink that is not known":        testNoSink,
		"standing is kept":                testStanding,
		"look":                            testLook,
		"wants":                           testWants,
		"only the first is due":           testFirstOfSubject,
		"several end in one step":         testSeveralEnds,
		"a retry blocks its subject":      testRetry,
		"early":                           testEarly,
		"those due longest are first":     testLongestFirst,
		"skip":                            testSkip,
		"letters":                         testLetters,
		"what a letter says":              testLetterFields,
		"attempts and log are kept":       testAttempts,
		"sinks are independent":           testSinks,
		"an end of nothing":               testEndOfNothing,
		"backlog":                         testBacklog,
		"deliveries newest first":         testDeliveries,
		"deliveries page":                 testDeliveriesPage,
		"one delivery":                    testDelivery,
		"requeue":                         testRequeue,
		"requeue goes to the front":       testRequeueInFront,
		"requeue while a later is sent":   testRequeueInHand,
		"replay":                          testReplay,
		"hasten":                          testHasten,
		"random":                          testRandom,
		"publishers and sinks at a time":  testConcurrent,
		"a few events do not fill it":     testNotFull,
	} {
		t.Run(name, func(t *testing.T) { test(&bench{T: t, outbox: open(t, nil)}) })
	}
}

// A bench is an outbox under test. Its methods fail the test when the outbox has an error.
type bench struct {
	*testing.T
	outbox    webhook.Outbox
	published int // events, which makes the times of the next
}

// noon is when the first event of a test happens; the others follow, a second each.
var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// publish publishes an event of each subject, one call each, and returns them when they are in the log.
func (b *bench) publish(subjects ...string) []event.Event {
	b.Helper()
	var events []event.Event
	for _, s := range subjects {
		at := noon.Add(time.Duration(b.published) * time.Second)
		e := event.New(event.JobStarted, s, uint64(b.published+1), at, event.Data{ID: s, Function: "resize"})
		b.published++
		b.outbox.Publish(e)
		events = append(events, e)
	}
	b.publishAll()
	return events
}

// publishAll publishes events in one call, and waits until they are in the log.
func (b *bench) publishAll(events ...event.Event) {
	b.Helper()
	b.published += len(events)
	b.outbox.Publish(events...)
	b.events(webhook.EventQuery{Limit: 1})
}

func (b *bench) events(q webhook.EventQuery) webhook.EventPage {
	b.Helper()
	page, err := b.outbox.Events(b.Context(), q)
	b.must(err)
	return page
}

// feed returns the IDs of all events that q selects, from as many pages as it takes.
func (b *bench) feed(q webhook.EventQuery) []string {
	b.Helper()
	var all []string
	for {
		page := b.events(q)
		if len(page.Bodies) > q.Limit {
			b.Fatalf("got %d events, want at most %d", len(page.Bodies), q.Limit)
		}
		all = append(all, ids(b.T, page.Bodies)...)
		if page.End {
			return all
		}
		if page.Next <= q.After {
			b.Fatalf("a page after %d ends at %d", q.After, page.Next)
		}
		q.After, q.AfterID = page.Next, ""
	}
}

func (b *bench) register(sink string) webhook.Standing {
	b.Helper()
	s, err := b.outbox.Register(b.Context(), sink)
	b.must(err)
	return s
}

func (b *bench) step(sink string, s webhook.Step) int {
	b.Helper()
	a, err := b.outbox.Advance(b.Context(), sink, s)
	b.must(err)
	return a.Looked
}

func all(webhook.Head) bool { return true }

// look makes a sink look at all of the log, and want all.
func (b *bench) look(sinks ...string) {
	b.Helper()
	for _, sink := range sinks {
		for b.step(sink, webhook.Step{Look: 100, Wants: all}) == 100 {
		}
	}
}

// started returns a bench's sink that is registered and has looked at an event of each subject.
func (b *bench) started(sink string, subjects ...string) []event.Event {
	b.Helper()
	b.register(sink)
	events := b.publish(subjects...)
	b.look(sink)
	return events
}

func (b *bench) end(sink string, ends ...webhook.Ended) {
	b.Helper()
	b.step(sink, webhook.Step{Ends: ends})
}

// ended says that one attempt sufficed.
func ended(n int64, subject string, state webhook.DeliveryState) webhook.Ended {
	return webhook.Ended{N: n, Subject: subject, State: state, Attempts: 1, Log: attempts(1)}
}

// retry says that a delivery failed once.
func retry(n int64, subject string, due time.Time) webhook.Ended {
	return webhook.Ended{N: n, Subject: subject, State: webhook.Pending, Due: due, Attempts: 1, Log: attempts(1)}
}

func attempts(n int) []webhook.Attempt {
	var log []webhook.Attempt
	for i := range n {
		log = append(log, webhook.Attempt{
			At: noon.Add(time.Duration(i) * time.Hour), Duration: time.Duration(i) * time.Millisecond, Status: 500 + i,
			Error: fmt.Sprintf("answered %d", 500+i), Answer: []byte{0xff, byte(i)},
		})
	}
	return log
}

// soon is a whole time: outboxes may keep milliseconds only.
func soon(d time.Duration) time.Time { return time.Now().Add(d).Truncate(time.Second) }

func (b *bench) due(sink string, q webhook.DueQuery) webhook.Ready {
	b.Helper()
	if q.Now.IsZero() {
		q.Now = time.Now()
	}
	if q.Lines == 0 {
		q.Lines = 100
	}
	if q.Letters == 0 {
		q.Letters = 100
	}
	r, err := b.outbox.Due(b.Context(), sink, q)
	b.must(err)
	if len(r.Lines) > q.Lines {
		b.Errorf("got %d lines, want at most %d", len(r.Lines), q.Lines)
	}
	for _, l := range r.Lines {
		if len(l.Letters) == 0 || len(l.Letters) > q.Letters {
			b.Errorf("got %d letters of %q, want one at least and %d at most", len(l.Letters), l.Subject, q.Letters)
		}
	}
	return r
}

// wantDue fails unless these lines are due, in any order. They are written like "a:1,3 b:2".
func (b *bench) wantDue(sink, want string) {
	b.Helper()
	b.wantLines(sink, webhook.DueQuery{}, want)
}

func (b *bench) wantLines(sink string, q webhook.DueQuery, want string) webhook.Ready {
	b.Helper()
	r := b.due(sink, q)
	lines := show(r.Lines)
	slices.Sort(lines)
	if got := strings.Join(lines, " "); got != want {
		b.Fatalf("got lines %q of %s, want %q", got, sink, want)
	}
	return r
}

func show(lines []webhook.Line) []string {
	var shown []string
	for _, l := range lines {
		var numbers []string
		for _, letter := range l.Letters {
			numbers = append(numbers, fmt.Sprint(letter.N))
		}
		shown = append(shown, l.Subject+":"+strings.Join(numbers, ","))
	}
	return shown
}

func (b *bench) delivery(sink, id string) webhook.Delivery {
	b.Helper()
	d, err := b.outbox.Delivery(b.Context(), sink, id)
	b.must(err)
	return d
}

func (b *bench) backlog(sink string) webhook.Backlog {
	b.Helper()
	l, err := b.outbox.Backlog(b.Context(), sink)
	b.must(err)
	return l
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantError(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("got error %v, want %v", err, want)
	}
}

// same fails unless got is want; an empty slice is no slice, and times are equal wherever they are.
func (b *bench) same(what string, got, want any) {
	b.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		b.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// ids returns the IDs of the events in bodies.
func ids(t *testing.T, bodies [][]byte) []string {
	t.Helper()
	var all []string
	for _, body := range bodies {
		var e struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatalf("%v in %q", err, body)
		}
		all = append(all, e.ID)
	}
	return all
}

func idsOf(events []event.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}
