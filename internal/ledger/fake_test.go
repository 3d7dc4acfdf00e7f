package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

const (
	g1 = "g1:4730"
	g2 = "g2:4730"
)

// submission is one call of Submit: the test plays the job server to it.
type submission struct {
	gearman.Task
	tell   gearman.Watch
	answer chan answer
}

type answer struct {
	job gearman.Job
	err error
}

// at is a job on g1, over the connection's first life.
func at(handle string) gearman.Job { return gearman.Job{Server: g1, Handle: handle, Generation: 1} }

// created plays JOB_CREATED.
func (s *submission) created(where gearman.Job) {
	s.tell(gearman.Update{Kind: gearman.Created, Job: where})
	s.answer <- answer{job: where}
}

// refused plays an error of which the watch hears nothing.
func (s *submission) refused(err error) { s.answer <- answer{err: err} }

// cut plays the loss of the connection before JOB_CREATED.
func (s *submission) cut() {
	s.lost(errCut)
	s.answer <- answer{gearman.Job{Server: g1, Generation: 1}, errCut}
}

func (s *submission) completed(result string) {
	s.tell(gearman.Update{Kind: gearman.Completed, Payload: []byte(result)})
}

func (s *submission) data(b string) { s.tell(gearman.Update{Kind: gearman.Data, Payload: []byte(b)}) }

func (s *submission) lost(err error) {
	s.tell(gearman.Update{Kind: gearman.Lost, Job: gearman.Job{Server: g1, Generation: 1}, Err: err})
}

var (
	errNotSent = fmt.Errorf("job server %s: %w: %w", g1, gearman.ErrNotSent, gearman.ErrUnavailable)
	errCut     = fmt.Errorf("job server %s: %w: reading: EOF", g1, gearman.ErrOutcomeUnknown)
)

// servers is a scripted JobServers.
type servers struct {
	submits chan *submission

	mu        sync.Mutex
	asked     []gearman.Job // by Status
	finds     []string
	cancelled []gearman.Job
	cancel    error
	status    func(j gearman.Job, unique string) (gearman.JobStatus, error)
	find      func(handle string) (gearman.Job, gearman.JobStatus, bool, error)
}

// answerWithin is what the real client does about a task's Timeout.
func answerWithin(ctx context.Context, t *gearman.Task) (context.Context, context.CancelFunc) {
	defer func() { t.Timeout = 0 }()
	return context.WithTimeoutCause(ctx, t.Timeout, errors.New("the job server did not answer in time"))
}

func (s *servers) Submit(ctx context.Context, t gearman.Task, w gearman.Watch) (gearman.Job, error) {
	ctx, cancel := answerWithin(ctx, &t)
	defer cancel()
	sub := &submission{t, w, make(chan answer, 1)}
	s.submits <- sub
	select {
	case a := <-sub.answer:
		return a.job, a.err
	case <-ctx.Done():
		return gearman.Job{Server: g1, Generation: 1}, fmt.Errorf("%w: %w", gearman.ErrOutcomeUnknown, context.Cause(ctx))
	}
}

func (s *servers) Status(_ context.Context, j gearman.Job, unique string) (gearman.JobStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, j)
	if s.status == nil {
		return gearman.JobStatus{}, gearman.ErrUnavailable
	}
	return s.status(j, unique)
}

func (s *servers) Find(_ context.Context, handle string) (gearman.Job, gearman.JobStatus, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finds = append(s.finds, handle)
	if s.find == nil {
		return gearman.Job{}, gearman.JobStatus{}, false, nil
	}
	return s.find(handle)
}

func (s *servers) CancelJob(_ context.Context, j gearman.Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled = append(s.cancelled, j)
	return s.cancel
}

func (s *servers) say(status gearman.JobStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = func(gearman.Job, string) (gearman.JobStatus, error) { return status, nil }
}

func (s *servers) timesAsked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// store records what it is given.
type store struct {
	*memory
	mu      sync.Mutex
	changes []Record
	events  []event.Event
}

func (s *store) Apply(c *Change, events ...event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, c.Record)
	s.events = append(s.events, events...)
}

func (s *store) Commit(ctx context.Context, c *Change, events ...event.Event) error {
	if err := s.memory.Commit(ctx, c); err != nil {
		return err
	}
	s.Apply(c, events...)
	return nil
}

// of returns the events of one subject, and fails the test if their seqs do not count from 1.
func (s *store) of(t *testing.T, subject string) []event.Event {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []event.Event
	for _, e := range s.events {
		if e.Subject == subject {
			list = append(list, e)
			if e.Seq != uint64(len(list)) {
				t.Errorf("event %d of %s (%s) has seq %d", len(list), subject, e.Type, e.Seq)
			}
		}
	}
	return list
}

func (s *store) types(t *testing.T, subject string) []event.Type {
	t.Helper()
	var types []event.Type
	for _, e := range s.of(t, subject) {
		types = append(types, e.Type)
	}
	return types
}

// lab is a ledger between a scripted cluster and a recording store. Its tests run in a synctest bubble.
type lab struct {
	plain
	t       *testing.T
	servers *servers
	store   *store
}

// everyone is who asks where ownership does not matter.
var everyone = Caller{All: true}

func newLab(t *testing.T, o Options) *lab {
	b := &lab{t: t, servers: &servers{submits: make(chan *submission, 1000)}, store: &store{memory: newMemory(nil)}}
	o.Servers, o.Store = b.servers, b.store
	b.Ledger = New(o)
	b.stored = false // it keeps no records
	return b
}

// bubble runs a test with a ledger of the given bounds where time is not real and a wait without an end is a failure.
func bubble(t *testing.T, o Options, test func(*testing.T, *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newLab(t, o)
		test(t, b)
		synctest.Wait()
		b.check()
	})
}

// outcome is what a call on the ledger will return.
type outcome struct {
	done   chan struct{}
	record Record
	err    error
}

func (b *lab) call(f func() (Record, error)) *outcome {
	o := &outcome{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.record, o.err = f()
	}()
	synctest.Wait()
	return o
}

func (o *outcome) returned() bool {
	synctest.Wait()
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

func (o *outcome) get() (Record, error) {
	<-o.done
	return o.record, o.err
}

// must waits for the record of a call that has no reason to fail.
func (o *outcome) must(t *testing.T) Record {
	t.Helper()
	r, err := o.get()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// plain is a ledger whose methods take and return values.
type plain struct{ *Ledger }

func (p plain) Submit(ctx context.Context, t Task) (Record, error) {
	return value(p.Ledger.Submit(ctx, &t))
}

func (p plain) Job(ctx context.Context, who Caller, ref string, wait time.Duration) (Record, error) {
	return value(p.Ledger.Job(ctx, who, ref, wait))
}

func (p plain) Cancel(ctx context.Context, who Caller, ref string) (Record, error) {
	return value(p.Ledger.Cancel(ctx, who, ref))
}

func (p plain) RunAgain(ctx context.Context, who Caller, ref string) (Record, error) {
	return value(p.Ledger.RunAgain(ctx, who, ref))
}

func value(r *Record, err error) (Record, error) {
	if r == nil {
		return Record{}, err
	}
	return *r, err
}

// begin calls Submit and returns with the task on its way to the job server.
func (b *lab) begin(ctx context.Context, task Task) (*submission, *outcome) {
	b.t.Helper()
	o := b.call(func() (Record, error) { return b.Submit(ctx, task) })
	select {
	case s := <-b.servers.submits:
		return s, o
	default:
		b.t.Fatalf("%+v was not sent", task)
		return nil, nil
	}
}

// sync begins a sync job that waits a minute, and gives it a handle.
func (b *lab) sync(handle string) (*submission, *outcome) {
	b.t.Helper()
	s, o := b.begin(b.t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Minute})
	s.created(at(handle))
	return s, o
}

// background submits a background job and gives it a handle.
func (b *lab) background(unique, handle string) (*submission, Record) {
	b.t.Helper()
	s, o := b.begin(b.t.Context(), Task{Function: "f", Unique: unique})
	s.created(at(handle))
	return s, o.must(b.t)
}

// now returns the record as the ledger has it, without a wait.
func (b *lab) now(ref string) Record {
	b.t.Helper()
	r, err := b.Job(b.t.Context(), everyone, ref, 0)
	if err != nil {
		b.t.Fatalf("job %s: %v", ref, err)
	}
	return r
}

// assign is a job that our own pool was given.
func assign(s *submission, handle string) *gearman.Assignment {
	return &gearman.Assignment{Server: g1, Handle: handle, Function: s.Function, Unique: s.Unique, Workload: s.Workload}
}

func (b *lab) before(a *gearman.Assignment) {
	b.Observe(a, event.FunctionBeforeExecute, &event.Data{Worker: "w"})
}

func (b *lab) after(a *gearman.Assignment, result string) {
	b.Observe(a, event.FunctionAfterExecute, &event.Data{Worker: "w", DurationMS: 1, Result: []byte(result)})
}

func (b *lab) failed(a *gearman.Assignment, kind, message string) {
	b.Observe(a, event.FunctionOnFailure, &event.Data{Worker: "w", Error: &event.Error{Kind: kind, Message: message}})
}

// judged is failed with what the pool knows besides.
func (b *lab) judged(a *gearman.Assignment, kind, message string, v event.Verdict) {
	b.Observe(a, event.FunctionOnFailure, &event.Data{Worker: "w", Error: &event.Error{Kind: kind, Message: message}, Verdict: &v})
}

func (b *lab) handedBack(a *gearman.Assignment) {
	b.Observe(a, event.FunctionOnFailure, &event.Data{
		Worker: "w", Error: &event.Error{Kind: "exception", Message: "stopping"}, Reason: event.HandedBack,
	})
}

// check fails the test if the indexes hold what they should not, or the bytes do not add up.
func (b *lab) check() {
	b.t.Helper()
	if err := b.consistent(); err != nil {
		b.t.Error(err)
	}
}

func (x *index) consistent() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var sum, workloads int64
	sync, tracked, background, ended, kept, logs := 0, 0, 0, 0, 0, 0
	for id, j := range x.byID {
		size := int64(len(j.Result))
		for _, w := range j.Warnings {
			size += int64(len(w))
		}
		if j.State.Ended() {
			size += int64(len(j.workload))
		}
		inLog := 0
		for _, e := range j.Log {
			inLog += len(e.Payload)
		}
		if inLog != j.logBytes || inLog > maxLogBytes || len(j.Log) > maxLogEntries {
			wrong("the log of job %s has %d entries of %d bytes, and counts %d", id, len(j.Log), inLog, j.logBytes)
		}
		logs += inLog
		if size != j.bytes {
			wrong("job %s has %d bytes, but counts %d", id, size, j.bytes)
		}
		sum += j.bytes
		switch {
		case id != j.ID || j.gone || j.merged != nil:
			wrong("job %s is under the id %s, gone %v, merged %v", j.ID, id, j.gone, j.merged != nil)
		case j.State.Ended():
			ended++
		case j.durable || j.Mode == Tracked:
			tracked++
			workloads += j.size
		case j.Mode == Background:
			background++
		default:
			sync++
		}
		if j.State.Ended() != j.over || j.over && j.done != nil && !isClosed(j.done) {
			wrong("job %s is %s, and its waiters were woken: %v", id, j.State, j.over)
		}
		if live := slices.Contains(x.wired(j.Function, j.wire), j); live == j.State.Ended() {
			wrong("job %s is %s, and found by its unique: %v", id, j.State, live)
		}
		if x.results.has(j) {
			kept++
		}
	}
	if sum != x.bytes {
		wrong("results have %d bytes, %d are counted", sum, x.bytes)
	}
	if x.sync != sync || x.background.n != background || x.past.n+x.replied.n != ended || x.results.n != kept {
		wrong("live sync %d, background %d, ended %d, with results %d; counted %d, %d, %d, %d",
			sync, background, ended, kept, x.sync, x.background.n, x.past.n+x.replied.n, x.results.n)
	}
	if x.tracked != tracked || x.workloads != workloads || x.logBytes != logs {
		wrong("live tracked %d, their workloads %d, logs %d; counted %d, %d, %d",
			tracked, workloads, logs, x.tracked, x.workloads, x.logBytes)
	}
	if x.entered.n != len(x.byID) {
		wrong("%d jobs were entered, %d are found by id", x.entered.n, len(x.byID))
	}
	for j := x.entered.first; j != nil; j = x.entered.next(j) {
		if x.byID[j.ID] != j {
			wrong("job %s is in the list of all, but gone", j.ID)
		}
	}
	for handle, j := range x.byHandle {
		if j.Handle != handle || x.byID[j.ID] != j {
			wrong("handle %q leads to job %s, which has %q, gone %v", handle, j.ID, j.Handle, j.gone)
		}
	}
	for j := range x.keys {
		if !j.live() || !j.keyed {
			wrong("there are keys of job %s, live %v, keyed %v", j.ID, j.live(), j.keyed)
		}
	}
	for k, jobs := range x.byWire {
		if len(jobs) == 0 {
			wrong("the unique %v leads to an empty list", k)
		}
		for _, j := range jobs {
			if x.byID[j.ID] != j {
				wrong("the unique %v leads to job %s, which is gone", k, j.ID)
			}
		}
	}
	for k, j := range x.byUnique {
		if x.byID[j.ID] != j || j.State.Ended() || j.Mode == Background {
			wrong("the caller's unique %v leads to job %s, %s %s", k, j.ID, j.Mode, j.State)
		}
	}
	return errors.Join(errs...)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// disk is a Store that outlives a ledger: reopen it for the next one.
type disk struct {
	mu        sync.Mutex
	records   map[string]Record
	workloads map[string][]byte
	keys      map[string]Key
	changes   []Record // in their order, those of Commit too
	events    []event.Event
	fail      error         // of Commit
	hold      chan struct{} // not nil: Commit waits until it is closed
	before    func()        // not nil: called once, before the next Commit is given
	lazy      bool          // what Apply is given waits until something else is asked of the disk, and is lost with a kill
	stuck     bool          // what waits so is not to be seen yet, as long as nothing can be stored
	waiting   []Change
}

func newDisk() *disk {
	return &disk{records: map[string]Record{}, workloads: map[string][]byte{}, keys: map[string]Key{}}
}

// reopen returns what is on the disk at this moment. What is written to d from now on is lost, as it is with a process that was killed.
func (d *disk) reopen() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &disk{records: maps.Clone(d.records), workloads: maps.Clone(d.workloads), keys: maps.Clone(d.keys), lazy: d.lazy}
}

func (d *disk) Apply(c *Change, events ...event.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lazy {
		d.waiting = append(d.waiting, *c)
		return
	}
	d.put(c, events)
}

// flush does what waits. The lock is held.
func (d *disk) flush() {
	if d.stuck {
		return
	}
	for _, c := range d.waiting {
		d.put(&c, nil)
	}
	d.waiting = nil
}

func (d *disk) put(c *Change, events []event.Event) {
	d.events = append(d.events, events...)
	switch {
	case c.Record.ID == "":
	case c.Forget:
		delete(d.records, c.Record.ID)
		delete(d.workloads, c.Record.ID)
		if c.Key != nil {
			delete(d.keys, c.Key.Key)
		}
	default:
		d.changes = append(d.changes, c.Record)
		d.records[c.Record.ID] = c.Record
		if c.Workload != nil {
			d.workloads[c.Record.ID] = c.Workload
		}
		if c.Key != nil {
			d.keys[c.Key.Key] = *c.Key
		}
	}
}

func (d *disk) Commit(ctx context.Context, c *Change, events ...event.Event) error {
	d.mu.Lock()
	hold, before := d.hold, d.before
	d.before = nil
	d.mu.Unlock()
	if before != nil {
		before()
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrStoreFailed, context.Cause(ctx))
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.flush()
	if c.Key != nil {
		if _, taken := d.keys[c.Key.Key]; taken {
			return ErrKeyTaken
		}
	}
	d.put(c, events)
	return nil
}

func (d *disk) Get(_ context.Context, ref string) (Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flush()
	if r, ok := d.records[ref]; ok {
		r.Stale = d.stuck
		return r, nil
	}
	var newest Record
	for _, r := range d.records {
		if ref != "" && r.Handle == ref && r.ID > newest.ID {
			newest = r
		}
	}
	if newest.ID == "" {
		return Record{}, ErrNotFound
	}
	newest.Stale = d.stuck
	return newest, nil
}

func (d *disk) Workload(_ context.Context, id string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flush()
	if w, ok := d.workloads[id]; ok {
		return w, nil
	}
	return nil, ErrNotFound
}

func (d *disk) List(context.Context, Query) ([]Record, error) { return nil, errors.ErrUnsupported }

func (d *disk) Unfinished(_ context.Context, f func(Record) error) error {
	d.mu.Lock()
	records := slices.Collect(maps.Values(d.records))
	d.mu.Unlock()
	slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.ID, b.ID) })
	for _, r := range records {
		if r.State.Ended() {
			continue
		}
		r.Result, r.Warnings, r.Log = nil, nil, nil
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) Key(_ context.Context, key string) (Key, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flush()
	if k, ok := d.keys[key]; ok {
		return k, nil
	}
	return Key{}, ErrNotFound
}

// with changes how the disk behaves.
func (d *disk) with(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// types returns the types of the events of one job, in their order.
func (d *disk) types(id string) []event.Type {
	d.mu.Lock()
	defer d.mu.Unlock()
	var types []event.Type
	for _, e := range d.events {
		if e.Subject == id {
			types = append(types, e.Type)
		}
	}
	return types
}

// life is a lab whose ledger runs, on a disk.
type life struct {
	*lab
	disk *disk
	o    Options
}

// lives runs a test with a ledger that was started, and stops it.
func lives(t *testing.T, o Options, test func(*testing.T, *life)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &life{disk: newDisk(), o: o}
		b.start(t)
		defer func() { b.Stop() }()
		test(t, b)
		synctest.Wait()
		b.check()
	})
}

func (b *life) start(t *testing.T) {
	t.Helper()
	o := b.o
	b.lab = &lab{t: t, servers: &servers{submits: make(chan *submission, 1000)}}
	o.Servers, o.Store = b.servers, b.disk
	b.Ledger = New(o)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// restart kills the ledger and starts another on what is on the disk.
func (b *life) restart() {
	b.t.Helper()
	old := b.Ledger
	b.disk = b.disk.reopen()
	old.Stop()
	b.start(b.t)
}

// enter submits a job that the ledger itself sends.
func (b *life) enter(task Task) Record {
	b.t.Helper()
	task.Function = cmp.Or(task.Function, "f")
	if task.Workload == nil {
		task.Workload = []byte("w")
	}
	return b.call(func() (Record, error) { return b.Submit(b.t.Context(), task) }).must(b.t)
}

// next returns the task that is on its way to a job server.
func (b *life) next() *submission {
	b.t.Helper()
	synctest.Wait()
	select {
	case s := <-b.servers.submits:
		return s
	default:
		b.t.Fatal("nothing was submitted")
		return nil
	}
}

// quiet fails the test if a task is on its way to a job server.
func (b *life) quiet() {
	b.t.Helper()
	synctest.Wait()
	select {
	case s := <-b.servers.submits:
		b.t.Fatalf("submitted: %+v", s.Task)
	default:
	}
}

// within lets time pass until a task is on its way to a job server, and fails the test if that takes longer than d.
func (b *life) within(d time.Duration) (*submission, time.Duration) {
	b.t.Helper()
	since := time.Now()
	select {
	case s := <-b.servers.submits:
		return s, time.Since(since)
	case <-time.After(d):
		b.t.Fatalf("nothing was submitted for %v", d)
		return nil, 0
	}
}

// later lets time pass.
func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// of returns a job as the ledger has it, without asking a job server.
func (b *life) of(id string) Record {
	b.t.Helper()
	j := b.find(everyone, id)
	if j == nil {
		b.t.Fatalf("job %s is not in the ledger", id)
	}
	defer b.release(j)
	b.mu.Lock()
	defer b.mu.Unlock()
	return j.Record
}

// ends fails the test unless the job is in the state, and returns it.
func (b *life) ends(id string, want State) Record {
	b.t.Helper()
	synctest.Wait()
	r := b.of(id)
	if r.State != want {
		b.t.Fatalf("job is %s, want %s: %+v", r.State, want, r)
	}
	return r
}

func (s *submission) failed() { s.tell(gearman.Update{Kind: gearman.Failed}) }

// inMemory returns a ledger without a store that runs until the test ends.
func inMemory(t *testing.T, o Options) (plain, *servers) {
	t.Helper()
	s := &servers{submits: make(chan *submission, 1000)}
	o.Servers = s
	l := New(o)
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	return plain{l}, s
}
