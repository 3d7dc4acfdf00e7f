package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gearman-gateway/internal/gearmandtest"
)

const drainConfig = `
listen: 127.0.0.1:0
gearman: [%q]
data: %q
drain_delay: 200ms
workers: {builtin: true, concurrency: 16}
handlers: [{function: tally, http: {url: %q}}]
`

// TestRestartsBehindABalancerFailNoRequest ends one of two gateways 20 times by SIGTERM and starts it again, under 500 POSTs a second that
// nobody may repeat: each is answered, and what was acknowledged is done.
func TestRestartsBehindABalancerFailNoRequest(t *testing.T) {
	server := gearmandtest.Start(t)
	done := &tally{}
	handler := httptest.NewServer(done)
	t.Cleanup(handler.Close)
	b := &balancer{t: t}
	for range 2 {
		i := &instance{t: t, config: writeFile(t, fmt.Sprintf(drainConfig, server.Addr(), t.TempDir(), handler.URL))}
		i.start()
		b.instances = append(b.instances, i)
	}
	stopWatching := b.watch()
	t.Cleanup(stopWatching)
	for _, i := range b.instances {
		i.waitReady()
	}

	load := &drainLoad{t: t, balancer: b}
	began := time.Now()
	stop := load.start(500)
	for n := range 20 {
		i := b.instances[n%2]
		i.stop()
		i.start()
		i.waitReady()
	}
	stop()
	t.Logf("%d requests in %v; %d were sent to the other instance because a connection was refused",
		load.answered.Load(), time.Since(began), b.refused.Load())

	if n := load.answered.Load(); n < 2000 {
		t.Errorf("only %d requests: that was no load", n)
	}
	for deadline := time.Now().Add(60 * time.Second); ; <-time.After(20 * time.Millisecond) {
		missing := 0
		for _, workload := range load.acked {
			if _, ok := done.ran.Load(workload); !ok {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d acknowledged jobs were not done", missing, len(load.acked))
		}
	}
	t.Logf("%d jobs acknowledged, %d runs", len(load.acked), done.runs.Load())
}

// tally is the handler of jobs that somebody waits for in vain if they are lost.
type tally struct {
	ran  sync.Map
	runs atomic.Int64
}

func (d *tally) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	workload, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	d.ran.Store(string(workload), true)
	d.runs.Add(1)
}

// instance is one of the gateways behind the balancer.
type instance struct {
	t      *testing.T
	config string
	cmd    *exec.Cmd
	url    atomic.Pointer[string]
	ready  atomic.Bool // as the balancer sees it
}

func (i *instance) start() {
	i.cmd = release(i.t, "--config", i.config)
	url := "http://" + startAndFind(i.t, i.cmd, "gateway serves HTTP")
	i.url.Store(&url)
}

func (i *instance) stop() {
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatal(err)
	}
	if err := i.cmd.Wait(); err != nil {
		i.t.Errorf("after SIGTERM: %v", err)
	}
}

func (i *instance) waitReady() {
	for deadline := time.Now().Add(20 * time.Second); !i.ready.Load(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			i.t.Fatal("an instance is not ready")
		}
	}
}

// balancer sends requests to its instances in turn. One that is not ready, or refuses connections, gets none.
type balancer struct {
	t         *testing.T
	instances []*instance
	turn      atomic.Uint64
	refused   atomic.Int64
}

// watch asks each instance whether it is ready, 50 times a second.
func (b *balancer) watch() (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for _, i := range b.instances {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
			defer client.CloseIdleConnections()
			for {
				resp, err := client.Get(*i.url.Load() + "/readyz")
				if err == nil {
					resp.Body.Close()
				}
				i.ready.Store(err == nil && resp.StatusCode == http.StatusOK)
				select {
				case <-quit:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(quit); wg.Wait() })
}

// once hides that a body could be read again, so that net/http does not repeat the request.
type once struct{ io.Reader }

// post sends a request to an instance, and to the next one only where no connection was made.
func (b *balancer) post(client *http.Client, path, body string) (status int, answer []byte, err error) {
	for range 100 {
		i := b.instances[b.turn.Add(1)%uint64(len(b.instances))]
		if !i.ready.Load() {
			continue
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, *i.url.Load()+path, once{strings.NewReader(body)})
		if err != nil {
			return 0, nil, err
		}
		r.ContentLength = int64(len(body))
		resp, err := client.Do(r)
		if errors.Is(err, syscall.ECONNREFUSED) {
			b.refused.Add(1)
			i.ready.Store(false)
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		answer, err = io.ReadAll(resp.Body)
		return resp.StatusCode, answer, err
	}
	return 0, nil, errors.New("no instance is ready")
}

// drainLoad posts jobs at a steady rate, whatever becomes of the earlier ones.
type drainLoad struct {
	t        *testing.T
	balancer *balancer
	answered atomic.Int64

	mu    sync.Mutex
	acked []string // workloads
}

func (l *drainLoad) start(perSecond int) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 30 * time.Second}
		defer client.CloseIdleConnections()
		var requests sync.WaitGroup
		defer requests.Wait()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		began := time.Now()
		for n := 0; ; {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			for due := int(time.Since(began).Seconds() * float64(perSecond)); n < due; n++ {
				number := n
				requests.Go(func() { l.request(client, number) })
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// request makes the n-th request, and checks its answer.
func (l *drainLoad) request(client *http.Client, n int) {
	workload := fmt.Sprint("job ", n)
	path, body, want := "/jobs", fmt.Sprintf(`{"function":"tally","workload":%q}`, workload), http.StatusAccepted
	switch n % 4 {
	case 1:
		body = fmt.Sprintf(`{"function":"tally","workload":%q,"mode":"tracked"}`, workload)
	case 2:
		body, want = `{"function":"reverse","workload":"abc","mode":"sync"}`, http.StatusOK
	case 3:
		path, body, want = "/functions/reverse", "abc", http.StatusOK
	}
	status, answer, err := l.balancer.post(client, path, body)
	if err != nil || status != want {
		l.t.Errorf("request %d, %s %s: %d %s, %v", n, path, body, status, answer, err)
		return
	}
	l.answered.Add(1)
	var job struct{ Result string }
	switch n % 4 {
	case 2:
		if err := json.Unmarshal(answer, &job); err != nil || job.Result != "cba" {
			l.t.Errorf("request %d: %s", n, answer)
		}
	case 3:
		if string(answer) != "cba" {
			l.t.Errorf("request %d: %s", n, answer)
		}
	default:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.acked = append(l.acked, workload)
	}
}
