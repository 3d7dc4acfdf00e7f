// Package metrics shows the gateway's numbers to Prometheus. The other packages know nothing of it: they tell their Meters what happens,
// and have Stats that are read when somebody scrapes. docs/metrics.md lists all names.
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/httpapi"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/store"
	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/workerpool"
)

// namespace begins the names of all metrics but those of Go and the process.
const namespace = "gearman_gateway"

// Options of Metrics. The zero value works.
type Options struct {
	Version   string   // the gateway's
	Functions []string // known from the beginning; see MaxFunctions
	// HasWorker reports whether any worker can do a function, which then is known. It must not block; nil: those of Functions are all.
	HasWorker func(function string) bool
	Log       zerolog.Logger
}

// Metrics are all numbers of one gateway. They are the Meter of httpapi, ledger, workerpool, webhook and store. All methods are safe
// for concurrent use.
type Metrics struct {
	*requests
	*jobs
	*runs
	*attempts
	*commits

	functions *functions
	registry  *prometheus.Registry
	log       zerolog.Logger
}

// The Meters.
var (
	_ httpapi.Meter    = (*Metrics)(nil)
	_ ledger.Meter     = (*Metrics)(nil)
	_ workerpool.Meter = (*Metrics)(nil)
	_ webhook.Meter    = (*Metrics)(nil)
	_ store.Meter      = (*Metrics)(nil)
)

// New returns metrics that show Go, the process and what the Meters are told. The rest comes with Read.
func New(o Options) *Metrics {
	f := newFunctions(o.Functions, o.HasWorker)
	m := &Metrics{
		requests: newRequests(), jobs: newJobs(f), runs: newRuns(f), attempts: newAttempts(), commits: newCommits(),
		functions: f, registry: prometheus.NewRegistry(), log: o.Log,
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "1, with the gateway's version and that of Go as labels.",
		ConstLabels: prometheus.Labels{"version": valid(o.Version), "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(
		build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.jobs, m.runs, m.attempts, m.commits,
	)
	return m
}

// Sources are where numbers are read when somebody scrapes. All are called from many goroutines, and none may block but Sinks.
type Sources struct {
	HTTP    func() httpapi.Stats
	Ledger  func() ledger.Stats
	Servers func() []gearman.ServerStats
	Pool    func() (s workerpool.Stats, ok bool) // ok is false while there is no pool
	Sinks   func(ctx context.Context) []webhook.SinkStats
	Outbox  interface {
		Full() bool
		Dropped() uint64
	}
	Store func() store.Stats // nil: there is none
}

// Read begins to show what can be read from the sources. It is called once, and all of them but Store are needed.
func (m *Metrics) Read(s Sources) {
	m.registry.MustRegister(
		readHTTP(s.HTTP), readLedger(s.Ledger), m.readServers(s.Servers), readPool(s.Pool), m.readSinks(s.Sinks), readOutbox(s.Outbox.Full, s.Outbox.Dropped),
	)
	if s.Store != nil {
		m.registry.MustRegister(readStore(s.Store))
	}
}

// maxScrapes is how many scrapes are answered at a time. More wait.
const maxScrapes = 4

// Handler answers scrapes, in the formats that Prometheus knows. Where a number cannot be had the others are shown.
func (m *Metrics) Handler() http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: scrapeLog{m.log},
	})
	slots := make(chan struct{}, maxScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		defer func() { <-slots }()
		h.ServeHTTP(w, r)
	})
}

// scrapeLog is promhttp's logger.
type scrapeLog struct{ log zerolog.Logger }

func (l scrapeLog) Println(v ...any) {
	l.log.Error().Any("error", v).Msg("metrics: some numbers cannot be shown")
}

// buckets are the bounds of histograms of what takes from a millisecond to an hour, in seconds.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

// until returns the buckets up to a bound.
func until(most time.Duration) []float64 {
	n := len(buckets)
	for n > 0 && buckets[n-1] > most.Seconds() {
		n--
	}
	return buckets[:n]
}
