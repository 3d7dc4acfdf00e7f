package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const outboxSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// outboxConfig has every event sent, and tries often, so that no event becomes a dead letter while its sink is bad.
const outboxConfig = `
listen: 127.0.0.1:0
jobserver: {listen: 127.0.0.1:0}
data: %q
sinks: [{name: audit, url: %q, secret: ` + outboxSecret + `, events: ["*"]}]
webhooks: {schedule: [0s, 20ms, 50ms, 100ms, 100ms, 200ms, 200ms, 500ms, 500ms, 1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s], timeout: 500ms}
`

// TestABadSinkHearsEverything runs 200 jobs with every event going to a sink that fails a third of its answers, stalls and is killed and
// started again.
func TestABadSinkHearsEverything(t *testing.T) {
	o := newOutboxLab(t)
	for i := range 200 {
		o.submit(i)
		switch {
		case i%50 == 20:
			o.stallSink()
		case i%50 == 40:
			o.restartSink()
		}
	}
	o.check()
}

// TestEveryEventOutlivesTheGateway kills the gateway, with SIGKILL, at 50 random moments under the same load. GATEWAY_TEST_SEED replays
// the moments of a run.
func TestEveryEventOutlivesTheGateway(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("GATEWAY_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("GATEWAY_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	o := newOutboxLab(t)
	var load sync.WaitGroup
	for kill := range 50 {
		load.Go(func() {
			for i := range 4 {
				o.submit(kill*4 + i)
			}
		})
		<-time.After(time.Duration(random.IntN(250)) * time.Millisecond) // the moment is what is tested
		o.gateway.kill()
		o.gateway.start()
		if kill%20 == 10 {
			o.restartSink()
		}
	}
	load.Wait()
	o.check()
}

// outboxLab is a gateway and a bad sink, each a process of its own.
type outboxLab struct {
	t       *testing.T
	gateway *crashing
	load    *crashLoad
	sink    *exec.Cmd
	sinkAt  string
	log     string // what the sink has printed, in all its lives
}

func newOutboxLab(t *testing.T) *outboxLab {
	o := &outboxLab{t: t, sinkAt: "127.0.0.1:0", log: filepath.Join(t.TempDir(), "sink.log")}
	o.startSink()
	o.gateway = &crashing{t: t, args: []string{
		"--config", writeFile(t, fmt.Sprintf(outboxConfig, t.TempDir(), "http://"+o.sinkAt+"/")),
	}}
	o.gateway.start()
	t.Cleanup(o.gateway.kill)
	o.load = &crashLoad{t: t, gateway: o.gateway, acked: map[string]string{}, keys: map[string]string{}}
	return o
}

// startSink starts the sink, at the address that it had before.
func (o *outboxLab) startSink() {
	out, err := os.OpenFile(o.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	defer out.Close()
	o.sink = command(nil, "sink", "--listen", o.sinkAt, "--secret", outboxSecret, "--fail-rate", "0.33", "--delay", "1ms")
	o.sink.Stdout = out
	o.sinkAt = startAndFind(o.t, o.sink, "sink listens")
}

func (o *outboxLab) restartSink() {
	o.sink.Process.Kill()
	o.sink.Wait()
	o.startSink()
}

// stallSink has the sink accept and not answer for longer than the gateway waits.
func (o *outboxLab) stallSink() {
	if err := o.sink.Process.Signal(syscall.SIGSTOP); err != nil {
		o.t.Fatal(err)
	}
	<-time.After(600 * time.Millisecond)
	if err := o.sink.Process.Signal(syscall.SIGCONT); err != nil {
		o.t.Fatal(err)
	}
}

// submit submits a tracked job until it is acknowledged: one that succeeds with progress, one that fails, or one that is scheduled.
func (o *outboxLab) submit(i int) {
	body := `{"mode":"tracked","function":"sleep","workload":0.05}`
	switch i % 3 {
	case 1:
		body = `{"mode":"tracked","function":"fail","workload":"exception"}`
	case 2:
		body = `{"mode":"tracked","function":"reverse","workload":"abc","delay":"100ms"}`
	}
	key := fmt.Sprint("job-", i)
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if id, status := o.load.post(body, key); status == http.StatusAccepted {
			o.load.acknowledge(id, body+key, key)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	o.t.Errorf("job %d was never acknowledged", i)
}

// told is one event, as the feed and the sink tell it.
type told struct {
	ID, Type, Subject string
	Seq               uint64
}

// check waits until the sink has had everything, and compares what it printed with what GET /events says.
func (o *outboxLab) check() {
	o.waitForEnds()
	o.waitForSink()
	feed := o.feed()
	known := map[string]told{}
	for _, e := range feed {
		known[e.ID] = e
	}
	heard := map[string][]told{} // by subject, each event once
	times := map[string]int{}
	duplicates := 0
	for _, e := range o.printed() {
		if known[e.ID] != e {
			o.t.Errorf("the sink heard %+v, and the feed says %+v", e, known[e.ID])
		}
		if times[e.ID]++; times[e.ID] > 1 {
			duplicates++
			continue
		}
		heard[e.Subject] = append(heard[e.Subject], e)
	}
	ends := map[string]int{}
	for _, e := range feed {
		of := heard[e.Subject]
		if len(of) == 0 || of[0] != e {
			o.t.Errorf("%+v: the sink did not hear it, or not in its turn: %d others are left", e, len(of))
			continue
		}
		heard[e.Subject] = of[1:]
		if e.Type == "job.completed" || e.Type == "job.failed" {
			ends[e.Subject]++
		}
	}
	o.checkCounts(feed, ends)
	o.t.Logf("%d jobs, %d events, %d of them more than once", len(o.load.acked), len(feed), duplicates)
}

// checkCounts sees to it that the events of each job are counted without a gap, and tell of one end.
func (o *outboxLab) checkCounts(feed []told, ends map[string]int) {
	seq := map[string]uint64{}
	for _, e := range feed {
		if _, ours := o.load.acked[e.Subject]; ours && e.Seq != seq[e.Subject]+1 {
			o.t.Errorf("%+v comes after seq %d", e, seq[e.Subject])
		}
		seq[e.Subject] = e.Seq
	}
	for id := range o.load.acked {
		if ends[id] != 1 {
			o.t.Errorf("job %s has %d ends among its events", id, ends[id])
		}
	}
}

func (o *outboxLab) waitForEnds() {
	for id := range o.load.acked {
		var job struct{ State string }
		for deadline := time.Now().Add(time.Minute); ; {
			o.get("/jobs/"+id+"?wait=10s", &job)
			if job.State == "completed" || job.State == "failed" {
				break
			}
			if time.Now().After(deadline) {
				o.t.Fatalf("job %s is %s", id, job.State)
			}
		}
	}
}

func (o *outboxLab) waitForSink() {
	var sink struct{ Behind, Pending, Dead int }
	for deadline := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		o.get("/sinks/audit", &sink)
		switch {
		case sink.Dead > 0:
			o.t.Fatalf("%d dead letters", sink.Dead)
		case sink.Behind == 0 && sink.Pending == 0:
			return
		case time.Now().After(deadline):
			o.t.Fatalf("the sink is still behind: %+v", sink)
		}
	}
}

// feed reads GET /events to its end.
func (o *outboxLab) feed() (events []told) {
	var page struct {
		Items []struct {
			ID, Type, Subject string
			Data              struct{ Seq uint64 }
		}
		NextCursor string `json:"next_cursor"`
	}
	for after := ""; ; after = "&after=" + page.NextCursor {
		o.get("/events?limit=1000"+after, &page)
		if len(page.Items) == 0 {
			return events
		}
		for _, e := range page.Items {
			events = append(events, told{e.ID, e.Type, e.Subject, e.Data.Seq})
		}
	}
}

func (o *outboxLab) get(path string, into any) {
	resp, err := crashClient.Get(*o.gateway.url.Load() + path)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		o.t.Fatalf("GET %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		o.t.Fatalf("GET %s: %v", path, err)
	}
}

// printed reads the sink's lines: time, verified, type, subject, seq=N, id=evt_…, data.
func (o *outboxLab) printed() (events []told) {
	f, err := os.Open(o.log)
	if err != nil {
		o.t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		w := strings.SplitN(lines.Text(), " ", 7)
		if len(w) != 7 || w[1] != "verified" {
			o.t.Errorf("the sink printed %q", lines.Text())
			continue
		}
		seq, err := strconv.ParseUint(strings.TrimPrefix(w[4], "seq="), 10, 64)
		if err != nil {
			o.t.Error(err)
		}
		events = append(events, told{strings.TrimPrefix(w[5], "id="), w[2], w[3], seq})
	}
	return events
}
