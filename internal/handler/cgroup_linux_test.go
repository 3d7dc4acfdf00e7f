package handler

import (
	"os"
	"testing"

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
