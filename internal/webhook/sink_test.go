package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

func TestDefaultScheduleAndDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		w := &wire{answer: func(_ *http.Request, c call) (int, error) {
			if c.id == "a1" {
				return 500, nil
			}
			return 200, nil
		}}
		s := start(t, w, Options{Log: zerolog.New(&log).Level(zerolog.InfoLevel)})
		began := time.Now()
		s.publish(ev("a", 1), ev("a", 2))
		advance(120 * time.Hour)
		calls := w.calls()
		if len(calls) != 11 || calls[10].id != "a2" {
			t.Fatalf("sent %v, want a1 ten times and then a2", w.ids())
		}
		for i, want := range []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour} {
			if got := calls[i].at.Sub(began); got < want*8/10 || got > want*12/10 {
				t.Errorf("attempt %d came after %v, want %v give or take a fifth", i+1, got, want)
			}
			began = calls[i].at
		}
		s.check("sink", tally{Delivered: 1, Dead: 1})
		for _, want := range []string{"dead letter", `"event":"a1"`, `"subject":"a"`, `"type":"job.started"`, `"attempts":10`, "answered 500"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %s: %s", want, &log)
			}
		}
	})
}

func TestStatuses(t *testing.T) {
	delivered, dead := tally{Delivered: 1}, tally{Dead: 1}
	for code, want := range map[int]tally{
		200: delivered, 201: delivered, 204: delivered, 299: delivered,
		101: dead, 301: dead, 302: dead, 304: dead, 307: dead, 308: dead, 400: dead, 401: dead, 404: dead, 429: dead, 500: dead, 503: dead,
		410: {Pending: 1, State: Disabled},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{answer: status(code), reply: http.Header{"Location": {"http://elsewhere.test/"}}}
			s := start(t, w, Options{Schedule: seconds(0, 1)})
			s.publish(ev("a", 1))
			advance(time.Minute)
			s.check("sink", want)
			for _, c := range w.calls() {
				if c.host != "sink.test" {
					t.Errorf("%d was followed to %s", code, c.host)
				}
			}
		})
	}
}

func TestGoneDisablesTheSinkAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(r *http.Request, _ call) (int, error) {
			if r.URL.Host == "gone.test" {
				<-time.After(time.Second)
				return 410, nil
			}
			return 200, nil
		}}
		s := start(t, w, Options{Sinks: []SinkOptions{{URL: "http://gone.test", Concurrency: 2}, {URL: "http://there.test"}}})
		s.publish(ev("a", 1), ev("b", 1), ev("a", 2), ev("b", 2), ev("c", 1))
		advance(2 * time.Second)
		s.publish(ev("d", 1))
		advance(time.Hour)
		if n := len(w.calls()); n != 2+6+1 { // the other hears that it is gone
			t.Errorf("%d attempts, want 2 and 7: %v", n, w.ids())
		}
		s.check("gone.test", tally{Pending: 5, State: Disabled})
		s.check("there.test", tally{Delivered: 7})
	})
}

// A sink that is gone may be why the outbox is full.
func TestTheOthersHearThatASinkIsDisabledThoughTheOutboxIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(r *http.Request, _ call) (int, error) {
			if r.URL.Host == "gone.test" {
				<-time.After(time.Second)
				return 410, nil
			}
			return 200, nil
		}}
		s := start(t, w, Options{
			Sinks:  []SinkOptions{{URL: "http://gone.test"}, {URL: "http://there.test"}},
			Outbox: NewMemory(MemoryOptions{MaxEvents: 1}),
		})
		s.publish(ev("a", 1))
		advance(time.Hour)
		s.check("there.test", tally{Delivered: 1}) // the first was given up
		if calls := w.calls(); len(calls) != 3 || !strings.Contains(calls[2].body, "sink.disabled") {
			t.Errorf("got %v", calls)
		}
	})
}

func TestSinkThatAsksForPatienceGetsItFromAllSubjects(t *testing.T) {
	for name, row := range map[string]struct {
		code   int
		header string
		want   time.Duration
	}{
		"429 seconds": {429, "120", 2 * time.Minute},
		"503 date":    {503, "Sat, 01 Jan 2000 00:10:00 GMT", 10 * time.Minute},
		"502 silent":  {502, "", time.Second},
		"504 too far": {504, "999999999999999999999", time.Hour},
		"500 may not": {500, "120", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{reply: http.Header{}}
			w.answer = func(*http.Request, call) (int, error) {
				if len(w.calls()) == 1 {
					return row.code, nil
				}
				return 200, nil
			}
			w.reply.Set("Retry-After", row.header)
			s := start(t, w, Options{Schedule: []time.Duration{0, time.Millisecond}})
			began := time.Now()
			s.publish(ev("a", 1))
			synctest.Wait()
			s.publish(ev("b", 1))
			advance(2 * time.Hour)
			calls := w.calls()
			if len(calls) != 3 {
				t.Fatalf("%s: sent %v, want three", name, w.ids())
			}
			for _, c := range calls[1:] {
				if got := c.at.Sub(began); got < row.want || got > row.want+10*time.Millisecond {
					t.Errorf("%s: %s came after %v, want %v", name, c.id, got, row.want)
				}
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": time.Second, "0": time.Second, "7": 7 * time.Second, "-5": time.Second, "1.5": time.Second, "soon": time.Second,
		"99999": time.Hour, "99999999999999999999999": time.Hour, "Fri, 01 Jan 2027 00:00:30 GMT": 30 * time.Second,
		"Fri, 01 Jan 2026 00:00:30 GMT": time.Second, "Fri, 01 Jan 2100 00:00:30 GMT": time.Hour,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: got %v, want %v", header, got, want)
		}
	}
}

func TestTimeoutSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		w := &wire{answer: hang}
		s := start(t, w, Options{Log: zerolog.New(&log), Schedule: seconds(0, 5)})
		began := time.Now()
		s.publish(ev("a", 1))
		advance(30 * time.Second)
		if took := w.calls()[1].at.Sub(began); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("the second attempt came after %v, want a timeout of 15 s and a delay of 5 s", took)
		}
		if !strings.Contains(log.String(), "no answer within 15s") {
			t.Errorf("the log does not say why: %s", &log)
		}
	})
}

func TestFailingSinkIsProbedAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		var mu sync.Mutex
		broken := true
		w := &wire{answer: func(*http.Request, call) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if broken {
				return 0, errors.New("connection refused")
			}
			return 200, nil
		}}
		s := start(t, w, Options{Log: zerolog.New(&log).Level(zerolog.InfoLevel), Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test", Concurrency: 4}}})
		for i := range 1000 {
			s.publish(ev(fmt.Sprintf("s%d-", i), 1))
		}
		synctest.Wait()
		atOnce := len(w.calls())
		if atOnce < 10 || atOnce > 13 {
			t.Fatalf("%d attempts at once, want 10 and what was under way then", atOnce)
		}
		advance(20 * time.Minute)
		calls := w.calls()
		var gaps []time.Duration
		for i := range 7 {
			gaps = append(gaps, calls[atOnce+i].at.Sub(calls[atOnce+i-1].at))
		}
		if diff := cmp.Diff(seconds(5, 10, 20, 40, 60, 60, 60), gaps); diff != "" {
			t.Errorf("gaps between probes (-want +got):\n%s", diff)
		}
		if st := s.status("sink"); st.State != Failing || st.LastError == "" || st.FailingSince.IsZero() || st.Dead != 0 {
			t.Errorf("the sink is %+v", st)
		}
		mu.Lock()
		broken = false
		mu.Unlock()
		advance(2 * time.Minute)
		s.check("sink", tally{Delivered: 1000})
		if strings.Count(log.String(), "keeps failing") != 1 || strings.Count(log.String(), "answers again") != 1 {
			t.Errorf("the log is %s", &log)
		}
	})
}
