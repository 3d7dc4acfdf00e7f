package ledger

import "time"

// A Meter counts jobs and measures their times. It is called under the ledger's lock: it must be quick, must neither block nor call the
// ledger, and must not keep the record.
type Meter interface {
	// JobSubmitted is told once of each job, when a job server has it.
	JobSubmitted(r *Record)

	// JobStarted is told of a job's first run, with the time since it was due, unless that run is only known by its end: job servers do
	// not tell when a worker of somebody else begins.
	JobStarted(r *Record, queued time.Duration)

	// JobEnded is told once of each job that has ended, with the time since it was due, and that of its last run; 0 if that is not known.
	JobEnded(r *Record, took, ran time.Duration)
}

// noMeter is the Meter of a ledger without one.
type noMeter struct{}

func (noMeter) JobSubmitted(*Record)                           {}
func (noMeter) JobStarted(*Record, time.Duration)              {}
func (noMeter) JobEnded(*Record, time.Duration, time.Duration) {}

// meterStart measures how long a job was queued.
func (l *Ledger) meterStart(j *job) {
	j.timed = true
	if j.Attempt == 0 && j.Deaths == 0 {
		l.o.Meter.JobStarted(&j.Record, max(0, j.StartedAt.Sub(j.since)))
	}
}

// meterEnd measures a job that has ended in another state than before.
func (l *Ledger) meterEnd(j *job, before State) {
	var ran time.Duration
	if j.timed && before == Running {
		ran = j.EndedAt.Sub(j.StartedAt)
	}
	since := j.since
	if since.IsZero() {
		since = j.dueAt()
	}
	l.o.Meter.JobEnded(&j.Record, max(0, j.EndedAt.Sub(since)), ran)
}

// dueAt is when a job may run: after a failure that is when it is tried again.
func (j *job) dueAt() time.Time {
	if j.RunAt.After(j.SubmittedAt) {
		return j.RunAt
	}
	return j.SubmittedAt
}

// Stats are how much the ledger holds, and how much it may.
type Stats struct {
	Records, MaxRecords             int   // in memory
	Background                      int   // jobs that have not ended, of those that are not durable
	Sync, MaxSync                   int   // the same
	Durable, MaxDurable             int   // tracked jobs, scheduled ones and those with an idempotency key, that have not ended nor were handed over
	WorkloadBytes, MaxWorkloadBytes int64 // of the durable ones
	ResultBytes, MaxResultBytes     int64 // in memory: results, warnings, and workloads of jobs that may be run again
}

// Stats returns what the ledger holds now. It does not block.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Records: len(l.byID), MaxRecords: l.o.MaxRecords,
		Background: l.background.n,
		Sync:       l.sync, MaxSync: l.o.MaxLive,
		Durable: l.tracked, MaxDurable: l.o.MaxTracked,
		WorkloadBytes: l.workloads, MaxWorkloadBytes: l.o.MaxWorkloads,
		ResultBytes: l.bytes, MaxResultBytes: l.o.MaxBytes,
	}
}
