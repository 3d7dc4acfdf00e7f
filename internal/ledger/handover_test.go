package ledger

import (
	"fmt"
	"testing"
	"time"

	"gearman-gateway/internal/gearman"
)

// Nobody tells the end of a job in the background that a worker of somebody else runs: it must not be held for ever.
func TestAJobInTheBackgroundIsHeldUntilAJobServerHasIt(t *testing.T) {
	tasks := map[string]func(i int) Task{
		"scheduled": func(int) Task { return Task{RunAt: time.Now().Add(time.Second)} },
		"keyed":     func(i int) Task { return Task{Key: &Key{Key: fmt.Sprint(i), Fingerprint: []byte("f")}} },
	}
	for name, task := range tasks {
		for _, cut := range []bool{false, true} {
			lives(t, Options{MaxTracked: 1, MaxWorkloads: 10}, func(t *testing.T, b *life) {
				for i := range 3 {
					next := task(i)
					next.Function, next.Workload = "f", []byte("workload")
					o := b.call(func() (Record, error) { return b.Submit(t.Context(), next) })
					s, _ := b.within(time.Minute)
					if held := b.owned.of(""); held != (Held{1, 8}) {
						t.Errorf("%s: on its way %+v are held", name, held)
					}
					if cut {
						s.cut()
					} else {
						s.created(at(fmt.Sprint("H:", i)))
					}
					if _, err := o.get(); err != nil && !cut {
						t.Fatalf("%s: job %d: %v", name, i, err)
					}
					later(time.Second)
					if held := b.owned.of(""); held != (Held{}) {
						t.Errorf("%s: when it was sent %+v are held", name, held)
					}
				}
				if b.restart(); !cut && b.Stats().Durable > 0 {
					t.Errorf("%s: after a restart %+v", name, b.Stats())
				}
			})
		}
	}
}

// Where the connection is lost before JOB_CREATED the job may be there or not, and is asked for like any other.
func TestAScheduledBackgroundJobWhoseSubmitWasCutIsAskedFor(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{RunAt: time.Now().Add(time.Second)})
		s, _ := b.within(time.Minute)
		s.cut()
		b.servers.say(gearman.JobStatus{Known: true})
		if got := b.now(r.ID); got.State != Queued || got.Gearman == nil {
			t.Errorf("while a job server knows it: %+v", got)
		}
		b.servers.say(gearman.JobStatus{})
		if got := b.now(r.ID); got.State != Unknown {
			t.Errorf("when none does: %+v", got)
		}
		b.quiet()
	})
}
