// Package event is the vocabulary of lifecycle events, and what takes them.
//
// The names of worker events are those of the PHP library dmank/gearman, so that its users recognise them.
package event

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Type names what happened.
type Type string

// The life of a worker, in the order in which it happens: once at the start the first five, then the next four as it
// goes, and OnBeforeDestroy when it leaves. OnFailure is an error of the worker itself, not of a function.
const (
	WorkerBeforeRun                 Type = "worker.before_run"
	WorkerServerOnConnect           Type = "worker.server_on_connect"
	WorkerServerOnConnected         Type = "worker.server_on_connected"
	WorkerOnBeforeRegisterFunctions Type = "worker.on_before_register_functions"
	WorkerOnAfterRegisterFunctions  Type = "worker.on_after_register_functions"
	WorkerOnIOWait                  Type = "worker.on_io_wait"
	WorkerOnNoJobs                  Type = "worker.on_no_jobs"
	WorkerOnWork                    Type = "worker.on_work"
	WorkerAfterRun                  Type = "worker.after_run"
	WorkerOnBeforeDestroy           Type = "worker.on_before_destroy"
	WorkerOnFailure                 Type = "worker.on_failure"
)

// One run of a function.
const (
	FunctionBeforeExecute Type = "worker.function.before_execute"
	FunctionAfterExecute  Type = "worker.function.after_execute"
	FunctionOnFailure     Type = "worker.function.on_failure"
)

// The life of a job, as the ledger knows it.
const (
	JobScheduled Type = "job.scheduled"
	JobSubmitted Type = "job.submitted"
	JobStarted   Type = "job.started"
	JobProgress  Type = "job.progress"
	JobData      Type = "job.data"
	JobWarning   Type = "job.warning"
	JobCompleted Type = "job.completed"
	JobFailed    Type = "job.failed"
	JobCancelled Type = "job.cancelled"
	JobLost      Type = "job.lost"
)

// The life of a webhook sink. SinkTest is sent when somebody asks for it, to that sink alone, and is kept nowhere.
const (
	SinkDisabled Type = "sink.disabled"
	SinkTest     Type = "sink.test"
)

// What administrators have done by HTTP.
const (
	FunctionPaused   Type = "function.paused"
	FunctionResumed  Type = "function.resumed"
	FunctionMaxQueue Type = "function.maxqueue"
	SinkPaused       Type = "sink.paused"
	SinkResumed      Type = "sink.resumed"
	SinkReplayed     Type = "sink.replayed"
)

// Types lists every type that can be subscribed to, for checks of what a configuration names.
var Types = []Type{
	WorkerBeforeRun, WorkerServerOnConnect, WorkerServerOnConnected, WorkerOnBeforeRegisterFunctions,
	WorkerOnAfterRegisterFunctions, WorkerOnIOWait, WorkerOnNoJobs, WorkerOnWork, WorkerAfterRun, WorkerOnBeforeDestroy,
	WorkerOnFailure, FunctionBeforeExecute, FunctionAfterExecute, FunctionOnFailure, JobScheduled, JobSubmitted, JobStarted,
	JobProgress, JobData, JobWarning, JobCompleted, JobFailed, JobCancelled, JobLost, SinkDisabled,
	FunctionPaused, FunctionResumed, FunctionMaxQueue, SinkPaused, SinkResumed, SinkReplayed,
}

// An Event is one thing that happened. It is not changed after it was published.
type Event struct {
	ID          string    // "evt_" and a UUIDv7
	Type        Type      //
	Subject     string    // the job's id; its handle for a foreign client's job; the worker's id, or the name of the sink or the function, for theirs
	Seq         uint64    // grows with the events of one subject; a job's from 1
	Time        time.Time //
	Traceparent string    // W3C trace context of the job's submit, or of the request where there are no traces
	Callback    string    // URL to which the job's caller wants this event, besides the sinks; "": none
	Promised    bool      // of a tracked or scheduled job, or of a sink's end: it must not be lost, whatever becomes of others
	Data        Data
}

// Callback is what the caller of a job wants to hear of it, and where.
type Callback struct {
	URL    string   `json:"url"`
	Events Patterns `json:"events"`
}

// CallbackPatterns is what a callback hears that names no events: how the job ended.
var CallbackPatterns = Patterns{"job.completed", "job.failed", "job.cancelled", "job.lost"}

// New returns an event that happened at the time now, with a fresh ID.
func New(t Type, subject string, seq uint64, now time.Time, d Data) Event {
	return Event{ID: NewID(), Type: t, Subject: subject, Seq: seq, Time: now, Data: d}
}

func init() { uuid.EnableRandPool() } // random bytes are had in pieces of some hundreds; it must be said before any are

// NewID returns "evt_" and a UUIDv7.
func NewID() string {
	const digits = "0123456789abcdef"
	u := uuid.Must(uuid.NewV7())
	b := append(make([]byte, 0, 40), "evt_"...)
	for i, octet := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, digits[octet>>4], digits[octet&15])
	}
	return string(b)
}

// Data is what an event tells besides its type; which fields are set depends on the type. A job's workload is never part of it.
type Data struct {
	// of jobs and functions
	ID       string `json:"id,omitempty"`
	Owner    string `json:"owner,omitempty"` // the identity that submitted the job; "": nobody is known
	Handle   string `json:"handle,omitempty"`
	Server   string `json:"server,omitempty"`
	Function string `json:"function,omitempty"`
	Unique   string `json:"unique,omitempty"`
	Mode     string `json:"mode,omitempty"`
	Priority string `json:"priority,omitempty"`
	State    string `json:"state,omitempty"`

	Progress *Progress `json:"progress,omitempty"`
	Chunk    []byte    `json:"-"` // of job.data and job.warning: what the worker sent
	Result   []byte    `json:"-"` // of job.completed; nil where there is none
	Error    *Error    `json:"error,omitempty"`
	Verdict  *Verdict  `json:"-"` // of a function's failure, for who decides what becomes of its job; may be nil

	// of workers
	Worker     string  `json:"worker,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	DurationMS float64 `json:"duration_ms,omitempty"` // of a function's run, in milliseconds

	*Rest // nil of most events
}

// Rest is what only few events tell. It is apart because events are kept, tens of thousands of them.
type Rest struct {
	// of workers
	Servers   []string `json:"servers,omitempty"`
	Functions []string `json:"functions,omitempty"`

	Sink string `json:"sink,omitempty"` // of sink events: the sink's name

	// of what an administrator did
	By       string    `json:"by,omitempty"`        // the name of the identity; "": nobody is known
	MaxQueue *MaxQueue `json:"max_queue,omitempty"` // that the Servers have now
	Replayed *int      `json:"replayed,omitempty"`  // how many deliveries
}

// MaxQueue is how many jobs of a function there may be where another one of the priority is accepted; 0: any number.
type MaxQueue struct {
	High   int `json:"high"`
	Normal int `json:"normal"`
	Low    int `json:"low"`
}

// Facts are what the gateway knows of a job that it submitted itself when a run of it begins; zero for other clients' jobs.
type Facts struct {
	ID          string
	Attempt     int       // 1 for the first run
	Deadline    time.Time // when the run is to be over; zero: whenever
	Traceparent string    // of the job's submit, or of the request where there are no traces, as W3C Trace Context has it
}

// Verdict is what a worker knows of a failure that matters for another try of the job.
type Verdict struct {
	Never bool          // it will be the same however often the job runs
	After time.Duration // how long the handler wants to be left alone at least
	Died  bool          // the handler's process was ended by a signal or for want of memory

	// what is configured for the function
	MaxDeaths int           // a job whose runs died that often is not tried again; 0: however often
	Retries   int           // how often a job that has no policy of its own is tried again
	Backoff   time.Duration // the pause before the first of these tries; it doubles with each
}

// HandedBack is the Reason of a FunctionOnFailure that is no failure of the job: its worker stops, and the job server gives the
// job to another.
const HandedBack = "handed back"

// Progress is how far a job is, as its worker says.
type Progress struct {
	Numerator   float64 `json:"numerator"`
	Denominator float64 `json:"denominator"`
}

// Error is why a job has no result. Kind is one of failed, exception, timeout, panic, exit, lost, cancelled.
type Error struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// A Sink takes events. Publish does not block and is safe for concurrent use; what it cannot take it counts and logs itself. It keeps
// events, but not the slice.
type Sink interface {
	Publish(...Event)
}

// DefaultPatterns is what a webhook sink hears that names no events: everything but the ticks of an idle worker and the
// events that a single job may cause without bound.
var DefaultPatterns = Patterns{
	"worker.before_run", "worker.server_on_connect", "worker.server_on_connected", "worker.on_before_register_functions",
	"worker.on_after_register_functions", "worker.after_run", "worker.on_before_destroy", "worker.on_failure", "worker.function.*",
	"job.scheduled", "job.submitted", "job.started", "job.warning", "job.completed", "job.failed", "job.cancelled", "job.lost", "sink.*", "function.*",
}

// Patterns selects events: each is a type, a prefix that ends in ".*", or "*".
type Patterns []string

// Match reports whether any pattern selects t.
func (p Patterns) Match(t Type) bool {
	return slices.ContainsFunc(p, func(pattern string) bool {
		prefix, wild := strings.CutSuffix(pattern, "*")
		if wild && (prefix == "" || strings.HasSuffix(prefix, ".")) {
			return strings.HasPrefix(string(t), prefix)
		}
		return pattern == string(t)
	})
}

// Check returns an error that names the first pattern that selects no event at all: a spelling mistake most likely.
func (p Patterns) Check() error {
	for _, pattern := range p {
		if !slices.ContainsFunc(Types, Patterns{pattern}.Match) {
			return fmt.Errorf("%q is no type of event, nor a prefix of any such as job.*", pattern)
		}
	}
	return nil
}
