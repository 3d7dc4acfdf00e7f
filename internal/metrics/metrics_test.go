package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/httpapi"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store"
	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/workerpool"
)

// scrape returns what a Prometheus would read, by name.
func scrape(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// values returns a family's numbers by their labels' values, in the order of the labels' names.
func values(f *dto.MetricFamily) map[string]float64 {
	all := map[string]float64{}
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		all[strings.Join(labels, " ")] = v
	}
	return all
}

// sources are quiet ones, for tests to change.
func sources() Sources {
	return Sources{
		HTTP: func() httpapi.Stats { return httpapi.Stats{} }, Ledger: func() ledger.Stats { return ledger.Stats{} },
		Servers: func() []gearman.ServerStats { return nil },
		Pool:    func() (workerpool.Stats, bool) { return workerpool.Stats{}, false },
		Sinks:   func(context.Context) []webhook.SinkStats { return nil },
		Outbox:  webhook.NewMemory(webhook.MemoryOptions{}), Store: func() store.Stats { return store.Stats{} },
	}
}

func submitted(m *Metrics, function string) {
	m.JobSubmitted(&ledger.Record{Function: function, Mode: ledger.Background})
}

func TestOnlyFunctionsWithAWorkerHaveNumbersOfTheirOwn(t *testing.T) {
	m := New(Options{Functions: []string{"ours"}, HasWorker: func(f string) bool { return f == "theirs" }})
	for range 2 {
		submitted(m, "ours")
		submitted(m, "theirs")
	}
	for i := range 1000 {
		submitted(m, fmt.Sprint("invented by a caller ", i))
	}
	m.Know([]string{"reloaded"})
	submitted(m, "reloaded")
	got := values(scrape(t, m)["gearman_gateway_jobs_submitted_total"])
	want := map[string]float64{"ours background normal": 2, "theirs background normal": 2, "reloaded background normal": 1, "other background normal": 1000}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNoMoreThanMaxFunctionsHaveNumbersOfTheirOwn(t *testing.T) {
	m := New(Options{HasWorker: func(string) bool { return true }})
	var table []gearman.FunctionStatus
	for i := range 2 * MaxFunctions {
		name := fmt.Sprint("f", i)
		submitted(m, name)
		m.RunEnded(name, "completed", time.Second)
		table = append(table, gearman.FunctionStatus{Function: name, Total: 3, Running: 1, Workers: 1})
	}
	s := sources()
	s.Servers = func() []gearman.ServerStats {
		return []gearman.ServerStats{{Server: "g:4730", Connected: true, Functions: table}}
	}
	m.Read(s)
	families := scrape(t, m)
	for _, name := range []string{"jobs_submitted_total", "worker_runs_total", "worker_run_seconds_total", "jobserver_queued_jobs", "jobserver_workers"} {
		if n := len(values(families["gearman_gateway_"+name])); n != MaxFunctions+1 {
			t.Errorf("%s: %d series", name, n)
		}
	}
	if got := values(families["gearman_gateway_jobserver_queued_jobs"])["other g:4730"]; got != 2*MaxFunctions {
		t.Errorf("queued jobs of the others: %v", got)
	}
}

// gearmand lists every name that was ever submitted.
func TestWhatAJobServerListsWithoutWorkersIsNotLearnt(t *testing.T) {
	m := New(Options{})
	s := sources()
	s.Servers = func() []gearman.ServerStats {
		return []gearman.ServerStats{{Server: "g:4730", Functions: []gearman.FunctionStatus{
			{Function: "junk", Total: 2}, {Function: "typo", Total: 3, Running: 1}, {Function: "real", Workers: 1},
		}}}
	}
	m.Read(s)
	families := scrape(t, m)
	if got := fmt.Sprint(values(families["gearman_gateway_jobserver_queued_jobs"])); got != "map[other g:4730:4 real g:4730:0]" {
		t.Errorf("got %v", got)
	}
	if got := values(families["gearman_gateway_jobserver_up"])["g:4730"]; got != 0 {
		t.Errorf("up: %v", got)
	}
}

func TestNamesThatAreNotUTF8(t *testing.T) {
	m := New(Options{Functions: []string{"\xff\xfe", "\xfe"}, Version: "\xff"})
	submitted(m, "\xff\xfe")
	submitted(m, "\xfe")
	m.Attempted("\xff", webhook.Attempt{}, webhook.Delivered)
	s := sources()
	s.Servers = func() []gearman.ServerStats { // both have the same label
		return []gearman.ServerStats{{Server: "g:4730", Functions: []gearman.FunctionStatus{{Function: "\xff\xfe", Total: 1}, {Function: "\xfe", Total: 2}}}}
	}
	m.Read(s)
	families := scrape(t, m)
	if got := values(families["gearman_gateway_jobserver_queued_jobs"]); len(got) != 1 || got["\uFFFD g:4730"] != 3 {
		t.Errorf("got %v", got)
	}
}

func TestLabelsOfRequestsAreBounded(t *testing.T) {
	m := New(Options{})
	for i := range 100 {
		m.Answered("", fmt.Sprint("METHOD", i), 405, time.Second, false)
	}
	m.Answered("/jobs", http.MethodPost, 202, time.Second, false)
	m.Answered("/jobs", http.MethodPost, 200, time.Second, true)
	families := scrape(t, m)
	if got := fmt.Sprint(values(families["gearman_gateway_http_requests_total"])); got != "map[200 POST /jobs:1 202 POST /jobs:1 405 other none:100]" {
		t.Error(got)
	}
	if got := fmt.Sprint(values(families["gearman_gateway_http_request_duration_seconds"])); got != "map[/jobs false:1 /jobs true:1 none false:100]" {
		t.Error(got)
	}
}

func TestOutcomesOfRunsAreBounded(t *testing.T) {
	m := New(Options{Functions: []string{"f"}})
	for _, o := range []string{"completed", "exit", "a kind of a handler in Go", "another"} {
		m.RunEnded("f", o, time.Second)
	}
	if got := fmt.Sprint(values(scrape(t, m)["gearman_gateway_worker_runs_total"])); got != "map[f completed:1 f exit:1 f other:2]" {
		t.Error(got)
	}
}

func TestTimesOfJobs(t *testing.T) {
	m := New(Options{Functions: []string{"f"}})
	r := &ledger.Record{Function: "f", Mode: ledger.Sync, State: ledger.Completed}
	m.JobStarted(r, time.Second)
	m.JobEnded(r, 3*time.Second, 2*time.Second)
	m.JobEnded(r, 3*time.Second, 0) // its start is not known
	lost := *r
	lost.State = ledger.Lost
	m.JobEnded(&lost, time.Second, time.Second)
	families := scrape(t, m)
	for name, want := range map[string]float64{"job_queue_duration_seconds": 1, "job_run_duration_seconds": 1, "job_duration_seconds": 2} {
		if got := values(families["gearman_gateway_"+name])["f sync"]; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	ended := values(families["gearman_gateway_jobs_ended_total"])
	if ended["f sync completed"] != 2 || ended["f sync lost"] != 1 || ended["f sync failed"] != 0 || len(ended) != 5 {
		t.Errorf("got %v", ended)
	}
}

func TestSinks(t *testing.T) {
	m := New(Options{})
	m.Attempted("audit", webhook.Attempt{Status: 200}, webhook.Delivered)
	m.Attempted("audit", webhook.Attempt{Status: 500, Error: "500"}, webhook.Pending)
	m.Attempted("audit", webhook.Attempt{Error: "no answer"}, webhook.Dead)
	m.GivenUp("audit")
	asked := 0
	s := sources()
	s.Sinks = func(context.Context) []webhook.SinkStats {
		asked++
		return []webhook.SinkStats{
			{Name: "audit", State: webhook.Failing, Backlog: webhook.Backlog{Pending: 3, Behind: 2, Dead: 1, Oldest: time.Now().Add(-time.Minute)}},
			{Name: "new", State: webhook.Active},
			{Name: "unknown", State: webhook.Paused, Err: errors.New("the store does not answer")},
			{Name: "gone"},
		}
	}
	m.Read(s)
	scrape(t, m)
	families := scrape(t, m)
	if asked != 1 {
		t.Errorf("two scrapes asked the outbox %d times", asked)
	}
	for name, want := range map[string]string{
		"webhook_attempts_total": "map[accepted audit:1 accepted new:0 accepted unknown:0 refused audit:1 refused new:0 refused unknown:0 " +
			"unanswered audit:1 unanswered new:0 unanswered unknown:0]",
		"webhook_dead_letters_total":       "map[audit:2 new:0 unknown:0]",
		"webhook_attempt_duration_seconds": "map[audit:3 new:0 unknown:0]",
		"webhook_pending_deliveries":       "map[audit:3 new:0]",
		"webhook_behind_events":            "map[audit:2 new:0]",
		"webhook_dead_deliveries":          "map[audit:1 new:0]",
	} {
		if got := fmt.Sprint(values(families["gearman_gateway_"+name])); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	if got := values(families["gearman_gateway_webhook_oldest_pending_age_seconds"]); got["audit"] < 59 || got["new"] != 0 || len(got) != 2 {
		t.Errorf("oldest: %v", got)
	}
	if got := values(families["gearman_gateway_webhook_sink_state"]); got["audit failing"] != 1 || got["audit active"] != 0 || got["unknown paused"] != 1 || len(got) != 12 {
		t.Errorf("states: %v", got)
	}
}

func TestTheStore(t *testing.T) {
	m := New(Options{})
	m.Committed(10, time.Millisecond, nil)
	m.Committed(3, time.Second, errors.New("disk full"))
	s := sources()
	s.Store = func() store.Stats { return store.Stats{Waiting: 3, Failing: true} }
	m.Read(s)
	families := scrape(t, m)
	var got []string
	for name, f := range families {
		if rest, ok := strings.CutPrefix(name, "gearman_gateway_store_"); ok {
			got = append(got, fmt.Sprint(rest, values(f)))
		}
	}
	slices.Sort(got)
	want := "[changes_totalmap[:10] commit_duration_secondsmap[:1] commit_errors_totalmap[:1] failingmap[:1] waiting_changesmap[:3]]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Counting goes on while others scrape, and no count is lost where a series is made.
func TestCountingFromManyGoroutines(t *testing.T) {
	m := New(Options{HasWorker: func(string) bool { return true }})
	m.Read(sources())
	var wg sync.WaitGroup
	const each = 2000
	for g := range 4 {
		wg.Go(func() {
			for i := range each {
				submitted(m, fmt.Sprint("f", i%50))
				m.Answered("/jobs", http.MethodPost, 200+i%50, time.Millisecond, g%2 == 0)
			}
		})
	}
	for range 10 {
		scrape(t, m)
	}
	wg.Wait()
	for _, name := range []string{"jobs_submitted_total", "http_requests_total", "http_request_duration_seconds"} {
		sum := 0.0
		for _, v := range values(scrape(t, m)["gearman_gateway_"+name]) {
			sum += v
		}
		if sum != 4*each {
			t.Errorf("%s: got %v, want %d", name, sum, 4*each)
		}
	}
}

// A scrape whose client is gone takes no place.
func TestScrapesWaitForEachOther(t *testing.T) {
	m := New(Options{})
	s := sources()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	s.HTTP = func() httpapi.Stats {
		entered <- struct{}{}
		<-leave
		return httpapi.Stats{}
	}
	m.Read(s)
	h := m.Handler()
	var wg sync.WaitGroup
	for range maxScrapes {
		wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)) })
		<-entered
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, http.MethodGet, "/metrics", nil))
	if len(entered) != 0 {
		t.Error("a scrape went beyond the bound")
	}
	close(leave)
	wg.Wait()
}

func BenchmarkAnswered(b *testing.B) {
	m := New(Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Answered("/jobs", http.MethodPost, 202, 1500*time.Microsecond, false)
		}
	})
}

// BenchmarkJob counts a job from its submit to its end, a run of the pool included.
func BenchmarkJob(b *testing.B) {
	var names []string
	for i := range MaxFunctions {
		names = append(names, fmt.Sprint("function-", i))
	}
	for name, function := range map[string]string{"known": names[100], "other": "unknown"} {
		b.Run(name, func(b *testing.B) {
			m := New(Options{Functions: names, HasWorker: func(string) bool { return false }})
			r := &ledger.Record{Function: function, Mode: ledger.Sync, State: ledger.Completed}
			b.ReportAllocs()
			for b.Loop() {
				m.JobSubmitted(r)
				m.JobStarted(r, 2*time.Millisecond)
				m.RunEnded(r.Function, workerpool.RunCompleted, time.Millisecond)
				m.JobEnded(r, 5*time.Millisecond, 3*time.Millisecond)
			}
		})
	}
}
