package httpapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
)

func TestSubmitATrackedJob(t *testing.T) {
	c := newClient(t, Options{})
	c.post(http.StatusAccepted, `{"function":"f","workload":"w","mode":"tracked","on_lost":"fail","retry":{"max":100,"backoff":"1h"}}`,
		"X-Request-Id", "r-1")
	want := ledger.Task{
		Function: "f", Workload: []byte("w"), Mode: ledger.Tracked, OnLost: ledger.Fail, Retry: ledger.Retry{Max: 100, Backoff: time.Hour},
		RequestID: "r-1",
	}
	if diff := cmp.Diff(want, c.lastTask()); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
	c.post(http.StatusAccepted, `{"function":"f","mode":"tracked","retry":{"max":3}}`)
	if got, want := c.lastTask().Retry, (ledger.Retry{Max: 3, Backoff: time.Second}); got != want {
		t.Errorf("retry: got %v, want %v", got, want)
	}
	if res := c.do(http.MethodPost, "/functions/f?mode=tracked&on_lost=resubmit", "w"); res.Code != http.StatusAccepted {
		t.Errorf("raw: got %d", res.Code)
	}
	if got := c.lastTask(); got.Mode != ledger.Tracked || got.OnLost != ledger.Resubmit {
		t.Errorf("raw: %+v", got)
	}
}

func TestWhenAJobIsToRun(t *testing.T) {
	for _, tt := range []struct {
		members         string
		runAt, deadline time.Duration // from now; 0 is none
	}{
		{`"delay":"90s"`, 90 * time.Second, 0},
		{`"delay":"0s"`, 0, 0},
		{`"run_at":"2020-01-01T00:00:00Z"`, 0, 0},
		{`"run_at":"` + time.Now().Add(time.Hour).Format(time.RFC3339Nano) + `"`, time.Hour, 0},
		{`"deadline":"10m"`, 0, 10 * time.Minute},
		{`"deadline":"10m","mode":"sync"`, 0, 10 * time.Minute},
		{`"delay":"9m","deadline":"10m","mode":"tracked"`, 9 * time.Minute, 10 * time.Minute},
		{`"deadline":"` + time.Now().Add(time.Hour).Format(time.RFC3339Nano) + `"`, 0, time.Hour},
		{`"delay":"8784h"`, 8784 * time.Hour, 0},
	} {
		c := newClient(t, Options{})
		if res := c.do(http.MethodPost, "/jobs", `{"function":"f",`+tt.members+`}`); res.Code >= 300 {
			t.Errorf("%s: got %d %s", tt.members, res.Code, res.Body)
			continue
		}
		got := c.lastTask()
		for name, d := range map[string]struct {
			at   time.Time
			want time.Duration
		}{"run_at": {got.RunAt, tt.runAt}, "deadline": {got.Deadline, tt.deadline}} {
			if d.at.IsZero() != (d.want == 0) || d.want != 0 && time.Until(d.at.Add(-d.want)).Abs() > time.Minute {
				t.Errorf("%s: %s at %v, want in %v", tt.members, name, d.at, d.want)
			}
		}
	}
	c := newClient(t, Options{})
	c.do(http.MethodPost, "/functions/f?mode=background&delay=1h&deadline=2h&require_worker=true", "x")
	if got := c.lastTask(); got.RunAt.IsZero() || !got.Deadline.After(got.RunAt) {
		t.Errorf("raw: %+v", got)
	}
}

func TestSyncTurnsIntoTracked(t *testing.T) {
	for _, prefer := range []string{"respond-async", "wait=3, Respond-Async", "respond-async; x=1, wait=7"} {
		c := newClient(t, Options{})
		for _, res := range []*httptest.ResponseRecorder{
			c.do(http.MethodPost, "/jobs", `{"function":"f","mode":"sync"}`, "Prefer", prefer),
			c.do(http.MethodPost, "/jobs", `{"function":"f","mode":"sync","delay":"1h"}`, "Prefer", prefer),
			c.do(http.MethodPost, "/functions/f", "", "Prefer", prefer),
		} {
			if got := res.Header().Get("Preference-Applied"); res.Code != http.StatusAccepted || got != "respond-async" {
				t.Errorf("%s: got %d, applied %q", prefer, res.Code, got)
			}
			if got := c.lastTask(); got.Mode != ledger.Tracked {
				t.Errorf("%s: mode %s", prefer, got.Mode)
			}
		}
		res := c.post(http.StatusAccepted, `{"function":"f"}`, "Prefer", prefer)
		if got := res.Header().Get("Preference-Applied"); got != "" || c.lastTask().Mode != ledger.Background {
			t.Errorf("background: applied %q", got)
		}
	}
}

func TestTheLoadOfAFunction(t *testing.T) {
	c := newClient(t, Options{})
	const required, free = `{"function":"f","require_worker":true}`, `{"function":"f","require_worker":false}`
	c.load = func(string) (int, int, bool) { return 0, 9, true }
	wantProblem(t, c.do(http.MethodPost, "/jobs", required), noWorker)
	wantProblem(t, c.do(http.MethodPost, "/functions/f?require_worker=true", ""), noWorker)
	if len(c.tasks) > 0 {
		t.Errorf("%d were submitted", len(c.tasks))
	}
	if body := c.post(http.StatusAccepted, free).Body.String(); !strings.Contains(body, `"workers":0,"queue_depth":9,"links"`) {
		t.Errorf("no worker: %s", body)
	}
	c.load = func(string) (int, int, bool) { return 0, 0, false }
	if body := c.post(http.StatusAccepted, required).Body.String(); !strings.Contains(body, `"workers":null,"queue_depth":null,"links"`) {
		t.Errorf("nobody knows: %s", body)
	}
	c.has(queued(ledger.Task{Function: "f"}))
	for _, path := range []string{"/jobs/x", "/jobs/x/result"} {
		if body := c.do(http.MethodGet, path, "").Body.String(); strings.Contains(body, "queue_depth") {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestIdempotencyKeys(t *testing.T) {
	long := strings.Repeat("k", 255)
	for header, want := range map[string]string{
		"abc": "abc", `"abc"`: "abc", `"a\"b\\c"`: `a"b\c`, `a"b`: `a"b`, long: long, `"` + long + `"`: long,
		"": "", `""`: "", "a b": "", `"a b"`: "", `"abc`: "", `"a"b"`: "", `"a";x=1`: "", `"a\b"`: "", `"a\`: "", "é": "", long + "k": "", "a\x00": "",
	} {
		c := newClient(t, Options{})
		for _, res := range []*httptest.ResponseRecorder{
			c.do(http.MethodPost, "/jobs", `{"function":"f"}`, "Idempotency-Key", header),
			c.do(http.MethodPost, "/functions/f", "", "Idempotency-Key", header),
		} {
			if want == "" {
				wantProblem(t, res, invalidHeader)
				continue
			}
			if k := c.lastTask().Key; k == nil || k.Key != want || len(k.Fingerprint) != 32 {
				t.Errorf("%q: key %+v, want %q", header, k, want)
			}
		}
		if want == "" && len(c.tasks) > 0 {
			t.Errorf("%q: was submitted", header)
		}
	}
	c := newClient(t, Options{})
	wantProblem(t, c.do(http.MethodPost, "/jobs", `{"function":"f"}`, "Idempotency-Key", "a", "Idempotency-Key", "b"), invalidHeader)
	if c.post(http.StatusAccepted, `{"function":"f"}`); c.lastTask().Key != nil {
		t.Error("a key without a header")
	}
}

func TestFingerprints(t *testing.T) {
	c := newClient(t, Options{})
	of := func(members string) string {
		t.Helper()
		if res := c.do(http.MethodPost, "/jobs", `{"function":"f"`+members+`}`, "Idempotency-Key", "k"); res.Code >= 300 {
			t.Fatalf("%s: %s", members, res.Body)
		}
		return string(c.lastTask().Key.Fingerprint)
	}
	seen := map[string]string{}
	for _, members := range []string{
		``, `,"workload":"x"`, `,"mode":"sync"`, `,"mode":"tracked"`, `,"priority":"low"`, `,"unique":"x"`, `,"delay":"1h"`,
		`,"run_at":"2020-01-01T00:00:00Z"`, `,"run_at":"2020-01-02T00:00:00Z"`, `,"deadline":"1h"`, `,"mode":"tracked","on_lost":"fail"`,
		`,"mode":"tracked","retry":{"max":1}`, `,"mode":"tracked","retry":{"max":1,"backoff":"2s"}`,
	} {
		print := of(members)
		if other, there := seen[print]; there {
			t.Errorf("%s and %s have one fingerprint", members, other)
		}
		seen[print] = members
		if of(members) != print {
			t.Errorf("%s: two fingerprints", members)
		}
	}
	if of(`,"priority":"normal","timeout":"3s","require_worker":true`) != of(``) {
		t.Error("what is no part of the job changes the fingerprint")
	}
	// Sent again when it is too late, it still is the submission of before.
	of(`,"deadline":"2020-01-01T00:00:00Z"`)
	of(`,"delay":"1h","deadline":"2020-01-01T00:00:00Z"`)
	// What Go's JSON has for no time at all: it must not be taken for no deadline.
	res := c.do(http.MethodPost, "/jobs", `{"function":"f","deadline":"0001-01-01T00:00:00Z"}`, "Idempotency-Key", "k")
	wantProblem(t, res, validationError, "#/deadline")
}

func TestReplays(t *testing.T) {
	c := newClient(t, Options{})
	again := completed(ledger.Task{Function: "f", Mode: ledger.Sync}, []byte("done"))
	again.Replayed = true
	c.returns(again, nil)
	for _, res := range []*httptest.ResponseRecorder{
		c.post(http.StatusOK, `{"function":"f","mode":"sync"}`, "Idempotency-Key", "k"),
		c.do(http.MethodPost, "/functions/f", "", "Idempotency-Key", "k"),
	} {
		if res.Code != http.StatusOK || res.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("got %d %v", res.Code, res.Header())
		}
	}
	again.Mode = ledger.Tracked
	c.returns(again, nil)
	if res := c.post(http.StatusAccepted, `{"function":"f","mode":"tracked"}`, "Idempotency-Key", "k"); res.Header().Get("Idempotent-Replayed") != "true" {
		t.Errorf("tracked: %v", res.Header())
	}
	for err, want := range map[error]kind{
		ledger.ErrKeyReused: keyReused, ledger.ErrKeyPending: idempotencyPending, ledger.ErrNotFound: jobNotFound,
	} {
		c.returns(ledger.Record{}, err)
		for _, res := range []*httptest.ResponseRecorder{
			c.do(http.MethodPost, "/jobs", `{"function":"f"}`, "Idempotency-Key", "k"),
			c.do(http.MethodPost, "/functions/f", "", "Idempotency-Key", "k"),
		} {
			wantProblem(t, res, want)
			if got := res.Header().Get("Retry-After"); got != want.retryAfter {
				t.Errorf("%s: Retry-After %q", want.name, got)
			}
		}
	}
	c.returns(ledger.Record{}, errors.Join(errors.New("no space left on device"), ledger.ErrStoreFailed))
	wantProblem(t, c.do(http.MethodPost, "/jobs", `{"function":"f","mode":"tracked"}`), storageUnavailable)
}

func TestATrackedJobsResource(t *testing.T) {
	c := newClient(t, Options{})
	rec := queued(ledger.Task{Function: "f", Mode: ledger.Tracked})
	rec.State, rec.Retry, rec.Attempt, rec.RetryOf = ledger.Scheduled, ledger.Retry{Max: 3, Backoff: 90 * time.Second}, 1, jobID
	rec.RunAt, rec.Deadline, rec.Handle, rec.Server = submitted.Add(time.Hour), submitted.Add(2*time.Hour), "", ""
	c.has(rec)
	body := c.do(http.MethodGet, "/jobs/x", "").Body.String()
	for _, want := range []string{
		`"state":"scheduled"`, `"attempt":2,"on_lost":"resubmit","retry":{"max":3,"backoff":"1m30s"},"retry_of":{"id":"` + jobID + `","self":"/jobs/` + jobID + `"}`,
		`"run_at":"2027-01-01T01:00:00.000Z"`, `"deadline":"2027-01-01T02:00:00.000Z"`, `"gearman":null`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	gone := ended(ledger.Completed, ledger.Tracked, nil)
	c.has(gone)
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/result", ""), resultExpired)
}

func TestCancel(t *testing.T) {
	c := newClient(t, Options{})
	c.cancel = func(string) (ledger.Record, error) {
		return ended(ledger.Cancelled, ledger.Tracked, &event.Error{Kind: "cancelled"}), nil
	}
	if res := c.do(http.MethodDelete, "/jobs/H:a%2Fb:7", ""); res.Code != http.StatusOK || c.refs[0] != "H:a/b:7" ||
		!strings.Contains(res.Body.String(), `"state":"cancelled"`) {
		t.Errorf("got %d %s for %v", res.Code, res.Body, c.refs)
	}
	running := queued(ledger.Task{Function: "f", Mode: ledger.Sync})
	running.State = ledger.Running
	c.cancel = func(string) (ledger.Record, error) { return running, nil }
	if res := c.do(http.MethodDelete, "/jobs/x", ""); res.Code != http.StatusAccepted || res.Header().Get("Location") != "/jobs/"+jobID {
		t.Errorf("told: got %d %v", res.Code, res.Header())
	}
	for err, want := range map[error]kind{
		ledger.ErrNotFound: jobNotFound, ledger.ErrEnded: jobEnded, ledger.ErrRunning: jobRunning, ledger.ErrStoreFailed: storageUnavailable,
	} {
		c.cancel = func(string) (ledger.Record, error) { return running, err }
		wantProblem(t, c.do(http.MethodDelete, "/jobs/x", ""), want)
	}
	asked := len(c.refs)
	wantProblem(t, c.do(http.MethodDelete, "/jobs/a%00b", ""), jobNotFound)
	if len(c.refs) != asked {
		t.Error("what is no handle was asked for")
	}
}

func TestRunAgain(t *testing.T) {
	c := newClient(t, Options{})
	again := queued(ledger.Task{Function: "f", Mode: ledger.Tracked})
	again.RetryOf = "0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a91"
	c.runAgain = func(string) (ledger.Record, error) { return again, nil }
	res := c.do(http.MethodPost, "/jobs/old/retry", "")
	if res.Code != http.StatusAccepted || res.Header().Get("Location") != "/jobs/"+jobID || c.refs[0] != "old" ||
		!strings.Contains(res.Body.String(), `"retry_of":{"id":"`+again.RetryOf) || !strings.Contains(res.Body.String(), `"workers":2`) {
		t.Errorf("got %d %v %s for %v", res.Code, res.Header(), res.Body, c.refs)
	}
	for err, want := range map[error]kind{
		ledger.ErrNotFound: jobNotFound, ledger.ErrNotEnded: jobNotEnded, ledger.ErrCompleted: jobCompleted,
		ledger.ErrNoWorkload: workloadUnavailable, ledger.ErrFull: queueFull,
	} {
		c.runAgain = func(string) (ledger.Record, error) { return ledger.Record{}, err }
		wantProblem(t, c.do(http.MethodPost, "/jobs/x/retry", ""), want)
	}
	c.runAgain = func(string) (ledger.Record, error) {
		t.Error("it was run again")
		return again, nil
	}
	wantProblem(t, c.do(http.MethodPost, "/jobs/x/retry", "", "Idempotency-Key", "k"), invalidHeader)
}

func TestPages(t *testing.T) {
	c := newClient(t, Options{})
	rec := completed(ledger.Task{Function: "f", Mode: ledger.Tracked}, []byte("a result"))
	rec.Warnings = [][]byte{[]byte("careful")}
	var asked []ledger.Query
	c.list = func(q ledger.Query) ([]ledger.Record, string, error) {
		asked = append(asked, q)
		if q.Before == "" {
			return []ledger.Record{rec, rec}, jobID, nil
		}
		return []ledger.Record{rec}, "", nil
	}
	var page struct {
		Items []struct {
			ID       string
			Result   any
			Warnings []any
		}
		Next *string `json:"next_cursor"`
	}
	res := c.do(http.MethodGet, "/jobs?function=a%2Fb%26&state=completed&mode=tracked&limit=2", "")
	decode(t, res, &page)
	if len(page.Items) != 2 || page.Items[0].ID != jobID || page.Items[0].Result != nil || len(page.Items[0].Warnings) > 0 || page.Next == nil {
		t.Fatalf("first page: %s", res.Body)
	}
	if strings.Contains(res.Body.String(), "note") {
		t.Errorf("a note on a result that is there: %s", res.Body)
	}
	link, rel, _ := strings.Cut(res.Header().Get("Link"), "; ")
	next, err := url.Parse(strings.Trim(link, "<>"))
	if err != nil || rel != `rel="next"` || next.Query().Get("cursor") != *page.Next {
		t.Fatalf("Link: %s", res.Header().Get("Link"))
	}
	res = c.do(http.MethodGet, next.String(), "")
	decode(t, res, &page)
	if len(page.Items) != 1 || page.Next != nil || res.Header().Get("Link") != "" {
		t.Errorf("last page: %v %s", res.Header(), res.Body)
	}
	c.do(http.MethodGet, "/jobs", "")
	filters := ledger.Query{Function: "a/b&", State: ledger.Completed, Mode: ledger.Tracked, Limit: 2}
	second := filters
	second.Before = jobID
	if diff := cmp.Diff([]ledger.Query{filters, second, {Limit: 50}}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestPagesThatAreRefused(t *testing.T) {
	c := newClient(t, Options{})
	for query, where := range map[string]string{
		"limit=201": "limit", "limit=0": "limit", "limit=x": "limit", "cursor=" + jobID: "cursor", "cursor=": "cursor", "cursor=AAAA": "cursor",
		"state=done": "state", "mode=later": "mode", "function=": "function", "function=a%20b": "function", "fnction=f": "fnction",
		"limit=0&state=x&mode=": "limit mode state",
	} {
		wantProblem(t, c.do(http.MethodGet, "/jobs?"+query, ""), validationError, strings.Fields(where)...)
	}
	if body := c.do(http.MethodGet, "/jobs", "").Body.String(); body != `{"items":[],"next_cursor":null}`+"\n" {
		t.Errorf("none: %s", body)
	}
}
