package store

import (
	"errors"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
)

func TestWhatIsOldGoes(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := newClock(at)
	d := open(t, Options{
		Dir: t.TempDir(), Now: now.get, Sweep: time.Millisecond,
		KeyTTL: 12 * time.Hour, ResultTTL: 24 * time.Hour, Retention: 72 * time.Hour,
	})
	const jobs = 2*maxExpired + 1 // more than go at once
	ended := make([]ledger.Record, jobs)
	for i := range ended {
		r := full(newID())
		r.State, r.EndedAt = ledger.Completed, at
		ended[i] = r
		d.Apply(&ledger.Change{Record: r, Workload: []byte("w")})
	}
	failed, running := full(newID()), job(newID())
	failed.State, failed.Kept, failed.Result, failed.EndedAt = ledger.Failed, false, nil, at
	commit(t, d, ledger.Change{Record: failed, Workload: []byte("replay")})
	commit(t, d, ledger.Change{Record: running, Workload: []byte("w"), Key: &ledger.Key{Key: "k", ID: running.ID, At: at}})
	count := func(table string) (n int) {
		if err := d.read.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	now.set(at.Add(13 * time.Hour))
	eventually(t, "the key is gone", func() bool { return count("keys") == 0 })
	diff(t, get(t, d, ended[0].ID), ended[0])

	now.set(at.Add(25 * time.Hour))
	eventually(t, "no result is kept", func() bool { return count("jobs WHERE kept = 1") == 0 })
	want := ended[jobs-1]
	want.Kept, want.Result = false, nil
	diff(t, get(t, d, want.ID), want)
	diff(t, get(t, d, failed.ID), failed)
	if _, err := d.Workload(t.Context(), want.ID); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("the workload of a job whose result has expired: %v, want ErrNotFound", err)
	}
	if w, err := d.Workload(t.Context(), failed.ID); err != nil || string(w) != "replay" {
		t.Errorf("workload of a failed job %q, %v", w, err)
	}

	now.set(at.Add(73 * time.Hour))
	eventually(t, "what has ended is gone", func() bool { return count("jobs") == 1 })
	diff(t, get(t, d, running.ID), running)
	if payloads, workloads := count("payloads"), count("workloads"); payloads != 0 || workloads != 1 {
		t.Errorf("%d payloads and %d workloads are left, want 0 and 1", payloads, workloads)
	}
}

// Of a job in the background that a foreign worker runs nobody tells the end. What somebody is still to end stays.
func TestWhatNobodyEndsGoes(t *testing.T) {
	at := time.Now()
	now := newClock(at)
	d := open(t, Options{Dir: t.TempDir(), Now: now.get, Sweep: time.Millisecond, Retention: time.Hour})
	enter := func(change func(*ledger.Record)) string {
		r := ledger.Record{ID: newID(), Function: "f", Mode: ledger.Background, State: ledger.Queued, SubmittedAt: at, Handle: "H:h:1"}
		change(&r)
		commit(t, d, ledger.Change{Record: r, Workload: []byte("w")})
		return r.ID
	}
	stays := []string{
		enter(func(r *ledger.Record) { r.Mode = ledger.Tracked }),
		enter(func(r *ledger.Record) { r.Handle = "" }), // the gateway is still to submit it
		enter(func(r *ledger.Record) { r.State, r.Handle, r.RunAt = ledger.Scheduled, "", at.Add(24*time.Hour) }),
		enter(func(r *ledger.Record) { r.RunAt = at.Add(time.Hour) }),
		enter(func(r *ledger.Record) { r.State, r.StartedAt = ledger.Running, at.Add(time.Hour) }),
	}
	goes := []string{
		enter(func(*ledger.Record) {}),
		enter(func(r *ledger.Record) { r.Mode = ledger.Sync }),
		enter(func(r *ledger.Record) { r.Handle, r.Server = "", "g1:4730" }), // it may have it
		enter(func(r *ledger.Record) { r.RunAt = at.Add(time.Minute) }),
		enter(func(r *ledger.Record) { r.State, r.StartedAt = ledger.Running, at.Add(time.Minute) }),
	}
	for _, id := range goes {
		get(t, d, id)
	}
	now.set(at.Add(61*time.Minute + time.Second))
	for _, id := range goes {
		eventually(t, "it is gone", func() bool {
			_, err := d.Get(t.Context(), id)
			return errors.Is(err, ledger.ErrNotFound)
		})
	}
	for _, id := range stays {
		get(t, d, id)
	}
}

func TestExpiryGoesInSmallBatches(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := newClock(at)
	d := open(t, Options{Dir: t.TempDir(), Now: now.get, Sweep: time.Hour})
	const jobs = maxExpired + 10
	for range jobs {
		r := full(newID())
		r.EndedAt = at
		d.Apply(&ledger.Change{Record: r})
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	now.set(at.Add(8 * 24 * time.Hour))
	d = newDB(d.o) // without a writer, which is this goroutine
	var err error
	if d.write, err = connect(d.o.Dir+"/gateway.db", 1, writing); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.write.Close() })
	t.Cleanup(d.disconnect)
	for _, want := range []int{10, 0} {
		more, err := d.expire()
		if err != nil || more != (want > 0) {
			t.Errorf("more %v, %v", more, err)
		}
		var left int
		if err := d.conn.QueryRowContext(t.Context(), "SELECT count(*) FROM jobs").Scan(&left); err != nil || left != want {
			t.Errorf("%d jobs are left, %v, want %d", left, err, want)
		}
	}
}
