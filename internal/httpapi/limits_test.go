package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/limit"
	"gearman-gateway/internal/webhook"
)

func answerTo(a *API, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func limited(f *fake, r limit.Rules) *API {
	return New(Options{Jobs: f, Servers: f, Webhooks: &f.hooks, Limits: limit.New(r)})
}

const job = `{"function":"f","workload":"abc"}`

func TestALimitThatIsReachedIsNamed(t *testing.T) {
	for name, row := range map[string]struct {
		rules  limit.Rules
		before int // submissions that are let through
		path   string
		body   string
		status int
		want   []string
	}{
		"rate":     {limit.Rules{Default: limit.Rule{Rate: 0.5}}, 1, "/jobs", job, 429, []string{`"limit":"rate","of":"identity","retry_after":2`}},
		"function": {limit.Rules{Functions: map[string]limit.Rule{"*": {Rate: 0.1}}}, 1, "/functions/f", "abc", 429, []string{`"limit":"rate","of":"function","retry_after":10`}},
		"queue":    {limit.Rules{Functions: map[string]limit.Rule{"f": {MaxJobs: 3}}}, 0, "/jobs", job, 429, []string{`"limit":"max_jobs","of":"function"`}},
		"workload": {limit.Rules{Default: limit.Rule{MaxWorkload: 2}}, 0, "/jobs", job, 413, []string{`"limit":"max_workload","of":"identity"`}},
		"raw":      {limit.Rules{Functions: map[string]limit.Rule{"f": {MaxWorkload: 2}}}, 0, "/functions/f", "abc", 413, []string{`"limit":"max_workload","of":"function"`}},
		"wait": {
			limit.Rules{Default: limit.Rule{MaxWait: time.Second}},
			0, "/jobs", `{"function":"f","mode":"sync","timeout":"2s"}`, 422,
			[]string{`"pointer":"#/timeout"`, "at most 1s"},
		},
		"raw wait": {limit.Rules{Default: limit.Rule{MaxWait: time.Second}}, 0, "/functions/f?timeout=2s", "", 422, []string{`"parameter":"timeout"`}},
		"batch":    {limit.Rules{Default: limit.Rule{Rate: 0.5, Burst: 2}}, 1, "/jobs/batch", "[" + job + "," + job + "]", 200, []string{`{"status":202`, `{"status":429`, `"retry_after":2`}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			a := limited(f, row.rules)
			for range row.before {
				if w := answerTo(a, http.MethodPost, "/jobs", job); w.Code != http.StatusAccepted {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			}
			w := answerTo(a, http.MethodPost, row.path, row.body)
			if w.Code != row.status {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			for _, want := range row.want {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("no %s in %s", want, w.Body)
				}
			}
			if row.status == 429 && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if n := len(f.tasks); row.status != 200 && n != row.before {
				t.Errorf("%d jobs were submitted, want %d", n, row.before)
			}
		})
	}
}

// A wait that nobody asked for, or that is a preference, is cut to what it may be.
func TestWaitsAreCut(t *testing.T) {
	f := &fake{}
	a := limited(f, limit.Rules{Default: limit.Rule{MaxWait: 2 * time.Second}, Functions: map[string]limit.Rule{"f": {MaxWait: time.Second}}})
	answerTo(a, http.MethodPost, "/jobs", `{"function":"f","mode":"sync"}`)
	answerTo(a, http.MethodPost, "/jobs", `{"function":"g","mode":"sync"}`)
	if len(f.tasks) != 2 || f.tasks[0].Wait != time.Second || f.tasks[1].Wait != 2*time.Second {
		t.Errorf("submitted %+v", f.tasks)
	}
	if w := answerTo(a, http.MethodGet, "/jobs/"+jobID+"?wait=3s", ""); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRunningAgainCountsAsASubmission(t *testing.T) {
	again := func(string) (ledger.Record, error) { return queued(ledger.Task{Function: "f"}), nil }
	f := &fake{runAgain: again}
	a := limited(f, limit.Rules{Functions: map[string]limit.Rule{"f": {Rate: 0.1}}})
	old := ended(ledger.Failed, ledger.Tracked, nil)
	old.Function = "f"
	f.job = func(context.Context, string, time.Duration) (ledger.Record, error) { return old, nil }
	for _, want := range []int{http.StatusAccepted, http.StatusTooManyRequests} {
		if w := answerTo(a, http.MethodPost, "/jobs/"+jobID+"/retry", ""); w.Code != want {
			t.Errorf("%d %s, want %d", w.Code, w.Body, want)
		}
	}
}

// Whoever is refused has cost nothing: neither the caller is looked for, nor the body read. Health is answered whatever comes in.
func TestOverloadIsRefusedButForHealth(t *testing.T) {
	f := &fake{}
	gate := limit.NewGate(limit.GateOptions{Places: 1, MaxQueue: 1, Wait: time.Millisecond, Idle: time.Hour})
	a := New(Options{Jobs: f, Servers: f, Webhooks: &f.hooks, Gate: gate})
	var place limit.Place
	if err := gate.Enter(t.Context(), &place); err != nil {
		t.Fatal(err)
	}
	w := answerTo(a, http.MethodPost, "/jobs", job)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), ":overloaded") || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if w := answerTo(a, http.MethodGet, path, ""); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	place.Leave()
	for range 2 { // the first has left its place
		if w := answerTo(a, http.MethodPost, "/jobs", job); w.Code != http.StatusAccepted {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// Each redelivery is a POST to somebody, of which there is not to be any number.
func TestRedeliveringCountsAsASubmission(t *testing.T) {
	const again = "/deliveries/evt_1:callbacks/redeliver"
	for _, next := range []string{again, "/jobs"} {
		f := &fake{}
		f.hooks.delivery = func() (webhook.Delivery, error) { return aDelivery(1, webhook.CallbacksName), nil }
		a := limited(f, limit.Rules{Default: limit.Rule{Rate: 0.1}})
		if w := answerTo(a, http.MethodPost, again, ""); w.Code != http.StatusAccepted {
			t.Errorf("the first: %d %s", w.Code, w.Body)
		}
		if w := answerTo(a, http.MethodPost, next, ""); w.Code != http.StatusTooManyRequests {
			t.Errorf("%s: %d %s", next, w.Code, w.Body)
		}
	}
}

// Who may have small workloads does not fill the memory that is there for all bodies with large ones.
func TestABodyIsBoundedByWhatItsSenderMayHave(t *testing.T) {
	f := &fake{}
	a := limited(f, limit.Rules{Default: limit.Rule{MaxWorkload: 1000}})
	escaped := `{"function":"f","workload":"` + strings.Repeat(`\u0041`, 1000) + `"}`
	if w := answerTo(a, http.MethodPost, "/jobs", escaped); w.Code != http.StatusAccepted {
		t.Errorf("a workload of the limit: %d %s", w.Code, w.Body)
	}
	large := strings.NewReader(`{"function":"f","workload":"` + strings.Repeat("A", 1<<20) + `"}`)
	size := large.Len()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/jobs", large)
	r.ContentLength = -1
	if a.ServeHTTP(w, r); w.Code != http.StatusRequestEntityTooLarge || size-large.Len() > 128<<10 {
		t.Errorf("%d, and %d bytes were read: %s", w.Code, size-large.Len(), w.Body)
	}
}

// Not even one that does not say how long it is, and where the body is the workload.
func TestAWorkloadIsReadAsFarAsItMayGo(t *testing.T) {
	for name, o := range map[string]Options{
		"identity": {Limits: limit.New(limit.Rules{Default: limit.Rule{MaxWorkload: 1000}})},
		"function": {Limits: limit.New(limit.Rules{Functions: map[string]limit.Rule{"f": {MaxWorkload: 1000}}})},
		"handler":  {Rules: func(string) Rules { return Rules{MaxWorkload: 1000} }},
	} {
		f := &fake{}
		o.Jobs, o.Servers, o.Webhooks = f, f, &f.hooks
		a := New(o)
		large := strings.NewReader(strings.Repeat("A", 1<<20))
		size := large.Len()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/functions/f", large)
		r.ContentLength = -1
		a.ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge || size-large.Len() > 128<<10 || !strings.Contains(w.Body.String(), "1000 bytes") {
			t.Errorf("%s: %d, and %d bytes were read: %s", name, w.Code, size-large.Len(), w.Body)
		}
		if named := strings.Contains(w.Body.String(), `"limit":"max_workload","of":"`+name+`"`); named != (name != "handler") {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
}
