package webhook

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
)

// A pause is kept before Pause returns, and outlives the Sender.
func TestAPausedSinkIsSentNothingUntilItIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{})
		if err := s.Pause(t.Context(), "sink"); err != nil {
			t.Fatal(err)
		}
		s.publish(ev("a", 1))
		advance(time.Hour)
		s.check("sink", tally{State: Paused})
		if b := s.status("sink"); b.Behind != 1 || b.Oldest.IsZero() {
			t.Errorf("the sink is %+v", b)
		}
		stop(s.Sender, time.Second)

		again := start(t, w, Options{Outbox: s.outbox})
		advance(time.Hour)
		if n := len(w.calls()); n != 0 {
			t.Fatalf("%d deliveries while it was paused", n)
		}
		if err := again.Resume(t.Context(), "sink"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		again.check("sink", tally{Delivered: 1})
	})
}

func TestASinkThatFailsForDaysIsDisabledAndTheOthersHearOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		w := &wire{answer: func(r *http.Request, _ call) (int, error) {
			if r.URL.Host == "bad.test" && !well.Load() {
				return 500, nil
			}
			return 200, nil
		}}
		s := start(t, w, Options{Sinks: []SinkOptions{{URL: "http://bad.test"}, {URL: "http://good.test"}}})
		var events []event.Event
		for i := range 20 {
			events = append(events, ev(string(rune('a'+i)), 1))
		}
		s.publish(events...) // at once, so that the sink has looked at all of them before it is failing
		advance(4 * 24 * time.Hour)
		s.check("bad.test", tally{Pending: 20, State: Failing}) // not one is a dead letter for having probed
		advance(2 * 24 * time.Hour)
		s.check("bad.test", tally{Pending: 20, State: Disabled})
		calls := w.calls()
		if last := calls[len(calls)-1]; last.host != "good.test" || !strings.Contains(last.body, `"type":"sink.disabled","subject":"bad.test"`) {
			t.Errorf("the other sink heard %s", last.body)
		}
		advance(24 * time.Hour)
		if n := len(w.calls()); n != len(calls) {
			t.Errorf("%d more attempts after it was disabled", n-len(calls))
		}
		well.Store(true)
		if err := s.Resume(t.Context(), "bad.test"); err != nil {
			t.Fatal(err)
		}
		advance(time.Second)
		s.check("bad.test", tally{Delivered: 21})
	})
}

func TestTheTimeWithoutAGatewayIsNoneInWhichASinkHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(*http.Request, call) (int, error) { return 500, nil }}
		s := start(t, w, Options{})
		for i := range 20 { // enough that it is tried every minute
			s.publish(ev(string(rune('a'+i)), 1))
		}
		advance(4 * 24 * time.Hour)
		stop(s.Sender, time.Second)
		advance(30 * 24 * time.Hour)

		again := start(t, w, Options{Outbox: s.outbox})
		advance(12 * time.Hour)
		if got := again.status("sink"); got.State == Disabled {
			t.Errorf("it is disabled: %s", got.Disabled)
		}
		advance(24 * time.Hour)
		if got := again.status("sink"); got.State != Disabled {
			t.Errorf("after five days with a gateway it is %s, failing since %v", got.State, got.FailingSince)
		}
	})
}

// However often the gateway is gone while a sink is paused, and so not tried.
func TestWhenASinkBeganToFailIsNeverToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(*http.Request, call) (int, error) { return 500, nil }}
		s := start(t, w, Options{})
		s.publish(ev("a", 1))
		advance(time.Hour)
		for range 3 {
			stop(s.Sender, time.Second)
			advance(30 * 24 * time.Hour)
			s = start(t, w, Options{Outbox: s.outbox})
			if err := s.Pause(t.Context(), "sink"); err != nil {
				t.Fatal(err)
			}
			advance(time.Minute)
			if since := s.status("sink").FailingSince; since.After(time.Now()) {
				t.Errorf("failing since %v, which is %v ahead", since, time.Until(since))
			}
		}
	})
}

func TestWhatEndedCanBeSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		w := &wire{answer: func(*http.Request, call) (int, error) {
			if well.Load() {
				return 200, nil
			}
			return 500, nil
		}}
		s := start(t, w, Options{Schedule: seconds(0, 1)})
		began := time.Now()
		s.publish(ev("a", 1), ev("a", 2))
		advance(time.Minute)
		s.publish(ev("b", 1))
		advance(time.Minute)
		s.check("sink", tally{Dead: 3})
		well.Store(true)
		if n, err := s.Replay(t.Context(), "sink", began, began.Add(time.Second)); n != 2 || err != nil {
			t.Errorf("replayed %d, %v, want the two of the first second", n, err)
		}
		advance(time.Second)
		s.check("sink", tally{Delivered: 2, Dead: 1})
		if err := s.Redeliver(t.Context(), "sink", "b1"); err != nil {
			t.Error(err)
		}
		advance(time.Second)
		s.check("sink", tally{Delivered: 3})
		d, err := s.Delivery(t.Context(), "sink", "b1")
		if err != nil || len(d.Log) != 3 || d.Log[0].Status != 500 || d.Log[2].Error != "" {
			t.Errorf("%v, %+v", err, d)
		}
		if diff := cmp.Diff([]string{"a1", "a2", "b1"}, w.ids()[6:]); diff != "" {
			t.Errorf("sent again (-want +got):\n%s", diff)
		}
		for err, call := range map[error]error{
			ErrNoDelivery: s.Redeliver(t.Context(), "sink", "c1"), ErrNoSink: s.Pause(t.Context(), "none"),
		} {
			if !errors.Is(call, err) {
				t.Errorf("got %v, want %v", call, err)
			}
		}
	})
}

func TestATestIsSentAtOnceAndKeptNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: status(418)}
		s := start(t, w, Options{})
		if err := s.Pause(t.Context(), "sink"); err != nil {
			t.Fatal(err)
		}
		a, err := s.Test(t.Context(), "sink")
		if err != nil || a.Status != 418 || !strings.Contains(a.Error, "418") {
			t.Errorf("%v, %+v", err, a)
		}
		if calls := w.calls(); len(calls) != 1 || !strings.Contains(calls[0].body, `"type":"sink.test"`) {
			t.Errorf("sent %v", calls)
		}
		s.check("sink", tally{State: Paused})
	})
}

func TestASinkHearsOfItsFunctionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{Sinks: []SinkOptions{{
			Name: "sink", URL: "http://sink.test", Functions: []string{"mail", "img-*"}, Headers: map[string]string{"X-Key": "k"},
			ContentType: "application/json", Rate: 1,
		}}})
		for i, function := range []string{"mail", "mailer", "img-a", "", "img-"} {
			e := ev(string(rune('a'+i)), 1)
			e.Data.Function = function
			s.publish(e)
		}
		synctest.Wait()
		if n := len(w.calls()); n != 1 {
			t.Errorf("%d at once at a rate of one a second", n)
		}
		advance(10 * time.Second)
		if diff := cmp.Diff([]string{"a1", "c1", "e1"}, w.ids()); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
		calls := w.calls()
		if h := calls[0].header; h.Get("X-Key") != "k" || h.Get("Content-Type") != "application/json" {
			t.Errorf("headers are %v", h)
		}
		if gap := calls[2].at.Sub(calls[0].at); gap < 1900*time.Millisecond {
			t.Errorf("three came within %v", gap)
		}
	})
}

func TestReloadReplacesTheSinksWhereTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{})
		o := Options{Transport: w, Sinks: []SinkOptions{{Name: "sink", URL: "http://new.test/"}, {Name: "more", URL: "http://more.test/"}}}
		for i := range uint64(3) {
			s.publish(ev("a", 2*i))
			if err := s.Reload(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			s.publish(ev("a", 2*i+1))
		}
		if err := s.Reload(t.Context(), Options{Sinks: []SinkOptions{{URL: "nonsense"}}}); err == nil {
			t.Error("a bad sink was taken")
		}
		advance(time.Second)
		s.check("sink", tally{Delivered: 6})
		var heard []string
		for _, c := range w.calls() {
			if c.host != "more.test" {
				heard = append(heard, c.id)
			}
		}
		if diff := cmp.Diff([]string{"a0", "a1", "a2", "a3", "a4", "a5"}, heard); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
		s.check("more", tally{Delivered: 5})
	})
}

func TestASinkThatReloadRemovesHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(_ *http.Request, c call) (int, error) {
			if c.host == "old.test" {
				return 0, errors.New("connection refused")
			}
			return ok(nil, c)
		}}
		sinks := []SinkOptions{{Name: "sink", URL: "http://sink.test/"}, {Name: "old", URL: "http://old.test/"}}
		s := start(t, w, Options{Outbox: NewMemory(MemoryOptions{MaxEvents: 10}), Sinks: sinks})
		for i := range uint64(10) {
			s.publish(ev("a", i))
		}
		advance(time.Second)
		if !s.outbox.Full() {
			t.Fatal("not full, though a sink has had nothing")
		}
		if err := s.Reload(t.Context(), Options{Transport: w, Sinks: sinks[:1]}); err != nil {
			t.Fatal(err)
		}
		if s.outbox.Full() {
			t.Error("full of what waits for a sink that there is no more")
		}
		for i := range uint64(30) {
			s.publish(ev("a", 10+i))
			advance(time.Second)
		}
		if n := s.outbox.Dropped(); n > 0 {
			t.Errorf("%d events were dropped", n)
		}
	})
}

// counted counts what a Sender asks of its Outbox, which fails while broken is set.
type counted struct {
	Outbox
	asked  atomic.Int64
	broken atomic.Bool
}

var errBroken = errors.New("disk full")

func (c *counted) Advance(ctx context.Context, sink string, s Step) (Advanced, error) {
	c.asked.Add(1)
	if c.broken.Load() {
		return Advanced{}, errBroken
	}
	return c.Outbox.Advance(ctx, sink, s)
}

// While nothing happens, nothing is done; and an outbox that fails loses and reorders nothing.
func TestAnIdleOrBrokenSinkDoesNotSpin(t *testing.T) {
	for name, row := range map[string]struct {
		answer func(*http.Request, call) (int, error)
		broken bool
		do     func(*desk)
		most   int64 // questions an hour
	}{
		"idle":     {ok, false, func(*desk) {}, 1},
		"paused":   {ok, false, func(s *desk) { _ = s.Pause(s.t.Context(), "sink") }, 1},
		"gone":     {status(410), false, func(*desk) {}, 1},
		"failing":  {status(500), false, func(*desk) {}, 3 * 70},
		"a broken": {ok, true, func(*desk) {}, 3700},
	} {
		synctest.Test(t, func(t *testing.T) {
			outbox := &counted{Outbox: NewMemory(MemoryOptions{})}
			w := &wire{answer: row.answer}
			s, err := New(t.Context(), Options{Outbox: outbox, Transport: w, Sinks: []SinkOptions{
				{Name: "sink", URL: "http://sink.test", Events: event.Patterns{"job.*"}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer stop(s, 0)
			d := &desk{Sender: s, t: t}
			synctest.Wait()
			outbox.broken.Store(row.broken)
			row.do(d)
			for i := range 20 {
				outbox.Publish(ev(string(rune('a'+i)), 1), ev(string(rune('a'+i)), 2))
			}
			advance(time.Minute)
			before := outbox.asked.Load()
			advance(time.Hour)
			if n := outbox.asked.Load() - before; n > row.most {
				t.Errorf("%s: the outbox was asked %d times in an hour", name, n)
			}
			outbox.broken.Store(false)
			w.answer = ok
			if err := s.Resume(t.Context(), "sink"); err != nil {
				t.Error(err)
			}
			advance(10 * time.Second)
			d.check("sink", tally{Delivered: 40})
		})
	}
}

var _ event.Sink = (*counted)(nil)
