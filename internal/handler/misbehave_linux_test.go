package handler_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/workerpool"
)

const (
	testTimeout = 200 * time.Millisecond
	testGrace   = 200 * time.Millisecond
	testMost    = testTimeout + testGrace + 2*time.Second // what the end of a job may take
)

// Each of these would run, or keep its pipes open, for as long as a test binary may.
func TestACommandThatDoesNotEndIsEnded(t *testing.T) {
	for name, script := range map[string]string{
		"sleeps":                       "sleep 1000",
		"ignores SIGTERM":              "trap '' TERM; sleep 1000 & wait; sleep 1000",
		"loops on":                     "trap '' TERM; while :; do :; done",
		"all well when it is told to":  "trap 'echo bye; exit 0' TERM; sleep 1000 & wait",
		"a child ignores SIGTERM":      "sh -c \"trap '' TERM; sleep 1000; sleep 1000\"",
		"children of children":         "for i in 1 2 3; do (sleep 1000; (sleep 1000; sleep 1000) & sleep 1000) & done; wait",
		"is stopped":                   "kill -STOP $$",
		"never reads":                  "exec sleep 1000",
		"closes its pipes":             "exec <&- >&- 2>&- 3>&-; sleep 1000",
		"floods standard error":        "exec yes >&2",
		"floods descriptor 3":          "exec yes >&3",
		"floods descriptor 3, no line": "exec cat /dev/zero >&3",
		"leaves the group":             "setsid sleep 5 & sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			watchForLeaks(t)
			o := shell(script)
			o.Grace = testGrace
			j, _ := newJob(strings.Repeat("more than a pipe takes", 1<<16))
			ctx, cancel := context.WithTimeoutCause(t.Context(), testTimeout, workerpool.ErrDeadline)
			defer cancel()
			got, err := within(t, testMost, ctx, newExec(t, o), j)
			if got != nil || !errors.Is(err, workerpool.ErrDeadline) || errors.As(err, new(*handler.ProcessError)) {
				t.Errorf("%q, %v", got, err)
			}
			if name != "leaves the group" { // which ends by itself, and held nothing of ours up
				nothingLeft(t, j)
			}
		})
	}
}

func TestACancelledJobGetsTheGraceAndNoMore(t *testing.T) {
	watchForLeaks(t)
	path := t.TempDir() + "/ready"
	o := shell(`trap 'echo cleaning up >&2; sleep 0.1; echo clean >&2; exit 3' TERM; sleep 1000 & echo >` + path + `; wait`)
	o.Grace = deadline
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	j, out := newJob("")
	done := make(chan error, 1)
	go func() {
		_, err := newExec(t, o).Run(ctx, j)
		done <- err
	}()
	eventually(t, func() string { return "it does not start" }, func() bool { _, err := os.Stat(path); return err == nil })
	cancel(workerpool.ErrCancelled)
	err := <-done
	if want := workerpool.ErrCancelled.Error() + ": cleaning up\nclean"; !errors.Is(err, workerpool.ErrCancelled) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if len(out.warnings) != 1 || out.warnings[0] != "cleaning up\nclean" {
		t.Errorf("%q", out.warnings)
	}
	nothingLeft(t, j)
}

func TestWhatACommandLeavesBehindIsEnded(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"a child that holds the pipes":     {"sleep 1000 & echo ok", "ok\n"},
		"a child that closed them":         {"sleep 1000 <&- >&- 2>&- 3>&- & echo ok", "ok\n"},
		"a child that ignores SIGTERM":     {"(trap '' TERM; sleep 1000; sleep 1000) & echo ok", "ok\n"},
		"a child that is not finished yet": {"(sleep 0.2; echo more) & echo ok", "ok\nmore\n"},
		"a child that floods":              {"yes >&2 & yes >&3 & echo ok", "ok\n"},
		"a child that has left the group":  {"setsid sleep 5 & echo ok", "ok\n"},
	} {
		t.Run(name, func(t *testing.T) {
			watchForLeaks(t)
			o := shell(test.script)
			o.Grace = testGrace
			j, _ := newJob("workload")
			got, err := within(t, testMost, t.Context(), newExec(t, o), j)
			if string(got) != test.want || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if !strings.Contains(test.script, "setsid") {
				nothingLeft(t, j)
			}
		})
	}
}

func TestAJobWhoseTimeIsUpBeforeItStarts(t *testing.T) {
	watchForLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(workerpool.ErrStopped)
	j, _ := newJob("")
	if _, err := within(t, testMost, ctx, newExec(t, shell("sleep 1000")), j); !errors.Is(err, workerpool.ErrStopped) {
		t.Error(err)
	}
	nothingLeft(t, j)
}

func TestLimits(t *testing.T) {
	watchForLeaks(t)
	t.Run("none", func(t *testing.T) {
		j, _ := newJob("")
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		// Core files are forbidden right after the start.
		if _, err := newExec(t, shell("until [ $(ulimit -Hc) = 0 ]; do :; done")).Run(ctx, j); err != nil {
			t.Errorf("core files: %v", err)
		}
	})
	t.Run("as the command sees them", func(t *testing.T) {
		o := shell(`ulimit -Hc; ulimit -Hd; ulimit -St; ulimit -Hn; echo "$0 $*"; cat; echo $JOB_ID`)
		o.Argv = append(o.Argv, "a b", "$c", "")
		o.Limits = handler.Limits{Memory: 64 << 20, CPU: 1500 * time.Millisecond, Files: 50}
		j, _ := newJob("workload ")
		got, err := newExec(t, o).Run(t.Context(), j)
		if want := "0\n65536\n2\n50\na b $c \nworkload " + j.ID + "\n"; string(got) != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	})
	t.Run("memory", func(t *testing.T) {
		o := handler.ExecOptions{Command: handler.Command{
			Argv:   []string{needPython(t), "-c", "x = []\nwhile True: x.append(bytearray(1<<20))"},
			Limits: handler.Limits{Memory: 64 << 20},
		}}
		j, _ := newJob("")
		_, err := within(t, deadline, t.Context(), newExec(t, o), j)
		if failure := processError(t, err); failure.Code != 1 || !strings.Contains(failure.Stderr, "MemoryError") {
			t.Errorf("%+v", failure)
		}
		nothingLeft(t, j)
	})
	t.Run("CPU", func(t *testing.T) {
		o := shell("while :; do :; done")
		o.Limits.CPU = time.Second
		j, _ := newJob("")
		_, err := within(t, deadline, t.Context(), newExec(t, o), j)
		if failure := processError(t, err); failure.Signal != syscall.SIGXCPU || failure.OOM {
			t.Errorf("%+v", failure)
		}
	})
}

func TestAControlGroupThatCannotBeUsedLeavesTheRlimits(t *testing.T) {
	o := shell("ulimit -Hd")
	o.Limits = handler.Limits{Memory: 64 << 20, Cgroup: t.TempDir(), Processes: 10, CPUs: 0.5}
	j, _ := newJob("")
	if got, err := newExec(t, o).Run(t.Context(), j); string(got) != "65536\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A control group reaches what has left the process group. Its controllers are rarely to be had where tests run.
func TestAControlGroupEndsWhatHasLeftTheProcessGroup(t *testing.T) {
	dir := handler.WritableCgroup(t)
	watchForLeaks(t)
	o := shell("setsid sleep 1000 & echo ok")
	o.Limits.Cgroup = dir
	j, _ := newJob("")
	if got, err := within(t, testMost, t.Context(), newExec(t, o), j); string(got) != "ok\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	nothingLeft(t, j)
	if left, _ := filepath.Glob(dir + "/job-*"); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

func TestAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may run commands as somebody else")
	}
	for _, limits := range []handler.Limits{{}, {Files: 100}} {
		o := shell("id -u; id -g; id -G; echo x >file && cat file")
		o.User, o.Limits = &handler.User{UID: 12345, GID: 23456}, limits
		j, _ := newJob("")
		if got, err := newExec(t, o).Run(t.Context(), j); string(got) != "12345\n23456\n23456\nx\n" || err != nil {
			t.Errorf("%+v: %q, %v", limits, got, err)
		}
	}
}

// As process 1 of a container the gateway is the parent of all orphans.
func TestProcess1ReapsWhatACommandLeavesBehind(t *testing.T) {
	const inside = "GATEWAY_TEST_PROCESS_1"
	if os.Getenv(inside) == "" {
		if os.Getuid() != 0 {
			t.Skip("only root may make a PID namespace")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	j, _ := newJob("")
	if got, err := newExec(t, shell("(sleep 1000 & sleep 1000) & sleep 1000 & echo $PPID")).Run(t.Context(), j); string(got) != "1\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if id, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("process %d is left, %v", id, err)
	}
}

func BenchmarkOneProcessPerJob(b *testing.B) {
	for name, limits := range map[string]handler.Limits{"unlimited": {}, "limited": {Files: 100}} {
		b.Run(name, func(b *testing.B) {
			h := newExec(b, handler.ExecOptions{Command: handler.Command{Argv: []string{"cat"}, Limits: limits}})
			for b.Loop() {
				j, _ := newJob("hello")
				if _, err := h.Run(b.Context(), j); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}
