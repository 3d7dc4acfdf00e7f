package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/webhook"
)

// smallDisk returns a directory on a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("this test needs to mount a small tmpfs, as root may: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no byte free until the function that it returns is called.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

func TestAFullDisk(t *testing.T) {
	disk := smallDisk(t, "8m")
	var logged lockedBuffer
	var m meter
	o := Options{Dir: filepath.Join(disk, "data"), Log: zerolog.New(&logged), Meter: &m}
	d := open(t, o)
	entered := map[string]bool{} // by id: whether it was acknowledged
	enter := func() error {
		id := newID()
		err := d.Commit(t.Context(), &ledger.Change{Record: job(id), Workload: make([]byte, 1000)}, happened(id, 1))
		entered[id] = err == nil
		return err
	}
	known := newID()
	commit(t, d, ledger.Change{Record: job(known)})
	register(t, d, "a")

	for round := range 3 {
		free := fill(t, disk)
		var err error
		for range 10_000 { // what is left of the log's file takes some
			if err = enter(); err != nil {
				break
			}
		}
		if !errors.Is(err, ledger.ErrStoreFailed) {
			t.Fatalf("got %v on a full disk, want ErrStoreFailed", err)
		}
		applied := newID()
		for i := range 10 {
			for _, id := range []string{known, applied} {
				r := job(id)
				r.Attempt = round*10 + i
				d.Apply(&ledger.Change{Record: r}, promised(id, round*10+i+1))
			}
		}
		if err := enter(); !errors.Is(err, ledger.ErrStoreFailed) {
			t.Errorf("got %v on a full disk, want ErrStoreFailed", err)
		}
		if m.errs() <= round || !d.Stats().Failing { // what Apply was given waits
			t.Errorf("round %d: %d errors were counted; stats: %+v", round, m.errs(), d.Stats())
		}
		d.Publish(promised("w", round+1))
		if _, err := d.Advance(t.Context(), "a", webhook.Step{Look: 1000, Wants: all}); err == nil {
			t.Error("a sink advances on a full disk")
		}
		if r := get(t, d, known); r.ID != known { // reads go on
			t.Errorf("got %v", r)
		}

		free()
		eventually(t, "what was applied is stored", func() bool {
			r, err := d.Get(t.Context(), applied)
			return err == nil && r.Attempt == round*10+9
		})
		eventually(t, "commits succeed", func() bool { return enter() == nil })
		if got := get(t, d, known).Attempt; got != round*10+9 {
			t.Errorf("change %d is stored, want %d", got, round*10+9)
		}
	}
	diff(t, told(t, d, known), counted(30))
	diff(t, told(t, d, "w"), counted(3))
	for _, line := range []string{"jobs cannot be stored", "jobs are stored again"} {
		if got := strings.Count(logged.String(), line); got != 3 {
			t.Errorf("%q was logged %d times, want 3", line, got)
		}
	}

	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, o)
	for id, want := range entered {
		_, err := d.Get(t.Context(), id)
		if got := err == nil; got != want || !got && !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("job %s: acknowledged %v, stored %v (%v)", id, want, got, err)
		}
		if got := len(told(t, d, id)); got == 1 != want {
			t.Errorf("job %s: acknowledged %v, events %d", id, want, got)
		}
	}
	gapless(t, d)
	if had := deliver(t, d, "a"); len(had[known]) != 30 || len(had["w"]) != 3 {
		t.Errorf("the sink had %d and %d events, want 30 and 3", len(had[known]), len(had["w"]))
	}
	if err := d.Close(); err != nil { // before the disk goes
		t.Fatal(err)
	}
}

func TestCloseOnAFullDiskSaysWhatIsLost(t *testing.T) {
	disk := smallDisk(t, "4m")
	d, err := Open(t.Context(), Options{Dir: filepath.Join(disk, "data")})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, disk)
	for err = nil; err == nil; {
		err = d.Commit(t.Context(), &ledger.Change{Record: job(newID()), Workload: make([]byte, 10_000)})
	}
	for range 3 {
		d.Apply(&ledger.Change{Record: job(newID()), Workload: make([]byte, 100_000)})
	}
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), fmt.Sprint(3, " changes are lost")) {
		t.Errorf("got %v, want it to say that 3 changes are lost", err)
	}
}
