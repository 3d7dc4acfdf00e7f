package ledger

import (
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// lock is the ledger's mutex. It keeps the lines of the log about jobs that have ended until it is not held any more: a log that is slow
// must hold up nobody but who caused them.
type lock struct {
	sync.Mutex
	lines []*zerolog.Event
}

// Unlock unlocks, and then writes what is to be logged.
func (l *lock) Unlock() {
	lines := l.lines
	l.lines = nil
	l.Mutex.Unlock()
	for _, e := range lines {
		e.Msg("job ended")
	}
}

// levels of the line about a job's end: what goes as it should is of no interest to a person.
var levels = map[State]zerolog.Level{
	Completed: zerolog.DebugLevel, Unknown: zerolog.DebugLevel, Failed: zerolog.InfoLevel, Cancelled: zerolog.InfoLevel, Lost: zerolog.WarnLevel,
}

// logEnd notes the line about a job's end. It says of which kind a failure is, and not what the worker said, which may quote the workload.
func (l *Ledger) logEnd(j *job, state State, kind string, ran time.Duration) {
	e := l.o.Log.WithLevel(levels[state])
	if e == nil {
		return
	}
	known := func(key, value string) {
		if value != "" {
			e = e.Str(key, value)
		}
	}
	known("job", j.ID)
	e = e.Str("function", j.Function).Str("state", string(state))
	known("mode", string(j.Mode))
	known("kind", kind)
	known("handle", j.Handle)
	known("server", j.Server)
	if j.Attempt > 0 {
		e = e.Int("retries", j.Attempt)
	}
	if ready := j.SubmittedAt; !ready.IsZero() {
		if j.RunAt.After(ready) {
			ready = j.RunAt
		}
		if !j.StartedAt.IsZero() {
			e = e.Dur("wait_ms", j.StartedAt.Sub(ready))
			ran = j.EndedAt.Sub(j.StartedAt)
		}
		e = e.Dur("total_ms", j.EndedAt.Sub(j.SubmittedAt))
	}
	if ran > 0 {
		e = e.Dur("run_ms", ran)
	}
	known("request_id", j.requestID)
	if len(j.Traceparent) == len("00-")+32+len("-")+16+len("-00") {
		e = e.Str("trace_id", j.Traceparent[3:][:32])
	}
	l.mu.lines = append(l.mu.lines, e)
}
