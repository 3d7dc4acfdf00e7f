package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

func TestCallAFunction(t *testing.T) {
	for _, tt := range []struct{ workload, contentType string }{
		{"plain", "text/plain; charset=utf-8"},
		{"", "text/plain; charset=utf-8"},
		{` {"a":1,"a":2}`, "application/json"},
		{"\xff\x00", "application/octet-stream"},
		{strings.Repeat("x", 300_000), "text/plain; charset=utf-8"},
	} {
		c := newClient(t, Options{})
		res := c.do(http.MethodPost, "/functions/echo?priority=low&unique=u&timeout=2s", tt.workload, "Content-Type", "image/png")
		if res.Code != http.StatusOK || res.Body.String() != tt.workload {
			t.Fatalf("%.20q: got %d %.100q", tt.workload, res.Code, res.Body)
		}
		if got := res.Header().Get("Content-Type"); got != tt.contentType {
			t.Errorf("%.20q: content type: got %q, want %q", tt.workload, got, tt.contentType)
		}
		if got := res.Header().Get("X-Job-Id") + " " + res.Header().Get("X-Job-Handle"); got != jobID+" H:g1:42" {
			t.Errorf("job: got %q", got)
		}
		task := c.lastTask()
		if task.Mode != ledger.Sync || task.Priority != gearman.Low || task.Unique != "u" || task.Wait != 2*time.Second {
			t.Errorf("task: %+v", task)
		}
	}
}

func TestCallInTheBackground(t *testing.T) {
	c := newClient(t, Options{})
	res := c.do(http.MethodPost, "/functions/echo?mode=background", "x")
	if res.Code != http.StatusAccepted || res.Header().Get("Location") != "/jobs/"+jobID {
		t.Errorf("got %d %v", res.Code, res.Header())
	}
	if got := c.lastTask().Mode; got != ledger.Background {
		t.Errorf("mode: got %s", got)
	}
}

func TestFunctionNamesInPathsAreDecodedOnce(t *testing.T) {
	for path, want := range map[string]string{
		"a%2Fb": "a/b", "a%252Fb": "a%2Fb", "a%25b": "a%b", "%C3%A9": "é", "a:b": "a:b", "%2525": "%25", "a+b": "a+b",
	} {
		c := newClient(t, Options{})
		if res := c.do(http.MethodPost, "/functions/"+path, "x"); res.Code != http.StatusOK {
			t.Errorf("%s: got %d %s", path, res.Code, res.Body)
			continue
		}
		if got := c.lastTask().Function; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestCallsThatAreRefused(t *testing.T) {
	for target, where := range map[string]string{
		"/functions/a%00b":                        "function",
		"/functions/a%20b":                        "function",
		"/functions/f?mode=later":                 "mode",
		"/functions/f?mode=":                      "mode",
		"/functions/f?mode=sync&mode=sync":        "mode",
		"/functions/f?prio=high":                  "prio",
		"/functions/f?priority=x&timeout=1h":      "priority timeout",
		"/functions/f?unique=-&unique=a&b=1":      "b unique",
		"/functions/f?unique=%00":                 "unique",
		"/functions/f?workload_encoding=base64":   "workload_encoding",
		"/functions/f?retry=3":                    "retry",
		"/functions/f?delay=1s&run_at=2027-01-01": "delay run_at",
		"/functions/f?delay=1s":                   "delay",
		"/functions/f?delay=&on_lost=":            "delay on_lost",
		"/functions/f?on_lost=fail":               "on_lost",
		"/functions/f?require_worker=1":           "require_worker",
		"/functions/f?deadline=soon":              "deadline",
		"/functions/f?mode=%zz":                   "",
	} {
		c := newClient(t, Options{})
		wantProblem(t, c.do(http.MethodPost, target, "x"), validationError, strings.Fields(where)...)
		if len(c.tasks) > 0 {
			t.Errorf("%s: was submitted", target)
		}
	}
}

func TestResults(t *testing.T) {
	gone := ended(ledger.Completed, ledger.Sync, nil)
	untold := ended(ledger.Completed, ledger.Background, nil)
	for _, tt := range []struct {
		name string
		rec  ledger.Record
		want kind
	}{
		{"unknown", ended(ledger.Unknown, ledger.Background, nil), resultUnavailable},
		{"cancelled", ended(ledger.Cancelled, ledger.Sync, &event.Error{Kind: "cancelled"}), resultUnavailable},
		{"not told", untold, resultUnavailable},
		{"expired", gone, resultExpired},
		{"failed", ended(ledger.Failed, ledger.Sync, &event.Error{Kind: "exception", Message: "a secret of the worker"}), jobFailed},
		{"lost", ended(ledger.Lost, ledger.Sync, &event.Error{Kind: "lost", Message: "g1:4730"}), jobFailed},
		{"failed without a word", ended(ledger.Failed, ledger.Sync, nil), jobFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Options{})
			c.has(tt.rec)
			c.returns(tt.rec, nil)
			responses := []*httptest.ResponseRecorder{c.do(http.MethodGet, "/jobs/"+jobID+"/result", "")}
			if tt.rec.Mode == ledger.Sync {
				responses = append(responses, c.do(http.MethodPost, "/functions/f", ""))
			}
			for _, res := range responses {
				wantProblem(t, res, tt.want)
				if body := res.Body.String(); strings.Contains(body, "secret") || strings.Contains(body, "g1:4730") {
					t.Errorf("the problem says too much: %s", body)
				}
				if !strings.Contains(res.Body.String(), `"id":"`+jobID+`"`) {
					t.Errorf("the problem does not name the job: %s", res.Body)
				}
			}
		})
	}

	c := newClient(t, Options{})
	c.has(queued(ledger.Task{Function: "f", Mode: ledger.Background}))
	if res := c.do(http.MethodGet, "/jobs/H:g1:42/result", ""); res.Code != http.StatusAccepted || res.Header().Get("Retry-After") != "1" {
		t.Errorf("not ended: got %d %v", res.Code, res.Header())
	}
	c.has(completed(ledger.Task{Function: "f"}, []byte(`[1]`)))
	if res := c.do(http.MethodGet, "/jobs/H:g1:42/result", ""); res.Body.String() != `[1]` {
		t.Errorf("result: got %d %s", res.Code, res.Body)
	}
	res := c.do(http.MethodHead, "/jobs/H:g1:42/result", "")
	if res.Code != http.StatusOK || res.Header().Get("Content-Length") != "3" {
		t.Errorf("HEAD: got %d %v", res.Code, res.Header())
	}
}

func TestResultTypeAgreesWithTheEncodingOfTheResource(t *testing.T) {
	types := map[string]string{"json": "application/json", "text": "text/plain; charset=utf-8", "base64": "application/octet-stream"}
	for _, result := range append(append([]string{"", "\xff", "[\xff]", " text", `["\ud800"]`}, validTexts...), invalidTexts...) {
		_, encoding := event.EncodePayload([]byte(result))
		if got := resultType([]byte(result)); got != types[encoding] {
			t.Errorf("%.80q is %s: got %s", result, encoding, got)
		}
	}
}

func TestGetJob(t *testing.T) {
	c := newClient(t, Options{})
	rec := completed(ledger.Task{Function: "f", Mode: ledger.Sync}, []byte(`{"a":1,"a":{"b":[ ]}}`))
	rec.Progress = &event.Progress{Numerator: 0.5, Denominator: 3}
	rec.Warnings = [][]byte{[]byte("careful"), {0xff}, []byte(`[1]`)}
	c.has(rec)
	body := c.do(http.MethodGet, "/jobs/H:g1:42?wait=90s", "").Body.String()
	for _, want := range []string{
		`"result":{"a":1,"a":{"b":[ ]}},"result_encoding":"json"`, `"progress":{"numerator":0.5,"denominator":3}`,
		`"warnings":[{"value":"careful","encoding":"text"},{"value":"/w==","encoding":"base64"},{"value":[1],"encoding":"json"}]`,
		`"ended_at":"2027-01-01T00:00:01.000Z"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if c.refs[0] != "H:g1:42" || c.waits[0] != 90*time.Second {
		t.Errorf("asked for %v, waiting %v", c.refs, c.waits)
	}

	rec.Progress.Numerator = math.NaN()
	rec.Result, rec.Kept = nil, false
	if body := c.do(http.MethodGet, "/jobs/x", "", "Prefer", "wait=3").Body.String(); !strings.Contains(body, `"progress":null`) {
		t.Errorf("progress: %s", body)
	}
	if c.waits[1] != 3*time.Second {
		t.Errorf("waits: got %v", c.waits)
	}
}

func TestNotes(t *testing.T) {
	for want, rec := range map[string]ledger.Record{
		noteUnknown: ended(ledger.Unknown, ledger.Background, nil),
		noteExpired: ended(ledger.Completed, ledger.Sync, nil),
		noteNoWord:  ended(ledger.Completed, ledger.Background, nil),
		"":          ended(ledger.Failed, ledger.Background, nil),
	} {
		c := newClient(t, Options{})
		c.has(rec)
		var got struct{ Note string }
		decode(t, c.do(http.MethodGet, "/jobs/x", ""), &got)
		if got.Note != want {
			t.Errorf("note: got %q, want %q", got.Note, want)
		}
	}
}

func TestAStrangersJob(t *testing.T) {
	c := newClient(t, Options{})
	c.has(ledger.Record{
		Handle: "H:a/b:7", Server: "g1:4730", State: ledger.Running, Gearman: &gearman.JobStatus{Known: true, Running: true},
	})
	body := c.do(http.MethodGet, "/jobs/H:a%2Fb:7", "").Body.String()
	want := `{"id":null,"owner":null,"handle":"H:a/b:7","server":"g1:4730","function":null,"mode":null,"priority":null,"unique":null,"state":"running",` +
		`"gearman":{"known":true,"running":true,"completed":false}`
	if !strings.HasPrefix(body, want) || !strings.Contains(body, `"self":"/jobs/H:a%2Fb:7"`) || c.refs[0] != "H:a/b:7" {
		t.Errorf("%v: %s", c.refs, body)
	}
}

func TestJobsThatAreNotFound(t *testing.T) {
	c := newClient(t, Options{})
	wantProblem(t, c.do(http.MethodGet, "/jobs/H:g1:42", ""), jobNotFound)
	asked := len(c.refs)
	for _, handle := range []string{"a%00b", "a%20b", "a%0Ab", strings.Repeat("x", 64)} {
		wantProblem(t, c.do(http.MethodGet, "/jobs/"+handle, ""), jobNotFound)
		wantProblem(t, c.do(http.MethodGet, "/jobs/"+handle+"/result", ""), jobNotFound)
	}
	if len(c.refs) != asked {
		t.Errorf("asked for %q", c.refs)
	}
	wantProblem(t, c.do(http.MethodGet, "/jobs/x?wait=30", ""), validationError, "wait")
	wantProblem(t, c.do(http.MethodGet, "/jobs/x?wait=1h", ""), validationError, "wait")
	wantProblem(t, c.do(http.MethodGet, "/jobs/x?wiat=1s", ""), validationError, "wiat")
}

// Where no parameter is known, too: the replay of all that is dead is not what ?since= was for.
func TestNoParameterIsIgnored(t *testing.T) {
	c := newClient(t, Options{})
	reference := strings.NewReplacer("{job}", "x", "{delivery}", "evt_1:audit")
	for route, row := range accessRows {
		if row.public || route == "GET /metrics" || strings.HasPrefix(route, "GET /debug/") { // parameters of others
			continue
		}
		method, path, _ := strings.Cut(route, " ")
		path, _, _ = strings.Cut(cmp.Or(row.path, path), "?")
		t.Run(route, func(t *testing.T) {
			wantProblem(t, c.do(method, reference.Replace(path)+"?unheard=1", row.body), validationError, "unheard")
		})
	}
	if len(c.refs)+len(c.hooks.calls) != 0 {
		t.Errorf("asked for %q, called %q", c.refs, c.hooks.calls)
	}
}

func TestErrorsBecomeProblems(t *testing.T) {
	wrap := func(outer, inner error) error { return fmt.Errorf("submit: %w: %w", outer, inner) }
	for _, tt := range []struct {
		err  error
		want kind
	}{
		{ledger.ErrNotFound, jobNotFound},
		{ledger.ErrFull, queueFull},
		{&gearman.ServerError{Code: "QUEUE_ERROR", Text: "Job queue is full"}, queueFull},
		{&gearman.ServerError{Code: "QUEUE_ERROR", Text: "QUEUE_ERROR at g1:4730"}, gearmanError},
		{fmt.Errorf("on g1:4730: %w", &gearman.ServerError{Code: "ARGUMENT_TOO_LARGE"}), gearmanError},
		{wrap(gearman.ErrOutcomeUnknown, gearman.ErrUnavailable), gearmanTimeout},
		{wrap(gearman.ErrOutcomeUnknown, gearman.ErrClosed), gearmanTimeout},
		{wrap(gearman.ErrOutcomeUnknown, context.DeadlineExceeded), gearmanTimeout},
		{wrap(gearman.ErrNotSent, gearman.ErrClosed), shuttingDown},
		{wrap(gearman.ErrNotSent, gearman.ErrUnavailable), gearmanUnavailable},
		{wrap(gearman.ErrNotSent, gearman.ErrBusy), queueFull},
		{gearman.ErrNotSent, gearmanUnavailable},
		{errors.New("dial g1:4730"), internalError},
	} {
		c := newClient(t, Options{})
		c.returns(ledger.Record{ID: jobID}, tt.err)
		c.job = func(context.Context, string, time.Duration) (ledger.Record, error) { return ledger.Record{}, tt.err }
		wantProblem(t, c.do(http.MethodGet, "/jobs/x", ""), tt.want)
		if tt.want == jobNotFound {
			continue // submitting never says this
		}
		for _, res := range []*httptest.ResponseRecorder{
			c.do(http.MethodPost, "/functions/f", ""),
			c.do(http.MethodPost, "/jobs", `{"function":"f"}`),
		} {
			wantProblem(t, res, tt.want)
			if body := res.Body.String(); strings.Contains(body, "g1:4730") || !strings.Contains(body, `"id":"`+jobID+`"`) {
				t.Errorf("%v: %s", tt.err, body)
			}
		}
		if !strings.Contains(c.log.String(), fmt.Sprintf(`"job":"%s","error":`, jobID)) {
			t.Errorf("log: %s", &c.log)
		}
	}
	c := newClient(t, Options{})
	c.returns(ledger.Record{}, &gearman.NameError{Field: "unique", Reason: "is odd"})
	wantProblem(t, c.do(http.MethodPost, "/functions/f", ""), validationError, "unique")
}

func TestAClientThatLeaves(t *testing.T) {
	c := newClient(t, Options{})
	ctx, leave := context.WithCancel(t.Context())
	c.submit = func(ctx context.Context, _ ledger.Task) (ledger.Record, error) {
		leave()
		<-ctx.Done()
		return ledger.Record{ID: jobID}, ctx.Err()
	}
	res := c.send(ctx, http.MethodPost, "/functions/f", "")
	if res.Body.Len() > 0 {
		t.Errorf("answered %s", res.Body)
	}
	if !strings.Contains(c.log.String(), `"status":499`) {
		t.Errorf("log: %s", &c.log)
	}
}

func TestLists(t *testing.T) {
	c := newClient(t, Options{})
	for path, want := range map[string]string{
		"/functions": `{"items":[{"function":"echo","queued":3,"running":1,"workers":2,"paused":false,"servers":[{"server":"g1:4730","queued":3,"running":1,"workers":2}]}]}`,
		"/workers": `{"items":[{"server":"g1:4730","id":null,"address":"10.0.0.7","functions":["echo"]},` +
			`{"server":"g1:4730","id":"w�","address":"10.0.0.8","functions":[]}]}`,
		"/servers": `{"items":[{"server":"g1:4730","connected":true,"version":"1.1.20+ds","pending":2,"error":null},` +
			`{"server":"g2:4730","connected":false,"version":null,"pending":0,"error":"connection refused"}]}`,
	} {
		if got := c.do(http.MethodGet, path, "").Body.String(); got != want+"\n" {
			t.Errorf("%s: got %s", path, got)
		}
	}
	c.functions = func() ([]gearman.FunctionInfo, error) { return nil, gearman.ErrUnavailable }
	wantProblem(t, c.do(http.MethodGet, "/functions", ""), gearmanUnavailable)
	c.functions = func() ([]gearman.FunctionInfo, error) { return nil, nil }
	if got := c.do(http.MethodGet, "/functions", "").Body.String(); got != `{"items":[]}`+"\n" {
		t.Errorf("none: got %s", got)
	}
}

func TestHealth(t *testing.T) {
	c := newClient(t, Options{})
	for path, want := range map[string]string{
		"/livez": "ok\n", "/readyz": "ok\n", "/readyz?verbose": "[+]serving ok\n[+]gearman ok\nreadyz check passed\n",
	} {
		if got := c.do(http.MethodGet, path, "").Body.String(); got != want {
			t.Errorf("%s: got %q", path, got)
		}
	}
	c.ping = func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("ping without a deadline")
		}
		return gearman.ErrUnavailable
	}
	wantProblem(t, c.do(http.MethodGet, "/readyz", ""), gearmanUnavailable)
	if res := c.do(http.MethodGet, "/readyz?verbose=1", ""); res.Code != 503 || !strings.Contains(res.Body.String(), "[-]gearman failed") {
		t.Errorf("verbose: got %d %s", res.Code, res.Body)
	}
	if got := c.do(http.MethodGet, "/livez", "").Code; got != http.StatusOK {
		t.Errorf("livez: got %d", got)
	}
	if got := c.do(http.MethodGet, "/openapi.yaml", "").Body.String(); !strings.HasPrefix(got, "openapi: 3.1") {
		t.Errorf("openapi: got %.40s", got)
	}
}

// Everybody may ask for readiness, so that the job servers are asked once for all who do at a time.
func TestReadinessIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		a := New(Options{Jobs: f, Servers: f, Webhooks: &f.hooks})
		var pings atomic.Int32
		answer := make(chan struct{})
		f.ping = func(context.Context) error {
			pings.Add(1)
			<-answer
			return nil
		}
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() {
				if res := answerTo(a, http.MethodGet, "/readyz", ""); res.Code != http.StatusOK {
					t.Errorf("%d %s", res.Code, res.Body)
				}
			})
		}
		synctest.Wait()
		close(answer)
		asking.Wait()
		if n := pings.Load(); n != 1 {
			t.Errorf("%d pings for 10 who asked at a time", n)
		}
	})
}
