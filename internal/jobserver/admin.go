package jobserver

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
)

// The admin protocol: one line in, an answer out. Tables end with a line ".", and have LF; OK and ERR lines have CRLF, save those
// of version, getpid and verbose. That is how gearmand has it.
const (
	ok             = "OK\r\n"
	errUnknownVerb = "ERR UNKNOWN_COMMAND Unknown+server+command\r\n"
	errShow        = "ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
	errUnknownJob  = "ERR UNKNOWN_JOB\r\n"
	errUnknown     = "ERR UNKNOWN_ERROR\r\n"
	errNoFunction  = "ERR function not found\r\n"
	errBusy        = "ERR there are still connected workers or executing clients\r\n"
	endOfTable     = ".\n"
)

// errHTTP closes the connection of a browser: a page may make it post to this port, and the lines of the post would be commands.
var errHTTP = errors.New("peer speaks HTTP")

// text answers a line of the admin protocol. It returns an error if the connection is to end.
func (s *Server) text(c *conn, line string) error {
	args := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	if len(args) == 3 && strings.HasPrefix(args[2], "HTTP/") {
		return errHTTP
	}
	if !c.out.putText([]byte(s.answer(args))) {
		c.close(errSlow)
	}
	return nil
}

func (s *Server) answer(args []string) string {
	if len(args) == 0 {
		return errUnknownVerb
	}
	verb := strings.ToLower(args[0])
	switch args = args[1:]; verb {
	case "version":
		return "OK " + s.opts.Version + "\n"
	case "getpid":
		return fmt.Sprintf("OK %d\n", os.Getpid())
	case "verbose":
		return "OK " + verbosity(s.log.GetLevel()) + "\n"
	case "status":
		return s.statusTable()
	case "prioritystatus":
		return s.priorityTable()
	case "workers":
		return s.workersTable()
	case "show":
		return s.show(args)
	case "cancel":
		return s.cancel(args)
	case "maxqueue":
		return s.setMaxQueue(args)
	case "create":
		return s.createFunction(args)
	case "drop":
		return s.dropFunction(args)
	}
	return errUnknownVerb
}

func incomplete(verb string) string {
	return "ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + verb + "\r\n"
}

// verbosity is gearmand's name of a log level.
func verbosity(l zerolog.Level) string {
	switch l {
	case zerolog.TraceLevel, zerolog.DebugLevel:
		return "DEBUG"
	case zerolog.InfoLevel:
		return "INFO"
	case zerolog.WarnLevel:
		return "WARNING"
	case zerolog.ErrorLevel:
		return "ERROR"
	}
	return "FATAL"
}

// cell keeps what a peer chose from breaking a table: control bytes become "?".
func cell(name string) string {
	clean := []byte(name)
	for i, b := range clean {
		if b < ' ' || b == 0x7f {
			clean[i] = '?'
		}
	}
	return string(clean)
}

// is says whether the words are those, in any case.
func is(args []string, words ...string) bool {
	return slices.EqualFunc(args, words, strings.EqualFold)
}

// cancel ends a job, waiting or running, as failed. The worker of a running one is not told, and may finish it for nothing.
func (s *Server) cancel(args []string) string {
	if len(args) < 2 {
		return errUnknownVerb
	}
	if len(args) > 2 || !is(args[:1], "job") {
		return errUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs.get(s.handleNumber([]byte(args[1])))
	switch {
	case j == nil:
		return errUnknownJob
	case j.worker != nil:
		s.revoke(j)
	default:
		s.fail(j)
	}
	return ok
}

// setMaxQueue limits the jobs of a function: for all priorities alike, or for high, normal and low; with no number, not at
// all. The function is made if need be, so that its limit can come before its first job.
func (s *Server) setMaxQueue(args []string) string {
	if len(args) != 1 && len(args) != 2 && len(args) != 1+priorities {
		return incomplete("maxqueue")
	}
	var limits [priorities]int
	for i, text := range args[1:] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return incomplete("maxqueue")
		}
		limits[i] = max(n, 0)
	}
	if len(args) == 2 {
		limits[normal], limits[low] = limits[high], limits[high]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, answer := s.namedFunction(args[0])
	if f != nil {
		f.limits = limits
	}
	return answer
}

func (s *Server) createFunction(args []string) string {
	if len(args) != 2 || !is(args[:1], "function") {
		return incomplete("create")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, answer := s.namedFunction(args[1])
	return answer
}

// namedFunction finds or makes a function, and says how that went.
func (s *Server) namedFunction(name string) (*function, string) {
	f, refused := s.function([]byte(name))
	if refused != nil {
		return nil, "ERR CREATE_FUNCTION " + cell(name) + "\r\n"
	}
	return f, ok
}

// dropFunction forgets a function that has neither jobs nor workers. gearmand drops queued jobs with it.
func (s *Server) dropFunction(args []string) string {
	if len(args) != 2 || !is(args[:1], "function") {
		return incomplete("drop")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.functions[args[1]]
	if f == nil {
		return errNoFunction
	}
	if f.total() > 0 || f.workers > 0 {
		return errBusy
	}
	delete(s.functions, f.name)
	return ok
}
