package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	gateway "gearman-gateway"
	"gearman-gateway/internal/event"
)

// The whole life of a worker, at a webhook sink, for a worker that ends by each of its limits.
func TestALifeThatEndsByEachLimitAtASink(t *testing.T) {
	begins := []string{
		"before_run", "server_on_connect", "server_on_connected", "on_before_register_functions", "on_after_register_functions",
	}
	job := []string{"function.before_execute", "function.after_execute", "after_run"}
	for name, row := range map[string]struct {
		set    func(*gateway.Workers)
		jobs   int
		want   []string
		reason string
	}{
		"max_jobs":     {func(w *gateway.Workers) { w.MaxJobs = 2 }, 2, append(append(append(begins[:5:5], job...), job...), "on_before_destroy"), "job"},
		"max_runtime":  {func(w *gateway.Workers) { w.MaxRuntime = gateway.Duration(time.Millisecond) }, 1, append(append(begins[:5:5], job...), "on_before_destroy"), "runtime"},
		"idle_timeout": {func(w *gateway.Workers) { w.IdleTimeout = gateway.Duration(100 * time.Millisecond) }, 0, append(begins[:5:5], "on_before_destroy"), "idle"},
		"memory_limit": {func(w *gateway.Workers) { w.MemoryLimit = 1 << 20 }, 0, []string{"before_run", "on_before_destroy"}, "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := &hearing{}
			sink := httptest.NewServer(heard)
			defer sink.Close()
			var log journal
			c := gateway.DefaultConfig()
			c.Listen, c.Jobserver.Listen, c.Log = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", zerolog.New(&log)
			c.Sinks = []gateway.Sink{{URL: gateway.URL(sink.URL), Events: event.Patterns{"worker.*"}}}
			c.Workers.OnLimit, c.Workers.Concurrency = "exit", 1
			row.set(&c.Workers)
			ended := make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			go func() { ended <- gateway.Run(ctx, c) }()
			for range row.jobs {
				poll(t, "the gateway", func() bool { return served.MatchString(log.String()) })
				a := submit(t, "http://"+served.FindStringSubmatch(log.String())[1], `{"function":"reverse","workload":"abc","mode":"sync"}`)
				if a.status != http.StatusOK {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			if err := <-ended; err != nil || ctx.Err() != nil {
				t.Fatalf("Run: %v, %v; %s", err, ctx.Err(), log.String())
			}
			types, reason := heard.life()
			if diff := cmp.Diff(row.want, types); diff != "" || !strings.Contains(reason, row.reason) {
				t.Errorf("it left because of %q; events (-want +got):\n%s", reason, diff)
			}
		})
	}
}

var served = regexp.MustCompile(`"addr":"([^"]+)"[^\n]*gateway serves HTTP`)

// hearing is a sink that keeps what it hears, in order.
type hearing struct {
	mu     sync.Mutex
	events []heardEvent
}

type heardEvent struct {
	Type, Subject string
	Data          struct{ Reason string }
}

func (h *hearing) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var e heardEvent
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		panic(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// life returns the types of the worker's events without "worker." and without the ticks of one that waits, and why it left. Events of
// functions are the jobs': those of each job are put in front of an after_run.
func (h *hearing) life() (types []string, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	runs := map[string][]string{} // by job: jobs do not wait for each other at a sink
	var jobs []string
	for _, e := range h.events {
		if typ := strings.TrimPrefix(e.Type, "worker."); strings.HasPrefix(typ, "function.") {
			if runs[e.Subject] == nil {
				jobs = append(jobs, e.Subject)
			}
			runs[e.Subject] = append(runs[e.Subject], typ)
		}
	}
	for _, e := range h.events {
		switch typ := strings.TrimPrefix(e.Type, "worker."); typ {
		case "on_io_wait", "on_no_jobs", "on_work", "function.before_execute", "function.after_execute":
		case "after_run":
			if len(jobs) == 0 {
				types = append(types, "a run without a job")
			} else {
				types, jobs = append(types, runs[jobs[0]]...), jobs[1:]
			}
			types = append(types, typ)
		default:
			types = append(types, typ)
			reason = e.Data.Reason
		}
	}
	return append(types, jobs...), reason
}
