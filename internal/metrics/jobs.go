package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// jobs counts what the ledger tells.
type jobs struct {
	group
	functions         *functions
	total             *prometheus.CounterVec
	over              *prometheus.CounterVec
	queue, run, whole *prometheus.HistogramVec

	submitted table[submission, prometheus.Counter]
	times     table[kind, *jobTimes]
}

// submission and kind are what a job has in common with others; function is a label value.
type (
	submission struct {
		kind
		priority gearman.Priority
	}
	kind struct {
		function string
		mode     ledger.Mode
	}
)

// jobTimes are the series of one kind of jobs.
type jobTimes struct {
	queue, run, whole prometheus.Observer
	ended             map[ledger.State]prometheus.Counter
}

func newJobs(f *functions) *jobs {
	j := &jobs{
		functions: f,
		total:     counters("jobs_submitted_total", "Jobs that a job server has taken.", "function", "mode", "priority"),
		over:      counters("jobs_ended_total", "Jobs that have ended, by the state in which they did.", "function", "mode", "outcome"),
		queue: histograms("job_queue_duration_seconds",
			"Time from a job's submit, or the time at which it was to run, to its first run, where its start was told.",
			buckets, "function", "mode"),
		run: histograms("job_run_duration_seconds",
			"Time from the start to the end of the run that ended a job, where its start was told.", buckets, "function", "mode"),
		whole: histograms("job_duration_seconds",
			"Time from a job's submit, or the time at which it was to run, to its end, of those that completed or failed.",
			buckets, "function", "mode"),
	}
	j.group = group{j.total, j.over, j.queue, j.run, j.whole}
	return j
}

// JobSubmitted implements ledger.Meter.
func (j *jobs) JobSubmitted(r *ledger.Record) {
	s := submission{kind{j.functions.label(r.Function), r.Mode}, r.Priority}
	c, ok := j.submitted.get(s)
	if !ok {
		c = j.submitted.add(s, func() prometheus.Counter {
			return j.total.WithLabelValues(s.function, string(s.mode), s.priority.String())
		})
	}
	c.Inc()
}

// JobStarted implements ledger.Meter.
func (j *jobs) JobStarted(r *ledger.Record, queued time.Duration) {
	j.of(r).queue.Observe(queued.Seconds())
}

// JobEnded implements ledger.Meter.
func (j *jobs) JobEnded(r *ledger.Record, took, ran time.Duration) {
	t := j.of(r)
	t.ended[r.State].Inc()
	if r.State != ledger.Completed && r.State != ledger.Failed {
		return
	}
	t.whole.Observe(took.Seconds())
	if ran > 0 {
		t.run.Observe(ran.Seconds())
	}
}

// of returns the series of jobs like r.
func (j *jobs) of(r *ledger.Record) *jobTimes {
	k := kind{j.functions.label(r.Function), r.Mode}
	if t, ok := j.times.get(k); ok {
		return t
	}
	return j.times.add(k, func() *jobTimes {
		t := &jobTimes{
			queue: j.queue.WithLabelValues(k.function, string(k.mode)), run: j.run.WithLabelValues(k.function, string(k.mode)),
			whole: j.whole.WithLabelValues(k.function, string(k.mode)), ended: map[ledger.State]prometheus.Counter{},
		}
		for _, s := range ledger.States {
			if s.Ended() {
				t.ended[s] = j.over.WithLabelValues(k.function, string(k.mode), string(s))
			}
		}
		return t
	})
}

func readLedger(stats func() ledger.Stats) prometheus.Collector {
	r := &reading{}
	records := r.describe("records", "Records of jobs in memory.")
	maxRecords := r.describe("records_limit", "Bound of the records of jobs in memory.")
	live := r.describe("live_jobs",
		"Jobs that have not ended: durable ones (tracked, scheduled, or with an idempotency key), and the others by mode.", "kind")
	maxLive := r.describe("live_jobs_limit", "Bound of the jobs that have not ended.", "kind")
	workloads := r.describe("workload_bytes", "Bytes of the workloads of durable jobs that have not ended.")
	maxWorkloads := r.describe("workload_limit_bytes", "Bound of the bytes of the workloads of durable jobs that have not ended.")
	results := r.describe("result_bytes", "Bytes of results and warnings in memory.")
	maxResults := r.describe("result_limit_bytes", "Bound of the bytes of results and warnings in memory.")
	r.collect = func(ch chan<- prometheus.Metric) {
		s := stats()
		gauge(ch, records, s.Records)
		gauge(ch, maxRecords, s.MaxRecords)
		gauge(ch, live, s.Background, "background")
		gauge(ch, live, s.Sync, "sync")
		gauge(ch, maxLive, s.MaxSync, "sync")
		gauge(ch, live, s.Durable, "durable")
		gauge(ch, maxLive, s.MaxDurable, "durable")
		gauge(ch, workloads, s.WorkloadBytes)
		gauge(ch, maxWorkloads, s.MaxWorkloadBytes)
		gauge(ch, results, s.ResultBytes)
		gauge(ch, maxResults, s.MaxResultBytes)
	}
	return r
}
