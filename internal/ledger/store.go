package ledger

import (
	"context"
	"errors"
	"time"

	"gearman-gateway/internal/event"
)

// Store keeps records beyond the ledger's memory and the gateway's life. It is safe for concurrent use.
type Store interface {
	// Apply takes a change and the events that it causes. It does not block. Changes are stored in the order in which they
	// were given, soon, many at a time; neither c nor the slice of events is kept. Of several changes of one record that wait, the last is enough. What cannot be
	// stored now, because the disk is full say, is tried again until it is.
	Apply(c *Change, events ...event.Event)

	// Commit is Apply that returns when the change is durable. After an error, which wraps ErrStoreFailed, nothing of the
	// change is stored or will be. What Apply was given before is stored first.
	Commit(ctx context.Context, c *Change, events ...event.Event) error

	// Get returns a record with its result and warnings, by id or, where ref is none, by handle the newest that has it;
	// ErrNotFound if there is none.
	Get(ctx context.Context, ref string) (Record, error)

	// Workload returns what a job was submitted with; ErrNotFound where it was not kept.
	Workload(ctx context.Context, id string) ([]byte, error)

	// List returns records, newest first, without results, warnings and logs.
	List(ctx context.Context, q Query) ([]Record, error)

	// Unfinished calls f for each record that has not ended, oldest first, and stops at an error of f.
	Unfinished(ctx context.Context, f func(Record) error) error

	// Key returns what is known under an idempotency key; ErrNotFound if nothing is, or what was is older than its TTL.
	Key(ctx context.Context, key string) (Key, error)
}

// ErrStoreFailed: a change could not be made durable.
var ErrStoreFailed = errors.New("the job could not be stored")

// ErrKeyTaken: another record was committed under the idempotency key first.
var ErrKeyTaken = errors.New("the idempotency key is taken")

// Change is a record as it is after a change.
type Change struct {
	Record   Record // ID "": the events belong to no record, and nothing but them is to be kept
	Workload []byte // of a job that must outlive the gateway: set when it is entered, nil in later changes
	Key      *Key   // set when it is entered with an idempotency key; Commit answers ErrKeyTaken if there is another. Set when it is forgotten, too
	Forget   bool   // take the record, its workload and its key back: no job server took the job
}

// Key is an idempotency key and what was submitted with it.
type Key struct {
	Key         string // as the caller gave it
	Fingerprint []byte // of the submission
	ID          string // of the job
	At          time.Time
}

// Query selects records. Zero fields select all.
type Query struct {
	Owner    string
	Function string
	State    State
	Mode     Mode
	Before   string // id: only records older than that one
	Limit    int    // at most so many; it is always set
}

// Retry says how a tracked job is tried again that failed. The zero value leaves that to the function's policy, where our own pool
// ran the job and has one; Max 0 with a Backoff means never.
type Retry struct {
	Max     int           // times it is tried again
	Backoff time.Duration // before the first of them; it doubles each time, up to an hour, give or take a quarter
}

// Entry is one line of a job's log, which its event stream shows. Exactly one of State, Progress and Payload says what happened.
type Entry struct {
	Seq      uint64 // counts from 1; where some are missing they were dropped to bound the log
	At       time.Time
	State    State           // the job moved to this state
	Progress *event.Progress //
	Warning  bool            // Payload is a warning, not data
	Payload  []byte          //
}
