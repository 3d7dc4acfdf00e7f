package gateway_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gateway "gearman-gateway"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

// BenchmarkPHP compares, in interleaved rounds of one run over one gearmand, the jobs a second of two processes each: PHP fed by the gateway
// (persistent), PHP started by the gateway for each job (exec), and two workers of php-gearman with a loop of their own. The job is the
// same: text in upper case. ratio is that of the first to the last, and is meant to be 0.8 at least.
func BenchmarkPHP(b *testing.B) {
	server := gearmandtest.Start(b)
	php := func(function string, persistent bool, args ...string) gateway.Function {
		return gateway.Function{Function: function, Exec: append([]string{"php"}, args...), Dir: ".", Persistent: persistent, Processes: map[bool]int{true: 2}[persistent]}
	}
	start(b, func(c *gateway.Config) {
		c.Gearman = []gateway.Address{gateway.Address(server.Addr())}
		c.Functions = []gateway.Function{
			php("persistent", true, "examples/handlers/words.php"),
			php("exec", false, "-r", "echo strtoupper(stream_get_contents(STDIN));"),
		}
	})
	startPeer(b, "php", "testdata/worker.php", server.Addr())
	startPeer(b, "php", "testdata/worker.php", server.Addr())
	client := gearman.NewClient(gearman.Options{Addr: server.Addr()})
	defer func() {
		now, cancel := context.WithCancel(b.Context())
		cancel()
		client.Close(now)
	}()

	if err := client.WaitConnected(b.Context()); err != nil {
		b.Fatal(err)
	}

	took := map[string]time.Duration{}
	jobs := map[string]int{"persistent": 5000, "exec": 50, "php_upper": 5000}
	for b.Loop() {
		for range 3 {
			for function, n := range jobs {
				took[function] += runJobs(b, client, function, n)
			}
		}
	}
	rate := func(function string) float64 { return float64(3*b.N*jobs[function]) / took[function].Seconds() }
	b.ReportMetric(rate("persistent"), "persistent-jobs/s")
	b.ReportMetric(rate("exec"), "exec-jobs/s")
	b.ReportMetric(rate("php_upper"), "php-gearman-jobs/s")
	b.ReportMetric(rate("persistent")/rate("php_upper"), "ratio")
}

// runJobs has n jobs run, 32 at a time, and returns how long that took.
func runJobs(b *testing.B, client *gearman.Client, function string, n int) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	var callers sync.WaitGroup
	began := time.Now()
	for range 32 {
		callers.Go(func() {
			ended := make(chan gearman.Kind, 1)
			for left.Add(-1) >= 0 {
				_, err := client.Submit(b.Context(), gearman.Task{Function: function, Workload: []byte("hello")}, func(u gearman.Update) {
					if u.Kind.Ends() {
						ended <- u.Kind
					}
				})
				if err != nil {
					b.Error(err)
					return
				}
				if k := <-ended; k != gearman.Completed {
					b.Errorf("%s ended as %v", function, k)
					return
				}
			}
		})
	}
	callers.Wait()
	return time.Since(began)
}
