// Package gearman speaks to Gearman job servers: Client to one, pipelined; Cluster to several; Worker to take jobs from one;
// Admin for the text protocol.
//
// "GEARMAN" in comments of this package means the behaviour of gearmand 1.1.20 as it was measured, where that differs from
// the published PROTOCOL.
package gearman

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits of names on the wire. gearmand takes longer ones and then misbehaves: a unique of 64 bytes corrupts the
// job, a status request of 64 bytes is never answered.
const (
	MaxFunction = 512
	MaxUnique   = 63
	MaxHandle   = 63
)

// Priority orders the jobs of one function.
type Priority uint8

// The priorities; the zero value is normal.
const (
	Normal Priority = iota
	High
	Low
)

// String returns "normal", "high" or "low".
func (p Priority) String() string {
	switch p {
	case High:
		return "high"
	case Low:
		return "low"
	}
	return "normal"
}

// Task is what a client submits.
type Task struct {
	Function   string
	Unique     string // coalesces by function and unique on one job server; "" never does
	Workload   []byte
	Priority   Priority
	Background bool          // the job server keeps no one informed, and the job outlives the connection
	Timeout    time.Duration // how long Submit waits for the job server's answer; 0: as long as its ctx. It costs less than a ctx of its own
}

// Job says where a submitted task went. A handle means something on its server alone, and only for that server's life:
// after a restart the server counts from 1 again. Generation tells the lives of the client's connection apart.
type Job struct {
	Server     string // host:port, as configured
	Handle     string
	Generation uint64
}

// Kind is what an Update tells.
type Kind uint8

// The kinds of Update. Created comes first and once. Completed, Failed, Exception and Lost end a job; a job server may send a
// second one of these after a cancel, and those are not passed on.
const (
	Created   Kind = iota // Job is set
	Data                  // Payload: a part of the result
	Warning               // Payload: a message
	Status                // Numerator and Denominator
	Completed             // Payload: the rest of the result
	Failed                //
	Exception             // Payload: what the worker says went wrong
	Lost                  // Err: the connection ended, or the submit was refused; no more will be heard of the task
)

// Ends reports whether an update of this kind is a job's last.
func (k Kind) Ends() bool { return k >= Completed }

// Update is one thing that a job server said of a task.
type Update struct {
	Kind                   Kind
	Job                    Job
	Payload                []byte // the receiver's to keep
	Numerator, Denominator float64
	Err                    error
}

// Watch is told what becomes of a task, one update at a time and in order, on the goroutine that reads the connection: it
// must return at once, and must not call the client. A background task has Created or Lost and nothing else.
type Watch func(Update)

// JobStatus is what a job server says of a job. A job that ended, was lost or never existed is the same to it: not Known.
type JobStatus struct {
	Known, Running         bool
	Numerator, Denominator float64
}

// Conditions that callers tell apart with errors.Is. ErrNotSent and ErrOutcomeUnknown wrap or accompany a cause.
var (
	// ErrNotSent: no job server has seen the task; submitting it again cannot make two of it.
	ErrNotSent = errors.New("not sent")
	// ErrOutcomeUnknown: the task was on its way when the answer failed to come; a job may or may not exist.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrUnavailable: no connection to a job server.
	ErrUnavailable = errors.New("job server not reachable")
	// ErrStale: the connection that a handle came over is gone, and the handle may name another job by now.
	ErrStale = errors.New("the handle is of an earlier connection")
	// ErrBusy: so much waits to be answered by the job server that no more is taken.
	ErrBusy = errors.New("too many requests waiting for the job server")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("client closed")
)

// ServerError is an ERROR packet, or an ERR line of the admin protocol.
type ServerError struct {
	Code string // such as QUEUE_ERROR
	Text string
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("job server says %s: %s", e.Code, e.Text)
}

// QueueFull reports whether the job server refused a job because the function's queue is at its maxqueue. gearmand has one
// code for that and for a broken persistent store, and tells them apart in the text only.
func (e *ServerError) QueueFull() bool {
	return e.Code == "QUEUE_ERROR" && strings.Contains(strings.ToLower(e.Text), "full")
}

// A NameError is a function, unique or handle that must not reach a job server: NUL would shift the fields of the packet, white
// space corrupts the admin tables, and over-long names corrupt the job.
type NameError struct {
	Field  string // "function", "unique" or "handle"
	Reason string
}

func (e *NameError) Error() string { return e.Field + " " + e.Reason }

// CheckFunction returns a *NameError if s cannot be a function's name.
func CheckFunction(s string) error {
	if s == "" {
		return &NameError{"function", "is empty"}
	}
	return checkName("function", s, MaxFunction)
}

// CheckUnique returns a *NameError if s cannot be a unique. "" is none. "-" is refused because job servers
// take it to mean "coalesce by workload".
func CheckUnique(s string) error {
	if s == "-" {
		return &NameError{"unique", `may not be "-", which makes job servers coalesce by workload`}
	}
	return checkName("unique", s, MaxUnique)
}

// CheckHandle returns a *NameError if s cannot be a job's handle.
func CheckHandle(s string) error {
	if s == "" {
		return &NameError{"handle", "is empty"}
	}
	return checkName("handle", s, MaxHandle)
}

func checkName(field, s string, most int) error {
	if len(s) > most {
		return &NameError{field, fmt.Sprintf("has %d bytes, more than %d", len(s), most)}
	}
	if i := strings.IndexAny(s, "\x00\r\n\t "); i >= 0 {
		return &NameError{field, fmt.Sprintf("has the byte %#02x, which is not allowed in a name", s[i])}
	}
	return nil
}
