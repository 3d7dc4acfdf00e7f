package webhook

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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
					s.publish(ev(subject, seq))
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
		s.check("sink", tally{Delivered: subjects * events})
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
		s.publish(e)
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
		s.check("sink", tally{Delivered: 1})
	})
}

func TestWithoutSecretThereIsNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{})
		s.publish(ev("a", 1))
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
		s.publish(ev("a", 1), ev("a", 2), ev("b", 1), ev("b", 2))
		advance(time.Second)
		s.check("dead.test", tally{Pending: 4})
		s.check("live.test", tally{Delivered: 2, Pending: 2})
	})
}

func TestSinkHearsWhatItSubscribedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: ok}
		s := start(t, w, Options{Sinks: []SinkOptions{
			{URL: "http://default.test"}, {URL: "http://jobs.test", Events: event.Patterns{"job.*"}}, {URL: "http://none.test", Events: event.Patterns{}},
		}})
		for i, typ := range []event.Type{event.JobStarted, event.JobProgress, event.WorkerOnIOWait, event.WorkerAfterRun} {
			s.publish(event.New(typ, fmt.Sprint(i), 1, time.Now(), event.Data{}))
		}
		synctest.Wait()
		s.check("default.test", tally{Delivered: 2})
		s.check("jobs.test", tally{Delivered: 2})
		s.check("none.test", tally{})
	})
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
		"same name":     {Options{Sinks: []SinkOptions{{URL: "http://h/1"}, {URL: "http://h/2"}}}, `"h": the name is taken`},
		"negative":      {Options{Sinks: []SinkOptions{{URL: "http://h/", Timeout: -1}}}, "below zero"},
		"no attempt":    {Options{Schedule: []time.Duration{}}, "begins with 0"},
		"bad delay":     {Options{Schedule: []time.Duration{0, -1}}, "below"},
		"own name":      {Options{Sinks: []SinkOptions{{Name: "callbacks", URL: "http://h/"}}}, "taken"},
		"bad header":    {Options{Sinks: []SinkOptions{{URL: "http://h/", Headers: map[string]string{"a b": "hunter2"}}}}, "not the name of a header"},
		"our header":    {Options{Sinks: []SinkOptions{{URL: "http://h/", Headers: map[string]string{"webhook-id": "hunter2"}}}}, "gateway itself"},
		"two lines":     {Options{Sinks: []SinkOptions{{URL: "http://h/", Headers: map[string]string{"X": "hunter2\n"}}}}, "control characters"},
		"another type":  {Options{Sinks: []SinkOptions{{URL: "http://h/", ContentType: "text/plain"}}}, "content_type"},
		"no hosts":      {Options{Callbacks: &CallbackOptions{}}, "hosts"},
		"bad host":      {Options{Callbacks: &CallbackOptions{Hosts: []string{"http://x/"}}}, "hosts"},
	} {
		row.o.Outbox = NewMemory(MemoryOptions{})
		s, err := New(t.Context(), row.o)
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
