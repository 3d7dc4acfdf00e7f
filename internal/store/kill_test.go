package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"gearman-gateway/internal/ledger"
)

// childDir is the environment variable that makes this test binary the child that TestKill kills: it commits jobs to the
// directory that the variable names, and writes the id of each to standard output once it is acknowledged.
const childDir = "STORE_TEST_COMMIT_TO"

func commitForever(dir string) {
	d, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for range 31 {
		go commits(d)
	}
	commits(d)
}

func commits(d *DB) {
	for {
		id := newID()
		r := job(id)
		err := d.Commit(context.Background(), ledger.Change{
			Record: r, Workload: []byte(id), Key: &ledger.Key{Key: id, ID: id, At: time.Now()},
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(id) // one write, so that lines do not mix
		r.State = ledger.Running
		d.Apply(ledger.Change{Record: r})
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
