package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gearman-gateway/internal/event"
)

// A sink that switches protocols owns the connection from then on, and no timeout is on it any more.
func TestSwitchedProtocolIsAFailureAndHoldsNothingUp(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: forever\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn) // until the Sender hangs up
	}))
	defer server.Close()
	s := start(t, nil, Options{Schedule: seconds(0), Sinks: []SinkOptions{{Name: "sink", URL: server.URL, Timeout: time.Second}}})
	s.publish(ev("a", 1))
	await(t, "dead letter", func() bool { return s.count("sink", Dead) == 1 })
}

// The last events of a gateway are published when it stops, and its outbox may be a Memory.
func TestStopDeliversWhatWasJustPublished(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, &wire{answer: ok}, Options{})
			busy := make(chan struct{})
			go func() { _ = s.Sender.set.sinks[0].ask(context.Background(), func() { <-busy }) }() // so that it hears of both at a time
			synctest.Wait()
			s.publish(ev("a", 1), ev("b", 1))
			go close(busy)
			s.Stop(context.Background())
			if got := s.count("sink", Delivered); got != 2 {
				t.Errorf("%d of 2 are delivered", got)
			}
		})
	}
}

func TestStopDeliversWhatIsDueAtTheRateOfTheSink(t *testing.T) {
	for name, row := range map[string]struct {
		answer  int
		within  time.Duration
		least   int // sent
		most    int
		stopped time.Duration // at most
	}{
		"all":                               {200, time.Minute, 100, 100, 20 * time.Second},
		"what there is time for":            {200, 5100 * time.Millisecond, 30, 31, 5100 * time.Millisecond},
		"none to one that asks for a pause": {503, time.Minute, 1, 5, 0}, // of the burst, when the first was refused,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{answer: status(row.answer)}
				s := start(t, w, Options{Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test/", Rate: 5}}})
				for i := range 100 {
					s.publish(ev(fmt.Sprint("s", i, "-"), 1))
				}
				began := time.Now()
				stop(s.Sender, row.within)
				if took, sent := time.Since(began), len(w.calls()); sent < row.least || sent > row.most || took > row.stopped {
					t.Errorf("%d were sent in %v, want %d to %d in %v", sent, took, row.least, row.most, row.stopped)
				}
			})
		})
	}
}

func caller(host, subject string) event.Event {
	e := ev(subject, 1)
	e.Callback = "http://" + host + "/"
	return e
}

// callbackDesk is a desk without sinks whose callbacks go to a wire.
func callbackDesk(t *testing.T, answer func(*http.Request, call) (int, error)) (*desk, *wire) {
	w := &wire{answer: answer}
	s := start(t, w, Options{Sinks: []SinkOptions{}, Callbacks: &CallbackOptions{Hosts: []string{"*"}}})
	s.Sender.set.sinks[0].post.client.Transport = w // in place of the guarded one; nothing was published yet
	return s, w
}

func TestCallbackHostThatHangsDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := callbackDesk(t, func(r *http.Request, c call) (int, error) {
			if r.URL.Host == "dead.test" {
				return hang(r, c)
			}
			return 200, nil
		})
		for i := range 1000 {
			s.publish(caller("dead.test", fmt.Sprint("d", i, "-")))
		}
		for i := range 40 { // from before it counts as failing to many probes later
			id := fmt.Sprint("live", i, "-")
			began := time.Now()
			s.publish(caller("live.test", id))
			advance(7 * time.Second)
			took := time.Hour
			for _, c := range w.calls() {
				if c.id == id+"1" {
					took = c.at.Sub(began)
				}
			}
			if took > 2*time.Second {
				t.Errorf("callback %d of the live host waited for %v", i, took)
			}
		}
	})
}

func TestCallbackHostThatRecoversDoesNotUseUpTheAttemptsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flapping atomic.Int32
		s, _ := callbackDesk(t, func(r *http.Request, _ call) (int, error) {
			if r.URL.Host == "flaps.test" && flapping.Add(1)%12 == 0 {
				return 200, nil
			}
			return 500, nil
		})
		s.publish(caller("quiet.test", "quiet"))
		for i := range 500 {
			s.publish(caller("flaps.test", fmt.Sprint("f", i, "-")))
		}
		advance(10 * time.Minute)
		d, err := s.Delivery(t.Context(), "callbacks", "quiet1")
		if err != nil || flapping.Load() < 100 || d.Attempts > 3 {
			t.Errorf("%d attempts in ten minutes (%d of the other), %v, want the schedule's 3 at most", d.Attempts, flapping.Load(), err)
		}
	})
}

// Of a host that never comes back there are fewer attempts than its deliveries would need, since it is probed.
func TestWhatWaitsForACallbackHostThatIsDeadForLongBecomesDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		w := &wire{answer: func(r *http.Request, _ call) (int, error) {
			if r.URL.Host == "dead.test" && !up.Load() {
				return 0, errors.New("connection refused")
			}
			return 200, nil
		}}
		m := &tallies{told: map[string][]DeliveryState{}}
		s := start(t, w, Options{
			Sinks: []SinkOptions{}, Callbacks: &CallbackOptions{Hosts: []string{"*"}}, Schedule: seconds(0, 60, 60), DisableAfter: time.Hour, Meter: m,
		})
		s.Sender.set.sinks[0].post.client.Transport = w
		for i := range 180 {
			s.publish(caller("dead.test", fmt.Sprint("d", i, "-")))
			advance(time.Minute)
		}
		if n := s.count("callbacks", Pending); n > 5 {
			t.Errorf("%d deliveries wait for a host that is dead for hours", n)
		}
		told := 0
		m.mu.Lock()
		for _, state := range m.told["callbacks"] {
			if state == Dead {
				told++
			}
		}
		m.mu.Unlock()
		if n := s.count("callbacks", Dead); told < n || n == 0 {
			t.Errorf("the meter was told of %d dead letters, of %d", told, n)
		}
		s.publish(caller("live.test", "live"))
		up.Store(true)
		for i := range 5 { // one of these finds that it is well again
			s.publish(caller("dead.test", fmt.Sprint("u", i, "-")))
			advance(2 * time.Minute)
		}
		for _, id := range []string{"live1", "u4-1"} {
			if d, err := s.Delivery(t.Context(), "callbacks", id); err != nil || d.State != Delivered {
				t.Errorf("%s is %s, %v", id, d.State, err)
			}
		}
	})
}

func TestScrubber(t *testing.T) {
	u, err := url.Parse("http://user:p%40ss%2Fword@h/?token=a%2Fb%20cdef&longer=tokenABC&short=tokenABCDEF")
	if err != nil {
		t.Fatal(err)
	}
	alone, _ := url.Parse("http://sk_live_1234@h/")
	s := newScrubber(u, map[string]string{"Authorization": "Bearer b-e-a-r-e-r"})
	for name, row := range map[string]struct {
		s            scrubber
		text, secret string
	}{
		"password":             {s, "your password p@ss/word", "p@ss/word"},
		"escaped password":     {s, "http://user:p%40ss%2Fword@h/", "p%40ss%2Fword"},
		"escaped query value":  {s, "short=1&token=a%2Fb%20cdef", "a%2Fb%20cdef"},
		"re-escaped value":     {s, "token=a%2Fb+cdef", "a%2Fb+cdef"},
		"token of a header":    {s, "unknown token b-e-a-r-e-r", "b-e-a-r-e-r"},
		"prefix of another":    {s, "it is tokenABCDEF", "DEF"},
		"user without any":     {newScrubber(alone, nil), "who is sk_live_1234?", "sk_live_1234"},
		"basic auth of a user": {newScrubber(alone, nil), "Basic c2tfbGl2ZV8xMjM0Og==", "c2tfbGl2ZV8xMjM0"},
	} {
		if got := row.s.text(row.text); strings.Contains(got, row.secret) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// An answer is cut, and what is cut may be a secret.
func TestNoPartOfASecretIsKeptAtTheEndOfAnAnswer(t *testing.T) {
	const token = "0123456789abcdefghijklmnopqrstuvwxyz"
	for _, before := range []int{maxAnswer - 1, maxAnswer - 20, maxAnswer - len(token), maxAnswer - len(token) + 1, maxAnswer + 5} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := strings.Repeat("-", before) + token + strings.Repeat("-", 100)
			if before > maxAnswer { // those in front become shorter, and let more of the answer in
				text = strings.Repeat(token, 200)
			}
			_, _ = io.WriteString(w, text)
		}))
		s := start(t, nil, Options{Sinks: []SinkOptions{{Name: "sink", URL: server.URL, Headers: map[string]string{"X-Key": token}}}})
		a, err := s.Test(t.Context(), "sink")
		server.Close()
		if err != nil || len(a.Answer) > maxAnswer || strings.Contains(string(a.Answer), token[:4]) || len(a.Answer) < 100 {
			t.Errorf("after %d bytes: got %v and %d bytes that end in %q", before, err, len(a.Answer), a.Answer[max(0, len(a.Answer)-40):])
		}
	}
}

func TestCallbacksQueryIsInNoRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := callbackDesk(t, ok)
		s.Sender.set.sinks[0].post.client.Transport = echo{}
		e := ev("a", 1)
		e.Callback = "http://caller.test/hook?token=hunter2"
		s.publish(e)
		synctest.Wait()
		d, err := s.Delivery(t.Context(), "callbacks", "a1")
		if err != nil || len(d.Log) != 1 || len(d.Log[0].Answer) == 0 || strings.Contains(fmt.Sprintf("%+v %s", d, d.Log[0].Answer), "hunter2") {
			t.Errorf("got %v and %+v, want an attempt without the query", err, d)
		}
	})
}

// echo answers with the URL it was asked for.
type echo struct{}

func (echo) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 500, Body: io.NopCloser(strings.NewReader(r.URL.String())), Request: r}, nil
}

func TestConfiguredIdempotencyKeyIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test", Headers: map[string]string{"Idempotency-Key": "ours"}}}})
		s.publish(ev("a", 1))
		synctest.Wait()
		if got := w.calls()[0].header.Get("Idempotency-Key"); got != "ours" {
			t.Errorf("it is %q, want what is configured", got)
		}
	})
}
