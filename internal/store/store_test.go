package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		commitForever(dir)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come, on a machine that is busy with other things.
const patience = 30 * time.Second

func open(t testing.TB, o Options) *DB {
	t.Helper()
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func job(id string) ledger.Record {
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	return ledger.Record{ID: id, Function: "f", Mode: ledger.Tracked, State: ledger.Queued, SubmittedAt: at}
}

func commit(t testing.TB, d *DB, c ledger.Change) {
	t.Helper()
	if err := d.Commit(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, d *DB, ref string) ledger.Record {
	t.Helper()
	r, err := d.Get(t.Context(), ref)
	if err != nil {
		t.Fatalf("Get(%s): %v", ref, err)
	}
	return r
}

func diff(t testing.TB, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it is still not so that %s", patience, what)
		}
	}
}

// block keeps the writer from storing anything until the function that it returns is called.
func block(t testing.TB, d *DB) (release func()) {
	t.Helper()
	other, err := connect(filepath.Join(d.o.Dir, "gateway.db"), 1, writing)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := other.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _, _ = tx.Rollback(), other.Close() })
	t.Cleanup(release)
	return release
}

// full is a record with every field set that is stored, its slices last.
func full(id string) ledger.Record {
	at := time.Date(2027, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	return ledger.Record{
		ID: id, Owner: "billing", Handle: "H:h:1", Server: "g1:4730", Function: "résumé", Unique: "u", Mode: ledger.Tracked, Priority: gearman.Low,
		State: ledger.Completed, Progress: &event.Progress{Numerator: 0.5, Denominator: 3}, Kept: true,
		Error: &event.Error{Kind: "failed", Message: "it\x00broke"}, RunAt: at, Deadline: at.Add(time.Hour), OnLost: ledger.Fail,
		Retry: ledger.Retry{Max: 3, Backoff: 1500*time.Millisecond + 1}, Attempt: 2, Deaths: 4, Sent: true, RetryOf: newID(),
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", EventSeq: 7,
		Callback: &event.Callback{URL: "https://h/?a=b&c", Events: event.Patterns{"job.*"}}, SubmittedAt: at.Add(-time.Hour),
		StartedAt: at.Add(time.Second), EndedAt: at.Add(time.Minute), Result: []byte("\x00\xff result"),
		Warnings: [][]byte{[]byte("careful"), {}, {0xff, 0}},
		Log: []ledger.Entry{
			{Seq: 8, At: at, State: ledger.Running},
			{Seq: 9, At: at.Add(time.Microsecond), Progress: &event.Progress{Numerator: 1, Denominator: 2}},
			{Seq: 10, At: at, Payload: []byte{0, 0xff}},
			{Seq: 12, At: at, Warning: true, Payload: []byte{}},
		},
	}
}

func TestEveryFieldComesBack(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := full(newID())
	bare := ledger.Record{ID: newID()}
	commit(t, d, ledger.Change{Record: want, Workload: []byte{}})
	commit(t, d, ledger.Change{Record: bare, Workload: []byte("\x00w")})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = open(t, Options{Dir: dir})
	diff(t, get(t, d, want.ID), want)
	diff(t, get(t, d, want.Handle), want)
	diff(t, get(t, d, bare.ID), bare)
	for id, want := range map[string]string{want.ID: "", bare.ID: "\x00w"} {
		if got, err := d.Workload(t.Context(), id); err != nil || string(got) != want {
			t.Errorf("workload %q, %v, want %q", got, err, want)
		}
	}
	list, err := d.List(t.Context(), ledger.Query{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	listed := want
	listed.Result, listed.Warnings, listed.Log = nil, nil, nil
	diff(t, list, []ledger.Record{bare, listed})
}

// A field that is added to the record is stored too, or named here.
func TestTheRecordOfTheseTestsIsFull(t *testing.T) {
	r := reflect.ValueOf(full(newID()))
	for i := range r.NumField() {
		switch name := r.Type().Field(i).Name; name {
		case "Gearman", "Replayed", "Stale": // of a snapshot
		default:
			if r.Field(i).IsZero() {
				t.Errorf("%s is not set", name)
			}
		}
	}
}

func TestALaterChangeKeepsWhatItDoesNotBring(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	first := full(newID())
	commit(t, d, ledger.Change{Record: first, Workload: []byte("w")})
	second := ledger.Record{ID: first.ID, Kept: true, State: ledger.Failed}
	commit(t, d, ledger.Change{Record: second})
	second.Result, second.Warnings, second.Log = first.Result, first.Warnings, first.Log
	diff(t, get(t, d, first.ID), second)
	if w, err := d.Workload(t.Context(), first.ID); err != nil || string(w) != "w" {
		t.Errorf("workload %q, %v", w, err)
	}
}

func TestAnEmptyResultIsOne(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	r := job(newID())
	r.State, r.Kept, r.Result = ledger.Completed, true, []byte{}
	commit(t, d, ledger.Change{Record: r})
	if got := get(t, d, r.ID); !got.Kept || len(got.Result) != 0 {
		t.Errorf("kept %v, result %q", got.Kept, got.Result)
	}
}

func TestNothingIsFound(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	commit(t, d, ledger.Change{Record: job(newID())}) // it has no handle, and no workload
	_, byRef := d.Get(t.Context(), newID())
	_, byNothing := d.Get(t.Context(), "")
	_, workload := d.Workload(t.Context(), newID())
	_, key := d.Key(t.Context(), "k")
	for _, err := range []error{byRef, byNothing, workload, key} {
		if !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	}
}

func TestAHandleIsTheNewestThatHasIt(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	var newest string
	for range 3 {
		r := job(newID())
		r.Handle, newest = "H:h:1", r.ID
		d.Apply(&ledger.Change{Record: r})
	}
	if got := get(t, d, "H:h:1").ID; got != newest {
		t.Errorf("got %s, want %s", got, newest)
	}
}

func TestForgetTakesAllOfIt(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	r := full(newID())
	commit(t, d, ledger.Change{Record: r, Workload: []byte("w"), Key: &ledger.Key{Key: "k", ID: r.ID, At: time.Now()}})
	d.Apply(&ledger.Change{Record: r, Forget: true})
	_, errGet := d.Get(t.Context(), r.ID)
	_, errWorkload := d.Workload(t.Context(), r.ID)
	_, errKey := d.Key(t.Context(), "k")
	for _, err := range []error{errGet, errWorkload, errKey} {
		if !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	}
	var left int
	err := d.read.QueryRow("SELECT (SELECT count(*) FROM payloads) + (SELECT count(*) FROM workloads)").Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d payloads and workloads are left, %v", left, err)
	}
}

func TestAKeyIsTakenUntilItExpires(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := newClock(at)
	d := open(t, Options{Dir: t.TempDir(), Now: now.get, KeyTTL: time.Hour, Sweep: time.Hour})
	first, second := job(newID()), job(newID())
	key := ledger.Key{Key: "k", Fingerprint: []byte{0, 1}, ID: first.ID, At: at}
	commit(t, d, ledger.Change{Record: first, Key: &key})
	commit(t, d, ledger.Change{Record: first, Key: &key}) // its own
	got, err := d.Key(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	diff(t, got, key)

	other := ledger.Key{Key: "k", Fingerprint: []byte{2}, ID: second.ID, At: at.Add(2 * time.Hour)}
	if err := d.Commit(t.Context(), &ledger.Change{Record: second, Key: &other}); !errors.Is(err, ledger.ErrKeyTaken) {
		t.Errorf("got %v, want ErrKeyTaken", err)
	}
	if _, err := d.Get(t.Context(), second.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("the record whose key was taken: %v, want ErrNotFound", err)
	}

	now.set(at.Add(2 * time.Hour))
	if _, err := d.Key(t.Context(), "k"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an expired key: %v, want ErrNotFound", err)
	}
	commit(t, d, ledger.Change{Record: second, Key: &other})
	if got, err = d.Key(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	diff(t, got, other)
}

func TestOfConcurrentCommitsWithOneKeyOneWins(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	release := block(t, d) // so that they share a transaction with others that win
	const keys, callers = 5, 8
	type outcome struct {
		key, id string
		err     error
	}
	outcomes := make(chan outcome, keys*callers)
	for i := range keys * callers {
		go func() {
			r, key := job(newID()), fmt.Sprint("k", i%keys)
			err := d.Commit(t.Context(), &ledger.Change{Record: r, Key: &ledger.Key{Key: key, ID: r.ID, At: time.Now()}})
			outcomes <- outcome{key, r.ID, err}
		}()
	}
	eventually(t, "the commits wait", func() bool { return d.queue.waiting() == keys*callers })
	release()
	winner := map[string]string{}
	for range keys * callers {
		switch o := <-outcomes; {
		case o.err == nil && winner[o.key] != "":
			t.Errorf("%s was given to two jobs", o.key)
		case o.err == nil:
			winner[o.key] = o.id
		case !errors.Is(o.err, ledger.ErrKeyTaken):
			t.Error(o.err)
		}
	}
	for i := range keys {
		key := fmt.Sprint("k", i)
		if k, err := d.Key(t.Context(), key); err != nil || k.ID != winner[key] {
			t.Errorf("%s is of %q, %v, want %q", key, k.ID, err, winner[key])
		}
	}
	if list, err := d.List(t.Context(), ledger.Query{Limit: 200}); err != nil || len(list) != keys {
		t.Errorf("%d jobs are stored, %v, want %d", len(list), err, keys)
	}
}

func TestADirectoryHasOneGateway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a?b#c%20", "data") // as no URI would have it
	d := open(t, Options{Dir: dir})
	host, _ := os.Hostname()
	_, err := Open(t.Context(), Options{Dir: dir})
	if want := fmt.Sprintf("in use by process %d on %s", os.Getpid(), host); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to say %q", err, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "gateway.db-wal")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Options{Dir: dir})
}

func TestANewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	d := open(t, Options{Dir: dir})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "gateway.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (4711, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Dir: dir})
	if want := "schema version 4711, and this gateway knows none above 4"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to say %q", err, want)
	}
}

// What makes a commit durable cannot be seen without cutting the power.
func TestTheWriterSyncs(t *testing.T) {
	db, err := connect(filepath.Join(t.TempDir(), "x.db"), 1, writing)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", pragma, got, err, want)
		}
	}
}

func TestAClosedStoreTakesNothing(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(t.Context(), &ledger.Change{Record: job(newID())}); !errors.Is(err, ledger.ErrStoreFailed) {
		t.Errorf("got %v, want ErrStoreFailed", err)
	}
	d.Apply(&ledger.Change{Record: job(newID())})
	if _, err := d.List(t.Context(), ledger.Query{Limit: 1}); err == nil {
		t.Error("a closed store lists")
	}
}

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock(t time.Time) *clock { return &clock{t: t} }

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func TestWhatIsReadWhileNothingCanBeStoredMayBeStale(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	r := ledger.Record{ID: newID(), Function: "f", Mode: ledger.Background, State: ledger.Queued, SubmittedAt: time.Now(), Handle: "H:h:1"}
	commit(t, d, ledger.Change{Record: r})
	for _, failing := range []bool{false, true} {
		d.failing.Store(failing)
		for _, ref := range []string{r.ID, r.Handle} {
			if got, err := d.Get(t.Context(), ref); err != nil || got.ID != r.ID || got.Stale != failing {
				t.Errorf("failing %v, %s: stale %v, %v", failing, ref, got.Stale, err)
			}
		}
	}
}
