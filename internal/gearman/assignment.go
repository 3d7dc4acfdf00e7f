package gearman

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"gearman-gateway/internal/gearman/wire"
)

// Assignment is a job that a worker was given. Its methods send packets to the job server; they are safe for concurrent use,
// block only while Options.MaxBuffered bytes wait to be written, and fail when the connection that the job came over is lost: the
// job server then gives the job to somebody else.
type Assignment struct {
	Server   string
	Handle   string
	Function string
	Unique   string // "" where there is none, or the job server does not tell
	Workload []byte

	link  *link
	ended atomic.Bool
}

// errEnded answers who sends anything for a job that was ended.
var errEnded = errors.New("the job was ended already")

func (s *workerSession) assignment(handle, function, unique, workload []byte) *Assignment {
	return &Assignment{
		Server: s.o.Addr, Handle: string(handle), Function: string(function), Unique: string(unique),
		Workload: workload, link: s.link,
	}
}

// Data sends a part of the result.
func (a *Assignment) Data(b []byte) error { return a.send(wire.WorkData, b) }

// Warning sends a message that is not part of the result.
func (a *Assignment) Warning(b []byte) error { return a.send(wire.WorkWarning, b) }

// Status sends how far the job is.
func (a *Assignment) Status(numerator, denominator uint64) error {
	return a.send(wire.WorkStatus, strconv.AppendUint(nil, numerator, 10), strconv.AppendUint(nil, denominator, 10))
}

// Complete ends the job with the rest of its result.
func (a *Assignment) Complete(b []byte) error { return a.end(wire.WorkComplete, b) }

// Fail ends the job without a word.
func (a *Assignment) Fail() error { return a.end(wire.WorkFail) }

// Exception ends the job with what went wrong. gearmand takes the packet for the job's end; Perl's job server wants a WORK_FAIL
// after it, which gearmand answers with JOB_NOT_FOUND.
func (a *Assignment) Exception(b []byte) error {
	if err := a.end(wire.WorkException, b); err != nil {
		return err
	}
	return a.link.send(wire.WorkFail, []byte(a.Handle))
}

func (a *Assignment) send(t wire.Type, args ...[]byte) error {
	if a.ended.Load() {
		return errEnded
	}
	return a.link.send(t, append([][]byte{[]byte(a.Handle)}, args...)...)
}

func (a *Assignment) end(t wire.Type, args ...[]byte) error {
	if a.ended.Swap(true) {
		return errEnded
	}
	return a.link.send(t, append([][]byte{[]byte(a.Handle)}, args...)...)
}

func isJobNotFound(e *ServerError) bool { return strings.EqualFold(e.Code, "JOB_NOT_FOUND") }
