package ledger

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"gearman-gateway/internal/event"
)

// maxMessage bounds what a worker says of its failure, in bytes; the rest is cut off.
const maxMessage = 64 << 10

// fail enters a failure. Another try is up to the policies of the job and of its function, and to what the run's handler said.
func (l *Ledger) fail(j *job, e event.Error, v *event.Verdict) {
	l.begun(j)
	poisonous := l.died(j, v)
	if poisonous {
		e.Kind = "exit"
		e.Message = fmt.Sprintf("stopped, because its handler died %d times, the last time so: %s", j.Deaths, e.Message)
	}
	if len(e.Message) > maxMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxMessage], "") + "…"
	}
	state, t := Failed, event.JobFailed
	if e.Kind == "cancelled" {
		state, t = Cancelled, event.JobCancelled
	} else if !poisonous && !v.Never && l.tryAgain(j, v) {
		return
	}
	l.end(j, state, t, &e)
}

// died counts a run whose handler's process died, and says whether the job is poison: so many of its runs died that it is not to
// be tried again. A run that a job server lost is such a death too, most likely, and counts; see forgotten.
func (l *Ledger) died(j *job, v *event.Verdict) (poisonous bool) {
	if !v.Died || j.Mode != Tracked {
		return false
	}
	j.Deaths++
	return v.MaxDeaths > 0 && j.Deaths >= v.MaxDeaths
}

// tryAgain has a failed job run once more, if its policy has it so, or its function's where it has none.
func (l *Ledger) tryAgain(j *job, v *event.Verdict) bool {
	policy := j.Retry
	if policy == (Retry{}) { // one that says never has a Backoff
		policy = Retry{Max: v.Retries, Backoff: v.Backoff}
	}
	if j.Mode != Tracked || j.Attempt >= policy.Max || j.late(time.Now()) {
		return false
	}
	pause := min(cmp.Or(policy.Backoff, time.Second)<<min(j.Attempt, 20), time.Hour)
	if pause <= 0 {
		pause = time.Hour
	}
	pause = max(pause+time.Duration((rand.Float64()-0.5)/2*float64(pause)), v.After)
	j.Attempt++
	l.rewire(j)
	l.drop(j)
	j.RunAt, j.Progress, j.StartedAt = time.Now().Add(pause), nil, time.Time{}
	l.unplace(j)
	j.Handle, j.Server, j.doubt, j.unheard = "", "", false, nil
	l.move(j, Scheduled)
	l.apply(j, event.JobScheduled, &event.Data{})
	j.submitted = false
	l.submitAt(j, j.RunAt)
	return true
}
