package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"runtime"
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// chaos is a JobServers whose answers, updates and workers are a matter of chance.
type chaos struct {
	l    plain
	work sync.WaitGroup

	mu      sync.Mutex
	random  *rand.Rand
	last    int
	queued  map[string]string // handles of live background jobs by function and unique
	handles map[string]bool   // that are not over
}

func (c *chaos) chance(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.Intn(n)
}

// handle gives a job a handle, or that of the job that it coalesces with.
func (c *chaos) handle(t gearman.Task) (handle string, coalesced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := t.Function + "\x00" + t.Unique
	if h := c.queued[k]; t.Background && h != "" && c.handles[h] {
		return h, true
	}
	c.last++
	handle = fmt.Sprint("H:", c.last)
	c.handles[handle] = true
	if t.Background {
		c.queued[k] = handle
	}
	return handle, false
}

func (c *chaos) over(handle string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.handles, handle)
}

func (c *chaos) Submit(ctx context.Context, t gearman.Task, w gearman.Watch) (gearman.Job, error) {
	ctx, cancel := answerWithin(ctx, &t)
	defer cancel()
	nowhere := gearman.Job{Server: g1, Generation: 1}
	switch c.chance(20) {
	case 0:
		return gearman.Job{}, errNotSent
	case 1:
		w(gearman.Update{Kind: gearman.Lost, Job: nowhere, Err: errCut})
		return nowhere, errCut
	case 2: // the answer comes after the caller has gone
		<-ctx.Done()
		c.work.Go(func() { c.live(t, w) })
		return nowhere, fmt.Errorf("%w: %w", gearman.ErrOutcomeUnknown, context.Cause(ctx))
	}
	answered := make(chan gearman.Job, 1)
	c.work.Go(func() {
		c.live(t, func(u gearman.Update) {
			w(u)
			if u.Kind == gearman.Created {
				answered <- u.Job
			}
		})
	})
	return <-answered, nil
}

// live is the life of a job: first its handle or a run of it by our own pool, in any order, and in the end one that is told.
func (c *chaos) live(t gearman.Task, w gearman.Watch) {
	handle, coalesced := c.handle(t)
	where := gearman.Job{Server: g1, Handle: handle, Generation: 1}
	created := gearman.Update{Kind: gearman.Created, Job: where}
	if coalesced {
		w(created)
		return
	}
	var packets sync.WaitGroup
	defer packets.Wait()
	ends := make(chan gearman.Update, 10) // to the one reader of the connection
	packets.Go(func() {
		w(created)
		for u := range ends {
			u.Job = where
			if !t.Background {
				w(u)
			}
		}
	})
	defer close(ends)
	defer c.over(handle)
	if c.chance(2) == 0 {
		c.ours(t, handle, ends)
		return
	}
	c.theirs(ends)
}

func (c *chaos) ours(t gearman.Task, handle string, packets chan<- gearman.Update) {
	a := &gearman.Assignment{Server: g1, Handle: handle, Function: t.Function, Unique: t.Unique}
	c.l.Observe(a, event.FunctionBeforeExecute, &event.Data{})
	for range c.chance(3) {
		c.l.Observe(a, event.JobData, &event.Data{Chunk: []byte("data")})
		packets <- gearman.Update{Kind: gearman.Data, Payload: []byte("data")}
		c.l.Observe(a, event.JobWarning, &event.Data{Chunk: []byte("warning")})
		packets <- gearman.Update{Kind: gearman.Warning, Payload: []byte("warning")}
	}
	switch c.chance(4) {
	case 0:
		c.l.Observe(a, event.FunctionOnFailure, &event.Data{Error: &event.Error{Kind: "failed"}})
		packets <- gearman.Update{Kind: gearman.Failed}
	case 1:
		c.l.Observe(a, event.FunctionOnFailure, &event.Data{Error: &event.Error{Kind: "failed"}, Reason: event.HandedBack})
		c.theirs(packets)
	default:
		c.l.Observe(a, event.FunctionAfterExecute, &event.Data{Result: []byte("result")})
		packets <- gearman.Update{Kind: gearman.Completed, Payload: []byte("result")}
	}
}

func (c *chaos) theirs(packets chan<- gearman.Update) {
	for range c.chance(3) {
		packets <- gearman.Update{Kind: gearman.Data, Payload: []byte("data")}
		packets <- gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2}
	}
	switch c.chance(4) {
	case 0:
		packets <- gearman.Update{Kind: gearman.Failed}
	case 1:
		packets <- gearman.Update{Kind: gearman.Lost, Err: errCut}
	default:
		packets <- gearman.Update{Kind: gearman.Completed, Payload: []byte("result")}
	}
	if c.chance(3) == 0 {
		packets <- gearman.Update{Kind: gearman.Completed, Payload: []byte("second end")}
	}
}

func (c *chaos) Status(_ context.Context, j gearman.Job, _ string) (gearman.JobStatus, error) {
	if c.chance(10) == 0 {
		return gearman.JobStatus{}, gearman.ErrUnavailable
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return gearman.JobStatus{Known: c.handles[j.Handle], Running: c.handles[j.Handle]}, nil
}

func (c *chaos) CancelJob(context.Context, gearman.Job) error { return gearman.ErrUnavailable }

func (c *chaos) Find(context.Context, string) (gearman.Job, gearman.JobStatus, bool, error) {
	return gearman.Job{}, gearman.JobStatus{}, false, nil
}

// Many callers and many jobs at once, with all that can go wrong: every caller gets an answer, and what the ledger keeps adds up
// at any time.
func TestAtRandom(t *testing.T) {
	for _, o := range []Options{{}, {MaxRecords: 50, MaxReplied: 5, MaxLive: 40, MaxBytes: 400}} {
		t.Run(fmt.Sprint("at most ", o.MaxRecords), func(t *testing.T) { atRandom(t, o) })
	}
}

func atRandom(t *testing.T, o Options) {
	seed := time.Now().UnixNano()
	t.Log("seed", seed)
	c := &chaos{random: rand.New(rand.NewSource(seed)), queued: map[string]string{}, handles: map[string]bool{}}
	s := &store{memory: newMemory(nil)}
	o.Servers, o.Store, o.SubmitTimeout = c, s, time.Millisecond
	l := plain{New(o)}
	l.stored = false
	c.l = l

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var checker sync.WaitGroup
	checker.Go(func() {
		for ctx.Err() == nil {
			if err := l.consistent(); err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})

	const callers, tasks = 16, 100
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			random := rand.New(rand.NewSource(seed + int64(caller)))
			for range tasks {
				randomCall(t, l, random)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); c.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("somebody still waits")
	}
	stop()
	checker.Wait()

	if err := l.consistent(); err != nil {
		t.Error(err)
	}
	if l.sync != 0 || len(l.byUnique) != 0 || len(l.runs) != 0 {
		t.Errorf("all is over: %d live sync jobs, %d uniques, %d runs", l.sync, len(l.byUnique), len(l.runs))
	}
	for id, j := range l.byID {
		if j.waiters != 0 {
			t.Errorf("job %s still has %d callers", id, j.waiters)
		}
	}
	checkEvents(t, s.events)
}

func randomCall(t *testing.T, l plain, random *rand.Rand) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if random.Intn(5) == 0 {
		go cancel() // at any time
	}
	task := Task{Function: "f", Mode: Sync, Wait: time.Minute}
	if random.Intn(2) == 0 {
		task.Mode = Background
	}
	if random.Intn(2) == 0 {
		task.Unique = fmt.Sprint("u", random.Intn(5))
	}
	r, err := l.Submit(ctx, task)
	switch {
	case err == nil && task.Mode == Sync && !r.State.Ended():
		t.Errorf("a minute cannot have passed: %+v", r)
	case err == nil && r.State == Completed && task.Mode == Sync && r.Kept && !endsInResult(r.Result):
		t.Errorf("result %q", r.Result)
	case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrFull) && !errors.Is(err, gearman.ErrNotSent) &&
		!errors.Is(err, gearman.ErrOutcomeUnknown):
		t.Errorf("error %v", err)
	}
	for _, ref := range []string{r.ID, r.Handle, fmt.Sprint("H:", random.Intn(1000))} {
		if _, err := l.Job(ctx, everyone, ref, time.Duration(random.Intn(2))*time.Millisecond); err != nil &&
			!errors.Is(err, ErrNotFound) && !errors.Is(err, context.Canceled) && !errors.Is(err, gearman.ErrNotSent) {
			t.Errorf("job %q: %v", ref, err)
		}
	}
}

// endsInResult reports whether a result is data of one run, or of two where the first was handed back, and then what it
// completed with.
func endsInResult(b []byte) bool {
	s := string(b)
	for len(s) > 4 && s[:4] == "data" {
		s = s[4:]
	}
	return s == "result"
}

// checkEvents checks that the events of each job count from 1 and end with its end, but for what its run still tells.
func checkEvents(t *testing.T, events []event.Event) {
	seqs := map[string]uint64{}
	ended := map[string]event.Type{}
	for _, e := range events {
		if e.Data.ID == "" {
			continue
		}
		if seqs[e.Subject]++; seqs[e.Subject] != e.Seq {
			t.Fatalf("event %d of job %s has seq %d", seqs[e.Subject], e.Subject, e.Seq)
		}
		switch e.Type {
		case event.JobCompleted, event.JobFailed, event.JobLost:
			if first := ended[e.Subject]; first != "" {
				t.Errorf("job %s has %s after %s", e.Subject, e.Type, first)
			}
			ended[e.Subject] = e.Type
		case event.JobStarted, event.JobData, event.JobProgress, event.JobWarning:
			if first := ended[e.Subject]; first != "" {
				t.Errorf("job %s has %s after %s", e.Subject, e.Type, first)
			}
		}
	}
}
