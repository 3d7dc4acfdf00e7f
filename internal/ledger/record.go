// Package ledger is what the gateway knows of each job: its record, its state and who waits for it.
package ledger

import (
	"errors"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// Mode is how a job is submitted, and what it survives.
type Mode string

// The modes; the zero value of a Task means Background.
const (
	Background Mode = "background"
	Sync       Mode = "sync"
	Tracked    Mode = "tracked"
)

// State is where a job is in its life. States only move forward.
type State string

// The states, in their order. Unknown is a background job that no job server knows any more and whose end nobody reported:
// it may have completed or not.
const (
	Scheduled State = "scheduled"
	Queued    State = "queued"
	Running   State = "running"
	Completed State = "completed"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Lost      State = "lost"
	Unknown   State = "unknown"
)

// States lists them all, and Modes all modes.
var (
	States = []State{Scheduled, Queued, Running, Completed, Failed, Cancelled, Lost, Unknown}
	Modes  = []Mode{Background, Sync, Tracked}
)

// Ended reports whether the state is final.
func (s State) Ended() bool { return s != Scheduled && s != Queued && s != Running }

// OnLost says what becomes of a tracked job when the job server has lost it.
type OnLost string

// The choices; the zero value means Resubmit.
const (
	Resubmit OnLost = "resubmit" // at least once
	Fail     OnLost = "fail"     // at most once: the job ends as Lost
)

// Task is what a caller wants done.
type Task struct {
	Owner    string // whose job it is; "": nobody's, which only a Caller with All sees
	Function string
	Workload []byte
	Unique   string // the caller's; "" is none
	Mode     Mode
	Priority gearman.Priority
	Wait     time.Duration // Sync: how long Submit waits for the end

	RunAt    time.Time // Background and Tracked: not submitted before; zero: at once
	Deadline time.Time // not run after; zero: none
	OnLost   OnLost    // Tracked
	Retry    Retry     // Tracked
	RetryOf  string    // id of the job that this one runs again
	Key      *Key      // its Key and Fingerprint; nil: none

	Callback    *event.Callback // where its caller wants to hear of it; nil: nowhere
	Traceparent string          // W3C trace context of the request; "": none
	RequestID   string          // of the request, for the log; "": none

	Record Record // what Submit returns is here
}

// Record is a snapshot of what is known of a job. Its slices and pointers are shared and must not be changed.
type Record struct {
	ID       string // UUIDv7; "" for a stranger's job that only a job server knows
	Owner    string // whose job it is; "": nobody's
	Handle   string // "" until the job server gave one
	Server   string // host:port, as configured
	Function string
	Unique   string // the caller's
	Mode     Mode
	State    State

	Priority gearman.Priority
	Kept     bool // a completed job's Result is here: false when nobody told it to the gateway, or it expired
	Sent     bool // of a job that is not to run twice: its submit was begun
	Replayed bool // Submit found it under the task's idempotency key
	Stale    bool // from Store.Get: there may be changes of it that could not be stored yet

	Gearman  *gearman.JobStatus // what the job server said of a live job for this snapshot; nil if it was not or could not be asked
	Progress *event.Progress    // nil until a worker reported any
	Result   []byte             // of a completed job
	Error    *event.Error       // of a job that ended without a result
	Warnings [][]byte

	RunAt       time.Time // not submitted before; zero: at once
	Deadline    time.Time // not run after; zero: none
	OnLost      OnLost    // of a tracked job
	Retry       Retry     // of a tracked job
	Attempt     int       // how often it was tried again because it failed
	Deaths      int       // how often its run died where we could see it: its handler's process did, or a job server lost it
	RetryOf     string    // id of the job that this one runs again
	Traceparent string    // W3C trace context of its submit, or of the request where there are no traces
	Callback    *event.Callback
	EventSeq    uint64  // Seq of its latest event
	Log         []Entry // of a job that has ended: in a Change, and from Store.Get

	SubmittedAt time.Time
	StartedAt   time.Time // zero until known
	EndedAt     time.Time // zero until known
}

// ErrNotFound: neither the ledger nor any job server knows the job.
var ErrNotFound = errors.New("no such job")

// ErrFull: the ledger holds as many waiting jobs as it may.
var ErrFull = errors.New("too many jobs in flight")

// ErrEventsFull: so many events wait for their webhook sinks that those of one more tracked or scheduled job might not be kept.
var ErrEventsFull = errors.New("too many events wait to be delivered")

// handedOver reports whether a job in the background is a job server's, that has it or may have it: it is not submitted again.
func (r *Record) handedOver() bool {
	return r.Mode == Background && (r.Handle != "" || r.Server != "")
}
