// Package launch starts programs under resource limits, which Go cannot set between fork and exec.
//
// A limited program is started in two steps: first this very binary once more, under the name that Name is and with the limits
// and the program as arguments; its init sets the limits on itself and then becomes the program by execve, with the same
// process id, environment and descriptors. So there is no moment at which the program runs without its limits, as there
// would be with prlimit(2) after the start, and no shell and no second binary that would have to be installed. It works in
// every binary that this package is linked into, tests and programs that import the gateway included, because it happens
// before their main. The package imports little, so that hardly anything else has been initialised by then: two or three
// milliseconds are added to a start.
package launch

import (
	"errors"
	"strconv"
	"strings"
)

// Name is what a process calls itself, its argument 0, while it is on its way to become another program.
const Name = "gateway-launch"

// Self is the path of the running binary, also when it has been replaced on disk meanwhile.
const Self = "/proc/self/exe"

// Exit codes of a launch that failed, as shells have them; the reason is on standard error.
const (
	NotRunnable = 126
	NotFound    = 127
)

// Limits are set as soft and hard limits, so that the program cannot raise them again. Zero is no limit. A
// limited program never leaves a core file.
type Limits struct {
	Data  uint64 // bytes of private writable memory (RLIMIT_DATA)
	CPU   uint64 // seconds of CPU time (RLIMIT_CPU); the signal is SIGXCPU, and a second later SIGKILL
	Files uint64 // open descriptors (RLIMIT_NOFILE)

	// Processes is written to the open descriptor Group, the pids.max of the control group that the process is in. The launch
	// itself needs more threads than a program may have processes.
	Processes, Group uint64
}

// None says that there is nothing to launch for.
func (l Limits) None() bool { return l == Limits{} }

// Args returns the arguments that make this binary run path with argv under the limits.
func (l Limits) Args(path string, argv []string) []string {
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	return append([]string{Name, strings.Join([]string{n(l.Data), n(l.CPU), n(l.Files), n(l.Processes), n(l.Group)}, ","), path}, argv...)
}

// parse is the reverse of Args.
func parse(args []string) (l Limits, path string, argv []string, err error) {
	if len(args) < 4 {
		return l, "", nil, errors.New("too few arguments")
	}
	numbers := strings.Split(args[1], ",")
	if len(numbers) != 5 {
		return l, "", nil, errors.New("not five numbers")
	}
	for i, v := range []*uint64{&l.Data, &l.CPU, &l.Files, &l.Processes, &l.Group} {
		if *v, err = strconv.ParseUint(numbers[i], 10, 64); err != nil {
			return l, "", nil, err
		}
	}
	return l, args[2], args[3:], nil
}
