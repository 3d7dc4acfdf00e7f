package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/handler/launch"
)

const (
	drainTime  = time.Second            // how long what a process left behind may go on writing once it has exited
	settleTime = 250 * time.Millisecond // how long pipes are read after everything that could be killed was
	dieTime    = time.Second            // how long a process that was killed may take to be gone
)

// User is who a handler's processes run as, without supplementary groups. It needs a gateway that may change its own user.
type User struct{ UID, GID uint32 }

// Command says what to run, and how. Only Argv is needed.
type Command struct {
	// Argv is the command and its arguments; there is no shell that would look at them. A command without a slash is looked up
	// in the gateway's PATH, one with a slash is relative to the gateway's working directory; both once, by the constructor.
	Argv []string
	// Env is the environment, KEY=value each. Nothing of the gateway's own is handed on but PATH, unless Env has one.
	Env []string
	// Dir is the working directory. "": a new and empty directory for each process, which is removed when that has ended.
	Dir string
	// Grace is how long a process that was sent SIGTERM may take before all of its group are sent SIGKILL. 0: 5 s.
	Grace  time.Duration
	User   *User // nil: as the gateway
	Limits Limits
	Log    zerolog.Logger
}

// settle checks the command and fills in what it leaves open.
func (c Command) settle() (Command, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return c, errors.New("no command given")
	}
	if err := canRun(); err != nil {
		return c, err
	}
	if c.Grace < 0 {
		return c, errors.New("the grace is negative")
	}
	if err := c.Limits.check(); err != nil {
		return c, err
	}
	for _, e := range c.Env {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" || strings.ContainsRune(e, 0) {
			return c, fmt.Errorf("environment: %q is not KEY=value", key) // no value: it may be secret
		}
	}
	if c.Dir != "" {
		if d, err := os.Stat(c.Dir); err != nil {
			return c, fmt.Errorf("working directory: %w", err)
		} else if !d.IsDir() {
			return c, fmt.Errorf("working directory: %s is none", c.Dir)
		}
	}
	path, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return c, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return c, err
	}
	c.Argv = append([]string{path}, c.Argv[1:]...)
	c.Env = slices.Clone(c.Env)
	if path, ok := os.LookupEnv("PATH"); ok && !slices.ContainsFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		c.Env = append(c.Env, "PATH="+path)
	}
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	c.Limits = c.Limits.settle(c.Log)
	return c, nil
}

// A process is a running command that leads a process group, with our ends of its pipes. What it starts is in its group, too,
// unless it takes pains to leave it.
//
// Who started it reads stdout, stderr and side, if it has one, and calls finish once, which ends and reaps it and closes the pipes.
type process struct {
	c      *Command
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	side   *os.File      // descriptor 3 of the process; may be nil
	exited chan struct{} // closed when it has exited
	group  *cgroup       // may be nil
	ooms   uint64        // oomKills at the start
	remove func()        // the working directory

	mu     sync.Mutex
	reaped bool // its id, and so its group's, may be anybody's
	oom    bool
}

// start starts the command with env added to its environment.
func (c *Command) start(env []string, side bool) (p *process, err error) {
	p = &process{c: c, exited: make(chan struct{}), remove: func() {}}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err != nil {
			err = startError(fmt.Errorf("start: %w", err))
			p.release()
		}
	}()
	if theirs, err = p.openPipes(side); err != nil {
		return p, err
	}
	dir, err := p.makeDir()
	if err != nil {
		return p, err
	}
	p.cmd = &exec.Cmd{
		Path: c.Argv[0], Args: c.Argv, Env: append(slices.Clip(c.Env), env...), Dir: dir,
		Stdin: theirs[0], Stdout: theirs[1], Stderr: theirs[2], ExtraFiles: theirs[3:],
		SysProcAttr: ownGroup(c.User),
	}
	r := c.Limits.rlimits()
	if c.Limits.Cgroup != "" {
		if p.group, err = newCgroup(c.Limits); err != nil {
			return p, err
		}
		p.group.join(p.cmd.SysProcAttr)
	}
	if !r.None() {
		if p.group != nil && c.Limits.Processes > 0 {
			limit, err := p.group.later("pids.max")
			if err != nil {
				return p, err
			}
			theirs = append(theirs, limit)
			r.Processes, r.Group = uint64(c.Limits.Processes), uint64(len(theirs)-1)
			p.cmd.ExtraFiles = theirs[3:]
		}
		p.cmd.Path, p.cmd.Args = launch.Self, r.Args(c.Argv[0], c.Argv)
	}
	p.ooms = oomKills()
	if err = p.cmd.Start(); err != nil {
		return p, err
	}
	noCore(p.cmd.Process.Pid)
	go func() { // finish waits for it
		defer close(p.exited)
		p.awaitExit()
	}()
	return p, nil
}

// startError tells failures that may be over soon from those that are the command's own.
func startError(err error) error {
	for _, soon := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, soon) {
			return retry(0, err)
		}
	}
	return err
}

// openPipes makes the pipes, keeps our ends and returns the others.
func (p *process) openPipes(side bool) (theirs []*os.File, err error) {
	for i, ours := range []**os.File{&p.stdin, &p.stdout, &p.stderr, &p.side} {
		if ours == &p.side && !side {
			break
		}
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		if i == 0 {
			r, w = w, r
		}
		*ours, theirs = r, append(theirs, w)
	}
	return theirs, nil
}

func (p *process) makeDir() (string, error) {
	if p.c.Dir != "" {
		return p.c.Dir, nil
	}
	dir, err := os.MkdirTemp("", "gateway-job-")
	if err != nil {
		return "", err
	}
	p.remove = func() {
		if err := os.RemoveAll(dir); err != nil {
			p.c.Log.Warn().Err(err).Msg("the working directory of a handler's process is left behind")
		}
	}
	if u := p.c.User; u != nil {
		return dir, os.Chown(dir, int(u.UID), int(u.GID))
	}
	return dir, nil
}

// finish blocks until the process has exited, or until ctx ends: then it sends SIGTERM to the group, and says that it did. It
// gives the readers, who close drained when they have all read to the end, a moment for what is left behind in the group, kills
// that, reaps the process and closes our ends of the pipes: so drained is closed when it returns, even if something that has left
// the group holds the pipes. It takes at most Grace and 2 s after the exit or the end of ctx.
func (p *process) finish(ctx context.Context, drained <-chan struct{}) (stopped bool) {
	select {
	case <-p.exited:
		awaitAny(drainTime, drained, ctx.Done())
	case <-ctx.Done():
		stopped = true
		p.signal(syscall.SIGTERM)
		late := time.Now().Add(p.c.Grace)
		awaitAny(time.Until(late), p.exited)
		awaitAny(time.Until(late), drained) // children may need the grace, too
	}
	p.kill()
	if !awaitAny(dieTime, p.exited) {
		p.c.Log.Error().Int("pid", p.cmd.Process.Pid).Msg("a handler's process was killed and does not die, and is left alone")
		go func() { <-p.exited; p.reap() }() // ends when the kernel lets go of the process
	} else {
		p.reap()
		reapOrphans(p.cmd.Process.Pid)
	}
	awaitAny(settleTime, drained)
	p.release()
	<-drained
	return stopped
}

// awaitAny blocks until one of the channels is closed, and says whether that was in time.
func awaitAny(d time.Duration, channels ...<-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var second <-chan struct{}
	if len(channels) > 1 {
		second = channels[1]
	}
	select {
	case <-channels[0]:
		return true
	case <-second:
		return true
	case <-timer.C:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		signalGroup(p.cmd.Process.Pid, s)
	}
}

// kill ends the whole group at once, and whatever else is in the control group.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	if p.group != nil {
		p.group.kill()
	}
}

func (p *process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	_ = p.cmd.Wait() // outcome reads the state
	if p.group != nil {
		p.oom = p.group.oomKilled()
	}
}

// outcome returns how a process ended that ended by itself: nil if well.
func (p *process) outcome(stderr string) *ProcessError {
	code, s := status(p.cmd)
	if code == 0 && !p.oom {
		return nil
	}
	oom := p.oom || s == syscall.SIGKILL && p.group == nil && oomKills() > p.ooms
	return &ProcessError{Code: code, Signal: s, OOM: oom, Stderr: stderr}
}

// release closes and removes what the process had.
func (p *process) release() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr, p.side} {
		_ = f.Close() // which a nil File allows
	}
	if p.group != nil {
		if err := p.group.remove(); err != nil {
			p.c.Log.Warn().Err(err).Msg("the control group of a handler's process is left behind")
		}
	}
	p.remove()
}
