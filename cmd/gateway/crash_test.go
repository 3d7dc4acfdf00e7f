package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
)

// TestNoAcknowledgedJobIsLost kills the gateway 50 times and gearmand 20 times under load, with SIGKILL at random moments. Every
// job that was acknowledged with 202 must end completed, with its own result. GATEWAY_TEST_SEED replays the moments of a run.
func TestNoAcknowledgedJobIsLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("GATEWAY_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("GATEWAY_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	server := gearmandtest.Start(t)
	runs := startCounter(t, server.Addr())
	g := &crashing{t: t, args: []string{
		"--listen=127.0.0.1:0", "--gearman=" + server.Addr(), "--data=" + t.TempDir(), "--log-level=info",
	}}
	g.start()
	t.Cleanup(g.kill)

	load := &crashLoad{t: t, gateway: g, acked: map[string]string{}, keys: map[string]string{}}
	stop := load.start(8)
	for range 50 {
		<-time.After(time.Duration(20+random.IntN(300)) * time.Millisecond) // the moment is what is tested
		g.kill()
		g.start()
	}
	for range 20 {
		<-time.After(time.Duration(20+random.IntN(300)) * time.Millisecond)
		server.Kill()
		server.Restart()
	}
	stop()

	if len(load.acked) < 500 {
		t.Errorf("only %d jobs were acknowledged: that was no load", len(load.acked))
	}
	for id, workload := range load.acked {
		load.checkResult(id, workload, "did "+workload)
	}
	twice := 0
	runs.Range(func(_, n any) bool {
		if n.(*atomic.Int64).Load() > 1 {
			twice++
		}
		return true
	})
	t.Logf("%d jobs acknowledged, %d of them by idempotency key, %d ran more than once", len(load.acked), len(load.keys), twice)
}

// startCounter runs a worker that outlives all kills, and returns how often it ran each workload.
func startCounter(t *testing.T, addr string) *sync.Map {
	runs := &sync.Map{}
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options: gearman.Options{Addr: addr}, Functions: []string{"count"}, Slots: make(gearman.Slots, 4),
		Run: func(a *gearman.Assignment) {
			n, _ := runs.LoadOrStore(string(a.Workload), &atomic.Int64{})
			n.(*atomic.Int64).Add(1)
			_ = a.Complete([]byte("did " + string(a.Workload))) // gearmand may be dead
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return runs
}

// crashing is a gateway that is killed and started again and again.
type crashing struct {
	t    *testing.T
	args []string
	cmd  *exec.Cmd
	url  atomic.Pointer[string]
}

func (g *crashing) start() {
	g.cmd = command(nil, g.args...)
	url := "http://" + startAndFind(g.t, g.cmd, "gateway serves HTTP")
	g.url.Store(&url)
}

func (g *crashing) kill() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
}

// crashLoad submits tracked jobs, some of them scheduled, some with an idempotency key, and keeps what was acknowledged.
type crashLoad struct {
	t       *testing.T
	gateway *crashing

	mu    sync.Mutex
	acked map[string]string // workload by job
	keys  map[string]string // job by idempotency key
}

func (l *crashLoad) start(callers int) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-quit:
					return
				case <-time.After(2 * time.Millisecond): // enough load, and the end can be waited for
				}
				l.submit(c, i)
			}
		})
	}
	return func() { close(quit); wg.Wait() }
}

var crashClient = &http.Client{Timeout: 10 * time.Second}

func (l *crashLoad) submit(caller, i int) {
	workload := fmt.Sprintf("%d.%d", caller, i)
	body := fmt.Sprintf(`{"function":"count","workload":%q,"mode":"tracked"`, workload)
	key := ""
	switch i % 3 {
	case 1:
		body += `,"delay":"150ms"`
	case 2:
		key = "key-" + workload
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); { // with a key, until it is answered: the next gateway may take its time to start
		id, status := l.post(body+"}", key)
		switch {
		case status == http.StatusAccepted:
			l.acknowledge(id, workload, key)
			return
		case key == "":
			return // not acknowledged: it may exist or not
		}
		<-time.After(20 * time.Millisecond)
	}
	l.t.Errorf("%s was never answered", key)
}

func (l *crashLoad) post(body, key string) (id string, status int) {
	r, err := http.NewRequest(http.MethodPost, *l.gateway.url.Load()+"/jobs", strings.NewReader(body))
	if err != nil {
		l.t.Error(err)
		return "", 0
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	resp, err := crashClient.Do(r)
	if err != nil {
		return "", 0
	}
	defer resp.Body.Close()
	var job struct{ ID string }
	b, err := io.ReadAll(resp.Body)
	if err != nil || json.Unmarshal(b, &job) != nil {
		return "", 0
	}
	return job.ID, resp.StatusCode
}

func (l *crashLoad) acknowledge(id, workload, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.acked[id]; ok && other != workload {
		l.t.Errorf("job %s was given for %s and for %s", id, workload, other)
	}
	l.acked[id] = workload
	if key != "" {
		l.keys[key] = id
	}
}

// checkResult waits for a job's end, and for its own result.
func (l *crashLoad) checkResult(id, workload, want string) {
	deadline := time.Now().Add(60 * time.Second)
	for {
		resp, err := crashClient.Get(*l.gateway.url.Load() + "/jobs/" + id + "?wait=10s")
		if err != nil {
			l.t.Errorf("job %s: %v", id, err)
			return
		}
		var job struct{ State, Result string }
		err = json.NewDecoder(resp.Body).Decode(&job)
		resp.Body.Close()
		switch {
		case err != nil || resp.StatusCode != http.StatusOK:
			l.t.Errorf("job %s (%s): %d, %v", id, workload, resp.StatusCode, err)
			return
		case job.State == "completed":
			if job.Result != want {
				l.t.Errorf("job %s (%s) completed with %q", id, workload, job.Result)
			}
			return
		case job.State != "scheduled" && job.State != "queued" && job.State != "running" || time.Now().After(deadline):
			l.t.Errorf("job %s (%s) is %s", id, workload, job.State)
			return
		}
	}
}
