package ledger

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// world is a JobServers that loses connections and forgets jobs as gearmand does: a job that is queued when its client's connection
// is lost is doomed, stays known, takes in whoever comes with its unique, and never runs.
type world struct {
	wire sync.Mutex // held while packets are told: there is one reader

	mu         sync.Mutex
	random     *rand.Rand
	ledger     plain
	jobs       map[string]*worldJob // by unique
	last       int
	generation uint64
	ran        map[string]int // by workload
	work       sync.WaitGroup
}

type worldJob struct {
	task            gearman.Task
	handle          string
	running, doomed bool
	clients         []gearman.Watch
}

func (w *world) chance(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.Intn(n)
}

// pause is at random and never zero: with the race detector, timers of one bubble that have expired already crash the Go runtime when
// two goroutines look at them at a time (seen with go1.26.8: (*timer).maybeRunChan shares the bubble's race context).
func (w *world) pause(most int) time.Duration {
	return time.Duration(1+w.chance(most)) * time.Millisecond
}

func (w *world) Submit(_ context.Context, t gearman.Task, client gearman.Watch) (gearman.Job, error) {
	w.wire.Lock()
	defer w.wire.Unlock()
	luck := w.chance(20)
	if luck == 0 {
		return gearman.Job{}, errNotSent
	}
	where := w.take(t, client)
	if luck == 1 { // the connection is lost before JOB_CREATED
		w.hangUp(false)
		return gearman.Job{Server: g1, Generation: where.Generation}, errCut
	}
	client(gearman.Update{Kind: gearman.Created, Job: where})
	return where, nil
}

func (w *world) take(t gearman.Task, client gearman.Watch) gearman.Job {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[t.Unique]
	if j == nil {
		w.last++
		j = &worldJob{task: t, handle: fmt.Sprint("H:", w.last)}
		w.jobs[t.Unique] = j
		w.work.Go(func() { w.grab(j) })
	}
	j.clients = append(j.clients, client)
	return gearman.Job{Server: g1, Handle: j.handle, Generation: w.generation}
}

// grab is the life of a job after its submit, in our pool or in another.
func (w *world) grab(j *worldJob) {
	<-time.After(w.pause(500))
	w.mu.Lock()
	l := w.ledger
	if w.jobs[j.task.Unique] != j || j.doomed {
		if w.jobs[j.task.Unique] == j {
			delete(w.jobs, j.task.Unique)
		}
		w.mu.Unlock()
		return
	}
	j.running = true
	w.ran[string(j.task.Workload)]++
	w.mu.Unlock()

	a := &gearman.Assignment{Server: g1, Handle: j.handle, Function: j.task.Function, Unique: j.task.Unique}
	ours := w.chance(2) == 0
	if ours {
		l.Observe(a, event.FunctionBeforeExecute, &event.Data{})
	}
	<-time.After(w.pause(500))

	w.wire.Lock()
	defer w.wire.Unlock()
	w.mu.Lock()
	here, died := w.jobs[j.task.Unique] == j, ours && w.ledger != l
	clients := j.clients
	switch {
	case here && died: // its worker went with the ledger
		j.running, j.doomed = false, len(clients) == 0
		w.work.Go(func() { w.grab(j) })
	case here:
		delete(w.jobs, j.task.Unique)
	}
	w.mu.Unlock()
	if died {
		return
	}
	result, failed := []byte("result of "+string(j.task.Workload)), w.chance(4) == 0
	switch {
	case ours && failed:
		l.Observe(a, event.FunctionOnFailure, &event.Data{Error: &event.Error{Kind: "exit"}})
	case ours:
		l.Observe(a, event.FunctionAfterExecute, &event.Data{Result: result})
	}
	if !here {
		return
	}
	for _, tell := range clients {
		if failed {
			tell(gearman.Update{Kind: gearman.Failed})
		} else {
			tell(gearman.Update{Kind: gearman.Completed, Payload: result})
		}
	}
}

// hangUp ends the connection, and the job server's life too if it forgets. The wire is held.
func (w *world) hangUp(forgets bool) {
	for _, tell := range w.drop(forgets) {
		tell(gearman.Update{Kind: gearman.Lost, Job: gearman.Job{Server: g1}, Err: errCut})
	}
}

// drop takes the clients away from all jobs.
func (w *world) drop(forgets bool) (clients []gearman.Watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.generation++
	for _, j := range w.jobs {
		clients = append(clients, j.clients...)
		j.clients = nil
		j.doomed = j.doomed || !j.running
	}
	if forgets {
		clear(w.jobs)
		w.last = 0 // its handles start over
	}
	return clients
}

func (w *world) Status(_ context.Context, where gearman.Job, unique string) (gearman.JobStatus, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.jobs[unique]
	if where.Generation == w.generation && j != nil && j.handle != where.Handle {
		j = nil
	}
	if j == nil {
		return gearman.JobStatus{}, nil
	}
	return gearman.JobStatus{Known: true, Running: j.running}, nil
}

func (w *world) CancelJob(context.Context, gearman.Job) error { return gearman.ErrUnavailable }

func (w *world) Find(context.Context, string) (gearman.Job, gearman.JobStatus, bool, error) {
	return gearman.Job{}, gearman.JobStatus{}, false, nil
}

// Whatever becomes of connections, job servers and the gateway itself: each tracked job that was accepted ends, completed with its own
// result, and nothing of it is left among what is live.
func TestTrackedJobsAtRandom(t *testing.T) {
	for range 2 {
		seed := rand.Int63()
		for _, asked := range []bool{true, false} { // who asks for a job may find out what the ledger should have by itself
			t.Log("seed", seed, "asked", asked)
			synctest.Test(t, func(t *testing.T) { trackedAtRandom(t, seed, asked) })
		}
	}
}

func trackedAtRandom(t *testing.T, seed int64, asked bool) {
	w := &world{random: rand.New(rand.NewSource(seed)), jobs: map[string]*worldJob{}, ran: map[string]int{}}
	d := newDisk()
	d.lazy = true
	var life sync.RWMutex // held while the ledger is replaced; nobody waits for time to pass while he holds it
	var l plain
	begin := func() {
		l = plain{New(Options{Servers: w, Store: d})}
		w.mu.Lock()
		w.ledger = l
		w.mu.Unlock()
		if err := l.Start(t.Context()); err != nil {
			t.Error(err)
		}
	}
	begin()

	accepted := map[string]string{} // workloads by id
	var mu sync.Mutex
	var callers sync.WaitGroup
	const tasks = 400
	for caller := range 8 {
		callers.Go(func() {
			for n := range tasks / 8 {
				task := Task{
					Function: "f", Mode: Tracked, Workload: fmt.Append(nil, caller, "/", n), Retry: Retry{Max: 60, Backoff: time.Millisecond},
				}
				if w.chance(3) == 0 {
					task.RunAt = time.Now().Add(time.Duration(w.chance(20_000)) * time.Millisecond)
				}
				life.RLock()
				r, err := l.Submit(t.Context(), task)
				life.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				accepted[r.ID] = string(task.Workload)
				mu.Unlock()
				<-time.After(w.pause(500))
			}
		})
	}
	over := make(chan struct{})
	var asker sync.WaitGroup
	asker.Go(func() { // asks for any job at any time
		for {
			select {
			case <-over:
				return
			case <-time.After(w.pause(5)):
			}
			if !asked {
				continue
			}
			mu.Lock()
			var id string
			for id = range accepted {
				break
			}
			mu.Unlock()
			life.RLock()
			if _, err := l.Job(t.Context(), everyone, id, 0); err != nil && id != "" {
				t.Errorf("job %s: %v", id, err)
			}
			life.RUnlock()
		}
	})
	const blows = 30
	for blow := range blows {
		<-time.After(w.pause(1500))
		switch {
		case blow < blows-1 && w.chance(3) > 0:
			forgets := w.chance(2) == 0
			w.wire.Lock()
			w.hangUp(forgets)
			w.wire.Unlock()
		default:
			life.Lock()
			w.wire.Lock()
			w.drop(false)
			old := l
			d = d.reopen()
			w.wire.Unlock()
			old.Stop()
			begin()
			w.wire.Lock()
			w.drop(false) // what the old one had still submitted
			w.wire.Unlock()
			life.Unlock()
		}
		if err := l.consistent(); err != nil {
			t.Fatal(err)
		}
	}
	callers.Wait()
	close(over)
	asker.Wait()
	wait := time.Now().Add(3 * time.Hour) // pauses between attempts grow
	for time.Now().Before(wait) {
		<-time.After(time.Minute)
		l.mu.Lock()
		live := l.tracked
		l.mu.Unlock()
		if live == 0 {
			break
		}
	}
	l.Stop()
	w.work.Wait()
	twice := 0
	for id, workload := range accepted {
		r, err := d.Get(t.Context(), id)
		if err != nil || r.State != Completed || string(r.Result) != "result of "+workload {
			t.Errorf("job %s (%s) is %s with %q, attempt %d, deaths %d, %v, %v", id, workload, r.State, r.Result, r.Attempt, r.Deaths, r.Error, err)
		}
		twice += w.ran[workload] - r.Attempt - 1
	}
	t.Logf("%d jobs, %d runs too many", len(accepted), twice)
	if err := l.consistent(); err != nil {
		t.Error(err)
	}
	if l.tracked != 0 || l.workloads != 0 || len(l.runs) != 0 || len(l.byUnique) != 0 {
		t.Errorf("all is over: %d tracked, %d bytes, %d runs, %d uniques", l.tracked, l.workloads, len(l.runs), len(l.byUnique))
	}
}
