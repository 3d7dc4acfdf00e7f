package handler

import (
	"fmt"
	"strings"
	"syscall"
)

// ProcessError says how a handler's process ended that did not end well.
type ProcessError struct {
	Code   int            // the exit code; -1 if the process died by a signal
	Signal syscall.Signal // 0 if it exited by itself
	// OOM: the kernel killed it because memory was short. In a control group of its own (Limits.Cgroup) that is certain, elsewhere
	// it is a SIGKILL that nobody here sent, while the machine's count of such kills rose. A process that hits the rlimit is
	// not killed but refused memory, and says so itself.
	OOM    bool
	Stderr string // its last lines on standard error, valid UTF-8
}

// Kind is the kind of the failure in the job's record.
func (e *ProcessError) Kind() string { return "exit" }

// Died says that the process did not end by itself: a signal or the want of memory ended it, and not the gateway.
func (e *ProcessError) Died() bool { return e.OOM || e.Signal != 0 }

func (e *ProcessError) Error() string {
	what := fmt.Sprintf("exit status %d", e.Code)
	switch {
	case e.OOM:
		what = "killed for want of memory"
	case e.Signal != 0:
		what = fmt.Sprintf("killed by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return lastWords(what, e.Stderr)
}

// lastWords adds the last lines on standard error to what ended a process.
func lastWords(what, stderr string) string {
	if stderr == "" {
		return what
	}
	return what + ": " + stderr
}

// interrupted is the end of a process that the gateway ended.
type interrupted struct {
	cause  error
	stderr string
}

func (e *interrupted) Error() string { return lastWords(e.cause.Error(), e.stderr) }
func (e *interrupted) Unwrap() error { return e.cause }

const (
	tailLines = 20
	tailBytes = 8 << 10
)

// A tail keeps the last lines that were written to it: at most 20, and 8 KiB.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[max(0, len(p)-tailBytes):]...)
	if len(t.b) > 4*tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

// String returns the lines without the last line end.
func (t *tail) String() string {
	s := strings.TrimRight(string(t.b[max(0, len(t.b)-tailBytes):]), "\r\n")
	from := len(s)
	for range tailLines {
		if from = strings.LastIndexByte(s[:from], '\n'); from < 0 {
			return strings.ToValidUTF8(s, "\uFFFD")
		}
	}
	return strings.ToValidUTF8(s[from+1:], "\uFFFD")
}
