package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gearman-gateway/internal/store"
)

// commits counts the transactions of the store.
type commits struct {
	group
	duration prometheus.Histogram
	changes  prometheus.Counter
	errors   prometheus.Counter
}

func newCommits() *commits {
	c := &commits{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "store_commit_duration_seconds",
			Help: "Time that the transactions took that were stored, the sync of the disk included.", Buckets: until(10 * time.Second),
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "store_changes_total", Help: "Changes that were stored, many to a transaction.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "store_commit_errors_total", Help: "Transactions that could not be stored; they are tried again.",
		}),
	}
	c.group = group{c.duration, c.changes, c.errors}
	return c
}

// Committed implements store.Meter.
func (c *commits) Committed(changes int, took time.Duration, err error) {
	if err != nil {
		c.errors.Inc()
		return
	}
	c.duration.Observe(took.Seconds())
	c.changes.Add(float64(changes))
}

func readStore(stats func() store.Stats) prometheus.Collector {
	r := &reading{}
	waiting := r.describe("store_waiting_changes", "Changes that are not stored yet.")
	failing := r.describe("store_failing", "Whether the last transaction could not be stored.")
	r.collect = func(ch chan<- prometheus.Metric) {
		s := stats()
		gauge(ch, waiting, s.Waiting)
		gauge(ch, failing, flag(s.Failing))
	}
	return r
}
