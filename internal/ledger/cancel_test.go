package ledger

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

var errUnknownJob = &gearman.ServerError{Code: "UNKNOWN_JOB"}

func TestCancelOfAJobThatNoJobServerHas(t *testing.T) {
	for _, mode := range []Mode{Background, Tracked} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: mode, RunAt: time.Now().Add(time.Hour)})
			later(time.Minute)
			got, err := b.Cancel(t.Context(), everyone, r.ID)
			if err != nil || got.State != Cancelled || got.Error == nil || got.Error.Kind != "cancelled" {
				t.Errorf("%s: %+v, %v", mode, got, err)
			}
			if _, err := b.Cancel(t.Context(), everyone, r.ID); !errors.Is(err, ErrEnded) {
				t.Errorf("%s: once more: %v", mode, err)
			}
			later(2 * time.Hour)
			b.quiet()
			if diff := cmp.Diff([]event.Type{event.JobScheduled, event.JobCancelled}, b.disk.types(r.ID)); diff != "" {
				t.Error(diff)
			}
			b.restart()
			later(2 * time.Hour)
			b.quiet()
			if _, err := b.Cancel(t.Context(), everyone, r.ID); !errors.Is(err, ErrEnded) {
				t.Errorf("%s: in the store alone: %v", mode, err)
			}
		})
	}
}

func TestCancelOfATrackedJobThatWaitsForAJobServer(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		b.next().refused(errNotSent)
		synctest.Wait()
		if got, err := b.Cancel(t.Context(), everyone, r.ID); err != nil || got.State != Cancelled {
			t.Errorf("%+v, %v", got, err)
		}
		later(time.Minute)
		b.quiet()
	})
}

func TestCancelOfAQueuedJob(t *testing.T) {
	for _, mode := range Modes {
		lives(t, Options{}, func(t *testing.T, b *life) {
			o := b.call(func() (Record, error) {
				return b.Submit(t.Context(), Task{Function: "f", Mode: mode, Workload: []byte("w"), Wait: time.Hour})
			})
			b.next().created(at("H:1"))
			b.servers.say(gearman.JobStatus{Known: true})
			got, err := b.Cancel(t.Context(), everyone, "H:1")
			if err != nil || got.State != Cancelled {
				t.Errorf("%s: %+v, %v", mode, got, err)
			}
			if diff := cmp.Diff([]gearman.Job{at("H:1")}, b.servers.cancelled); diff != "" {
				t.Error(diff)
			}
			if r := o.must(t); mode == Sync && r.State != Cancelled {
				t.Errorf("who waits gets %+v", r)
			}
		})
	}
}

func TestCancelOfARunOfOurPool(t *testing.T) {
	var told []*gearman.Assignment
	o := Options{CancelRun: func(a *gearman.Assignment) { told = append(told, a) }}
	lives(t, o, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 3, Backoff: time.Second}})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		if got, err := b.Cancel(t.Context(), everyone, r.ID); err != nil || got.State != Running {
			t.Errorf("%+v, %v", got, err)
		}
		if len(told) != 1 || told[0] != a {
			t.Errorf("told %v", told)
		}
		b.failed(a, "cancelled", "cancelled")
		b.ends(r.ID, Cancelled)

		// its connection is lost, and so it is to be submitted again: all the same it runs
		told = nil
		r = b.enter(Task{Mode: Tracked})
		s = b.next()
		s.created(at("H:2"))
		s.lost(errCut)
		a = assign(s, "H:2")
		b.before(a)
		if _, err := b.Cancel(t.Context(), everyone, r.ID); err != nil {
			t.Error(err)
		}
		if len(told) != 1 || told[0] != a {
			t.Errorf("lost: told %v", told)
		}
	})
}

func TestCancelOfWhatRunsElsewhereIsRefused(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		s.data("x")
		if _, err := b.Cancel(t.Context(), everyone, r.ID); !errors.Is(err, ErrRunning) {
			t.Errorf("error %v", err)
		}
		s.lost(errCut) // that stops no worker
		if got, err := b.Cancel(t.Context(), everyone, r.ID); !errors.Is(err, ErrRunning) {
			t.Errorf("with its connection lost: %v, %s", err, got.State)
		}
	})
}

func TestCancelThatTheJobServerRefuses(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		b.next().created(at("H:1"))
		b.servers.cancel = errUnknownJob // a worker has it, and has said nothing yet
		if _, err := b.Cancel(t.Context(), everyone, r.ID); !errors.Is(err, ErrRunning) {
			t.Errorf("error %v", err)
		}
		b.servers.cancel = errors.New("timeout")
		if _, err := b.Cancel(t.Context(), everyone, r.ID); !errors.Is(err, gearman.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		b.ends(r.ID, Queued)
	})
}

func TestCancelOfAStrangersJob(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		running := false
		b.servers.find = func(handle string) (gearman.Job, gearman.JobStatus, bool, error) {
			if handle != "H:9" {
				return gearman.Job{}, gearman.JobStatus{}, false, nil
			}
			return at(handle), gearman.JobStatus{Known: true, Running: running}, true, nil
		}
		if r, err := b.Cancel(t.Context(), everyone, "H:9"); err != nil || r.State != Cancelled || r.ID != "" {
			t.Errorf("%+v, %v", r, err)
		}
		b.servers.cancel = errUnknownJob
		if _, err := b.Cancel(t.Context(), everyone, "H:9"); !errors.Is(err, ErrRunning) {
			t.Errorf("refused: %v", err)
		}
		running = true
		if _, err := b.Cancel(t.Context(), everyone, "H:9"); !errors.Is(err, ErrRunning) {
			t.Errorf("running: %v", err)
		}
		if _, err := b.Cancel(t.Context(), everyone, "H:10"); !errors.Is(err, ErrNotFound) {
			t.Errorf("nobody's: %v", err)
		}
		if len(b.servers.cancelled) != 2 {
			t.Errorf("asked for %v", b.servers.cancelled)
		}
	})
}

// A job can be found in the list, and cancelled, before it is stored.
func TestACancelWhileAJobIsBeingStored(t *testing.T) {
	for _, fail := range []error{nil, ErrStoreFailed} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			hold := make(chan struct{})
			b.disk.with(func() { b.disk.hold = hold })
			o := b.call(func() (Record, error) {
				return b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, RunAt: time.Now().Add(time.Hour)})
			})
			id := b.inMemory(t.Context(), Query{Limit: 1})[0].ID
			if r, err := b.Cancel(t.Context(), everyone, id); err != nil || r.State != Cancelled {
				t.Fatalf("cancel: %+v, %v", r, err)
			}
			b.disk.with(func() { b.disk.fail = fail })
			close(hold)
			if r, err := o.get(); !errors.Is(err, fail) || fail == nil && r.State != Cancelled {
				t.Errorf("submit: %+v, %v, want %v", r, err, fail)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if n := len(b.clock.alarms); n > 0 {
				t.Errorf("%d alarms of a job that was cancelled", n)
			}
		})
	}
}
