package gearman_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearmandtest"
	"gearman-gateway/internal/jobserver"
)

// contract runs a test against the embedded job server and against a real gearmand: what one of them promises to clients and
// workers, the other must too.
func contract(t *testing.T, test func(t *testing.T, addr string)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, startEmbedded(t))
	})
	t.Run("gearmand", func(t *testing.T) {
		t.Parallel()
		test(t, gearmandtest.Start(t).Addr())
	})
}

func startEmbedded(t testing.TB) (addr string) {
	s := jobserver.New(jobserver.Options{Listen: "127.0.0.1:0"})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s.Addr()
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t testing.TB, addr string) *gearman.Client {
	c := gearman.NewClient(gearman.Options{Addr: addr})
	t.Cleanup(func() { closeNow(c) })
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// closeNow closes without waiting for open jobs.
func closeNow(c interface{ Close(context.Context) }) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.Close(ctx)
}

// updates is a Watch that keeps what it is told.
type updates chan gearman.Update

func newUpdates() updates { return make(updates, 1000) }

func (u updates) watch(update gearman.Update) { u <- update }

// next returns the next update that is not of a kind to skip.
func (u updates) next(t testing.TB, skip ...gearman.Kind) gearman.Update {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-u:
			skipped := false
			for _, k := range skip {
				skipped = skipped || got.Kind == k
			}
			if !skipped {
				return got
			}
		case <-timeout:
			t.Fatal("no update came")
		}
	}
}

// startWorker runs a worker until the test ends, and returns when it has found no job to run. stop makes it end.
func startWorker(t testing.TB, addr string, slots int, run func(*gearman.Assignment), functions ...string) (stop, wait func()) {
	t.Helper()
	registered := make(chan struct{})
	var once sync.Once
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options:   gearman.Options{Addr: addr},
		ID:        "test-worker",
		Functions: functions,
		Slots:     make(gearman.Slots, slots),
		Run:       run,
		Notify: func(e gearman.WorkerEvent, _ error) {
			if e == gearman.WorkerIOWait {
				once.Do(func() { close(registered) })
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	wait = func() {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			w.Abort()
			t.Fatal("the worker did not end")
		}
	}
	t.Cleanup(func() { cancel(); wait() })
	select {
	case <-registered:
	case <-time.After(20 * time.Second):
		t.Fatal("the worker did not get to wait for jobs")
	}
	return cancel, wait
}

func echoWorker(a *gearman.Assignment) { a.Complete(a.Workload) }

func submit(t testing.TB, c *gearman.Client, task gearman.Task) (gearman.Job, updates) {
	t.Helper()
	u := newUpdates()
	job, err := c.Submit(testContext(t), task, u.watch)
	if err != nil {
		t.Fatal(err)
	}
	if got := u.next(t); got.Kind != gearman.Created || got.Job != job {
		t.Fatalf("first update is %+v, want Created of %+v", got, job)
	}
	return job, u
}

func TestEveryKindOfUpdateReachesTheSubmitter(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		startWorker(t, addr, 1, func(a *gearman.Assignment) {
			a.Data([]byte("part\x00one"))
			a.Warning([]byte("careful"))
			a.Status(1, 3)
			switch string(a.Workload) {
			case "complete":
				a.Complete([]byte("rest"))
			case "fail":
				a.Fail()
			case "exception":
				a.Exception([]byte("what went wrong"))
			}
		}, "f")
		c := connect(t, addr)
		for _, want := range []gearman.Update{
			{Kind: gearman.Completed, Payload: []byte("rest")},
			{Kind: gearman.Failed},
			{Kind: gearman.Exception, Payload: []byte("what went wrong")},
		} {
			workload := map[gearman.Kind]string{
				gearman.Completed: "complete", gearman.Failed: "fail", gearman.Exception: "exception",
			}[want.Kind]
			job, u := submit(t, c, gearman.Task{Function: "f", Workload: []byte(workload)})
			var got []gearman.Update
			for range 4 {
				got = append(got, u.next(t))
			}
			want.Job = job
			all := []gearman.Update{
				{Kind: gearman.Data, Job: job, Payload: []byte("part\x00one")},
				{Kind: gearman.Warning, Job: job, Payload: []byte("careful")},
				{Kind: gearman.Status, Job: job, Numerator: 1, Denominator: 3},
				want,
			}
			if diff := gocmp.Diff(all, got); diff != "" {
				t.Errorf("%s: updates (-want +got):\n%s", workload, diff)
			}
		}
	})
}

func TestAWorkloadArrivesByteForByte(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		startWorker(t, addr, 2, echoWorker, "echo")
		c := connect(t, addr)
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		for _, workload := range [][]byte{{}, {0}, all, bytes.Repeat(all, 64<<10)} { // up to 16 MiB, in linear time
			_, u := submit(t, c, gearman.Task{Function: "echo", Workload: workload})
			if got := u.next(t); got.Kind != gearman.Completed || !bytes.Equal(got.Payload, workload) {
				t.Errorf("%d bytes came back as %d, kind %d", len(workload), len(got.Payload), got.Kind)
			}
		}
	})
}

func TestPrioritiesOrderTheQueue(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		for _, p := range []gearman.Priority{gearman.Low, gearman.Normal, gearman.High} {
			for _, bg := range []bool{false, true} {
				submit(t, c, gearman.Task{
					Function: "f", Workload: fmt.Append(nil, p), Priority: p, Background: bg, Unique: fmt.Sprintf("%v-%v", p, bg),
				})
			}
		}
		ran := make(chan string, 6)
		startWorker(t, addr, 1, func(a *gearman.Assignment) { ran <- string(a.Workload); a.Complete(nil) }, "f")
		var got []string
		for range 6 {
			got = append(got, <-ran)
		}
		if want := "high high normal normal low low"; strings.Join(got, " ") != want {
			t.Errorf("jobs ran as %v, want %s", got, want)
		}
	})
}

func TestStatus(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c, ctx := connect(t, addr), testContext(t)
		job, err := c.Submit(ctx, gearman.Task{Function: "f", Unique: "u-1", Background: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		check := func(want gearman.JobStatus) {
			t.Helper()
			byHandle, err1 := c.Status(ctx, job)
			byUnique, err2 := c.StatusUnique(ctx, "u-1")
			if err1 != nil || err2 != nil || byHandle != want || byUnique != want {
				t.Errorf("status by handle %+v (%v), by unique %+v (%v), want %+v", byHandle, err1, byUnique, err2, want)
			}
		}
		check(gearman.JobStatus{Known: true})
		running, finish := make(chan struct{}), make(chan struct{})
		stop := startWorkerThatRuns(t, addr, func(a *gearman.Assignment) {
			a.Status(3, 14)
			close(running)
			<-finish
			a.Complete(nil)
		})
		<-running
		poll(t, "the progress to be seen", func() bool {
			s, err := c.Status(ctx, job)
			return err == nil && s.Denominator == 14
		})
		check(gearman.JobStatus{Known: true, Running: true, Numerator: 3, Denominator: 14})
		close(finish)
		stop()
		check(gearman.JobStatus{})
	})
}

// startWorkerThatRuns starts a worker for "f" that finds a job waiting.
func startWorkerThatRuns(t testing.TB, addr string, run func(*gearman.Assignment)) (stop func()) {
	w := gearman.NewWorker(gearman.WorkerOptions{
		Options: gearman.Options{Addr: addr}, Functions: []string{"f"}, Slots: make(gearman.Slots, 1), Run: run,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return stop
}

// poll waits until a condition holds.
func poll(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestBackgroundJobsCoalesceByUnique(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		first, _ := submit(t, c, gearman.Task{Function: "f", Unique: "same", Background: true})
		second, _ := submit(t, c, gearman.Task{Function: "f", Unique: "same", Background: true})
		other, _ := submit(t, c, gearman.Task{Function: "g", Unique: "same", Background: true})
		if first.Handle != second.Handle || first.Handle == other.Handle {
			t.Errorf("handles %s and %s of one unique, %s of another function's", first.Handle, second.Handle, other.Handle)
		}
	})
}

// Job servers send a packet once for each submit that shares a job: the data must not double.
func TestSubmitsThatShareAJobTakeItsPacketsInTurn(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		var all [3]updates
		for i := range all {
			_, all[i] = submit(t, c, gearman.Task{Function: "f", Unique: "shared"})
		}
		startWorkerThatRuns(t, addr, func(a *gearman.Assignment) {
			a.Data([]byte("1"))
			a.Data([]byte("2"))
			a.Complete([]byte("3"))
		})
		for i, u := range all {
			var got []byte
			for {
				update := u.next(t)
				got = append(got, update.Payload...)
				if update.Kind == gearman.Completed {
					break
				}
			}
			if string(got) != "123" {
				t.Errorf("submit %d got %q, want 123", i, got)
			}
		}
	})
}

func TestAFullQueueIsAServerError(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := connect(t, addr)
		submit(t, c, gearman.Task{Function: "f", Background: true, Unique: "1"})
		command(t, addr, "maxqueue f 1\r\n")
		_, err := c.Submit(testContext(t), gearman.Task{Function: "f", Background: true, Unique: "2"}, nil)
		var refused *gearman.ServerError
		if !errors.As(err, &refused) || !refused.QueueFull() {
			t.Errorf("submit over maxqueue: %v, want a full queue", err)
		}
		if err := c.Echo(testContext(t)); err != nil {
			t.Errorf("after an ERROR the connection does not answer: %v", err)
		}
	})
}

// command sends an admin command that the Admin has no method for.
func command(t testing.TB, addr, line string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, line)
	if reply, err := bufio.NewReader(nc).ReadString('\n'); err != nil || !strings.HasPrefix(reply, "OK") {
		t.Fatalf("%q: %q, %v", line, reply, err)
	}
}

func TestNamesThatWouldHarmAreRefusedBeforeTheyAreSent(t *testing.T) {
	c := connect(t, startEmbedded(t))
	for _, task := range []gearman.Task{
		{Function: ""},
		{Function: "a\x00b"},
		{Function: "a b"},
		{Function: strings.Repeat("f", gearman.MaxFunction+1)},
		{Function: "f", Unique: "-"},
		{Function: "f", Unique: "a\x00b"},
		{Function: "f", Unique: strings.Repeat("ü", 32)}, // 64 bytes
	} {
		_, err := c.Submit(testContext(t), task, nil)
		if !errors.As(err, new(*gearman.NameError)) {
			t.Errorf("Submit(%q, %q): %v, want a NameError", task.Function, task.Unique, err)
		}
	}
	if _, err := c.Status(testContext(t), gearman.Job{Handle: strings.Repeat("h", 64)}); !errors.As(err, new(*gearman.NameError)) {
		t.Errorf("a handle of 64 bytes, to which gearmand never replies: %v", err)
	}
}

func TestManyCallersShareOneConnection(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		startWorker(t, addr, 8, echoWorker, "echo")
		c := connect(t, addr)
		var wg sync.WaitGroup
		for g := range 64 {
			wg.Go(func() {
				for i := range 20 {
					want := fmt.Sprintf("%d/%d", g, i)
					u := newUpdates()
					if _, err := c.Submit(testContext(t), gearman.Task{Function: "echo", Workload: []byte(want)}, u.watch); err != nil {
						t.Error(err)
						return
					}
					if got := u.next(t, gearman.Created); string(got.Payload) != want {
						t.Errorf("got %q (kind %d), want %q", got.Payload, got.Kind, want)
					}
					if err := c.Echo(testContext(t)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestAdminTables(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		ctx := testContext(t)
		c := connect(t, addr)
		a := gearman.NewAdmin(gearman.Options{Addr: addr})
		startWorker(t, addr, 1, echoWorker, "echo", "other")
		var queued gearman.Job
		for i, p := range []gearman.Priority{gearman.High, gearman.Normal, gearman.Low, gearman.Low} {
			queued, _ = submit(t, c, gearman.Task{Function: "nobody", Priority: p, Background: true, Unique: fmt.Sprint(i)})
		}
		status, err := a.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]gearman.FunctionStatus{
			"echo":   {Function: "echo", Workers: 1},
			"other":  {Function: "other", Workers: 1},
			"nobody": {Function: "nobody", Total: 4},
		}
		got := map[string]gearman.FunctionStatus{}
		for _, f := range status {
			got[f.Function] = f
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		priorities, err := a.PriorityStatus(ctx)
		for _, f := range priorities {
			if f.Function == "nobody" && f != (gearman.PriorityStatus{Function: "nobody", High: 1, Normal: 1, Low: 2}) {
				t.Errorf("prioritystatus of nobody: %+v", f)
			}
		}
		if err != nil || len(priorities) != 3 {
			t.Errorf("prioritystatus: %d functions, %v", len(priorities), err)
		}
		workers, err := a.Workers(ctx)
		if err != nil || len(workers) != 1 || workers[0].ID != "test-worker" || len(workers[0].Functions) != 2 {
			t.Errorf("workers: %+v, %v", workers, err)
		}
		if v, err := a.Version(ctx); err != nil || cmp.Or(v, "OK") == "OK" {
			t.Errorf("version: %q, %v", v, err)
		}
		if err := a.CancelJob(ctx, queued.Handle); err != nil {
			t.Errorf("cancel of a queued job: %v", err)
		}
		if err := a.CancelJob(ctx, "H:nowhere:1"); !errors.As(err, new(*gearman.ServerError)) {
			t.Errorf("cancel of a job that never was: %v, want a ServerError", err)
		}
		// gearmand still knows the job until a worker comes for it; what counts is that none gets it.
		ran := make(chan string, 10)
		startWorker(t, addr, 1, func(a *gearman.Assignment) { ran <- a.Handle; a.Complete(nil) }, "nobody")
		close(ran)
		for h := range ran {
			if h == queued.Handle {
				t.Error("the cancelled job was run")
			}
		}
	})
}
