package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	gateway "gearman-gateway"
	"gearman-gateway/internal/auth"
)

// tenants sets up two of them, and one who runs the gateway, with a disk and callbacks to this machine.
func tenants(t *testing.T, keys map[string]string) func(*gateway.Config) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keys.yaml")
	for _, name := range []string{"alice", "bob"} {
		keys[name] = newKey(t, file, name, auth.Submit, auth.Read, auth.Cancel)
	}
	keys["root"] = newKey(t, file, "root", auth.Admin)
	return func(c *gateway.Config) {
		c.Data, c.Auth.KeysFile, c.DrainDelay = filepath.Join(dir, "data"), file, gateway.Duration(time.Millisecond)
		c.Callbacks = gateway.Callbacks{Hosts: []string{"127.0.0.1:*"}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	}
}

// told is all that a caller is told, but for what is different each time.
func told(t *testing.T, method, url, authorization, body string, headers ...string) string {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", authorization)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	a := read(t, resp, err)
	a.header.Del("Date")
	a.header.Del("X-Request-Id")
	var text strings.Builder
	fmt.Fprintln(&text, a.status)
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		fmt.Fprintln(&text, name, a.header[name])
	}
	return text.String() + a.body
}

// What is another's is answered as what is not there, to the last header, by whatever it is asked for: in memory, from the disk, and taken up
// after a restart.
func TestWhatIsAnothersIsNotThere(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	keys := map[string]string{}
	set := tenants(t, keys)
	url, stop := startStoppable(t, set)
	as := func(who, method, path, body string) answer { return call(t, method, url+path, keys[who], body) }

	ended := as("alice", "POST", "/jobs",
		`{"function":"reverse","workload":"x","mode":"tracked","callback":{"url":"`+receiver.URL+`"}}`).field(t, "id").(string)
	handle := as("alice", "GET", "/jobs/"+ended+"?wait=10s", "").field(t, "handle").(string)
	queued := as("alice", "POST", "/jobs", `{"function":"nobody","mode":"background"}`)
	later := as("alice", "POST", "/jobs", `{"function":"nobody","mode":"tracked","delay":"1h"}`).field(t, "id").(string)
	cancelled := as("alice", "POST", "/jobs", `{"function":"nobody","mode":"tracked","delay":"1h"}`).field(t, "id").(string)
	if a := as("alice", "DELETE", "/jobs/"+cancelled, ""); a.status != 200 {
		t.Fatal(a.body)
	}
	var delivery string
	poll(t, "the delivery", func() bool {
		found := regexp.MustCompile(`"id":"(evt_[^":]+:callbacks)"`).FindStringSubmatch(as("alice", "GET", "/deliveries?state=delivered", "").body)
		if found != nil {
			delivery = found[1]
		}
		return found != nil
	})
	event, _, _ := strings.Cut(delivery, ":")

	const noID, noHandle = "0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a90", "H:nowhere:99"
	nothing := map[string]string{
		ended: noID, later: noID, cancelled: noID, queued.field(t, "id").(string): noID,
		handle: noHandle, queued.field(t, "handle").(string): noHandle,
		strings.ReplaceAll(ended, "-", "%2D"): strings.ReplaceAll(noID, "-", "%2D"), strings.ReplaceAll(handle, ":", "%3A"): strings.ReplaceAll(noHandle, ":", "%3A"),
	}
	check := func(t *testing.T) {
		for ref, none := range nothing {
			for _, what := range []string{
				"GET /jobs/%s", "HEAD /jobs/%s", "GET /jobs/%s?wait=20s", "DELETE /jobs/%s", "GET /jobs/%s/result", "GET /jobs/%s/events",
				"HEAD /jobs/%s/events", "POST /jobs/%s/retry", "GET /jobs/%s/events?last_event_id=1", "OPTIONS /jobs/%s", "PUT /jobs/%s",
				"GET /events?job=%s&after=0", "GET /jobs/%s?wait=1s&wait=1s",
			} {
				method, path, _ := strings.Cut(what, " ")
				began := time.Now()
				theirs := told(t, method, url+fmt.Sprintf(path, ref), keys["bob"], "", "Last-Event-Id", "1", "X-Http-Method-Override", "DELETE")
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("%s %s is waited for: %v", method, path, took)
				}
				of := told(t, method, url+fmt.Sprintf(path, none), keys["bob"], "", "Last-Event-Id", "1")
				if diff := cmp.Diff(of, theirs); diff != "" || strings.HasPrefix(theirs, "500") {
					t.Errorf("%s of %s (-nothing +another's):\n%s", what, ref, diff)
				}
			}
		}
		for _, what := range []string{"GET /deliveries/%s", "HEAD /deliveries/%s", "POST /deliveries/%s/redeliver", "GET /events?after=%.40s"} {
			method, path, _ := strings.Cut(what, " ")
			theirs, of := told(t, method, url+fmt.Sprintf(path, delivery), keys["bob"], ""), told(t, method, url+fmt.Sprintf(path, "evt_"+noID+":callbacks"), keys["bob"], "")
			if diff := cmp.Diff(of, theirs); diff != "" {
				t.Errorf("%s (-nothing +another's):\n%s", what, diff)
			}
		}
		// Nothing of what bob has tried did anything, and alice still sees it all.
		for ref, state := range map[string]string{ended: "completed", later: "scheduled", cancelled: "cancelled", handle: "completed"} {
			if a := as("alice", "GET", "/jobs/"+ref, ""); a.status != 200 || a.field(t, "state") != state {
				t.Errorf("alice reads %s of %s, which is %s", a.body, ref, state)
			}
		}
		if a := as("alice", "GET", "/events?after="+event, ""); a.status != 200 {
			t.Errorf("alice reads %s after her event", a.body)
		}
	}
	t.Run("first life", check)
	t.Run("cursors", func(t *testing.T) { checkCursors(t, url, keys) })
	stop()
	url, stop = startStoppable(t, set)
	defer stop()
	t.Run("after a restart", check)
}

// A cursor is a place in a list, and opens nothing that is not in the list of who has it.
func checkCursors(t *testing.T, url string, keys map[string]string) {
	next := regexp.MustCompile(`"next_cursor":"([^"]+)"`)
	for _, list := range []string{"/jobs?limit=1&cursor=", "/deliveries?limit=1&cursor=", "/events?limit=1&after="} {
		first := call(t, "GET", url+list[:strings.LastIndexByte(list, '&')], keys["root"], "")
		cursor := next.FindStringSubmatch(first.body)
		if cursor == nil {
			if list[1] == 'd' {
				continue // there was but one delivery
			}
			t.Fatalf("%s: %s", list, first.body)
		}
		if a := call(t, "GET", url+list+cursor[1], keys["bob"], ""); a.status != 200 || !strings.HasPrefix(a.body, `{"items":[]`) && !strings.HasPrefix(a.body, `{"items":null`) {
			t.Errorf("bob reads %s at the cursor of another", a.body)
		}
	}
}

// On the disk, too, a key is told from the other keys of its owner and from the same of another.
func TestIdempotencyKeysOfTenants(t *testing.T) {
	keys := map[string]string{}
	set := tenants(t, keys)
	url, stop := startStoppable(t, set)
	submit := func(who, key string) (id string, replayed bool) {
		r, _ := http.NewRequest("POST", url+"/jobs", strings.NewReader(`{"function":"nobody"}`))
		r.Header.Set("Authorization", keys[who])
		r.Header.Set("Idempotency-Key", key)
		resp, err := http.DefaultClient.Do(r)
		a := read(t, resp, err)
		if a.status != http.StatusAccepted {
			t.Fatalf("%s, %s: %d %s", who, key, a.status, a.body)
		}
		return a.field(t, "id").(string), a.header.Get("Idempotent-Replayed") == "true"
	}
	ids := map[string]string{}
	for _, key := range []string{"one", "two", `"one\\"`, "alice", "bob", "%00one"} {
		for _, who := range []string{"alice", "bob", "root"} {
			id, replayed := submit(who, key)
			if replayed || slices.Contains(slices.Collect(maps.Values(ids)), id) {
				t.Errorf("%s of %s has met another", key, who)
			}
			ids[who+" "+key] = id
		}
	}
	stop()
	url, stop = startStoppable(t, set)
	defer stop()
	for name, id := range ids {
		who, key, _ := strings.Cut(name, " ")
		if got, replayed := submit(who, key); !replayed || got != id {
			t.Errorf("%s: got %s (%v), want %s", name, got, replayed, id)
		}
	}
}

// Whose a job is, and what its sender may, is said by the credentials alone.
func TestNoRequestSaysWhoItIsFrom(t *testing.T) {
	keys := map[string]string{}
	url := start(t, tenants(t, keys))
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/jobs", `{"function":"nobody","owner":"alice"}`, 422},
		{"POST", "/jobs", `{"function":"nobody","id":"0193d8a0-5b5c-7c3e-8f4e-2f1d3c5b7a90"}`, 422},
		{"POST", "/jobs", `{"function":"nobody","Function":"pay"}`, 422},
		{"POST", "/jobs", `{"function":"nobody","function":"pay"}`, 400},
		{"POST", "/functions/nobody?mode=background&owner=alice", "", 422},
		{"POST", "/functions/nobody?mode=background&mode=sync", "", 422},
		{"GET", "/jobs?owner=alice", "", 403},
		{"GET", "/jobs?owner=alice&owner=bob", "", 422},
		{"GET", "/jobs?owner=", "", 200},
		{"GET", "/jobs?owner=bob", "", 200},
		{"GET", "/workers", "", 403},
		{"GET", "/%77orkers", "", 404},
		{"GET", "/metrics", "", 403},
		{"GET", "/debug/pprof/", "", 403},
		{"GET", "/debug/pprof/%63mdline", "", 403},
		{"GET", "/workers/", "", 404},
		{"GET", "//workers", "", 404},
		{"GET", "/jobs/../workers", "", 404},
		{"GET", "/jobs/%2e%2e/workers", "", 404},
		{"GET", "/jobs%2F..%2Fworkers", "", 404},
		{"GET", "/workers%00", "", 404},
		{"GET", "/WORKERS", "", 404},
		{"POST", "/workers", "", 405},
		{"POST", "/functions/reverse/pause", "", 403},
		{"PUT", "/functions/reverse/maxqueue", `{"max":0}`, 403},
		{"POST", "/functions/reverse%2Fpause?mode=background", "", 202}, // which is the name of a function
	} {
		a := call(t, c.method, url+c.path, keys["bob"], c.body)
		if a.status != c.status {
			t.Errorf("%s %s %s: got %d, want %d: %s", c.method, c.path, c.body, a.status, c.status, a.body)
		}
	}
	a := call(t, "POST", url+"/jobs/batch", keys["bob"], `[{"function":"nobody","owner":"alice"},{"function":"nobody"}]`)
	if !strings.HasPrefix(a.body, `[{"status":422`) || !strings.Contains(a.body, `"owner":"bob"`) {
		t.Errorf("batch: %s", a.body)
	}
	if a := call(t, "GET", url+"/debug/pprof/%63mdline", keys["root"], ""); a.status != 404 {
		t.Errorf("the command line: %d %s", a.status, a.body)
	}
	if a := call(t, "GET", url+"/jobs", keys["alice"], ""); !strings.HasPrefix(a.body, `{"items":[]`) {
		t.Errorf("alice has %s", a.body)
	}
}

// Whoever calls while keys are read again, and again, is answered as before; and who has none is never let in.
func TestReloadsUnderLoadLetNobodySlip(t *testing.T) {
	one, both := filepath.Join(t.TempDir(), "one.yaml"), filepath.Join(t.TempDir(), "both.yaml")
	stays := newKey(t, one, "alice", auth.Read)
	copyFile(t, one, both)
	goes := newKey(t, both, "bob", auth.Read)
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen, c.Auth.KeysFile, c.DrainDelay = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", one, 1
	g := running(t, c)
	status := func(key string) int { return call(t, "GET", "http://"+g.Addr()+"/jobs", key, "").status }
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if a, b := status(stays), status("Bearer x"); a != 200 || b != 401 {
					t.Errorf("%d with a key, %d without", a, b)
				}
			}
		})
	}
	for i := range 40 {
		want := 401
		c.Auth.KeysFile = one
		if i%2 == 0 {
			c.Auth.KeysFile, want = both, 200
		}
		if err := g.Reload(t.Context(), c); err != nil {
			t.Error(err)
		}
		if got := status(goes); got != want {
			t.Errorf("reload %d: got %d, want %d", i, got, want)
		}
	}
	close(done)
	callers.Wait()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What is under way when a key is taken away goes on, as the documentation says; nothing new begins with it.
func TestAStreamOutlivesItsKey(t *testing.T) {
	before, file := filepath.Join(t.TempDir(), "before.yaml"), filepath.Join(t.TempDir(), "keys.yaml")
	root := newKey(t, before, "root", auth.Admin)
	copyFile(t, before, file)
	alice := newKey(t, file, "alice", auth.Read, auth.Submit)
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen, c.Auth.KeysFile, c.DrainDelay = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", file, 1
	g := running(t, c)
	path := "http://" + g.Addr() + "/jobs"
	path += "/" + call(t, "POST", path, alice, `{"function":"nobody","mode":"tracked","delay":"1h"}`).field(t, "id").(string)
	stream, lines := follow(t, path, alice)
	defer stream.Close()

	copyFile(t, before, file)
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"", "/events", "/result"} {
		if a := call(t, "GET", path+what, alice, ""); a.status != 401 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	if a := call(t, "DELETE", path, root, ""); a.status != 200 {
		t.Fatal(a.body)
	}
	rest, err := io.ReadAll(lines)
	if err != nil || !strings.Contains(string(rest), `event: end`) {
		t.Errorf("%q, %v", rest, err)
	}
}

// follow opens the event stream of a job, and returns when its first line has come.
func follow(t *testing.T, job, authorization string) (io.Closer, *bufio.Reader) {
	t.Helper()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", job+"/events", nil)
	r.Header.Set("Authorization", authorization)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	if first, err := lines.ReadString('\n'); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %q, %v", resp.StatusCode, first, err)
	}
	return resp.Body, lines
}

// Names that callers and job servers make up end no header and no event.
func TestNoNameSplitsAResponse(t *testing.T) {
	keys := map[string]string{}
	url := start(t, tenants(t, keys))
	const evil = "x%0d%0aInjected:%20yes%0d%0a%0d%0a"
	for _, what := range []string{
		"POST /functions/" + evil + "?mode=background", "GET /jobs/" + evil, "GET /jobs/" + evil + "/events", "GET /jobs?owner=" + evil,
		"GET /jobs?cursor=" + evil, "GET /events?after=" + evil, "GET /deliveries/evt_1:" + evil, "GET /deliveries?sink=" + evil,
		"PUT /functions/" + evil + "/maxqueue", "PUT /functions/x%0ashutdown/maxqueue", "PUT /functions/x%20shutdown/maxqueue", "GET /sinks/" + evil, "GET /" + evil, "OPTIONS /jobs/" + evil,
	} {
		method, path, _ := strings.Cut(what, " ")
		a := call(t, method, url+path, keys["root"], "")
		if a.header.Get("Injected") != "" || a.status >= 500 {
			t.Errorf("%s: %d %v", what, a.status, a.header)
		}
		if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be kept or taken for something else: %v", what, a.header)
		}
	}
}

// Not even a dump of the process, or its numbers, shows the credentials of those whose requests are under way.
func TestNoDumpShowsACredential(t *testing.T) {
	keys := map[string]string{}
	url := start(t, tenants(t, keys))
	id := call(t, "POST", url+"/jobs", keys["alice"], `{"function":"nobody","mode":"tracked","delay":"1h","workload":"Canary-of-a-workload"}`).field(t, "id").(string)
	stream, _ := follow(t, url+"/jobs/"+id, keys["alice"])
	defer stream.Close()
	for _, path := range []string{
		"/metrics", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs?debug=1",
		"/debug/pprof/", "/workers", "/servers", "/sinks",
	} {
		a := call(t, "GET", url+path, keys["root"], "")
		if a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		for _, secret := range []string{keys["alice"][20:], keys["root"][20:], "Canary-of-a-workload"} {
			if strings.Contains(a.body, secret) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
	}
}
