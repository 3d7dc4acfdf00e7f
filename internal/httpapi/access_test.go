package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"gearman-gateway/internal/auth"
	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/jobserver"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// An accessRow says of one route who may call it and what for.
type accessRow struct {
	needs  auth.Scope
	path   string // {job}, {event} and {delivery} stand for alice's; "": the pattern of the route
	body   string
	ok     int  // the answer to who may
	lists  bool // the answer has what is the caller's own and no other's
	public bool // also without credentials
}

// accessRows has a row for each route: a new route without one fails TestAccess.
var accessRows = map[string]accessRow{
	"POST /jobs":                         {needs: auth.Submit, body: `{"function":"f"}`, ok: 202},
	"GET /jobs":                          {needs: auth.Read, ok: 200, lists: true},
	"POST /jobs/batch":                   {needs: auth.Submit, body: `[{"function":"f"}]`, ok: 200},
	"GET /jobs/{handle}":                 {needs: auth.Read, path: "/jobs/{job}", ok: 200},
	"DELETE /jobs/{handle}":              {needs: auth.Cancel, path: "/jobs/{job}", ok: 200},
	"GET /jobs/{handle}/result":          {needs: auth.Read, path: "/jobs/{job}/result", ok: 202},
	"GET /jobs/{handle}/events":          {needs: auth.Read, path: "/jobs/{job}/events", ok: 200},
	"POST /jobs/{handle}/retry":          {needs: auth.Submit, path: "/jobs/{job}/retry", ok: 409}, // it has not ended
	"POST /functions/{function}":         {needs: auth.Submit, path: "/functions/f?mode=background", ok: 202},
	"POST /functions/{function}/pause":   {needs: auth.Admin, path: "/functions/echo/pause", ok: 200},
	"POST /functions/{function}/resume":  {needs: auth.Admin, path: "/functions/echo/resume", ok: 200},
	"PUT /functions/{function}/maxqueue": {needs: auth.Admin, path: "/functions/echo/maxqueue", body: `{"max":0}`, ok: 200},
	"GET /functions":                     {needs: auth.Read, ok: 200},
	"GET /workers":                       {needs: auth.Admin, ok: 200},
	"GET /servers":                       {needs: auth.Admin, ok: 200},
	"GET /events":                        {needs: auth.Read, ok: 200, lists: true},
	"GET /sinks":                         {needs: auth.Admin, ok: 200},
	"GET /sinks/{name}":                  {needs: auth.Admin, path: "/sinks/audit", ok: 200},
	"POST /sinks/{name}/test":            {needs: auth.Admin, path: "/sinks/audit/test", ok: 200},
	"POST /sinks/{name}/pause":           {needs: auth.Admin, path: "/sinks/audit/pause", ok: 200},
	"POST /sinks/{name}/resume":          {needs: auth.Admin, path: "/sinks/audit/resume", ok: 200},
	"POST /sinks/{name}/replay":          {needs: auth.Admin, path: "/sinks/audit/replay", ok: 200},
	"GET /deliveries":                    {needs: auth.Read, ok: 200, lists: true},
	"GET /deliveries/{id}":               {needs: auth.Read, path: "/deliveries/{delivery}", ok: 200},
	"POST /deliveries/{id}/redeliver":    {needs: auth.Submit, path: "/deliveries/{delivery}/redeliver", ok: 202},
	"GET /metrics":                       {needs: auth.Admin, ok: 200},
	"GET /debug/pprof/*":                 {needs: auth.Admin, path: "/debug/pprof/goroutine?debug=1", ok: 200},
	"GET /livez":                         {ok: 200, public: true},
	"GET /readyz":                        {ok: 200, public: true},
	"GET /openapi.yaml":                  {ok: 200, public: true},
}

// TestAccess goes through every route as everybody, with every kind of reference to a job.
func TestAccess(t *testing.T) {
	s := newSite(t)
	err := chi.Walk(s.api.router, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		name := method + " " + pattern
		row, known := accessRows[strings.Replace(name, "HEAD ", "GET ", 1)]
		if !known {
			t.Errorf("%s has no row", name)
			return nil
		}
		if row.path == "" {
			row.path = pattern
		}
		t.Run(name, func(t *testing.T) { s.check(t, method, row) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who calls: each by a token that says it.
const (
	alice = "alice submit read cancel" // whose jobs they are
	bob   = "bob submit read cancel"
	root  = "root admin"
)

func (s *site) check(t *testing.T, method string, row accessRow) {
	for _, ref := range s.references(row.path) {
		for _, token := range []string{"", "wrong", "expired"} {
			if row.public {
				s.want(t, method, row, s.fill(ref), token, row.ok)
				continue
			}
			res := s.want(t, method, row, s.fill(ref), token, http.StatusUnauthorized)
			if res.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s as %q: 401 without a challenge", ref, token)
			}
		}
		for _, scope := range []auth.Scope{auth.Submit, auth.Read, auth.Cancel, auth.Admin} {
			status := http.StatusForbidden
			if row.public || scope.Has(row.needs) {
				status = row.ok
			}
			s.want(t, method, row, s.fill(ref), "alice "+scope.String(), status)
		}
		s.checkOthers(t, method, row, ref)
	}
}

// checkOthers compares what another identity is answered with what there is to say of things that do not exist.
func (s *site) checkOthers(t *testing.T, method string, row accessRow, ref string) {
	switch {
	case row.public, row.needs == auth.Admin:
		return
	case row.lists && method != http.MethodHead:
		own, others := s.want(t, method, row, ref, alice, row.ok), s.want(t, method, row, ref, bob, row.ok)
		if !strings.Contains(own.Body.String(), s.alices.job) || strings.Contains(others.Body.String(), s.alices.job) {
			t.Errorf("alice reads %s\nbob reads %s", own.Body, others.Body)
		}
		if all := s.want(t, method, row, ref, root, row.ok); !strings.Contains(all.Body.String(), s.alices.job) {
			t.Errorf("admin reads %s", all.Body)
		}
	case strings.Contains(ref, "{"):
		others := s.want(t, method, row, s.fill(ref), bob, http.StatusNotFound)
		nothing := s.want(t, method, row, unknown.Replace(ref), bob, http.StatusNotFound)
		if others.Body.String() != nothing.Body.String() {
			t.Errorf("bob is told %s of what is alice's, and %s of nothing", others.Body, nothing.Body)
		}
		s.want(t, method, row, s.fill(ref), root, row.ok)
	}
}

// unknown names what does not exist.
var unknown = strings.NewReplacer(
	"{job}", "0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a90", "{handle}", "H:nowhere:1", "{background}", "H:nowhere:1",
	"{delivery}", "evt_0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a90:callbacks")

// references returns a path with every kind of reference to a job in place of {job}.
func (s *site) references(path string) []string {
	if !strings.Contains(path, "{job}") {
		return []string{path}
	}
	return []string{path, strings.Replace(path, "{job}", "{handle}", 1), strings.Replace(path, "{job}", "{background}", 1)}
}

// fill makes new things of alice's for a path to name: the request may change them.
func (s *site) fill(path string) string {
	name, mode := "", "tracked"
	switch {
	case strings.Contains(path, "{delivery}"):
		return strings.Replace(path, "{delivery}", s.delivery(), 1)
	case !strings.Contains(path, "{"):
		return path
	case strings.Contains(path, "{background}"):
		mode = "background"
	}
	job := s.submit(alice, `{"function":"f","mode":"`+mode+`"}`)
	if name = job.handle; strings.Contains(path, "{job}") {
		name = job.job
	}
	if strings.HasSuffix(path, "/events") { // a stream ends with its job
		s.do(http.MethodDelete, "/jobs/"+job.job, "", "Authorization", "Bearer "+alice)
	}
	return strings.NewReplacer("{job}", name, "{handle}", name, "{background}", name).Replace(path)
}

func (s *site) want(t *testing.T, method string, row accessRow, path, token string, status int) *httptest.ResponseRecorder {
	t.Helper()
	headers := []string{}
	if token != "" {
		headers = append(headers, "Authorization", "Bearer "+token)
	}
	res := s.do(method, path, row.body, headers...)
	if res.Code != status {
		t.Errorf("%s %s as %q: got %d, want %d: %s", method, path, token, res.Code, status, res.Body)
	}
	return res
}

// A site is an API over a real ledger, job server and sender of webhooks.
type site struct {
	*client
	alices owned
}

// owned is something of one identity.
type owned struct{ job, handle string }

// identify reads a token as "name scope scope…".
func identify(r *http.Request) (*auth.Identity, error) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch token {
	case "":
		return nil, auth.ErrNoCredentials
	case "wrong":
		return nil, fmt.Errorf("%w: nobody has this key", auth.ErrRefused)
	case "expired":
		return nil, auth.ErrExpired
	}
	who := &auth.Identity{}
	for i, word := range strings.Fields(token) {
		if i == 0 {
			who.Name = word
			continue
		}
		scope, err := auth.ParseScope(word)
		if err != nil {
			return nil, errors.Join(auth.ErrRefused, err)
		}
		who.Scopes |= scope
	}
	return who, nil
}

func newSite(t *testing.T) *site {
	engine := jobserver.New(jobserver.Options{Listen: "127.0.0.1:0"})
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Stop)
	cluster, err := gearman.NewCluster([]gearman.Options{{Addr: engine.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		cluster.Close(ctx)
	})
	if err := cluster.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(receiver.Close)

	outbox := webhook.NewMemory(webhook.MemoryOptions{})
	hooks, err := webhook.New(t.Context(), webhook.Options{
		Outbox: outbox, Sinks: []webhook.SinkOptions{{Name: "audit", URL: receiver.URL, Events: event.Patterns{"*"}}},
		Callbacks: &webhook.CallbackOptions{Hosts: []string{"127.0.0.1:*"}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	records := ledger.New(ledger.Options{Servers: cluster, Events: outbox})
	if err := records.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		records.Stop()
		hooks.Stop(context.Background())
	})
	s := &site{client: &client{t: t, api: New(Options{Jobs: records, Servers: cluster, Pool: &fake{}, Webhooks: hooks, Identify: identify, Metrics: numbers})}}
	s.alices = s.submit(alice, `{"function":"f","mode":"tracked","callback":{"url":"`+receiver.URL+`","events":["job.submitted"]}}`)
	return s
}

// submit submits a job and returns it when a job server has it.
func (s *site) submit(token, body string) owned {
	s.t.Helper()
	var job struct{ ID, Handle string }
	res := s.do(http.MethodPost, "/jobs", body, "Authorization", "Bearer "+token)
	for decode(s.t, res, &job); job.Handle == ""; decode(s.t, res, &job) {
		if res.Code >= 300 || s.t.Context().Err() != nil {
			s.t.Fatalf("%d %s", res.Code, res.Body)
		}
		res = s.do(http.MethodGet, "/jobs/"+job.ID, "", "Authorization", "Bearer "+root)
	}
	return owned{job.ID, job.Handle}
}

// delivery returns the id of a delivery to a callback of alice's that has ended.
func (s *site) delivery() string {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		var page struct{ Items []struct{ ID, State string } }
		decode(s.t, s.do(http.MethodGet, "/deliveries?sink=callbacks&state=delivered", "", "Authorization", "Bearer "+root), &page)
		if len(page.Items) > 0 {
			return page.Items[0].ID
		}
	}
	s.t.Fatal("the callback was not delivered")
	return ""
}

// What a caller makes up itself means another thing for each of them.
func TestNamesOfCallersAreTheirOwn(t *testing.T) {
	s := newSite(t)
	as := func(token, body string, headers ...string) *httptest.ResponseRecorder {
		return s.do(http.MethodPost, "/jobs", body, append(headers, "Authorization", "Bearer "+token)...)
	}
	for _, body := range []string{
		`{"function":"f","unique":"same"}`, `{"function":"f","unique":"same","mode":"tracked"}`,
	} {
		a, again, b := s.submit(alice, body), s.submit(alice, body), s.submit(bob, body)
		if a.handle != again.handle || a.handle == b.handle {
			t.Errorf("%s: alice has %v and %v, bob has %v", body, a, again, b)
		}
	}
	for i, token := range []string{alice, bob} { // with different submissions under one key, which would be 422 for one caller
		body := fmt.Sprintf(`{"function":"f","workload":%d}`, i)
		if res := as(token, body, "Idempotency-Key", "same"); res.Code != http.StatusAccepted {
			t.Errorf("an idempotency key as %s: %d %s", token, res.Code, res.Body)
		}
		if res := as(token, body, "Idempotency-Key", "same"); res.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("an idempotency key as %s for the second time: %d %s", token, res.Code, res.Body)
		}
	}
	if res := s.do(http.MethodGet, "/events?after="+s.firstEvent(), "", "Authorization", "Bearer "+bob); res.Code != http.StatusGone {
		t.Errorf("after an event of alice's bob gets %d %s", res.Code, res.Body)
	}
}

func (s *site) firstEvent() string {
	var page struct{ Items []struct{ ID string } }
	decode(s.t, s.do(http.MethodGet, "/events?job="+s.alices.job, "", "Authorization", "Bearer "+alice), &page)
	return page.Items[0].ID
}

// A stranger's job, which only the job server knows, is for admin alone.
func TestAStrangersJobIsForAdmin(t *testing.T) {
	s := newSite(t)
	servers := s.api.o.Servers.(*gearman.Cluster)
	j, err := servers.Submit(t.Context(), gearman.Task{Function: "f", Background: true}, func(gearman.Update) {})
	if err != nil {
		t.Fatal(err)
	}
	for token, status := range map[string]int{alice: 404, root: 200} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			if res := s.do(method, "/jobs/"+j.Handle, "", "Authorization", "Bearer "+token); res.Code != status {
				t.Errorf("%s as %s: %d %s", method, token, res.Code, res.Body)
			}
		}
	}
}

func TestFunctionsAndPrioritiesOfAnIdentity(t *testing.T) {
	s := newSite(t)
	s.api.o.Identify = func(*http.Request) (*auth.Identity, error) {
		return &auth.Identity{Name: "alice", Scopes: auth.Submit | auth.Read, Functions: []string{"img.*"}, Priorities: []string{"low"}}, nil
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/jobs", `{"function":"img.resize","priority":"low"}`, 202},
		{"POST", "/jobs", `{"function":"img.resize"}`, 403},
		{"POST", "/jobs", `{"function":"pay","priority":"low"}`, 403},
		{"POST", "/jobs", `{"function":"pay\u0000img.x","priority":"low"}`, 422}, // the name is checked first
		{"POST", "/functions/img.resize?mode=background&priority=low", "", 202},
		{"POST", "/functions/img.resize?mode=background", "", 403},
		{"POST", "/functions/pay?mode=background&priority=low", "", 403},
		{"POST", "/functions/%69mg.x?mode=background&priority=low", "", 202}, // decoded once
		{"POST", "/functions/%2569mg.x?mode=background&priority=low", "", 403},
		{"POST", "/jobs/" + s.alices.job + "/retry", "", 403}, // it is of function f
	} {
		if res := s.do(c.method, c.path, c.body); res.Code != c.status {
			t.Errorf("%s %s %s: got %d, want %d: %s", c.method, c.path, c.body, res.Code, c.status, res.Body)
		}
	}
	res := s.do("POST", "/jobs/batch", `[{"function":"pay","priority":"low"},{"function":"img.a","priority":"low"}]`)
	var outcomes []outcome
	decode(t, res, &outcomes)
	if len(outcomes) != 2 || outcomes[0].Status != 403 || outcomes[1].Status != 202 {
		t.Errorf("batch: %s", res.Body)
	}
	var list struct{ Items []struct{ Function string } }
	decode(t, s.do("GET", "/functions", ""), &list)
	for _, item := range list.Items {
		if !strings.HasPrefix(item.Function, "img.") {
			t.Errorf("the list of functions shows %q", item.Function)
		}
	}
	if len(list.Items) == 0 {
		t.Error("the list of functions is empty")
	}
}

// The contract says which scope an operation needs.
func TestContractNamesTheScopes(t *testing.T) {
	for path, item := range contract.Paths.Map() {
		for method, op := range item.Operations() {
			want := accessRows[method+" "+path].needs.String()
			if got, _ := op.Extensions["x-scope"].(string); got != want {
				t.Errorf("%s %s: the contract says %q, the router %q", method, path, got, want)
			}
			codes := op.Responses.Map()
			if (codes["401"] != nil && codes["403"] != nil) != (want != "") && !slices.Contains([]string{"/livez", "/readyz", "/openapi.yaml"}, path) {
				t.Errorf("%s %s: the contract has no 401 or 403", method, path)
			}
			for _, code := range []string{"429", "500", "503"} { // concurrency of the identity, panics, overload
				if want != "" && codes[code] == nil {
					t.Errorf("%s %s: the contract has no %s", method, path, code)
				}
			}
		}
	}
}
