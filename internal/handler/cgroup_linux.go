package handler

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuPeriod is the time, in microseconds, over which the CPUs of a group are counted: the kernel's default.
const cpuPeriod = 100_000

// A cgroup is the control group of one process and its descendants.
type cgroup struct {
	path string
	dir  *os.File // for clone3, which starts the process inside
}

// ownGroups begins the names of this process's groups.
var ownGroups = fmt.Sprintf("job-%x-", rand.Uint64())

// probeCgroup says why no process can be started in a group with the limits.
func probeCgroup(l Limits) error {
	if _, err := os.Stat(filepath.Join(l.Cgroup, "cgroup.procs")); err != nil {
		return fmt.Errorf("not a cgroup v2 directory: %w", err)
	}
	for controller, wanted := range map[string]bool{"memory": l.Memory > 0, "pids": l.Processes > 0, "cpu": l.CPUs > 0} {
		if wanted {
			// What is enabled already may be read-only; what is missing shows when the group is made.
			_ = os.WriteFile(filepath.Join(l.Cgroup, "cgroup.subtree_control"), []byte("+"+controller), 0o600)
		}
	}
	sweep(l.Cgroup)
	g, err := newCgroup(l)
	if err != nil {
		return err
	}
	return errors.Join(g.startable(), g.remove())
}

// sweep removes the groups of a gateway that was killed, but for those in which a command still runs.
func sweep(dir string) {
	groups, _ := filepath.Glob(filepath.Join(dir, "job-*")) // the pattern is right
	for _, path := range groups {
		if !strings.HasPrefix(filepath.Base(path), ownGroups) {
			_ = syscall.Rmdir(path)
		}
	}
}

// startable says why no process can be started in the group, which may be so though it could be made: clone3 is refused by the seccomp
// filters of systemd (RestrictNamespaces=) and of containers, and where the group above has processes of its own.
func (g *cgroup) startable() error {
	a := &syscall.SysProcAttr{}
	g.join(a)
	_, err := os.StartProcess("/dev/null/none", []string{"none"}, &os.ProcAttr{Sys: a})
	if errors.Is(err, syscall.ENOTDIR) { // the process was there, and found no program
		return nil
	}
	return fmt.Errorf("no process can be started in a control group there: %w", err)
}

// newCgroup makes a group with the limits.
func newCgroup(l Limits) (_ *cgroup, err error) {
	path, err := os.MkdirTemp(l.Cgroup, ownGroups)
	if err != nil {
		return nil, err
	}
	g := &cgroup{path: path}
	defer func() {
		if err != nil {
			_ = g.remove()
		}
	}()
	if err := g.limit(l); err != nil {
		return nil, err
	}
	g.dir, err = os.Open(path)
	return g, err
}

func (g *cgroup) limit(l Limits) error {
	for _, f := range []struct {
		name, value string
		set, must   bool
	}{
		{"memory.max", strconv.FormatInt(l.Memory, 10), l.Memory > 0, true},
		{"memory.swap.max", "0", l.Memory > 0, false}, // not there on a kernel without swap accounting
		{"memory.oom.group", "1", l.Memory > 0, true},
		{"pids.max", strconv.Itoa(l.Processes), l.Processes > 0, true},
		{"cpu.max", fmt.Sprintf("%d %d", max(1000, int64(math.Ceil(l.CPUs*cpuPeriod))), cpuPeriod), l.CPUs > 0, true},
	} {
		if !f.set {
			continue
		}
		if err := g.write(f.name, f.value); err != nil && f.must {
			return err
		}
	}
	return nil
}

// write writes to a file of the group, which is not there if a controller is missing.
func (g *cgroup) write(name, value string) error {
	f, err := os.OpenFile(filepath.Join(g.path, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// join makes a process start inside the group.
func (g *cgroup) join(a *syscall.SysProcAttr) { a.UseCgroupFD, a.CgroupFD = true, int(g.dir.Fd()) }

// later lifts a limit of the group, and returns the file by which the process is to set it.
func (g *cgroup) later(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(g.path, name), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteString("max"); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// kill ends every process of the group, whatever process group or session it is in. It needs Linux 5.14; before, only the process
// group is ended.
func (g *cgroup) kill() { _ = g.write("cgroup.kill", "1") }

// oomKilled says whether the group ran out of memory.
func (g *cgroup) oomKilled() bool {
	events, _ := os.ReadFile(filepath.Join(g.path, "memory.events"))
	return counter(events, "oom_kill") > 0
}

// remove removes the group, for which its processes must be gone: those that were killed need a moment.
func (g *cgroup) remove() error {
	if g.dir != nil {
		_ = g.dir.Close()
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	late := time.After(time.Second)
	for {
		err := syscall.Rmdir(g.path)
		if err != syscall.EBUSY {
			return os.NewSyscallError("rmdir", err)
		}
		select {
		case <-poll.C:
		case <-late:
			return &os.PathError{Op: "rmdir", Path: g.path, Err: err}
		}
	}
}

// oomKills returns how many processes of this machine the kernel has killed for want of memory; 0 where it does not tell.
func oomKills() uint64 {
	stat, _ := os.ReadFile("/proc/vmstat")
	return counter(stat, "oom_kill")
}

// counter returns the number after a name in lines of names and numbers.
func counter(lines []byte, name string) uint64 {
	for line := range bytes.Lines(lines) {
		if value, ok := strings.CutPrefix(string(line), name+" "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}
