package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gearman-gateway/internal/workerpool"
)

// runs counts what the pool has run.
type runs struct {
	group
	functions *functions
	total     *prometheus.CounterVec
	seconds   *prometheus.CounterVec
	ended     table[run, runSeries]
}

type run struct{ function, outcome string }

type runSeries struct{ total, seconds prometheus.Counter }

func newRuns(f *functions) *runs {
	total := counters("worker_runs_total",
		"Runs of jobs by the gateway's own workers that have ended: completed, handed_back, or the kind of failure.", "function", "outcome")
	seconds := counters("worker_run_seconds_total", "Time that the runs by the gateway's own workers took.", "function")
	return &runs{group: group{total, seconds}, functions: f, total: total, seconds: seconds}
}

// RunEnded implements workerpool.Meter.
func (r *runs) RunEnded(function, outcome string, took time.Duration) {
	k := run{r.functions.label(function), knownOutcome(outcome)}
	s, ok := r.ended.get(k)
	if !ok {
		s = r.ended.add(k, func() runSeries {
			return runSeries{total: r.total.WithLabelValues(k.function, k.outcome), seconds: r.seconds.WithLabelValues(k.function)}
		})
	}
	s.total.Inc()
	s.seconds.Add(max(0, took.Seconds()))
}

// knownOutcome returns an outcome of the gateway's own, or Other: handlers in Go may have errors whose Kind is anything.
func knownOutcome(outcome string) string {
	switch outcome {
	case workerpool.RunCompleted, workerpool.RunHandedBack, "failed", "exception", "panic", "timeout", "cancelled", "exit":
		return outcome
	}
	return Other
}

func readPool(stats func() (workerpool.Stats, bool)) prometheus.Collector {
	r := &reading{}
	slots := r.describe("worker_slots", "Jobs that the gateway's own workers may run at a time.")
	busy := r.describe("worker_slots_busy", "Jobs that the gateway's own workers run.")
	functions := r.describe("worker_functions", "Functions that the gateway has handlers for.")
	lives := r.describe("worker_lives_total", "Workers of the gateway that have begun, one after the other as they reach their limits.")
	r.collect = func(ch chan<- prometheus.Metric) {
		s, ok := stats()
		if !ok {
			return
		}
		gauge(ch, slots, s.Slots)
		gauge(ch, busy, s.Busy)
		gauge(ch, functions, s.Functions)
		counter(ch, lives, s.Lives)
	}
	return r
}
