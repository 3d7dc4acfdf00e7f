package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	gateway "gearman-gateway"
	"gearman-gateway/internal/gearmandtest"
)

// start runs a gateway until the test ends and returns its URL. With no job servers given it is the embedded one.
func start(t testing.TB, set func(*gateway.Config)) (url string) {
	t.Helper()
	url, stop := startStoppable(t, set)
	t.Cleanup(stop)
	return url
}

func startStoppable(t testing.TB, set func(*gateway.Config)) (url string, stop func()) {
	t.Helper()
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
	if set != nil {
		set(&c)
	}
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return "http://" + g.Addr(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
}

// answer is a response whose body was read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) field(t testing.TB, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return m[name]
}

func post(t testing.TB, url, contentType, body string) answer {
	t.Helper()
	resp, err := http.Post(url, contentType, strings.NewReader(body))
	return read(t, resp, err)
}

// submit posts as curl -d does.
func submit(t testing.TB, url, body string) answer {
	t.Helper()
	return post(t, url+"/jobs", "application/x-www-form-urlencoded", body)
}

func get(t testing.TB, url string) answer {
	t.Helper()
	resp, err := http.Get(url)
	return read(t, resp, err)
}

func read(t testing.TB, resp *http.Response, err error) answer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// poll waits until a condition holds.
func poll(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// engines runs a test with the embedded job server and in front of a real gearmand.
func engines(t *testing.T, test func(t *testing.T, set func(*gateway.Config))) {
	t.Run("embedded", func(t *testing.T) { test(t, func(*gateway.Config) {}) })
	t.Run("gearmand", func(t *testing.T) {
		s := gearmandtest.Start(t)
		builtin := true
		test(t, func(c *gateway.Config) {
			c.Gearman = []gateway.Address{gateway.Address(s.Addr())}
			c.Workers.Builtin = &builtin
		})
	})
}

func TestTheMainJob(t *testing.T) {
	engines(t, func(t *testing.T, set func(*gateway.Config)) {
		url := start(t, set)

		sync := submit(t, url, `{"function":"reverse","workload":"hello","mode":"sync"}`)
		if sync.status != 200 || sync.field(t, "result") != "olleh" || sync.field(t, "state") != "completed" {
			t.Errorf("sync: %d %s", sync.status, sync.body)
		}

		background := submit(t, url, `{"function":"reverse","workload":"hello"}`)
		id := background.field(t, "id").(string)
		if background.status != 202 || background.header.Get("Location") != "/jobs/"+id || background.header.Get("Retry-After") == "" {
			t.Errorf("background: %d %v", background.status, background.header)
		}
		for _, ref := range []string{id, background.field(t, "handle").(string)} {
			job := get(t, url+"/jobs/"+ref+"?wait=20s")
			if job.status != 200 || job.field(t, "state") != "completed" || job.field(t, "result") != "olleh" || job.field(t, "id") != id {
				t.Errorf("GET %s: %d %s", ref, job.status, job.body)
			}
		}
		if raw := get(t, url+"/jobs/"+id+"/result"); raw.status != 200 || raw.body != "olleh" {
			t.Errorf("result: %d %q", raw.status, raw.body)
		}

		readme := strings.Repeat("one two\nthree ", 1000)
		if raw := post(t, url+"/functions/wordcount", "application/octet-stream", readme); raw.status != 200 || raw.body != "3000" {
			t.Errorf("wordcount: %d %q", raw.status, raw.body)
		}
	})
}

func TestAFailedJobIsNeverASuccess(t *testing.T) {
	engines(t, func(t *testing.T, set func(*gateway.Config)) {
		url := start(t, set)
		for workload, kind := range map[string]string{"": "failed", "exception": "exception", "panic": "panic"} {
			job := submit(t, url, fmt.Sprintf(`{"function":"fail","workload":%q,"mode":"sync"}`, workload))
			failure, _ := job.field(t, "error").(map[string]any)
			if job.status != 200 || job.field(t, "state") != "failed" || failure["kind"] != kind || job.field(t, "result") != nil {
				t.Errorf("fail %q: %d %s", workload, job.status, job.body)
			}
			raw := post(t, url+"/functions/fail", "text/plain", workload)
			if raw.status != 502 || raw.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("raw fail %q: %d %s", workload, raw.status, raw.body)
			}
		}
	})
}

func TestProgressIsSeenWhileAJobRuns(t *testing.T) {
	engines(t, func(t *testing.T, set func(*gateway.Config)) {
		url := start(t, set)
		job := submit(t, url, `{"function":"sleep","workload":2,"mode":"sync","timeout":"100ms"}`)
		if job.status != 202 {
			t.Fatalf("a wait that lapses: %d %s", job.status, job.body)
		}
		self := url + job.header.Get("Location")
		poll(t, "progress", func() bool {
			j := get(t, self)
			p, _ := j.field(t, "progress").(map[string]any)
			return j.field(t, "state") == "running" && p["denominator"] == 10.0
		})
		if done := get(t, self+"?wait=20s"); done.field(t, "result") != "slept 2s" {
			t.Errorf("its end: %s", done.body)
		}
	})
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// TestEveryEventOfAJobReachesTheSink reads them as a receiver would that has the official library.
func TestEveryEventOfAJobReachesTheSink(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string][]string{} // by subject
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Errorf("a delivery does not verify: %v", err)
		}
		var e struct{ Type, Subject string }
		if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[e.Subject] = append(got[e.Subject], e.Type)
	}))
	defer sink.Close()
	url, stop := startStoppable(t, func(c *gateway.Config) {
		s := gateway.Sink{URL: gateway.URL(sink.URL)}
		if err := s.Secret.UnmarshalText([]byte(secret)); err != nil {
			t.Fatal(err)
		}
		c.Sinks = []gateway.Sink{s}
	})
	id := submit(t, url, `{"function":"reverse","workload":"hello","mode":"sync"}`).field(t, "id").(string)
	failed := submit(t, url, `{"function":"fail","mode":"sync"}`).field(t, "id").(string)
	stop() // delivers what is due

	mu.Lock()
	defer mu.Unlock()
	want := []string{
		"job.submitted", "job.started", "worker.function.before_execute", "worker.function.after_execute", "job.completed",
	}
	if diff := cmp.Diff(want, got[id]); diff != "" {
		t.Errorf("events of the job (-want +got):\n%s", diff)
	}
	want = []string{
		"job.submitted", "job.started", "worker.function.before_execute", "worker.function.on_failure", "job.failed",
	}
	if diff := cmp.Diff(want, got[failed]); diff != "" {
		t.Errorf("events of the job that fails (-want +got):\n%s", diff)
	}
	delete(got, id)
	delete(got, failed)
	for worker, events := range got {
		want := []string{
			"worker.before_run", "worker.server_on_connect", "worker.server_on_connected",
			"worker.on_before_register_functions", "worker.on_after_register_functions",
			"worker.after_run", "worker.after_run", "worker.on_before_destroy",
		}
		if diff := cmp.Diff(want, events); diff != "" {
			t.Errorf("events of the worker %s (-want +got):\n%s", worker, diff)
		}
	}
}

// startPeer runs a worker in another language until the test ends.
func startPeer(t testing.TB, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v: run make test, which installs it", err)
	}
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() && out.Len() > 0 {
			t.Logf("%s wrote:\n%s", program, out.Bytes())
		}
	})
}

// TestWorkersOfOtherLanguages has two real job servers and workers in PHP and Perl, who know nothing of the gateway.
func TestWorkersOfOtherLanguages(t *testing.T) {
	a, b := gearmandtest.Start(t), gearmandtest.Start(t)
	url := start(t, func(c *gateway.Config) {
		c.Gearman = []gateway.Address{gateway.Address(a.Addr()), gateway.Address(b.Addr())}
	})
	for _, s := range []string{a.Addr(), b.Addr()} {
		startPeer(t, "php", "testdata/worker.php", s)
		startPeer(t, "perl", "testdata/worker.pl", s)
	}
	poll(t, "the workers to register", func() bool {
		functions := get(t, url+"/functions").body
		return strings.Count(functions, `"workers":2`) >= 8
	})

	for _, function := range []string{"php_upper", "perl_upper"} {
		for i := range 20 {
			job := submit(t, url, fmt.Sprintf(`{"function":%q,"workload":"job %d","mode":"sync"}`, function, i))
			if want := fmt.Sprint("JOB ", i); job.field(t, "result") != want {
				t.Errorf("%s: %s", function, job.body)
			}
		}
	}
	steps := submit(t, url, `{"function":"php_steps","mode":"sync"}`)
	if steps.field(t, "result") != "first,last" || !strings.Contains(steps.body, `"warnings":[{"value":"mind the gap","encoding":"text"}]`) ||
		fmt.Sprint(steps.field(t, "progress")) != "map[denominator:2 numerator:2]" {
		t.Errorf("data, warning and progress: %s", steps.body)
	}
	// A background job of a foreign worker: nobody reports its end, and that is what the gateway says.
	done := submit(t, url, `{"function":"perl_steps"}`)
	end := get(t, url+done.header.Get("Location")+"?wait=20s")
	if end.field(t, "state") != "unknown" {
		t.Errorf("a background job that a foreign worker ran: %s", end.body)
	}
	if raw := get(t, url+done.header.Get("Location")+"/result"); raw.status != 409 {
		t.Errorf("its result: %d %s", raw.status, raw.body)
	}

	// Equal uniques in the background are one job.
	one := submit(t, url, `{"function":"nobody","unique":"u-1"}`)
	two := submit(t, url, `{"function":"nobody","unique":"u-1"}`)
	if one.field(t, "handle") != two.field(t, "handle") || one.field(t, "id") != two.field(t, "id") {
		t.Errorf("one unique made %s and %s", one.body, two.body)
	}

	// Last, because Perl's worker does not survive what gearmand answers to the packets of a die.
	for function, want := range map[string][]string{
		"php_fail": {"failed"}, "php_throw": {"exception", "out of paper"}, "perl_die": {"exception", "failed"},
	} {
		job := submit(t, url, fmt.Sprintf(`{"function":%q,"mode":"sync"}`, function))
		failure, _ := job.field(t, "error").(map[string]any)
		if job.status != 200 || job.field(t, "state") != "failed" || !slices.Contains(want, fmt.Sprint(failure["kind"])) ||
			!strings.Contains(fmt.Sprint(failure["message"]), want[len(want)-1]) && function == "php_throw" {
			t.Errorf("%s: %d %s", function, job.status, job.body)
		}
	}
}

func TestPrioritiesOrderWhatWaits(t *testing.T) {
	s := gearmandtest.Start(t)
	url := start(t, func(c *gateway.Config) { c.Gearman = []gateway.Address{gateway.Address(s.Addr())} })
	for _, p := range []string{"low", "normal", "high"} {
		if job := submit(t, url, fmt.Sprintf(`{"function":"php_order","workload":"%s ","priority":%q}`, p, p)); job.status != 202 {
			t.Fatalf("%d %s", job.status, job.body)
		}
	}
	startPeer(t, "php", "testdata/worker.php", s.Addr())
	last := submit(t, url, `{"function":"php_order","workload":"end","priority":"low","mode":"sync"}`)
	if got := last.field(t, "result"); got != "high normal low end" {
		t.Errorf("jobs ran as %q", got)
	}
}

// TestAServerKilledUnderLoad has one of two job servers killed and brought back: no sync job may hang or be answered wrong.
func TestAServerKilledUnderLoad(t *testing.T) {
	a, b := gearmandtest.Start(t), gearmandtest.Start(t)
	url := start(t, func(c *gateway.Config) {
		c.Gearman = []gateway.Address{gateway.Address(a.Addr()), gateway.Address(b.Addr())}
		builtin := true
		c.Workers.Builtin = &builtin
	})
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	stop := make(chan struct{})
	var mu sync.Mutex
	counts := map[string]int{}
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				workload := fmt.Sprintf("%d-%d", g, i)
				resp, err := client.Post(url+"/functions/echo", "", strings.NewReader(workload))
				if err != nil {
					t.Errorf("%s: %v", workload, err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				outcome := fmt.Sprint(resp.StatusCode)
				switch {
				case resp.StatusCode == 200 && string(body) != workload:
					t.Errorf("%s was answered %q", workload, body)
				case resp.StatusCode != 200:
					var p struct{ Type string }
					if err := json.Unmarshal(body, &p); err != nil || p.Type == "" {
						t.Errorf("%d without a problem: %s", resp.StatusCode, body)
					}
					outcome += " " + p.Type
				}
				mu.Lock()
				counts[outcome]++
				mu.Unlock()
			}
		})
	}
	done := func() int { mu.Lock(); defer mu.Unlock(); return counts["200"] }
	for range 2 {
		n := done()
		poll(t, "jobs to be done", func() bool { return done() > n+500 })
		a.Kill()
		n = done()
		poll(t, "jobs to be done by the other server", func() bool { return done() > n+500 })
		a.Restart()
		poll(t, "the server to be connected again", func() bool {
			return strings.Count(get(t, url+"/servers").body, `"connected":true`) == 2
		})
	}
	close(stop)
	wg.Wait()
	t.Logf("answers: %v", counts)
	for outcome, n := range counts {
		if outcome != "200" && n > counts["200"]/10 {
			t.Errorf("%d answers were %s, of %v", n, outcome, counts)
		}
	}
}

func TestNoJobServer(t *testing.T) {
	s := gearmandtest.Start(t)
	url := start(t, func(c *gateway.Config) { c.Gearman = []gateway.Address{gateway.Address(s.Addr())} })
	if ready := get(t, url+"/readyz"); ready.status != 200 {
		t.Errorf("readyz with gearmand up: %d", ready.status)
	}
	s.Kill()
	poll(t, "the gateway to be not ready", func() bool { return get(t, url+"/readyz").status == 503 })
	for _, path := range []string{"/jobs", "/functions/f"} {
		begin := time.Now()
		resp, err := http.Post(url+path, "", strings.NewReader(`{"function":"f"}`))
		a := read(t, resp, err)
		if a.status != 503 || a.header.Get("Retry-After") == "" || time.Since(begin) > time.Second {
			t.Errorf("%s with gearmand down: %d %v after %v", path, a.status, a.header, time.Since(begin))
		}
	}
	s.Restart()
	poll(t, "the gateway to be ready again", func() bool { return get(t, url+"/readyz").status == 200 })
	if job := submit(t, url, `{"function":"f"}`); job.status != 202 {
		t.Errorf("after its return: %d %s", job.status, job.body)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	url := start(t, nil)
	taken := gateway.Address(strings.TrimPrefix(url, "http://"))
	for flag, set := range map[string]func(*gateway.Config){
		"--listen":           func(c *gateway.Config) { c.Listen = gateway.Listen{gateway.Door(taken)} },
		"--jobserver-listen": func(c *gateway.Config) { c.Jobserver.Listen = taken },
	} {
		c := gateway.DefaultConfig()
		c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
		set(&c)
		g, err := gateway.New(c)
		if err != nil {
			t.Fatal(err)
		}
		err = g.Start(context.Background())
		if err == nil || !strings.Contains(err.Error(), string(taken)) || !strings.Contains(err.Error(), flag) {
			t.Errorf("a taken port: %v, want it named, with %s", err, flag)
		}
	}
}

func TestAHandlerOfYourOwn(t *testing.T) {
	url := start(t, func(c *gateway.Config) {
		c.Handlers = map[string]gateway.Handler{
			"greet": gateway.HandlerFunc(func(_ context.Context, j *gateway.Job) ([]byte, error) {
				return []byte("hello " + string(j.Workload)), nil
			}),
		}
	})
	if job := submit(t, url, `{"function":"greet","workload":"you","mode":"sync"}`); job.field(t, "result") != "hello you" {
		t.Error(job.body)
	}
}

// closable is a handler in Go that keeps something until it is closed.
type closable struct{ closed chan struct{} }

func (h *closable) Run(context.Context, *gateway.Job) ([]byte, error) { return nil, nil }
func (h *closable) Close()                                            { close(h.closed) }

func TestAReloadClosesNoHandlerOfYourOwn(t *testing.T) {
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
	own := &closable{make(chan struct{})}
	c.Handlers = map[string]gateway.Handler{"own": own}
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	failing, other := c, c
	failing.Functions = []gateway.Function{{Function: "missing", Exec: []string{"/nonexistent"}}}
	other.Functions = []gateway.Function{{Function: "own", Exec: []string{"cat"}}}
	if err := g.Reload(t.Context(), failing); err == nil {
		t.Error("a command that is missing: no error")
	}
	for _, next := range []gateway.Config{other, c} {
		if err := g.Reload(t.Context(), next); err != nil {
			t.Error(err)
		}
		if a := submit(t, "http://"+g.Addr(), `{"function":"own","mode":"sync"}`); a.field(t, "state") != "completed" {
			t.Errorf("%d %s", a.status, a.body)
		}
		select {
		case <-own.closed:
			t.Fatal("the handler was closed, and is still in use or may come back")
		default:
		}
	}
	for range 2 { // closed twice it would panic
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-own.closed
}

func TestAtTheEndACommandThatIgnoresSIGTERMIsKilled(t *testing.T) {
	jobs, started := t.TempDir(), filepath.Join(t.TempDir(), "started")
	t.Setenv("TMPDIR", jobs)
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
	c.Workers.Grace = gateway.Duration(100 * time.Millisecond)
	c.Functions = []gateway.Function{{Function: "stuck", Exec: []string{"sh", "-c", `trap "" TERM; : >"$0"; while :; do sleep 1; done`, started}}}
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	submit(t, "http://"+g.Addr(), `{"function":"stuck"}`)
	poll(t, "the command to run", func() bool { _, err := os.Stat(started); return err == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(jobs); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What the embedded job server has queued in the background is there after a restart, under its id and its handle. The command that runs
// when the end comes is killed, and runs again.
func TestTheEmbeddedQueueOutlivesTheGateway(t *testing.T) {
	dir := t.TempDir()
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen, c.Data = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", filepath.Join(dir, "data")
	started, free := filepath.Join(dir, "started"), filepath.Join(dir, "free")
	c.Workers.Grace, c.DrainDelay = gateway.Duration(100*time.Millisecond), gateway.Duration(time.Millisecond)
	c.Functions = []gateway.Function{{
		Function: "one", Exec: []string{"sh", "-c", `echo >>"$0"; test -e "$1" && cat && exit; sleep 60 & wait`, started, free}, Concurrency: 1,
	}}
	g := running(t, c)
	first, second := submit(t, "http://"+g.Addr(), `{"function":"one","workload":"a"}`), submit(t, "http://"+g.Addr(), `{"function":"one","workload":"b","priority":"low"}`)
	poll(t, "the command to run", func() bool { _, err := os.Stat(started); return err == nil })
	now, cancel := context.WithCancel(t.Context())
	cancel()
	_ = g.Stop(now) // which says that it cut short what ran
	if err := os.WriteFile(free, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	url := "http://" + running(t, c).Addr()
	for want, job := range map[string]answer{"a": first, "b": second} {
		for _, name := range []string{"id", "handle"} {
			got := get(t, url+"/jobs/"+job.field(t, name).(string)+"?wait=20s")
			if got.status != 200 || got.field(t, "state") != "completed" || got.field(t, "result") != want || got.field(t, "id") != job.field(t, "id") {
				t.Errorf("%s by its %s: %d %s", want, name, got.status, got.body)
			}
		}
	}
	if runs, err := os.ReadFile(started); err != nil || string(runs) != "\n\n\n" {
		t.Errorf("%d runs, want 3: %v", len(runs), err)
	}
}

// A job that was told to have failed because its deadline passed does not run in a later life, though it was queued all the while.
func TestAJobThatWasLateInAnEarlierLifeDoesNotRun(t *testing.T) {
	dir := t.TempDir()
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen, c.Data = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", filepath.Join(dir, "data")
	c.DrainDelay = gateway.Duration(time.Millisecond)
	live := func(during func(url string)) {
		g, err := gateway.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		during("http://" + g.Addr())
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	var late []string
	live(func(url string) {
		for _, unique := range []string{"", `,"unique":"u"`} {
			a := submit(t, url, `{"function":"note","workload":"late","deadline":"1s"`+unique+`}`)
			late = append(late, a.field(t, "id").(string))
		}
	})
	live(func(url string) {
		for _, id := range late {
			poll(t, "the deadline", func() bool { return get(t, url+"/jobs/"+id).field(t, "state") == "failed" })
		}
	})
	ran := filepath.Join(dir, "ran")
	c.Functions = []gateway.Function{{Function: "note", Exec: []string{"tee", "-a", ran}, Concurrency: 1}}
	live(func(url string) {
		if a := submit(t, url, `{"function":"note","workload":"after","mode":"sync"}`); a.field(t, "state") != "completed" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	if got, err := os.ReadFile(ran); err != nil || string(got) != "after" {
		t.Errorf("ran %q: %v", got, err)
	}
}

// A caller that goes away frees its place at once, and costs the job nothing.
func TestACallerThatGoesAway(t *testing.T) {
	engines(t, func(t *testing.T, set func(*gateway.Config)) {
		url := start(t, set)
		ctx, leave := context.WithCancel(context.Background())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			r, _ := http.NewRequestWithContext(ctx, "POST", url+"/jobs",
				strings.NewReader(`{"function":"sleep","workload":1,"mode":"sync","unique":"left-alone"}`))
			if resp, err := http.DefaultClient.Do(r); err == nil {
				resp.Body.Close()
			}
		}()
		poll(t, "the job to run", func() bool {
			return strings.Contains(get(t, url+"/functions").body, `"function":"sleep","queued":0,"running":1`)
		})
		leave()
		<-gone
		// Who asks with the same unique finds the job that goes on.
		job := submit(t, url, `{"function":"sleep","workload":1,"mode":"sync","unique":"left-alone"}`)
		if job.field(t, "result") != "slept 1s" {
			t.Errorf("the job of a caller that went away: %s", job.body)
		}
	})
}

func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// TestTheResultsOfForeignWorkersAreKept reads back what PHP and Perl workers made of 1,000 tracked jobs, over two job servers and
// after a restart of the gateway.
func TestTheResultsOfForeignWorkersAreKept(t *testing.T) {
	a, b := gearmandtest.Start(t), gearmandtest.Start(t)
	data := t.TempDir()
	set := func(c *gateway.Config) {
		c.Gearman = []gateway.Address{gateway.Address(a.Addr()), gateway.Address(b.Addr())}
		c.Data = data
	}
	url, stop := startStoppable(t, set)
	for _, s := range []string{a.Addr(), b.Addr()} {
		startPeer(t, "php", "testdata/worker.php", s)
		startPeer(t, "perl", "testdata/worker.pl", s)
	}
	const jobs = 1000
	want := map[string]string{}
	for i := range jobs {
		function := []string{"php_upper", "perl_upper"}[i%2]
		job := submit(t, url, fmt.Sprintf(`{"function":%q,"workload":"tracked %d","mode":"tracked"}`, function, i))
		if job.status != 202 {
			t.Fatalf("%d %s", job.status, job.body)
		}
		want[job.field(t, "id").(string)] = fmt.Sprint("TRACKED ", i)
	}
	for id := range want {
		if job := get(t, url+"/jobs/"+id+"?wait=30s"); job.field(t, "state") != "completed" {
			t.Fatalf("before the restart: %s", job.body)
		}
	}
	stop()
	url = start(t, set)
	for id, result := range want {
		if job := get(t, url+"/jobs/"+id); job.field(t, "result") != result {
			t.Errorf("after the restart: %s", job.body)
		}
	}
}
