package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// childDir is the environment variable that makes this test binary the child that TestKill kills: it commits jobs to the
// directory that the variable names, and writes the id of each to standard output once it is acknowledged. Every change of a job comes
// with an event, and a sink takes them meanwhile.
const childDir = "STORE_TEST_COMMIT_TO"

func commitForever(dir string) {
	d, err := Open(context.Background(), Options{Dir: dir})
	if err == nil {
		_, err = d.Register(context.Background(), "a") // before there are any events
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for range 31 {
		go commits(d)
	}
	go takes(d)
	commits(d)
}

// takes is a sink that fails now and then, and works on nothing twice in a row.
func takes(d *DB) {
	var ends []webhook.Ended
	var err error
	for err == nil {
		_, err = d.Advance(context.Background(), "a", webhook.Step{Ends: ends, Look: 100, Wants: all})
		ready, errDue := d.Due(context.Background(), "a", webhook.DueQuery{Now: time.Now(), Lines: 50, Letters: 3})
		err = errors.Join(err, errDue)
		ends = nil
		for i, line := range ready.Lines {
			e := webhook.Ended{N: line.Letters[0].N, Subject: line.Subject, State: webhook.Delivered}
			if i%10 == 0 {
				e.State, e.Due = webhook.Pending, time.Now().Add(time.Millisecond)
			}
			ends = append(ends, e)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func commits(d *DB) {
	for {
		id := newID()
		r := job(id)
		err := d.Commit(context.Background(), &ledger.Change{
			Record: r, Workload: []byte(id), Key: &ledger.Key{Key: id, ID: id, At: time.Now()},
		}, promised(id, 1))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(id) // one write, so that lines do not mix
		r.State = ledger.Running
		d.Apply(&ledger.Change{Record: r}, promised(id, 2))
	}
}

func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var acknowledged []string
	for range 6 {
		ids := killed(t, dir, 1+random.IntN(1500), time.Duration(random.IntN(3000))*time.Microsecond)
		acknowledged = append(acknowledged, ids...)
	}
	d := open(t, Options{Dir: dir})
	for _, id := range acknowledged {
		get(t, d, id)
		if w, err := d.Workload(t.Context(), id); err != nil || string(w) != id {
			t.Fatalf("workload of %s: %q, %v", id, w, err)
		}
		if k, err := d.Key(t.Context(), id); err != nil || k.ID != id {
			t.Fatalf("key %s is of %q, %v", id, k.ID, err)
		}
	}
	t.Logf("%d commits were acknowledged, all are there", len(acknowledged))
	changesHaveTheirEvents(t, d)
	gapless(t, d)
	lined(t, d)
	if err := d.Hasten(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	for subject, ns := range deliver(t, d, "a") {
		if !slices.IsSorted(ns) {
			t.Errorf("the sink had those of %s in the order %v", subject, ns)
		}
	}
	var missing int
	err := d.read.QueryRow("SELECT count(*) FROM events e LEFT JOIN deliveries d ON d.n = e.n AND d.state = 'delivered' WHERE d.n IS NULL").Scan(&missing)
	if err != nil || missing != 0 {
		t.Errorf("%d events were never delivered, %v", missing, err)
	}
}

// changesHaveTheirEvents fails the test unless what is stored of each job is what its events in the log say.
func changesHaveTheirEvents(t *testing.T, d *DB) {
	t.Helper()
	said := map[string]ledger.State{}
	for _, e := range events(t, d, webhook.EventQuery{Limit: 1000}) {
		said[e.Subject] = []ledger.State{ledger.Queued, ledger.Running}[e.Data.Seq-1]
	}
	jobs := 0
	err := d.Unfinished(t.Context(), func(r ledger.Record) error {
		jobs++
		if said[r.ID] != r.State {
			t.Errorf("job %s is %s, and its events say %q", r.ID, r.State, said[r.ID])
		}
		return nil
	})
	if err != nil || jobs != len(said) {
		t.Errorf("there are %d jobs, and events of %d, %v", jobs, len(said), err)
	}
}

// killed runs a child until it has acknowledged so many commits and a moment more, kills it, and returns what it acknowledged.
func killed(t *testing.T, dir string, after int, moment time.Duration) (ids []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		ids = append(ids, lines.Text())
		if len(ids) == after {
			time.AfterFunc(moment, func() { _ = child.Process.Kill() })
		}
	}
	if err := child.Wait(); err == nil || len(ids) < after {
		t.Fatalf("the child ended with %v after %d commits, want it killed after %d", err, len(ids), after)
	}
	return ids
}
