package gateway_test

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gateway "gearman-gateway"
)

// BenchmarkSubmitWithAHangingSink compares, in interleaved rounds of one run, how long POST /jobs takes on a gateway without a sink and on
// one whose sink accepts every connection and never answers. Its metrics are the two 99th percentiles, in milliseconds, and their ratio.
func BenchmarkSubmitWithAHangingSink(b *testing.B) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody answers
	if err != nil {
		b.Fatal(err)
	}
	defer hanging.Close()
	durable := func(c *gateway.Config) { c.Data = b.TempDir() }
	without := start(b, durable)
	with := start(b, func(c *gateway.Config) {
		durable(c)
		c.Sinks = []gateway.Sink{{URL: gateway.URL("http://" + hanging.Addr().String() + "/")}}
	})
	var took [2][]time.Duration
	const rounds, callers, each = 10, 16, 50
	for b.Loop() {
		for range rounds {
			for i, url := range []string{without, with} {
				took[i] = append(took[i], submitRound(b, url, callers, each)...)
			}
		}
	}
	p99 := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)*99/100].Seconds() * 1000
	}
	a, z := p99(took[0]), p99(took[1])
	b.ReportMetric(a, "p99-without-ms")
	b.ReportMetric(z, "p99-hanging-ms")
	b.ReportMetric(z/a, "ratio")
}

// submitRound submits background jobs, and returns how long each took.
func submitRound(b *testing.B, url string, callers, each int) []time.Duration {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer client.CloseIdleConnections()
	took := make([]time.Duration, callers*each)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				began := time.Now()
				resp, err := client.Post(url+"/jobs", "application/json", strings.NewReader(`{"function":"reverse","workload":"hello"}`))
				if err != nil {
					b.Error(err)
					return
				}
				resp.Body.Close()
				took[c*each+i] = time.Since(began)
			}
		})
	}
	wg.Wait()
	return took
}
