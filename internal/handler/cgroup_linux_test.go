package handler

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A directory stands in for a control group: controllers are rarely to be had where tests run.
func TestTheLimitsOfAControlGroup(t *testing.T) {
	for _, test := range []struct {
		limits Limits
		want   map[string]string
	}{
		{Limits{}, map[string]string{}},
		{
			Limits{Memory: 64 << 20, Processes: 10, CPUs: 1.5},
			map[string]string{
				"memory.max": "67108864", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "10", "cpu.max": "150000 100000",
			},
		},
		{Limits{CPUs: 0.001}, map[string]string{"cpu.max": "1000 100000"}}, // the kernel takes no less
	} {
		g := &cgroup{path: t.TempDir()}
		for name := range test.want { // as the kernel makes them, with the controllers
			if err := os.WriteFile(filepath.Join(g.path, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.limit(test.limits); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		files, err := os.ReadDir(g.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			value, _ := os.ReadFile(g.path + "/" + f.Name())
			got[f.Name()] = string(value)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAMissingControllerIsNamed(t *testing.T) {
	g := &cgroup{path: t.TempDir()}
	if err := g.limit(Limits{CPUs: 1}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "cpu.max") {
		t.Errorf("got %v", err)
	}
}

// A group can be made, in a directory at least, in which no process can be started.
func TestAGroupInWhichNothingCanBeStarted(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := (&cgroup{dir.Name(), dir}).startable(); err == nil || !strings.Contains(err.Error(), "no process") {
		t.Errorf("got %v", err)
	}
}

// WritableCgroup returns a new group of the kernel's, which may be without controllers, or skips the test where there is no hierarchy to
// make it in.
func WritableCgroup(t *testing.T) (dir string) {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(root, "gateway-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := syscall.Rmdir(dir); err != nil {
				t.Error(err)
			}
		})
		if _, err := os.Stat(dir + "/cgroup.kill"); err == nil {
			return dir
		}
	}
	t.Skip("no cgroup v2 hierarchy with cgroup.kill is writable here")
	return ""
}

func TestALimitOfMemoryLeavesRoomForTheLauncher(t *testing.T) {
	for _, test := range []struct {
		limits Limits
		right  bool
	}{
		{Limits{Memory: 8 << 20, Cgroup: "x"}, true},
		{Limits{Memory: 8 << 20, Files: 100}, true},
		{Limits{Memory: 8 << 20, Files: 100, Cgroup: "x"}, false},
		{Limits{Memory: 8 << 20, CPU: time.Second, Cgroup: "x"}, false},
		{Limits{Memory: 16 << 20, CPU: time.Second, Cgroup: "x"}, true},
	} {
		if err := test.limits.check(); (err == nil) != test.right {
			t.Errorf("%+v: %v", test.limits, err)
		}
	}
}

// What a gateway has left that was killed goes at the next start; what is still in use stays, and so do this one's own.
func TestGroupsThatWereLeft(t *testing.T) {
	dir := WritableCgroup(t)
	left, used, own := filepath.Join(dir, "job-1"), filepath.Join(dir, "job-2"), filepath.Join(dir, ownGroups+"1")
	for _, path := range []string{left, used, own} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(used)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := &cgroup{used, f}
	a := &syscall.SysProcAttr{}
	g.join(a)
	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = a
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := probeCgroup(Limits{Cgroup: dir}); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]bool{left: false, used: true, own: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	g.kill()
	_ = sleep.Wait() // it was killed
	if err := errors.Join(g.remove(), os.Remove(own)); err != nil {
		t.Error(err)
	}
	if groups, _ := filepath.Glob(filepath.Join(dir, "job-*")); len(groups) > 0 {
		t.Errorf("left: %v", groups)
	}
}

func TestAControlGroupTellsWhetherMemoryWasShort(t *testing.T) {
	for events, want := range map[string]bool{
		"":                               false,
		"low 0\noom 3\noom_kill 0\n":     false,
		"low 0\noom 3\noom_kill 2\n":     true,
		"oom_group_kill 1\noom_kill 0\n": false,
	} {
		g := &cgroup{path: t.TempDir()}
		if err := os.WriteFile(g.path+"/memory.events", []byte(events), 0o600); err != nil {
			t.Fatal(err)
		}
		if g.oomKilled() != want {
			t.Errorf("%q: %t", events, !want)
		}
	}
}
