package webhook

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"gearman-gateway/internal/event"
)

func TestSubjectsKeepTheirOrderUnderFailuresAndSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const subjects, events = 20, 25
		var mu sync.Mutex
		attempts, underWay, most := map[string]int{}, map[string]bool{}, 0
		delivered := map[string][]string{}
		w := &wire{answer: func(_ *http.Request, c call) (int, error) {
			subject := c.id[:1]
			mu.Lock()
			attempts[c.id]++
			code := 200
			if attempts[c.id] <= int(c.id[0]+c.id[len(c.id)-1])%3 { // some fail once, some twice
				code = 500
			}
			if underWay[subject] {
				t.Errorf("two events of %s are under way at a time", subject)
			}
			underWay[subject] = true
			most = max(most, len(underWay))
			mu.Unlock()
			<-time.After(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			delete(underWay, subject)
			if code == 200 {
				delivered[subject] = append(delivered[subject], c.id)
			}
			return code, nil
		}}
		s := start(t, w, Options{Schedule: seconds(0, 1, 1), Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test", Concurrency: 4}}})
		want := map[string][]string{}
		var publishers sync.WaitGroup
		for i := range subjects {
			subject := string(rune('a' + i))
			for seq := range uint64(events) {
				want[subject] = append(want[subject], ev(subject, seq).ID)
			}
			publishers.Go(func() {
				for seq := range uint64(events) {
					s.Publish(ev(subject, seq))
				}
			})
		}
		publishers.Wait()
		advance(24 * time.Hour) // with as many failures the sink may count as failing now and then, which takes its time
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, delivered); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if most != 4 {
			t.Errorf("at most %d were under way at a time, want 4", most)
		}
		if got := s.Stats()[0]; got.Delivered != subjects*events || got.Queued+int(got.Dead)+int(got.Dropped) != 0 {
			t.Errorf("stats are %+v", got)
		}
	})
}

func TestRetryIsTheSameMessageSignedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := otherSecret(t)
		w := &wire{}
		w.answer = func(r *http.Request, c call) (int, error) {
			for _, key := range [][]byte{secret(t, vectorSecret).key(), other.key()} {
				verifier, _ := standardwebhooks.NewWebhookRaw(key)
				if err := verifier.Verify([]byte(c.body), c.header); err != nil {
					t.Error(err)
				}
			}
			if len(w.calls()) < 3 {
				return 500, nil
			}
			return 204, nil
		}
		s := start(t, w, Options{Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test/", Secrets: []Secret{secret(t, vectorSecret), other}}}})
		began := time.Now()
		e := event.New(event.JobCompleted, "0193", 4, began, event.Data{Result: []byte{0xff}})
		s.Publish(e)
		advance(10 * time.Minute)
		calls := w.calls()
		if len(calls) != 3 {
			t.Fatalf("%d attempts, want 3", len(calls))
		}
		for i, c := range calls {
			if c.id != e.ID || c.body != string(body(e)) {
				t.Errorf("attempt %d is another message: %s %s", i+1, c.id, c.body)
			}
			if got := c.header.Get("webhook-timestamp"); got != fmt.Sprint(c.at.Unix()) {
				t.Errorf("attempt %d has timestamp %s, want its own", i+1, got)
			}
			if got := c.header.Get("Content-Type"); got != "application/cloudevents+json" {
				t.Errorf("attempt %d has Content-Type %s", i+1, got)
			}
			if _, sent := c.header["Idempotency-Key"]; sent && len(c.header["Idempotency-Key"]) > 0 {
				t.Error("Idempotency-Key is sent")
			}
		}
		if calls[0].header.Get("webhook-signature") == calls[1].header.Get("webhook-signature") {
			t.Error("the signature was not renewed")
		}
		checkStats(t, s, Stats{Delivered: 1, Failed: 2})
	})
}

func TestWithoutSecretThereIsNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{})
		s.Publish(ev("a", 1))
		synctest.Wait()
		h := w.calls()[0].header
		if h.Get("webhook-id") != "a1" || h.Get("webhook-timestamp") == "" || h.Values("webhook-signature") != nil {
			t.Errorf("headers are %v", h)
		}
	})
}

func TestSinksAndSubjectsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(r *http.Request, c call) (int, error) {
			if r.URL.Host == "dead.test" || c.id == "a1" {
				return hang(r, c)
			}
			return 200, nil
		}}
		s := start(t, w, Options{Sinks: []SinkOptions{{URL: "http://dead.test"}, {URL: "http://live.test"}}})
		s.Publish(ev("a", 1), ev("a", 2), ev("b", 1), ev("b", 2))
		advance(time.Second)
		if got := s.Stats(); got[0].Delivered != 0 || got[1].Delivered != 2 {
			t.Errorf("stats are %+v, want b delivered to the live sink", got)
		}
	})
}

func TestSinkHearsWhatItSubscribedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{Sinks: []SinkOptions{
			{URL: "http://default.test"}, {URL: "http://jobs.test", Events: event.Patterns{"job.*"}}, {URL: "http://none.test", Events: event.Patterns{}},
		}})
		for i, typ := range []event.Type{event.JobStarted, event.JobProgress, event.WorkerOnIOWait, event.WorkerAfterRun} {
			s.Publish(event.New(typ, fmt.Sprint(i), 1, time.Now(), event.Data{}))
		}
		synctest.Wait()
		checkStats(t, s, Stats{Name: "default.test", Delivered: 2}, Stats{Name: "jobs.test", Delivered: 2}, Stats{Name: "none.test"})
	})
}

func TestStopDeliversWhatIsDueAndCountsTheRest(t *testing.T) {
	slow := func(r *http.Request, c call) (int, error) {
		select {
		case <-time.After(time.Second):
			return 200, nil
		case <-r.Context().Done():
			return 0, r.Context().Err()
		}
	}
	flaky := func(w *wire) func(*http.Request, call) (int, error) {
		return func(*http.Request, call) (int, error) {
			if len(w.calls()) == 1 {
				return 500, nil
			}
			return 200, nil
		}
	}
	for name, row := range map[string]struct {
		answer func(*wire) func(*http.Request, call) (int, error)
		within time.Duration // 0: no deadline
		want   Stats
		took   time.Duration // at most
	}{
		"all, without a deadline":     {func(*wire) func(*http.Request, call) (int, error) { return slow }, 0, Stats{Delivered: 4}, 4 * time.Second},
		"two, then ctx ends":          {func(*wire) func(*http.Request, call) (int, error) { return slow }, 2500 * time.Millisecond, Stats{Delivered: 2, Dropped: 2}, 2500 * time.Millisecond},
		"none: the sink hangs":        {func(*wire) func(*http.Request, call) (int, error) { return hang }, time.Second, Stats{Dropped: 4}, time.Second},
		"retry due within the time":   {flaky, 10 * time.Second, Stats{Delivered: 4, Failed: 1}, 6 * time.Second},
		"retry due after the time":    {flaky, 2 * time.Second, Stats{Failed: 1, Dropped: 4}, 0},
		"retry without any deadline":  {flaky, 0, Stats{Failed: 1, Dropped: 4}, 0},
		"nothing: the time was over ": {func(*wire) func(*http.Request, call) (int, error) { return hang }, -1, Stats{Dropped: 4}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log lines
			w := &wire{}
			w.answer = row.answer(w)
			s := start(t, w, Options{Log: zerolog.New(&log)})
			s.Publish(ev("a", 1), ev("a", 2), ev("a", 3), ev("a", 4))
			synctest.Wait()
			began := time.Now()
			if row.within == 0 {
				s.Stop(context.Background())
			} else {
				stop(s, row.within)
			}
			if took := time.Since(began); took > row.took {
				t.Errorf("%s: took %v, want at most %v", name, took, row.took)
			}
			row.want.Name = "sink"
			if diff := cmp.Diff([]Stats{row.want}, s.Stats()); diff != "" {
				t.Errorf("%s: stats (-want +got):\n%s", name, diff)
			}
			if gaveUp := strings.Contains(log.String(), "stopped before"); gaveUp != (row.want.Dropped > 0) {
				t.Errorf("%s: the log is %s", name, &log)
			}
			s.Publish(ev("b", 1))
			s.Stop(context.Background())
			row.want.Dropped++
			if diff := cmp.Diff([]Stats{row.want}, s.Stats()); diff != "" {
				t.Errorf("%s: after Publish and another Stop (-want +got):\n%s", name, diff)
			}
		})
	}
}

func TestNewRefusesWithoutShowingSecrets(t *testing.T) {
	for name, row := range map[string]struct {
		o    Options
		want string
	}{
		"no URL":        {Options{Sinks: []SinkOptions{{Name: "audit"}}}, `"audit": url is not`},
		"another kind":  {Options{Sinks: []SinkOptions{{URL: "ftp://user:hunter2@h/"}}}, `"1": url is not`},
		"bad URL":       {Options{Sinks: []SinkOptions{{URL: "http://user:hunter2@h:p/?token=hunter2"}}}, `"1": url is not`},
		"no such event": {Options{Sinks: []SinkOptions{{URL: "http://h/", Events: event.Patterns{"jobs.*"}}}}, "jobs.*"},
		"empty secret":  {Options{Sinks: []SinkOptions{{URL: "http://h/", Secrets: []Secret{{}}}}}, "a secret is empty"},
		"same name":     {Options{Sinks: []SinkOptions{{URL: "http://h/1"}, {URL: "http://h/2"}}}, `"h": two sinks`},
		"negative":      {Options{Sinks: []SinkOptions{{URL: "http://h/", Timeout: -1}}}, "below zero"},
		"no attempt":    {Options{Schedule: []time.Duration{}}, "at least one"},
		"bad delay":     {Options{Schedule: []time.Duration{-1}}, "below zero"},
		"bad source":    {Options{Source: "http://h:p/hunter2"}, "source"},
	} {
		s, err := New(row.o)
		if err == nil {
			stop(s, 0)
			t.Errorf("%s: no error", name)
			continue
		}
		if !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %q, want %q in it and no secret", name, err, row.want)
		}
	}
}
