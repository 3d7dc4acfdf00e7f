package gateway_test

import (
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
		c.Listen, c.Jobserver.Listen, c.Log = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", zerolog.New(&log)
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
