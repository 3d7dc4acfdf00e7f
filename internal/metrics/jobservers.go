package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"gearman-gateway/internal/gearman"
)

// readServers shows what the cluster knows of the job servers: they are not asked anything for a scrape.
func (m *Metrics) readServers(stats func() []gearman.ServerStats) prometheus.Collector {
	r := &reading{}
	up := r.describe("jobserver_up", "Whether the gateway is connected to the job server.", "server")
	connections := r.describe("jobserver_connections_total", "Connections to the job server that were made.", "server")
	pending := r.describe("jobserver_pending_requests", "Requests to the job server that wait for its reply.", "server")
	queued := r.describe("jobserver_queued_jobs", "Jobs that wait for a worker, as the job server said a second ago or so.", "server", "function")
	running := r.describe("jobserver_running_jobs", "Jobs that run, as the job server said a second ago or so.", "server", "function")
	workers := r.describe("jobserver_workers", "Workers that can do the function, as the job server said a second ago or so.", "server", "function")
	r.collect = func(ch chan<- prometheus.Metric) {
		for _, s := range stats() {
			server := valid(s.Server)
			gauge(ch, up, flag(s.Connected), server)
			counter(ch, connections, s.Connections, server)
			gauge(ch, pending, s.Pending, server)
			for function, n := range m.byLabel(s.Functions) {
				gauge(ch, queued, n.Total-n.Running, server, function)
				gauge(ch, running, n.Running, server, function)
				gauge(ch, workers, n.Workers, server, function)
			}
		}
	}
	return r
}

// byLabel adds up functions that share a label value. gearmand has a line for each name that any job was ever submitted with, so those
// that never had a worker are not learnt.
func (m *Metrics) byLabel(functions []gearman.FunctionStatus) map[string]gearman.FunctionStatus {
	sums := map[string]gearman.FunctionStatus{}
	for _, f := range functions {
		if f.Workers > 0 {
			m.functions.learn(f.Function)
		}
		l := m.functions.label(f.Function)
		sum := sums[l]
		sum.Total += f.Total
		sum.Running += f.Running
		sum.Workers += f.Workers
		sums[l] = sum
	}
	return sums
}
