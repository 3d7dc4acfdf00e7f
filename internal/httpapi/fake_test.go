package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

const jobID = "0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a90"

// fake is Jobs, Servers and Pool, and has its Webhooks. Each function may be replaced before the first request.
type fake struct {
	submit    func(context.Context, ledger.Task) (ledger.Record, error)
	job       func(ctx context.Context, ref string, wait time.Duration) (ledger.Record, error)
	list      func(ledger.Query) ([]ledger.Record, string, error)
	cancel    func(ref string) (ledger.Record, error)
	runAgain  func(ref string) (ledger.Record, error)
	follow    func(ctx context.Context, ref string, after uint64, send func(ledger.Entry) error) error
	functions func() ([]gearman.FunctionInfo, error)
	load      func(function string) (workers, queued int, ok bool)
	ping      func(context.Context) error
	answers   []gearman.Answer // to SetMaxQueue
	hooks     fakeHooks

	mu    sync.Mutex
	tasks []ledger.Task // as submitted
	refs  []string      // as asked for, cancelled and so on
	waits []time.Duration

	paused bool               // the function "echo", which is the only one of the pool's
	asked  []string           // of the pool
	bounds []gearman.MaxQueue // as set, each of the function asked
}

func (f *fake) Submit(ctx context.Context, t *ledger.Task) (*ledger.Record, error) {
	f.mu.Lock()
	f.tasks = append(f.tasks, *t)
	f.mu.Unlock()
	if f.submit != nil {
		rec, err := f.submit(ctx, *t)
		return &rec, err
	}
	if t.Mode == ledger.Sync {
		return new(completed(*t, t.Workload)), nil
	}
	return new(queued(*t)), nil
}

func (f *fake) Job(ctx context.Context, _ ledger.Caller, ref string, wait time.Duration) (*ledger.Record, error) {
	f.mu.Lock()
	f.refs, f.waits = append(f.refs, ref), append(f.waits, wait)
	f.mu.Unlock()
	if f.job != nil {
		rec, err := f.job(ctx, ref, wait)
		return &rec, err
	}
	return nil, ledger.ErrNotFound
}

func (f *fake) List(_ context.Context, q ledger.Query) ([]ledger.Record, string, error) {
	if f.list != nil {
		return f.list(q)
	}
	return nil, "", nil
}

func (f *fake) Cancel(_ context.Context, _ ledger.Caller, ref string) (*ledger.Record, error) {
	return f.change(f.cancel, ref)
}

func (f *fake) RunAgain(_ context.Context, _ ledger.Caller, ref string) (*ledger.Record, error) {
	return f.change(f.runAgain, ref)
}

func (f *fake) change(by func(string) (ledger.Record, error), ref string) (*ledger.Record, error) {
	f.mu.Lock()
	f.refs = append(f.refs, ref)
	f.mu.Unlock()
	if by != nil {
		rec, err := by(ref)
		return &rec, err
	}
	return nil, ledger.ErrNotFound
}

func (f *fake) Follow(ctx context.Context, _ ledger.Caller, ref string, after uint64, send func(ledger.Entry) error) error {
	if f.follow != nil {
		return f.follow(ctx, ref, after, send)
	}
	return ledger.ErrNotFound
}

func (f *fake) Load(function string) (workers, queued int, ok bool) {
	if f.load != nil {
		return f.load(function)
	}
	return 2, 3, true
}

func (f *fake) Functions(context.Context) ([]gearman.FunctionInfo, error) {
	if f.functions != nil {
		return f.functions()
	}
	return []gearman.FunctionInfo{{
		Function: "echo", Queued: 3, Running: 1, Workers: 2,
		Servers: []gearman.FunctionInfo{{Function: "echo", Queued: 3, Running: 1, Workers: 2, Server: "g1:4730"}},
	}}, nil
}

func (f *fake) Workers(context.Context) ([]gearman.WorkerInfo, error) {
	return []gearman.WorkerInfo{
		{Server: "g1:4730", Address: "10.0.0.7", Functions: []string{"echo"}},
		{Server: "g1:4730", ID: "w\xff", Address: "10.0.0.8"},
	}, nil
}

func (f *fake) Servers(context.Context) []gearman.ServerInfo {
	return []gearman.ServerInfo{
		{Server: "g1:4730", Connected: true, Version: "1.1.20+ds", Pending: 2},
		{Server: "g2:4730", Error: "connection refused"},
	}
}

func (f *fake) Ping(ctx context.Context) error {
	if f.ping != nil {
		return f.ping(ctx)
	}
	return nil
}

func (f *fake) Pause(function string) bool  { return f.pause(function, true) }
func (f *fake) Resume(function string) bool { return f.pause(function, false) }

func (f *fake) pause(function string, on bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, function)
	if function == "echo" {
		f.paused = on
	}
	return function == "echo"
}

func (f *fake) Paused(function string) (paused, own bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paused && function == "echo", function == "echo"
}

func (f *fake) SetMaxQueue(_ context.Context, function string, m gearman.MaxQueue) []gearman.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.bounds = append(f.asked, function), append(f.bounds, m)
	return f.answers
}

var submitted = time.Date(2027, 1, 1, 1, 0, 0, 0, time.FixedZone("CET", 3600))

func queued(t ledger.Task) ledger.Record {
	return ledger.Record{
		ID: jobID, Handle: "H:g1:42", Server: "g1:4730", Function: t.Function, Unique: t.Unique, Mode: t.Mode, Priority: t.Priority,
		State: ledger.Queued, SubmittedAt: submitted,
	}
}

func completed(t ledger.Task, result []byte) ledger.Record {
	rec := queued(t)
	rec.State, rec.Result, rec.Kept, rec.EndedAt = ledger.Completed, result, true, submitted.Add(time.Second)
	return rec
}

func ended(state ledger.State, mode ledger.Mode, err *event.Error) ledger.Record {
	rec := queued(ledger.Task{Function: "echo", Mode: mode})
	rec.State, rec.Error, rec.EndedAt = state, err, submitted.Add(time.Second)
	return rec
}

// returns makes a Submit of f that returns always the same.
func (f *fake) returns(rec ledger.Record, err error) {
	f.submit = func(context.Context, ledger.Task) (ledger.Record, error) { return rec, err }
}

// has makes a Job of f that knows one job.
func (f *fake) has(rec ledger.Record) {
	f.job = func(context.Context, string, time.Duration) (ledger.Record, error) { return rec, nil }
}

// A client calls an API in memory and holds each exchange against the contract.
type client struct {
	t *testing.T
	*fake
	api *API
	log bytes.Buffer
}

func newClient(t *testing.T, o Options) *client {
	c := &client{t: t, fake: &fake{}}
	o.Jobs, o.Servers, o.Pool, o.Webhooks, o.Log = c.fake, c.fake, c.fake, &c.hooks, zerolog.New(&c.log)
	c.api = New(o)
	return c
}

// do sends a request; headers are name and value in turn.
func (c *client) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	return c.send(c.t.Context(), method, target, body, headers...)
}

func (c *client) send(ctx context.Context, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	req := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res := httptest.NewRecorder()
	func() {
		defer func() { // net/http takes this panic for the end of the connection
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				panic(v)
			}
		}()
		c.api.ServeHTTP(res, req)
	}()
	if ctx.Err() == nil {
		checkContract(c.t, c.api, req, []byte(body), res)
	}
	return res
}

// post submits body and wants status.
func (c *client) post(status int, body string, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	res := c.do(http.MethodPost, "/jobs", body, headers...)
	if res.Code != status {
		c.t.Fatalf("POST /jobs %.200s: got %d, want %d: %s", body, res.Code, status, res.Body)
	}
	return res
}

func (c *client) lastTask() ledger.Task {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tasks) == 0 {
		c.t.Fatal("nothing was submitted")
	}
	return c.tasks[len(c.tasks)-1]
}

// wantProblem checks the kind of a problem, and where its mistakes are.
func wantProblem(t *testing.T, res *httptest.ResponseRecorder, k kind, where ...string) {
	t.Helper()
	if res.Code != k.status {
		t.Fatalf("got %d, want %d %s: %s", res.Code, k.status, k.name, res.Body)
	}
	var p struct {
		Type   string
		Errors []struct{ Pointer, Parameter string }
	}
	decode(t, res, &p)
	if p.Type != problemType+k.name {
		t.Errorf("type: got %s, want %s", p.Type, k.name)
	}
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Pointer+e.Parameter)
	}
	if strings.Join(got, " ") != strings.Join(where, " ") {
		t.Errorf("mistakes: got %q, want %q: %s", got, where, res.Body)
	}
}

func decode(t *testing.T, res *httptest.ResponseRecorder, v any) {
	t.Helper()
	if err := json.Unmarshal(res.Body.Bytes(), v); err != nil {
		t.Fatalf("%v: %s", err, res.Body)
	}
}
