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
)

// State is where a job is in its life. States only move forward.
type State string

// The states, in their order. Unknown is a background job that no job server knows any more and whose end nobody reported:
// it may have completed or not.
const (
	Queued    State = "queued"
	Running   State = "running"
	Completed State = "completed"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Lost      State = "lost"
	Unknown   State = "unknown"
)

// Ended reports whether the state is final.
func (s State) Ended() bool { return s != Queued && s != Running }

// Task is what a caller wants done.
type Task struct {
	Function string
	Workload []byte
	Unique   string // the caller's; "" is none
	Mode     Mode
	Priority gearman.Priority
	Wait     time.Duration // Sync: how long Submit waits for the end
}

// Record is a snapshot of what is known of a job. Its slices and pointers are shared and must not be changed.
type Record struct {
	ID       string // UUIDv7; "" for a stranger's job that only a job server knows
	Handle   string // "" until the job server gave one
	Server   string // host:port, as configured
	Function string
	Unique   string // the caller's
	Mode     Mode
	Priority gearman.Priority
	State    State

	Gearman  *gearman.JobStatus // what the job server said of a live job for this snapshot; nil if it was not or could not be asked
	Progress *event.Progress    // nil until a worker reported any
	Result   []byte             // of a completed job
	Kept     bool               // a completed job's Result is here: false when nobody told it to the gateway, or it expired
	Error    *event.Error       // of a job that ended without a result
	Warnings [][]byte

	SubmittedAt time.Time
	StartedAt   time.Time // zero until known
	EndedAt     time.Time // zero until known
}

// ErrNotFound: neither the ledger nor any job server knows the job.
var ErrNotFound = errors.New("no such job")

// ErrFull: the ledger holds as many waiting jobs as it may.
var ErrFull = errors.New("too many jobs in flight")
