package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
)

// waiting returns how many changes a test has given that were not stored yet and have a record.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.commits, len(q.ops))
}

// hold blocks the writer in the middle of storing a change, so that what comes afterwards waits.
func hold(t *testing.T, d *DB) (release func()) {
	t.Helper()
	release = block(t, d)
	d.Apply(&ledger.Change{Record: job(newID())})
	eventually(t, "the writer is at work", func() bool { return d.queue.len() == 0 })
	return release
}

func TestManyCommitsAreOneTransaction(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir(), Sweep: time.Hour})
	release := hold(t, d)
	before := d.transactions.Load()
	errs := make(chan error)
	const callers = 100
	for range callers {
		go func() { errs <- d.Commit(t.Context(), &ledger.Change{Record: job(newID()), Workload: []byte("w")}) }()
	}
	eventually(t, "the commits wait", func() bool { return d.queue.len() == callers })
	release()
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := d.transactions.Load() - before; got != 2 { // that which was held, and that of the hundred
		t.Errorf("%d transactions, want 2", got)
	}
}

func TestOfManyChangesTheLastIsStored(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	release := hold(t, d)
	r := full(newID())
	const changes = 50
	for i := range changes {
		c := ledger.Change{Record: ledger.Record{ID: r.ID, Attempt: i + 1}}
		if i == 0 {
			c = ledger.Change{Record: r, Workload: []byte("w"), Key: &ledger.Key{Key: "k", ID: r.ID, At: time.Now()}}
		}
		d.Apply(&c, happened(r.ID, i+1))
	}
	if got := d.queue.len(); got != 1 {
		t.Errorf("%d changes wait, want 1", got)
	}
	if n := kept(t, d); n != 0 {
		t.Errorf("%d events are in the log before their change is durable", n)
	}
	release()
	want := ledger.Record{ID: r.ID, Attempt: changes, Warnings: r.Warnings, Log: r.Log}
	diff(t, get(t, d, r.ID), want)
	if w, err := d.Workload(t.Context(), r.ID); err != nil || string(w) != "w" {
		t.Errorf("workload %q, %v", w, err)
	}
	if k, err := d.Key(t.Context(), "k"); err != nil || k.ID != r.ID {
		t.Errorf("key %v, %v", k, err)
	}
	diff(t, told(t, d, r.ID), counted(changes))
}

func TestChangesKeepTheirOrder(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	release := hold(t, d)
	r := job(newID())
	change := func(seq int) (ledger.Change, event.Event) {
		r := r
		r.Attempt = seq
		return ledger.Change{Record: r}, happened(r.ID, seq)
	}
	apply := func(seq int) {
		c, e := change(seq)
		d.Apply(&c, e)
	}
	committed := make(chan error, 1)
	apply(1)
	go func() {
		c, e := change(2)
		committed <- d.Commit(t.Context(), &c, e)
	}()
	eventually(t, "the commit waits", func() bool { return d.queue.len() == 2 })
	apply(3)
	apply(4)
	if got := d.queue.len(); got != 3 {
		t.Errorf("%d changes wait, want 3: the last joined that before it, but not what is before the commit", got)
	}
	release()
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if got := get(t, d, r.ID).Attempt; got != 4 {
		t.Errorf("change %d is stored, want 4", got)
	}
	diff(t, told(t, d, r.ID), counted(4))
}

func TestAChangeDoesNotJoinOneThatIsBeingStored(t *testing.T) {
	q := newQueue()
	for range 2 {
		if _, err := q.push(&op{Change: ledger.Change{Record: job("r")}}); err != nil {
			t.Fatal(err)
		}
		if got := len(q.take()); got != 1 {
			t.Errorf("%d changes come next, want 1", got)
		}
	}
}

// Many records change at once, each in its own order.
func TestManyRecordsKeepTheirOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := open(t, Options{Dir: t.TempDir()})
	const records, changes = 50, 200
	var all sync.WaitGroup
	ids := make([]string, records)
	for i := range ids {
		ids[i] = newID()
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for seq := 1; seq <= changes; seq++ {
				r := job(ids[i])
				r.Attempt = seq
				e := happened(r.ID, seq)
				switch random.IntN(20) {
				case 0:
					if err := d.Commit(t.Context(), &ledger.Change{Record: r}, e); err != nil {
						t.Error(err)
					}
				case 1:
					d.Apply(&ledger.Change{Record: r}, e)
					if got, err := d.Get(t.Context(), r.ID); err != nil || got.Attempt != seq {
						t.Errorf("got change %d, %v, want %d", got.Attempt, err, seq)
					}
				default:
					d.Apply(&ledger.Change{Record: r}, e)
				}
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		if got := get(t, d, id).Attempt; got != changes {
			t.Errorf("change %d is stored, want %d", got, changes)
		}
		diff(t, told(t, d, id), counted(changes))
	}
}

func TestAChangeAfterForgetStartsAnew(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	r := full(newID())
	commit(t, d, ledger.Change{Record: r, Workload: []byte("w")})
	release := hold(t, d)
	d.Apply(&ledger.Change{Record: r, Forget: true})
	d.Apply(&ledger.Change{Record: ledger.Record{ID: r.ID, Attempt: 1}})
	d.Apply(&ledger.Change{Record: ledger.Record{ID: r.ID, Attempt: 2}})
	release()
	diff(t, get(t, d, r.ID), ledger.Record{ID: r.ID, Attempt: 2})
}

// refuse makes the database refuse a workload that is one zero byte.
func refuse(t *testing.T, d *DB) {
	t.Helper()
	other, err := connect(filepath.Join(d.o.Dir, "gateway.db"), 1, writing)
	if err != nil {
		t.Fatal(err)
	}
	// a trigger stands for what SQLite refuses, such as a workload of more than a gigabyte
	_, err = other.Exec("CREATE TRIGGER refuse BEFORE INSERT ON workloads WHEN NEW.workload = x'00' BEGIN SELECT RAISE(ABORT, 'no'); END")
	if err := errors.Join(err, other.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestAChangeThatCannotBeStoredFailsAlone(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	refuse(t, d)
	release := hold(t, d)
	before := d.transactions.Load()
	good, bad := []string{newID(), newID()}, []string{newID(), newID()}
	d.Apply(&ledger.Change{Record: job(good[0])})
	d.Apply(&ledger.Change{Record: job(bad[0]), Workload: []byte{0}})
	errs := map[string]chan error{bad[1]: make(chan error, 1), good[1]: make(chan error, 1)}
	for id, workload := range map[string]byte{bad[1]: 0, good[1]: 1} {
		go func() { errs[id] <- d.Commit(t.Context(), &ledger.Change{Record: job(id), Workload: []byte{workload}}) }()
	}
	eventually(t, "all wait", func() bool { return d.queue.len() == 4 })
	release()
	if err := <-errs[bad[1]]; !errors.Is(err, ledger.ErrStoreFailed) {
		t.Errorf("got %v, want ErrStoreFailed", err)
	}
	if err := <-errs[good[1]]; err != nil {
		t.Error(err)
	}
	for _, id := range good {
		get(t, d, id)
	}
	for _, id := range bad {
		if _, err := d.Get(t.Context(), id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	}
	if got := d.transactions.Load() - before; got != 2 {
		t.Errorf("%d transactions, want 2", got)
	}
}

func TestTheQueueOfCommitsIsBounded(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	release := hold(t, d)
	errs := make(chan error)
	for range maxCommits {
		go func() { errs <- d.Commit(t.Context(), &ledger.Change{Record: job(newID())}) }()
	}
	eventually(t, "the queue is full", func() bool { return d.queue.len() == maxCommits })
	if err := d.Commit(t.Context(), &ledger.Change{Record: job(newID())}); !errors.Is(err, ledger.ErrStoreFailed) {
		t.Errorf("got %v, want ErrStoreFailed", err)
	}
	d.Apply(&ledger.Change{Record: job(newID())}) // has room all the same
	release()
	for range maxCommits {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	commit(t, d, ledger.Change{Record: job(newID())})
	if d.queue.commits != 0 || d.queue.bytes != 0 || d.queue.events != (held{}) {
		t.Errorf("the empty queue holds %d commits, %d bytes, %v events", d.queue.commits, d.queue.bytes, d.queue.events)
	}
}

func TestTheBytesOfCommitsAreBounded(t *testing.T) {
	q := newQueue()
	push := func(bytes int) error {
		_, err := q.push(&op{Change: ledger.Change{Record: job(newID()), Workload: make([]byte, bytes)}, done: make(chan error, 1)})
		return err
	}
	if err := push(maxCommitBytes); err != nil { // one that is larger than all may be has to go in some time
		t.Error(err)
	}
	if err := push(1); !errors.Is(err, errQueueFull) {
		t.Errorf("got %v, want %v", err, errQueueFull)
	}
}

func TestTheEventsOfAppliesAreBounded(t *testing.T) {
	q := newQueue()
	apply := func(events int, promised bool) held {
		o := &op{Change: ledger.Change{Record: job("r")}, events: make([]entry, events)}
		for i := range o.events {
			o.events[i].Promised = promised
		}
		dropped, err := q.push(o)
		if err != nil {
			t.Fatal(err)
		}
		return dropped
	}
	before := held{others: maxEvents - 3, promised: maxPromised - 2}
	q.events = before // have been given, and are being stored
	for _, step := range []struct {
		events   int
		promised bool
		want     held
	}{
		{2, false, held{}},
		{3, false, held{others: 2}},
		{1, true, held{}},
		{1, false, held{others: 1}},
		{3, true, held{promised: 2}},
		{0, false, held{}},
	} {
		if got := apply(step.events, step.promised); got != step.want {
			t.Errorf("of %d events, promised %v, %v were dropped, want %v", step.events, step.promised, got, step.want)
		}
	}
	batch := q.take()
	q.settled(batch)
	if len(batch) != 1 || len(batch[0].events) != 5 || q.events != before {
		t.Errorf("%d changes, %d events, %v left", len(batch), len(batch[0].events), q.events)
	}
}

func TestABatchIsBounded(t *testing.T) {
	q := newQueue()
	for i := range 2 * maxBatch {
		c := ledger.Change{Record: job(fmt.Sprint(i))}
		if i >= maxBatch {
			c.Workload = make([]byte, maxBatchBytes/4)
		}
		if _, err := q.push(&op{Change: c}); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{maxBatch, 3, 3} {
		if got := len(q.take()); got != want {
			t.Errorf("batch %d has %d changes, want %d", i, got, want)
		}
	}
}

func TestACommitThatIsGivenUp(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	release := hold(t, d)
	cause := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := make(chan error)
	go func() { errs <- d.Commit(ctx, &ledger.Change{Record: job(newID())}) }()
	eventually(t, "the commit waits", func() bool { return d.queue.len() == 1 })
	cancel(cause)
	if err := <-errs; !errors.Is(err, cause) || errors.Is(err, ledger.ErrStoreFailed) {
		t.Errorf("got %v, want %v alone", err, cause)
	}
	release()
}

func TestCloseStoresWhatWaits(t *testing.T) {
	dir := t.TempDir()
	d := open(t, Options{Dir: dir})
	release := hold(t, d)
	const changes = 2*maxBatch + 1
	var ids []string
	for range changes {
		ids = append(ids, newID())
		d.Apply(&ledger.Change{Record: job(ids[len(ids)-1])})
	}
	release()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Options{Dir: dir})
	for _, id := range ids {
		get(t, d, id)
	}
}

// counted returns 1 to n.
func counted(n int) []uint64 {
	seq := make([]uint64, n)
	for i := range seq {
		seq[i] = uint64(i + 1)
	}
	return seq
}
