package launch

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// The runtime of this binary has more memory at its start than the limit, so an allocation that needs a page more would end it. A copy
// of this environment would.
func TestALaunchDoesNotDieOfItsOwnLimit(t *testing.T) {
	var env []string
	for i := range 100 {
		env = append(env, fmt.Sprintf("V%d=%s", i, strings.Repeat("x", 8<<10)))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				cmd := &exec.Cmd{Path: Self, Args: Limits{Data: 16 << 20}.Args("/bin/sh", []string{"sh", "-c", "echo ran"}), Env: env}
				if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ran\n" {
					t.Errorf("%v: %.500s", err, out)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestALaunchThatFailsSaysWhy(t *testing.T) {
	for path, want := range map[string]struct {
		code int
		says string
	}{
		"/nonexistent": {NotFound, "start: exec /nonexistent: no such file or directory\n"},
		"/dev/null":    {NotRunnable, "start: exec /dev/null: permission denied\n"},
	} {
		cmd := &exec.Cmd{Path: Self, Args: Limits{Data: 16 << 20}.Args(path, []string{path})}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run() // the code says it
		if code := cmd.ProcessState.ExitCode(); code != want.code || stderr.String() != want.says {
			t.Errorf("%s: code %d, %q, want %d, %q", path, code, stderr.String(), want.code, want.says)
		}
	}
}

func TestALaunchLeavesTheSoftLimitOfOpenFiles(t *testing.T) {
	launch := strings.Join(Limits{CPU: 9}.Args("/bin/sh", []string{"sh", "-c", "'ulimit -Sn'"})[1:], " ")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("bash", "-c", "ulimit -Sn 77 && exec -a "+Name+" "+binary+" "+launch).CombinedOutput()
	if err != nil || string(out) != "77\n" {
		t.Errorf("%q, %v, want 77", out, err)
	}
}

// A file stands in for the control group's: controllers are rarely to be had where tests run.
func TestALaunchLimitsTheProcessesOfItsGroup(t *testing.T) {
	limit, err := os.Create(t.TempDir() + "/pids.max")
	if err != nil {
		t.Fatal(err)
	}
	defer limit.Close()
	cmd := &exec.Cmd{
		Path: Self, Args: Limits{CPU: 9, Processes: 2, Group: 3}.Args("/bin/sh", []string{"sh", "-c", "cat /proc/self/fd/3"}),
		ExtraFiles: []*os.File{limit},
	}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("the program has the file, too: %q", out)
	}
	if got, err := os.ReadFile(limit.Name()); err != nil || string(got) != "2" {
		t.Errorf("%q, %v, want 2", got, err)
	}
}
