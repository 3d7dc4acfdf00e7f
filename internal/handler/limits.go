package handler

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/handler/launch"
)

// Limits bound what the processes of a handler may use. The zero Limits bound nothing, except that no core files are written.
// They need Linux.
//
// Memory, CPU and Files are rlimits: each process has them for itself, and a child of it again. They are set by this very
// binary, which starts first and then becomes the command (package launch), so that the command never runs without them; with a
// User, who must be allowed to execute the binary.
//
// With Cgroup, every process of the handler and all that it starts are in a control group of its own, where Memory counts for all of
// them together and is enforced by the kernel's out-of-memory killer, which ends all of them; Processes and CPUs are possible only
// there. Whatever has left the process group is ended with the job, too. Where the directory cannot be used, or lacks a
// controller that is needed, a warning is logged: Memory is the rlimit again, and Processes and CPUs bound nothing.
type Limits struct {
	Memory    int64         // bytes of private writable memory; what is only reserved does not count
	CPU       time.Duration // CPU time, rounded up to seconds; then SIGXCPU, and a second later SIGKILL
	Files     int           // open files, at least 8
	Processes int           // processes and threads at a time
	CPUs      float64       // CPUs' worth of time at a time: 0.5 is half of one
	Cgroup    string        // a directory of a cgroup v2 hierarchy that is the gateway's alone, with no process in it
}

// check says what is wrong with the limits.
func (l Limits) check() error {
	switch {
	case l == Limits{}:
		return nil
	case !launch.Supported:
		return errors.New("limits of a handler's processes need Linux")
	case l.Memory < 0 || l.CPU < 0 || l.Files < 0 || l.Processes < 0 || l.CPUs < 0 || math.IsNaN(l.CPUs) || l.CPUs > 1e6:
		return errors.New("a limit is out of range")
	case l.Files > 0 && l.Files < 8:
		return fmt.Errorf("%d open files are too few for any program: at least 8", l.Files)
	case l.Memory > 0 && l.Memory < 1<<20:
		return fmt.Errorf("%d bytes of memory are too few for any program: at least 1 MiB", l.Memory)
	case l.Memory > 0 && l.Memory < 16<<20 && l.Cgroup != "" && (l.CPU > 0 || l.Files > 0):
		return fmt.Errorf("%d bytes of memory in a control group are too few for what sets the other limits: at least 16 MiB", l.Memory)
	}
	return nil
}

// settle decides how the limits are enforced here, and warns of those that cannot be.
func (l Limits) settle(log zerolog.Logger) Limits {
	if l.Cgroup != "" {
		if err := probeCgroup(l); err != nil {
			log.Warn().Err(err).Str("cgroup", l.Cgroup).Msg("no control group for handlers' processes, only rlimits")
			l.Cgroup = ""
		}
	}
	if l.Cgroup == "" && (l.Processes > 0 || l.CPUs > 0) {
		log.Warn().Msg("limits of a handler's processes and CPUs need a control group, and are not enforced")
	}
	return l
}

// rlimits returns what is left to be set in the process itself.
func (l Limits) rlimits() launch.Limits {
	r := launch.Limits{CPU: uint64((l.CPU + time.Second - 1) / time.Second), Files: uint64(l.Files)}
	if l.Cgroup == "" {
		r.Data = uint64(l.Memory)
	}
	return r
}
