package handler_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/workerpool"
)

// An output keeps what a handler sends while its job runs.
type output struct {
	mu       sync.Mutex
	data     []string
	warnings []string
	progress []string
}

func (o *output) Data(b []byte) error    { return o.add(&o.data, string(b)) }
func (o *output) Warning(b []byte) error { return o.add(&o.warnings, string(b)) }
func (o *output) Status(n, d uint64) error {
	return o.add(&o.progress, fmt.Sprint(n, "/", d))
}

func (o *output) add(to *[]string, s string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	*to = append(*to, s)
	return nil
}

var lastID = make(chan int, 1)

func init() { lastID <- 0 }

// newJob returns a job with an id that no other has.
func newJob(workload string) (*workerpool.Job, *output) {
	id := <-lastID + 1
	lastID <- id
	out := &output{}
	return workerpool.NewJob(workerpool.Job{
		ID: fmt.Sprintf("job-%d-%d", os.Getpid(), id), Handle: fmt.Sprint("H:test:", id), Function: "f", Workload: []byte(workload),
	}, out), out
}

func newExec(t testing.TB, o handler.ExecOptions) workerpool.Handler {
	t.Helper()
	h, err := handler.NewExec(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// shell returns the options to run a script.
func shell(script string) handler.ExecOptions {
	return handler.ExecOptions{Command: handler.Command{Argv: []string{"sh", "-c", script}}}
}

// python returns the interpreter itself, because python3 may be a script that chooses one.
var python = sync.OnceValues(func() (string, error) {
	path, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	return strings.TrimSpace(string(path)), err
})

func needPython(t testing.TB) string {
	t.Helper()
	path, err := python()
	if err != nil {
		t.Fatalf("the tests need python3: %v", err)
	}
	return path
}

// eventually polls until ok.
func eventually(t testing.TB, what func() string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for late := time.After(deadline); !ok(); {
		select {
		case <-poll.C:
		case <-late:
			t.Fatal(what())
		}
	}
}

// watchForLeaks fails the test if it ends with more descriptors or goroutines than now, or with a zombie.
func watchForLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		eventually(t, func() string { return fmt.Sprint("zombies: ", zombies(t)) }, func() bool { return len(zombies(t)) == 0 })
	})
	fds, goroutines := openFiles(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		eventually(t, func() string { return fmt.Sprintf("descriptors before %q, after %q", fds, openFiles(t)) },
			func() bool { return len(openFiles(t)) <= len(fds) })
		eventually(t, func() string {
			stacks := make([]byte, 1<<16)
			return fmt.Sprintf("%d goroutines before, after:\n%s", goroutines, stacks[:runtime.Stack(stacks, true)])
		}, func() bool { return runtime.NumGoroutine() <= goroutines })
	})
}

func openFiles(t testing.TB) (files []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "anon_inode") {
			files = append(files, e.Name()+":"+to)
		}
	}
	return files
}

// zombies returns the children of this process that wait to be reaped.
func zombies(t testing.TB) (ids []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		stat, _ := os.ReadFile(path)
		_, rest, _ := bytes.Cut(stat, []byte(") ")) // "pid (name) state parent …"
		if f := strings.Fields(string(rest)); len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(os.Getpid()) {
			ids = append(ids, path)
		}
	}
	return ids
}

// processesOf returns the processes that have an environment variable, which all that a job starts have.
func processesOf(variable string) (ids []int) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		env, _ := os.ReadFile(path)
		if bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00")) {
			id, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			ids = append(ids, id)
		}
	}
	return ids
}

// nothingLeft waits until no process of the job is there.
func nothingLeft(t testing.TB, j *workerpool.Job) {
	t.Helper()
	eventually(t, func() string { return fmt.Sprint("left: ", processesOf("JOB_ID="+j.ID)) },
		func() bool { return len(processesOf("JOB_ID="+j.ID)) == 0 })
}

// within runs a job and fails the test if that takes longer than it may, on a loaded machine.
func within(t testing.TB, most time.Duration, ctx context.Context, h workerpool.Handler, j *workerpool.Job) ([]byte, error) {
	t.Helper()
	begin := time.Now()
	result, err := h.Run(ctx, j)
	if took := time.Since(begin); took > most {
		t.Errorf("took %v, more than %v", took, most)
	}
	return result, err
}

func processError(t testing.TB, err error) *handler.ProcessError {
	t.Helper()
	failure, ok := errors.AsType[*handler.ProcessError](err)
	if !ok {
		t.Fatalf("%v (%T) is no ProcessError", err, err)
	}
	return failure
}
