package gateway

import (
	"gearman-gateway/internal/metrics"
	"gearman-gateway/internal/workerpool"
)

// newMetrics makes the numbers of the gateway, which the other parts are given to count with.
func (g *Gateway) newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Options{
		Version: g.c.Version, Log: g.c.Log,
		HasWorker: func(function string) bool { // nobody asks before there are job servers
			workers, _, _ := g.cluster.Load(function)
			return workers > 0
		},
	})
}

// readMetrics has the numbers that are read at a scrape, once all parts of the gateway are there.
func (g *Gateway) readMetrics() {
	s := metrics.Sources{
		HTTP: g.server.Stats, Ledger: g.records.Stats, Servers: g.cluster.Stats, Sinks: g.events.Stats, Outbox: g.outbox,
		Pool: func() (workerpool.Stats, bool) {
			if pool := g.pool.Load(); pool != nil {
				return pool.Stats(), true
			}
			return workerpool.Stats{}, false
		},
	}
	if g.db != nil {
		s.Store = g.db.Stats
	}
	g.metrics.Read(s)
}
