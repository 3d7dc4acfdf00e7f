package handler_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/workerpool"
)

func TestACommandTurnsItsWorkloadIntoAResult(t *testing.T) {
	watchForLeaks(t)
	big := strings.Repeat("x\x00\n", 1<<20)
	for _, test := range []struct {
		argv           []string
		workload, want string
	}{
		{[]string{"cat"}, "a\x00b\xff", "a\x00b\xff"},
		{[]string{"cat"}, "", ""},
		{[]string{"cat"}, big, big},
		{[]string{"wc", "-c"}, "four", "4\n"},
		{[]string{"echo", "$HOME", "; rm -rf x", "`id`", "a  b"}, "", "$HOME ; rm -rf x `id` a  b\n"}, // no shell sees it
		{[]string{"true"}, big, ""},                              // never reads
		{[]string{"head", "-c", "3"}, big, "x\x00\n"},            // stops reading
		{[]string{"sh", "-c", "exec <&-; echo ok"}, big, "ok\n"}, // closes early, and lives on
		{[]string{"sh", "-c", "exec 3>&- 2>&-; echo ok"}, "", "ok\n"},
	} {
		j, out := newJob(test.workload)
		got, err := newExec(t, handler.ExecOptions{Command: handler.Command{Argv: test.argv}}).Run(t.Context(), j)
		if err != nil || string(got) != test.want || len(out.warnings) > 0 {
			t.Errorf("%q: %.40q, %v, want %.40q; %q", test.argv, got, err, test.want, out.warnings)
		}
		nothingLeft(t, j)
	}
}

func TestTheEnvironmentIsWhatIsConfiguredAndTheJob(t *testing.T) {
	t.Setenv("SECRET_OF_THE_GATEWAY", "x")
	j, _ := newJob("")
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	j.Unique, j.Attempt, j.Deadline, j.Traceparent = "u", 2, at, "00-1-2-01"
	o := handler.ExecOptions{Command: handler.Command{Argv: []string{"env"}, Env: []string{"A=b=c", "PATH=/bin:/usr/bin"}}}
	got, err := newExec(t, o).Run(t.Context(), j)
	want := "A=b=c\nPATH=/bin:/usr/bin\nJOB_ID=" + j.ID + "\nJOB_HANDLE=" + j.Handle +
		"\nJOB_UNIQUE=u\nJOB_FUNCTION=f\nJOB_ATTEMPT=2\nJOB_DEADLINE=2027-01-02T02:04:05Z\nTRACEPARENT=00-1-2-01\n"
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	o.Env = nil
	j, _ = newJob("")
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(time.Hour))
	defer cancel()
	got, err = newExec(t, o).Run(ctx, j)
	soonest, _ := ctx.Deadline()
	for _, line := range []string{
		"PATH=" + os.Getenv("PATH"), "JOB_UNIQUE=", "JOB_ATTEMPT=0", "JOB_DEADLINE=" + soonest.UTC().Format(time.RFC3339Nano), "TRACEPARENT=",
	} {
		if !strings.Contains("\n"+string(got), "\n"+line+"\n") || err != nil {
			t.Errorf("%q is missing in %q, %v", line, got, err)
		}
	}
	if strings.Contains(string(got), "SECRET") {
		t.Errorf("%q has what it should not", got)
	}
}

func TestTheWorkingDirectoryIsTheCommandsOwn(t *testing.T) {
	j, _ := newJob("")
	got, err := newExec(t, shell("mkdir sub; echo x >sub/file; ls -A | wc -l; stat -c %a .; pwd")).Run(t.Context(), j)
	lines := strings.Fields(string(got))
	if err != nil || len(lines) != 3 || lines[0] != "1" || lines[1] != "700" {
		t.Fatalf("%q, %v", lines, err)
	}
	if _, err := os.Stat(lines[2]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", lines[2], err)
	}
	o := shell("pwd; echo x >kept")
	o.Dir = t.TempDir()
	j, _ = newJob("")
	if got, err := newExec(t, o).Run(t.Context(), j); err != nil || string(got) != o.Dir+"\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(o.Dir + "/kept"); err != nil {
		t.Error(err)
	}
}

func TestExitCodesSayWhatFollows(t *testing.T) {
	for _, test := range []struct {
		script       string
		code         int
		signal       syscall.Signal
		retry, never bool
		text         string
	}{
		{"exit 1", 1, 0, false, false, "exit status 1"},
		{"echo no such image >&2; exit 3", 3, 0, false, false, "exit status 3: no such image"},
		{"exit 75", 75, 0, true, false, "exit status 75"},
		{"echo bad >&2; exit 100", 100, 0, false, true, "exit status 100: bad"},
		{"kill -SEGV $$", -1, syscall.SIGSEGV, false, false, "killed by signal 11 (segmentation fault)"},
		{"kill -KILL $$", -1, syscall.SIGKILL, false, false, "killed by signal 9 (killed)"},
		{"kill -TERM $$", -1, syscall.SIGTERM, false, false, "killed by signal 15 (terminated)"},
	} {
		j, _ := newJob("")
		got, err := newExec(t, shell("echo out; "+test.script)).Run(t.Context(), j)
		if got != nil || err == nil {
			t.Fatalf("%s: %q, %v", test.script, got, err)
		}
		failure := processError(t, err)
		if failure.Code != test.code || failure.Signal != test.signal || failure.Died() != (test.signal != 0) || failure.OOM {
			t.Errorf("%s: %+v", test.script, failure)
		}
		if err.Error() != test.text || failure.Kind() != "exit" {
			t.Errorf("%s: %q, %q, want %q", test.script, err, failure.Kind(), test.text)
		}
		if is := errors.As(err, new(*workerpool.RetryError)); is != test.retry {
			t.Errorf("%s: asks for a retry: %t", test.script, is)
		}
		if is := errors.As(err, new(*workerpool.NeverRetryError)); is != test.never {
			t.Errorf("%s: asks for no retry: %t", test.script, is)
		}
	}
}

func TestStandardErrorEndsInOneWarningOfItsLastLines(t *testing.T) {
	var last strings.Builder
	for i := 981; i <= 1000; i++ {
		fmt.Fprintln(&last, "line", i)
	}
	for script, want := range map[string]string{
		"echo careful >&2": "careful",
		`i=1; while [ $i -le 1000 ]; do echo line $i >&2; i=$((i+1)); done`: strings.TrimSuffix(last.String(), "\n"),
		"head -c 1000000 /dev/zero | tr '\\0' y >&2":                        strings.Repeat("y", 8<<10),
		`printf 'b\377d' >&2`: "b\uFFFDd",
	} {
		j, out := newJob("")
		if _, err := newExec(t, shell(script)).Run(t.Context(), j); err != nil {
			t.Errorf("%s: %v", script, err)
		}
		if diff := cmp.Diff([]string{want}, out.warnings); diff != "" {
			t.Errorf("%s: %s", script, diff)
		}
	}
}

func TestDescriptor3TakesProgressAndWarnings(t *testing.T) {
	var log bytes.Buffer
	o := shell(`
		echo '{"progress":[3,14]}' >&3; echo '{"warning":"half \"way\""}' >&3; echo >&3
		echo '{"progress":[4,14],"warning":"both"}' >&3
		echo 'not JSON' >&3; echo '{"progress":[1]}' >&3; echo '{"progress":["a",2]}' >&3; echo '{}' >&3; echo '[]' >&3; echo '{"progress":[-1,2]}' >&3
		{ printf '{"warning":"'; head -c 200000 /dev/zero | tr '\0' x; echo '"}'; } >&3
		printf '{"progress":[14,14]}' >&3`)
	o.Log = zerolog.New(&log)
	j, out := newJob("")
	if got, err := newExec(t, o).Run(t.Context(), j); err != nil || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
	if diff := cmp.Diff([]string{"3/14", "4/14", "14/14"}, out.progress); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`half "way"`, "both"}, out.warnings); diff != "" {
		t.Error(diff)
	}
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, `"lines":7`) || strings.Contains(s, "not JSON") {
		t.Errorf("logged %s", s)
	}
}

func TestAStreamIsSentWhileItComes(t *testing.T) {
	watchForLeaks(t)
	fifo := t.TempDir() + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	o := shell(`echo one; read x <` + fifo + `; echo "$x"; printf end`)
	o.Stream = true
	j, out := newJob("")
	done := make(chan error, 1)
	go func() {
		got, err := newExec(t, o).Run(t.Context(), j)
		if len(got) > 0 {
			err = errors.Join(err, fmt.Errorf("the result is %q", got))
		}
		done <- err
	}()
	eventually(t, func() string { return "the first chunk does not come" }, func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return len(out.data) == 1 && out.data[0] == "one\n"
	})
	if err := os.WriteFile(fifo, []byte("two\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || strings.Join(out.data, "") != "one\ntwo\nend" {
		t.Errorf("%q, %v", out.data, err)
	}
}

func TestAResultIsBounded(t *testing.T) {
	watchForLeaks(t)
	for _, stream := range []bool{false, true} {
		o := shell("trap '' TERM; cat; yes")
		o.MaxResult, o.Stream, o.Grace = 1<<20, stream, time.Hour
		j, out := newJob("")
		got, err := within(t, deadline, t.Context(), newExec(t, o), j)
		if !errors.Is(err, handler.ErrTooLarge) || got != nil || len(strings.Join(out.data, "")) > 1<<20 {
			t.Errorf("stream %t: %d bytes, %v", stream, len(got), err)
		}
		nothingLeft(t, j)
		o.Argv = []string{"head", "-c", "1048576", "/dev/zero"} // just as much as it may
		j, out = newJob("")
		if got, err := newExec(t, o).Run(t.Context(), j); err != nil || len(got)+len(strings.Join(out.data, "")) != 1<<20 {
			t.Errorf("stream %t: %d bytes, %v", stream, len(got), err)
		}
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for what, o := range map[string]handler.ExecOptions{
		"no command":        {},
		"an empty command":  {Command: handler.Command{Argv: []string{""}}},
		"not there":         {Command: handler.Command{Argv: []string{"./no-such-command"}}},
		"not in PATH":       {Command: handler.Command{Argv: []string{"no-such-command"}}},
		"a directory":       {Command: handler.Command{Argv: []string{"/"}}},
		"no environment":    {Command: handler.Command{Argv: []string{"true"}, Env: []string{"SECRET"}}},
		"negative result":   {Command: handler.Command{Argv: []string{"true"}}, MaxResult: -1},
		"negative grace":    {Command: handler.Command{Argv: []string{"true"}, Grace: -1}},
		"no directory":      {Command: handler.Command{Argv: []string{"true"}, Dir: "/no/such/directory"}},
		"a file for one":    {Command: handler.Command{Argv: []string{"true"}, Dir: "/dev/null"}},
		"negative memory":   {Command: handler.Command{Argv: []string{"true"}, Limits: handler.Limits{Memory: -1}}},
		"too little memory": {Command: handler.Command{Argv: []string{"true"}, Limits: handler.Limits{Memory: 1}}},
		"too few files":     {Command: handler.Command{Argv: []string{"true"}, Limits: handler.Limits{Files: 1}}},
	} {
		if _, err := handler.NewExec(o); err == nil || strings.Contains(err.Error(), "SECRET") && what != "no environment" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestACommandThatIsGoneFailsTheJob(t *testing.T) {
	watchForLeaks(t)
	path := t.TempDir() + "/command"
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	h := newExec(t, handler.ExecOptions{Command: handler.Command{Argv: []string{path}}})
	limited := newExec(t, handler.ExecOptions{Command: handler.Command{Argv: []string{path}, Limits: handler.Limits{Files: 64}}})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	j, _ := newJob("")
	if _, err := h.Run(t.Context(), j); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := limited.Run(t.Context(), j); processError(t, err).Code != 127 || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}
