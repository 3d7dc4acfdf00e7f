package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	gateway "gearman-gateway"
	"gearman-gateway/internal/gearmandtest"
)

func put(t testing.TB, url, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	return read(t, resp, err)
}

// function returns what GET /functions says of one.
func function(t testing.TB, gw, name string) map[string]any {
	t.Helper()
	items, _ := get(t, gw+"/functions").field(t, "items").([]any)
	for _, item := range items {
		if f := item.(map[string]any); f["function"] == name {
			return f
		}
	}
	return nil
}

// The function is paused with jobs that run and jobs that wait, under load, and is resumed: each job runs once.
func TestAFunctionIsPausedAndResumed(t *testing.T) {
	engines(t, func(t *testing.T, set func(*gateway.Config)) {
		began, finish := make(chan string, 1000), make(chan struct{})
		c := gateway.DefaultConfig()
		c.Listen, c.Jobserver.Listen, c.Data = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", t.TempDir()
		c.Workers.Concurrency = 3
		c.Handlers = map[string]gateway.Handler{"slow": gateway.HandlerFunc(func(_ context.Context, j *gateway.Job) ([]byte, error) {
			began <- string(j.Workload)
			<-finish
			return j.Workload, nil
		})}
		set(&c)
		g, err := gateway.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer g.Stop(context.Background())
		release := sync.OnceFunc(func() { close(finish) })
		defer release() // or Stop would wait for the jobs of a test that has failed
		gw := "http://" + g.Addr()

		const jobs = 30
		var urls []string
		work := func(n int) {
			a := submit(t, gw, fmt.Sprintf(`{"function":"slow","workload":"job %d","mode":"tracked"}`, n))
			if a.status != http.StatusAccepted {
				t.Fatalf("%d %s", a.status, a.body)
			}
			urls = append(urls, gw+a.header.Get("Location"))
		}
		for n := range jobs / 2 {
			work(n)
		}
		ran := []string{<-began, <-began, <-began}
		for range 2 {
			if a := post(t, gw+"/functions/slow/pause", "", ""); a.status != http.StatusOK || a.field(t, "paused") != true {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		for n := range jobs / 2 {
			work(jobs/2 + n)
		}
		release()
		// A request that was under way may have brought a few more, and a tracked job is on its way when it is accepted.
		poll(t, "the jobs that ran to end, and the others to wait", func() bool {
			f := function(t, gw, "slow")
			return f["running"] == 0.0 && f["workers"] == 0.0 && f["queued"] == float64(jobs-len(ran)-len(began))
		})
		if f := function(t, gw, "slow"); f["paused"] != true || len(began) > 3 {
			t.Errorf("%v, and %d jobs have begun more", f, len(began))
		}
		for len(began) > 0 {
			ran = append(ran, <-began)
		}
		if a := submit(t, gw, `{"function":"reverse","workload":"abc","mode":"sync"}`); !strings.Contains(a.body, `"cba"`) {
			t.Errorf("another function: %d %s", a.status, a.body)
		}
		if err := g.Reload(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if a := submit(t, gw, `{"function":"reverse","workload":"abc","mode":"sync"}`); !strings.Contains(a.body, `"cba"`) {
			t.Errorf("another function: %d %s", a.status, a.body)
		}
		if f := function(t, gw, "slow"); f["paused"] != true || len(began) > 0 {
			t.Errorf("after a reload: %v", f)
		}
		if a := post(t, gw+"/functions/slow/resume", "", ""); a.status != http.StatusOK || a.field(t, "paused") != false {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for n, url := range urls {
			if a := get(t, url+"?wait=30s"); a.field(t, "state") != "completed" || a.field(t, "result") != fmt.Sprint("job ", n) {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		for len(began) > 0 {
			ran = append(ran, <-began)
		}
		slices.Sort(ran)
		if len(ran) != jobs || len(slices.Compact(ran)) != jobs {
			t.Errorf("%d runs of %d jobs: %q", len(ran), jobs, ran)
		}
		if f := function(t, gw, "slow"); f["paused"] != false {
			t.Errorf("resumed: %v", f)
		}
		if a := post(t, gw+"/functions/not-ours/pause", "", ""); a.status != http.StatusNotFound || !strings.Contains(a.body, "function-not-found") {
			t.Errorf("%d %s", a.status, a.body)
		}
		poll(t, "the events", func() bool { return strings.Contains(get(t, gw+"/events?type=function.*").body, "function.resumed") })
		if events := get(t, gw+"/events?type=function.*").body; strings.Count(events, `"type":"function.paused","subject":"slow"`) != 2 {
			t.Errorf("events: %s", events)
		}
	})
}

func TestAQueueIsBoundedOnAllJobServersThatAnswer(t *testing.T) {
	a, b := gearmandtest.Start(t), gearmandtest.Start(t)
	gw := start(t, func(c *gateway.Config) {
		c.Gearman = []gateway.Address{gateway.Address(a.Addr()), gateway.Address(b.Addr())}
	})
	res := put(t, gw+"/functions/new%2Fone/maxqueue", `{"max":2}`)
	if res.status != http.StatusOK || !strings.Contains(res.body, a.Addr()) || !strings.Contains(res.body, b.Addr()) {
		t.Fatalf("%d %s", res.status, res.body)
	}
	accepted := 0
	for range 10 {
		switch res := post(t, gw+"/functions/new%2Fone?mode=background", "", "x"); {
		case res.status == http.StatusAccepted:
			accepted++
		case res.status != http.StatusServiceUnavailable || !strings.Contains(res.body, "queue-full"):
			t.Errorf("%d %s", res.status, res.body)
		}
	}
	if accepted < 2 || accepted > 4 { // two on each
		t.Errorf("%d jobs were accepted", accepted)
	}
	if f := function(t, gw, "new/one"); f["paused"] != nil || f["queued"] != float64(accepted) {
		t.Errorf("got %v", f)
	}
	b.Kill()
	res = put(t, gw+"/functions/new%2Fone/maxqueue", `{"high":0,"normal":3,"low":1}`)
	if res.status != http.StatusServiceUnavailable || !strings.Contains(res.body, "1 of 2 job servers took the bound") || strings.Contains(res.body, b.Addr()) {
		t.Errorf("%d %s", res.status, res.body)
	}
	poll(t, "the events", func() bool {
		return strings.Contains(get(t, gw+"/events?type=function.*").body, fmt.Sprintf(`"servers":[%q],"max_queue":{"high":0,"normal":3,"low":1}`, a.Addr()))
	})
}
