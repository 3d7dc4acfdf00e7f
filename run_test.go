package gateway_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	gateway "gearman-gateway"
)

func TestAReloadNamesWhatNeedsARestart(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*gateway.Config)
		want   string // "": nothing is said
	}{
		"nothing":        {func(*gateway.Config) {}, ""},
		"handlers":       {func(c *gateway.Config) { c.Functions = []gateway.Function{{Function: "cat", Exec: []string{"cat"}}} }, ""},
		"an idle time":   {func(c *gateway.Config) { c.Workers.IdleTimeout = gateway.Duration(1e15) }, ""},
		"a listener":     {func(c *gateway.Config) { c.Listen = gateway.Listen{"127.0.0.1:0", "localhost:0"} }, `["listen"]`},
		"in a section":   {func(c *gateway.Config) { c.Jobserver.Listen = "localhost:0" }, `["jobserver.listen"]`},
		"not reloadable": {func(c *gateway.Config) { c.Limits.Concurrency, c.Workers.Grace, c.Workers.MaxJobs = 5, 7, 9 }, `["limits.concurrency","workers.grace"]`},
	} {
		var log journal
		c := gateway.DefaultConfig()
		c.Listen, c.Jobserver.Listen, c.DrainDelay, c.Log = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", 1, zerolog.New(&log)
		g := running(t, c)
		test.change(&c)
		if err := g.Reload(t.Context(), c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if said := strings.Contains(log.String(), "need a restart"); said != (test.want != "") || !strings.Contains(log.String(), test.want) {
			t.Errorf("%s: want %q in the log:\n%s", name, test.want, log.String())
		}
	}
}

// What the embedded job server has kept is not forgotten where it does not run, nor thrown away where it cannot be read.
func TestAQueueThatNobodyReads(t *testing.T) {
	var log journal
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen, c.DrainDelay, c.Data, c.Log = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", 1, t.TempDir(), zerolog.New(&log)
	file := filepath.Join(c.Data, "queue.jsonl")
	keep := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func() error {
		g, err := gateway.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Start(t.Context()); err != nil {
			return err
		}
		return g.Stop(t.Context())
	}
	keep("{\"last\":1}\nnonsense")
	if err := start(); err == nil || !strings.HasPrefix(err.Error(), "data: ") || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
	c.Gearman = []gateway.Address{"127.0.0.1:1"}
	for text, want := range map[string]bool{"{\"last\":1}\n": false, "{\"last\":1}\n{\"number\":1,\"function\":\"Zg==\"}\n": true} {
		keep(text)
		before := strings.Count(log.String(), file)
		if err := start(); err != nil {
			t.Error(err)
		}
		if warned := strings.Count(log.String(), file) > before; warned != want {
			t.Errorf("%q: warned %t:\n%s", text, warned, log.String())
		}
		if after, err := os.ReadFile(file); string(after) != text {
			t.Errorf("the file was %q, and is %q: %v", text, after, err)
		}
	}
}
