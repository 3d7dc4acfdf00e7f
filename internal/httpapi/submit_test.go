package httpapi

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

func TestSubmitInTheBackground(t *testing.T) {
	c := newClient(t, Options{})
	res := c.post(http.StatusAccepted, `{"function":"resize","workload":{"id": 7},"priority":"high","unique":"img-7"}`,
		"X-Request-Id", "r-1")

	want := ledger.Task{
		Function: "resize", Workload: []byte(`{"id": 7}`), Unique: "img-7", Mode: ledger.Background, Priority: gearman.High,
		RequestID: "r-1",
	}
	if diff := cmp.Diff(want, c.lastTask()); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
	if got, want := res.Header().Get("Location"), "/jobs/"+jobID; got != want {
		t.Errorf("Location: got %q, want %q", got, want)
	}
	wantBody := `{"id":"` + jobID + `","owner":null,"handle":"H:g1:42","server":"g1:4730","function":"resize","mode":"background","priority":"high",` +
		`"unique":"img-7","state":"queued","gearman":null,"progress":null,"result":null,"result_encoding":null,"error":null,` +
		`"warnings":[],"attempt":null,"on_lost":null,"retry":null,"retry_of":null,"callback":null,"traceparent":null,"submitted_at":"2027-01-01T00:00:00.000Z",` +
		`"run_at":null,"started_at":null,"ended_at":null,"deadline":null,"workers":2,"queue_depth":3,` +
		`"links":{"self":"/jobs/` + jobID + `","result":"/jobs/` + jobID + `/result","events":"/jobs/` + jobID + `/events"}}` + "\n"
	if diff := cmp.Diff(wantBody, res.Body.String()); diff != "" {
		t.Errorf("resource (-want +got):\n%s", diff)
	}
}

func TestSubmitAndWait(t *testing.T) {
	c := newClient(t, Options{})
	res := c.post(http.StatusOK, `{"function":"echo","workload":"hi","mode":"sync"}`)
	if !strings.Contains(res.Body.String(), `"state":"completed","gearman":{"known":false,"running":false,"completed":true}`) ||
		!strings.Contains(res.Body.String(), `"result":"hi","result_encoding":"text"`) {
		t.Errorf("resource: %s", res.Body)
	}
	if got, want := c.lastTask().Wait, 30*time.Second; got != want {
		t.Errorf("wait: got %v, want %v", got, want)
	}

	c.returns(ended(ledger.Failed, ledger.Sync, &event.Error{Kind: "exception", Message: "bad \xff"}), nil)
	res = c.post(http.StatusOK, `{"function":"echo","mode":"sync"}`)
	if !strings.Contains(res.Body.String(), `"state":"failed"`) || !strings.Contains(res.Body.String(), `"error":{"kind":"exception","message":"bad �"}`) {
		t.Errorf("resource: %s", res.Body)
	}

	running := queued(ledger.Task{Function: "echo", Mode: ledger.Sync})
	running.State = ledger.Running
	c.returns(running, nil)
	c.post(http.StatusAccepted, `{"function":"echo","mode":"sync"}`)
}

func TestHowLongSyncWaits(t *testing.T) {
	for _, tt := range []struct {
		timeout, prefer string
		want            time.Duration
		applied         string
	}{
		{"", "", 30 * time.Second, ""},
		{`,"timeout":"90s"`, "", 90 * time.Second, ""},
		{`,"timeout":"0s"`, "wait=7", 0, ""},
		{"", "handling=lenient, wait=7", 7 * time.Second, "wait=7"},
		{"", `foo="a, wait=9"; bar, WAIT="8"`, 8 * time.Second, "wait=8"},
		{"", "wait=7, wait=8", 7 * time.Second, "wait=7"},
		{"", "wait=99999", 5 * time.Minute, "wait=300"},
		{"", "wait=soon", 30 * time.Second, ""},
		{"", "wait=-1", 30 * time.Second, ""},
	} {
		c := newClient(t, Options{})
		var headers []string
		if tt.prefer != "" {
			headers = []string{"Prefer", tt.prefer}
		}
		res := c.post(http.StatusOK, `{"function":"echo","mode":"sync"`+tt.timeout+`}`, headers...)
		if got := c.lastTask().Wait; got != tt.want {
			t.Errorf("%q %q: waits %v, want %v", tt.timeout, tt.prefer, got, tt.want)
		}
		if got := res.Header().Get("Preference-Applied"); got != tt.applied {
			t.Errorf("%q %q: Preference-Applied: got %q, want %q", tt.timeout, tt.prefer, got, tt.applied)
		}
		if got := res.Header().Get("Vary"); got != "Prefer" {
			t.Errorf("Vary: got %q", got)
		}
	}
}

func TestSubmissionsThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       kind
		where      string
	}{
		{"empty", ``, invalidJSON, ""},
		{"white space", " \n", invalidJSON, ""},
		{"not JSON", `function=echo`, invalidJSON, ""},
		{"cut off", `{"function":"echo"`, invalidJSON, ""},
		{"two values", `{"function":"echo"}{}`, invalidJSON, ""},
		{"garbage after", `{"function":"echo"}x`, invalidJSON, ""},
		{"byte order mark", "\ufeff" + `{"function":"echo"}`, invalidJSON, ""},
		{"duplicate member", `{"function":"echo","function":"echo"}`, invalidJSON, "#/function"},
		{"duplicate by escape", `{"function":"echo","\u0066unction":"echo"}`, invalidJSON, "#/function"},
		{"duplicate workload", `{"function":"echo","workload":1,"workload":1}`, invalidJSON, "#/workload"},
		{"duplicate unknown member", `{"x":1,"x":2}`, invalidJSON, "#/x"},
		{"not UTF-8", "{\"function\":\"echo\",\"workload\":\"\xff\"}", invalidJSON, ""},
		{"not UTF-8 in a name", "{\"\xff\":1}", invalidJSON, ""},
		{"lone surrogate", `{"function":"echo","workload":"\ud800"}`, invalidJSON, ""},
		{"array", `[]`, validationError, "#"},
		{"string", `"echo"`, validationError, "#"},
		{"no function", `{}`, validationError, "#/function"},
		{"null function", `{"function":null}`, validationError, "#/function"},
		{"wrong case", `{"Function":"echo"}`, validationError, "#/Function #/function"},
		{"NUL in function", `{"function":"a\u0000b"}`, validationError, "#/function"},
		{"space in function", `{"function":"a b"}`, validationError, "#/function"},
		{"long function", `{"function":"` + strings.Repeat("f", 513) + `"}`, validationError, "#/function"},
		{"NUL in unique", `{"function":"f","unique":"\u0000"}`, validationError, "#/unique"},
		{"unique of 64 bytes", `{"function":"f","unique":"` + strings.Repeat("é", 32) + `"}`, validationError, "#/unique"},
		{"unique -", `{"function":"f","unique":"-"}`, validationError, "#/unique"},
		{"wrong mode", `{"function":"f","mode":"later"}`, validationError, "#/mode"},
		{"empty mode", `{"function":"f","mode":""}`, validationError, "#/mode"},
		{"wrong priority", `{"function":"f","priority":"urgent"}`, validationError, "#/priority"},
		{"wrong timeout", `{"function":"f","timeout":"soon"}`, validationError, "#/timeout"},
		{"timeout without unit", `{"function":"f","timeout":30}`, validationError, "#/timeout"},
		{"negative timeout", `{"function":"f","timeout":"-1s"}`, validationError, "#/timeout"},
		{"timeout over the maximum", `{"function":"f","timeout":"5m1s"}`, validationError, "#/timeout"},
		{"wrong encoding", `{"function":"f","workload":"x","workload_encoding":"hex"}`, validationError, "#/workload_encoding"},
		{"base64 of no string", `{"function":"f","workload":7,"workload_encoding":"base64"}`, validationError, "#/workload"},
		{"text of no string", `{"function":"f","workload":{},"workload_encoding":"text"}`, validationError, "#/workload"},
		{"bad base64", `{"function":"f","workload":"a","workload_encoding":"base64"}`, validationError, "#/workload"},
		{"run_at and delay", `{"function":"f","run_at":"2027-01-01T00:00:00Z","delay":"1s"}`, validationError, "#/delay #/run_at"},
		{"no time", `{"function":"f","run_at":"2027-01-01"}`, validationError, "#/run_at"},
		{"time that only Go reads", `{"function":"f","run_at":"2020-01-01T1:00:00,5Z"}`, validationError, "#/run_at"},
		{"empty run_at", `{"function":"f","run_at":""}`, validationError, "#/run_at"},
		{"far run_at", `{"function":"f","run_at":"2999-01-01T00:00:00Z"}`, validationError, "#/run_at"},
		{"far delay", `{"function":"f","delay":"8785h"}`, validationError, "#/delay"},
		{"negative delay", `{"function":"f","delay":"-1s"}`, validationError, "#/delay"},
		{"delay with sync", `{"function":"f","delay":"1s","mode":"sync"}`, validationError, "#/delay"},
		{"run_at with sync", `{"function":"f","run_at":"2020-01-01T00:00:00Z","mode":"sync"}`, validationError, "#/run_at"},
		{"no deadline", `{"function":"f","deadline":"soon"}`, validationError, "#/deadline"},
		{"deadline that has passed", `{"function":"f","deadline":"2020-01-01T00:00:00Z"}`, validationError, "#/deadline"},
		{"deadline of no length", `{"function":"f","deadline":"0s"}`, validationError, "#/deadline"},
		{"deadline before run_at", `{"function":"f","delay":"2h","deadline":"1h"}`, validationError, "#/deadline"},
		{"on_lost of background", `{"function":"f","on_lost":"fail"}`, validationError, "#/on_lost"},
		{"wrong on_lost", `{"function":"f","mode":"tracked","on_lost":"cry"}`, validationError, "#/on_lost"},
		{"retry of background", `{"function":"f","retry":{"max":1}}`, validationError, "#/retry"},
		{"retry of sync", `{"function":"f","mode":"sync","retry":{"max":1}}`, validationError, "#/retry"},
		{"retry of no object", `{"function":"f","mode":"tracked","retry":3}`, validationError, "#/retry"},
		{"retry without max", `{"function":"f","mode":"tracked","retry":{}}`, validationError, "#/retry/max"},
		{"too many retries", `{"function":"f","mode":"tracked","retry":{"max":101}}`, validationError, "#/retry/max"},
		{"half a retry", `{"function":"f","mode":"tracked","retry":{"max":1.5}}`, validationError, "#/retry/max"},
		{"retries as text", `{"function":"f","mode":"tracked","retry":{"max":"1"}}`, validationError, "#/retry/max"},
		{"short backoff", `{"function":"f","mode":"tracked","retry":{"max":1,"backoff":"1ms"}}`, validationError, "#/retry/backoff"},
		{"long backoff", `{"function":"f","mode":"tracked","retry":{"max":1,"backoff":"61m"}}`, validationError, "#/retry/backoff"},
		{"backoff of no text", `{"function":"f","mode":"tracked","retry":{"max":1,"backoff":1}}`, validationError, "#/retry/backoff"},
		{"unknown member of retry", `{"function":"f","mode":"tracked","retry":{"max":1,"on":[]}}`, validationError, "#/retry/on"},
		{"duplicate member of retry", `{"function":"f","mode":"tracked","retry":{"max":1,"max":1}}`, invalidJSON, "#/retry/max"},
		{"require_worker of no boolean", `{"function":"f","require_worker":"true"}`, validationError, "#/require_worker"},
		{"unknown members", `{"function":"f","x/y~z":1,"é ":{}}`, validationError, "#/%C3%A9%20 #/x~1y~0z"},
		{"all at once", `{"mode":"x","priority":7,"unique":"-","z":1}`, validationError, "#/function #/mode #/priority #/unique #/z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Options{})
			res := c.do(http.MethodPost, "/jobs", tt.body)
			wantProblem(t, res, tt.want, strings.Fields(tt.where)...)
			if len(c.tasks) > 0 {
				t.Error("it was submitted")
			}
		})
	}
}

func TestMistakesAreBounded(t *testing.T) {
	c := newClient(t, Options{})
	var body strings.Builder
	body.WriteString(`{"function":"f"`)
	for i := range 5_000 {
		body.WriteString(`,"` + strings.Repeat("x", i%50+1) + string(rune('a'+i%26)) + strings.Repeat("y", i/50%100) + `":0`)
	}
	if res := c.do(http.MethodPost, "/jobs", body.String()+"}"); res.Code < 400 || res.Body.Len() > 16<<10 {
		t.Errorf("got %d with %d bytes", res.Code, res.Body.Len())
	}
	res := c.do(http.MethodPost, "/jobs", `{"function":"f","`+strings.Repeat("x", 1<<20)+`":0}`)
	if res.Code != http.StatusUnprocessableEntity || res.Body.Len() > 1<<10 {
		t.Errorf("got %d with %d bytes", res.Code, res.Body.Len())
	}
}

func TestContentTypesOfSubmissions(t *testing.T) {
	for contentType, want := range map[string]int{
		"":                                  http.StatusAccepted,
		"application/json":                  http.StatusAccepted,
		"Application/JSON; charset=utf-8":   http.StatusAccepted,
		"application/vnd.example+json":      http.StatusAccepted,
		"application/x-www-form-urlencoded": http.StatusAccepted,
		"text/plain;charset=UTF-8":          http.StatusAccepted,
		"multipart/form-data; boundary=x":   http.StatusUnsupportedMediaType,
		"application/xml":                   http.StatusUnsupportedMediaType,
		"application/octet-stream":          http.StatusUnsupportedMediaType,
		"text/html":                         http.StatusUnsupportedMediaType,
	} {
		c := newClient(t, Options{})
		c.post(want, `{"function":"f"}`, "Content-Type", contentType)
	}
	for coding, want := range map[string]int{"identity": http.StatusAccepted, "gzip": http.StatusUnsupportedMediaType} {
		c := newClient(t, Options{})
		c.post(want, `{"function":"f"}`, "Content-Encoding", coding)
	}
}

func TestAccept(t *testing.T) {
	for accept, want := range map[string]int{
		"":                                  http.StatusAccepted,
		"*/*":                               http.StatusAccepted,
		"text/html, */*;q=0.1":              http.StatusAccepted,
		"application/*":                     http.StatusAccepted,
		"application/problem+json":          http.StatusAccepted,
		"text/html, Application/JSON; q=.5": http.StatusAccepted,
		"text/html":                         http.StatusNotAcceptable,
		"application/json;q=0, text/plain":  http.StatusNotAcceptable,
		"application/json; v=1; Q=0.000":    http.StatusNotAcceptable,
	} {
		c := newClient(t, Options{})
		c.post(want, `{"function":"f"}`, "Accept", accept)
		if want == http.StatusNotAcceptable && len(c.tasks) > 0 {
			t.Errorf("Accept: %s: submitted", accept)
		}
	}
}

func TestLimits(t *testing.T) {
	c := newClient(t, Options{MaxWorkload: 300_000})
	over := strings.Repeat("x", 300_001)
	wantProblem(t, c.do(http.MethodPost, "/functions/f", over), payloadTooLarge)
	if res := c.do(http.MethodPost, "/functions/f", over[1:]); res.Code != http.StatusOK {
		t.Errorf("a workload of the limit: got %d", res.Code)
	}
	wantProblem(t, c.do(http.MethodPost, "/jobs", `{"function":"f","workload":"`+over+`"}`), payloadTooLarge)
	c.post(http.StatusAccepted, `{"function":"f","workload":"`+over[1:]+`"}`)
	wantProblem(t, c.do(http.MethodPost, "/jobs", strings.Repeat(" ", 400_000+64<<10+1)), payloadTooLarge)
}

func TestBodiesInFlightAreBounded(t *testing.T) {
	c := newClient(t, Options{MaxInflightBytes: 1000})
	inside, leave := make(chan struct{}), make(chan struct{})
	c.submit = func(_ context.Context, task ledger.Task) (ledger.Record, error) {
		close(inside)
		<-leave
		return queued(task), nil
	}
	first := make(chan int, 1)
	go func() {
		first <- c.do(http.MethodPost, "/functions/f?mode=background", strings.Repeat("x", 600)).Code
	}()
	select {
	case <-inside:
	case got := <-first:
		t.Fatalf("first: got %d", got)
	}
	wantProblem(t, c.do(http.MethodPost, "/functions/f", strings.Repeat("x", 600)), queueFull)
	close(leave)
	if got := <-first; got != http.StatusAccepted {
		t.Errorf("first: got %d", got)
	}
	c.submit = nil
	if got := c.do(http.MethodPost, "/functions/f", strings.Repeat("x", 600)).Code; got != http.StatusOK {
		t.Errorf("after the first: got %d", got)
	}
	if got := c.api.inflight.used.Load(); got != 0 {
		t.Errorf("%d bytes were not given back", got)
	}
}

// slow is a client that reads when it is told to.
type slow struct {
	*httptest.ResponseRecorder
	inside, leave chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	s.inside <- struct{}{}
	<-s.leave
	return s.ResponseRecorder.Write(p)
}

func TestBytesOfAnswersAreBounded(t *testing.T) {
	c := newClient(t, Options{MaxAnswerBytes: 5000})
	c.has(completed(ledger.Task{Function: "f"}, bytes.Repeat([]byte("x"), 6000))) // one alone may have more
	reader := &slow{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
	read := make(chan struct{})
	go func() {
		c.api.ServeHTTP(reader, httptest.NewRequest(http.MethodGet, "/jobs/x/result", nil))
		close(read)
	}()
	<-reader.inside
	for _, path := range []string{"/jobs/x", "/jobs/x/result"} {
		wantProblem(t, c.do(http.MethodGet, path, ""), queueFull)
	}
	for _, path := range []string{"/jobs/x/result?wiat", "/livez", "/openapi.yaml"} {
		if got := c.do(http.MethodGet, path, "").Code; got == http.StatusServiceUnavailable {
			t.Errorf("%s: got %d", path, got)
		}
	}
	close(reader.leave)
	<-read
	if got := c.do(http.MethodGet, "/jobs/x/result", ""); reader.Code != http.StatusOK || got.Code != http.StatusOK {
		t.Errorf("the slow one got %d, the next %d", reader.Code, got.Code)
	}
	if got := c.api.answers.used.Load(); got != 0 {
		t.Errorf("%d bytes were not given back", got)
	}
}

func TestWaitersAreBounded(t *testing.T) {
	c := newClient(t, Options{MaxWaiting: 1})
	inside, leave := make(chan struct{}), make(chan struct{})
	c.job = func(context.Context, string, time.Duration) (ledger.Record, error) {
		close(inside)
		<-leave
		return queued(ledger.Task{Function: "f", Mode: ledger.Sync}), nil
	}
	first := make(chan int, 1)
	go func() { first <- c.do(http.MethodGet, "/jobs/"+jobID+"?wait=1m", "").Code }()
	select {
	case <-inside:
	case got := <-first:
		t.Fatalf("first: got %d", got)
	}
	wantProblem(t, c.do(http.MethodGet, "/jobs/"+jobID, "", "Prefer", "wait=1"), queueFull)
	wantProblem(t, c.do(http.MethodPost, "/functions/f", ""), queueFull)
	c.post(http.StatusAccepted, `{"function":"f"}`) // waits for nothing
	close(leave)
	if got := <-first; got != http.StatusOK {
		t.Errorf("first: got %d", got)
	}
	if got := c.do(http.MethodPost, "/functions/f", "").Code; got != http.StatusOK {
		t.Errorf("after the first: got %d", got)
	}
}
