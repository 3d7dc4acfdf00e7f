package ledger

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

func TestAScheduledJobIsSubmittedAtItsTime(t *testing.T) {
	for _, mode := range []Mode{Background, Tracked} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: mode, RunAt: time.Now().Add(time.Hour), Unique: "u"})
			if r.State != Scheduled {
				t.Errorf("accepted as %+v", r)
			}
			earlier := b.enter(Task{Mode: mode, RunAt: time.Now().Add(time.Minute)}) // and another, sooner
			s, after := b.within(time.Hour)
			if after < time.Minute || after > time.Minute+time.Second || s.Unique != earlier.ID {
				t.Errorf("%s: the sooner after %v as %+v", mode, after, s.Task)
			}
			s, after = b.within(2 * time.Hour)
			if after < 59*time.Minute || after > 59*time.Minute+time.Second || s.Background != (mode == Background) {
				t.Errorf("%s: after %v as %+v", mode, after, s.Task)
			}
			if want := map[Mode]string{Background: "u", Tracked: r.ID}[mode]; s.Unique != want {
				t.Errorf("%s: unique %q", mode, s.Unique)
			}
			s.created(at("H:1"))
			if got := b.ends(r.ID, Queued); got.Handle != "H:1" {
				t.Errorf("got %+v", got)
			}
			want := []event.Type{event.JobScheduled, event.JobSubmitted}
			if diff := cmp.Diff(want, b.disk.types(r.ID)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAScheduledJobIsCaughtUpAfterDowntime(t *testing.T) {
	for _, mode := range []Mode{Background, Tracked} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			due := b.enter(Task{Mode: mode, RunAt: time.Now().Add(time.Minute)})
			far := b.enter(Task{Mode: mode, RunAt: time.Now().Add(time.Hour)})
			dead := b.disk
			b.Stop()
			later(10 * time.Minute)
			b.disk = dead.reopen()
			b.start(t)
			s := b.next()
			if s.Unique != due.ID || string(s.Workload) != "w" {
				t.Errorf("%s: caught up %+v", mode, s.Task)
			}
			s.created(at("H:1"))
			b.ends(far.ID, Scheduled)
			s, after := b.within(time.Hour)
			if s.Unique != far.ID || after != 50*time.Minute {
				t.Errorf("%s: after %v %+v", mode, after, s.Task)
			}
		})
	}
}

func TestAScheduledBackgroundJobWaitsForAJobServer(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{RunAt: time.Now().Add(time.Minute)})
		s, _ := b.within(2 * time.Minute)
		for range 5 {
			s.refused(errNotSent)
			s, _ = b.within(5 * time.Second)
		}
		s.created(at("H:1"))
		if got := b.ends(r.ID, Queued); got.Handle != "H:1" {
			t.Errorf("got %+v", got)
		}
		later(time.Minute)
		b.quiet()
	})
}

// The refusal of a job server that was slow reaches the watch alone.
func TestAScheduledBackgroundJobThatIsRefusedLateIsSubmittedAgain(t *testing.T) {
	b := &lab{t: t, servers: &servers{submits: make(chan *submission, 10)}}
	b.Ledger = New(Options{Servers: b.servers, Store: newDisk(), SubmitTimeout: time.Millisecond})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := b.Submit(t.Context(), Task{Function: "f", Workload: []byte("w"), RunAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	s := <-b.servers.submits
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.lost(&gearman.ServerError{Code: "QUEUE_ERROR", Text: "Job queue is full"})
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("the ledger is stuck: a refusal that comes late locks it for ever")
	}
	defer b.Stop()
	select {
	case again := <-b.servers.submits:
		if again.Unique != r.ID {
			t.Errorf("%+v", again.Task)
		}
	case <-time.After(10 * time.Second):
		t.Error("not submitted again")
	}
}

// A run of a job that happens to have the unique of a scheduled one is not the scheduled one's.
func TestAScheduledJobIsNotTakenForAnotherThatRuns(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Unique: "u", RunAt: time.Now().Add(time.Hour)})
		strangers := &gearman.Assignment{Server: g1, Handle: "H:9", Function: "f", Unique: "u"}
		b.before(strangers)
		b.after(strangers, "another's")
		b.ends(r.ID, Scheduled)
		if s, after := b.within(2 * time.Hour); s.Unique != "u" || after != time.Hour {
			t.Errorf("after %v %+v", after, s.Task)
		}
	})
}

// Its id was given out long ago: it must answer even if the job server makes one job of two.
func TestAScheduledJobThatIsCoalescedKeepsItsRecord(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		scheduled := b.enter(Task{Unique: "u", RunAt: time.Now().Add(time.Minute)})
		s, o := b.begin(t.Context(), Task{Function: "f", Unique: "u", Workload: []byte("w")})
		s.created(at("H:1"))
		o.must(t)
		again, _ := b.within(2 * time.Minute)
		again.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "both")
		b.servers.say(gearman.JobStatus{})
		r, err := b.Job(t.Context(), everyone, scheduled.ID, 0)
		if err != nil || !r.State.Ended() {
			t.Errorf("got %+v, %v", r, err)
		}
		b.restart()
		b.quiet()
	})
}

func TestADeadlineEndsAJobThatWaits(t *testing.T) {
	for _, where := range []string{"scheduled", "not sent", "queued", "running elsewhere", "to be tried again"} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			task := Task{Mode: Tracked, Deadline: time.Now().Add(time.Minute), Retry: Retry{Max: 9, Backoff: time.Hour}}
			if where == "scheduled" {
				task.RunAt = time.Now().Add(time.Hour)
			}
			r := b.enter(task)
			if where != "scheduled" {
				s := b.next()
				switch where {
				case "not sent":
					s.refused(errNotSent)
					_, _ = b.within(time.Second) // and the next submit is never answered
				case "queued":
					s.created(at("H:1"))
				case "running elsewhere":
					s.created(at("H:1"))
					s.data("x")
				case "to be tried again":
					s.created(at("H:1"))
					s.failed()
				}
			}
			later(time.Until(task.Deadline) - time.Millisecond)
			if b.of(r.ID).State.Ended() {
				t.Fatalf("%s: ended too early", where)
			}
			later(time.Second)
			if got := b.ends(r.ID, Failed); got.Error == nil || got.Error.Kind != "timeout" {
				t.Errorf("%s: %+v", where, got)
			}
			later(2 * time.Hour)
			b.quiet()
		})
	}
}

func TestARunOfOurPoolSeesTheDeadline(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		deadline := time.Now().Add(time.Minute)
		r := b.enter(Task{Mode: Tracked, Deadline: deadline})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		if got := b.Begin(a).Deadline; !got.IsZero() {
			t.Errorf("before it runs: %v", got)
		}
		b.before(a)
		if got := b.Begin(a).Deadline; !got.Equal(deadline) {
			t.Errorf("deadline %v", got)
		}
		later(2 * time.Minute)
		b.ends(r.ID, Running) // the pool ends it
		b.failed(a, "timeout", "the deadline passed")
		b.ends(r.ID, Failed)
	})
}

func TestOurPoolDoesNotRunWhatHasExpired(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Deadline: time.Now().Add(time.Second)})
		s := b.next()
		s.created(at("H:1"))
		later(time.Minute)
		b.ends(r.ID, Failed)
		a := assign(s, "H:1") // it is still in the job server's queue
		b.before(a)
		if got := b.Begin(a).Deadline; got.IsZero() || got.After(time.Now()) {
			t.Errorf("the run may go on until %v", got)
		}
	})
}

func TestAJobThatIsHandedBackAfterItsDeadlineEnds(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Deadline: time.Now().Add(time.Second)})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		later(time.Minute)
		b.handedBack(a)
		later(time.Minute)
		b.ends(r.ID, Failed)
	})
}

func TestWhatExpiredInDowntimeIsNotSubmitted(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		for range 20 {
			b.enter(Task{Mode: Tracked, RunAt: time.Now().Add(time.Minute), Deadline: time.Now().Add(2 * time.Minute)})
		}
		b.Stop()
		later(time.Hour)
		b.disk = b.disk.reopen()
		b.start(t)
		if n := len(b.servers.submits); n > 0 {
			t.Errorf("%d of 20 expired jobs were submitted", n)
		}
	})
}

// A deadline also holds while as many submits as may be at a time wait for a job server that hangs.
func TestADeadlineIsKeptWhileAJobServerHangs(t *testing.T) {
	lives(t, Options{SubmitTimeout: time.Hour}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, RunAt: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Minute)})
		for range atOnce + 1 {
			b.enter(Task{Mode: Tracked})
		}
		later(time.Minute + time.Second)
		b.ends(r.ID, Failed)
	})
}

func TestManyTimesInAnyOrder(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		due := map[string]time.Time{}
		for i := range 200 {
			at := time.Now().Add(time.Duration(i*7919%200) * 100 * time.Millisecond)
			due[b.enter(Task{Mode: Tracked, RunAt: at, Function: fmt.Sprint("f", i)}).ID] = at
		}
		for range due {
			s, _ := b.within(time.Minute)
			if late := time.Since(due[s.Unique]); late < 0 || late > time.Second {
				t.Errorf("late by %v", late)
			}
			s.created(at("H:" + s.Unique[:8] + s.Function))
			s.completed("")
		}
		synctest.Wait()
		b.quiet()
	})
}

func TestADeadlineMayPassWhileAJobIsBeingStored(t *testing.T) {
	for _, err := range []error{ErrStoreFailed, nil} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			hold := make(chan struct{})
			b.disk.with(func() { b.disk.hold, b.disk.fail = hold, err })
			o := b.call(func() (r Record, err error) {
				defer func() {
					if p := recover(); p != nil {
						err = fmt.Errorf("panic: %v", p)
					}
				}()
				return b.Submit(t.Context(), Task{
					Function: "f", Mode: Tracked, RunAt: time.Now().Add(1000 * time.Hour), Deadline: time.Now().Add(time.Second),
				})
			})
			later(time.Minute)
			close(hold)
			r, got := o.get()
			if !errors.Is(got, err) {
				t.Errorf("error %v, want %v", got, err)
			}
			if err == nil && r.State != Failed {
				t.Errorf("accepted as %s", r.State)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if n := len(b.clock.alarms); n > 0 {
				t.Errorf("%d alarms of a job that has ended", n)
			}
		})
	}
}

// What the ledger does not submit by itself, but its caller, is stored first where it has a key.
func TestWhatExpiredWhileItWasBeingStoredIsNotSubmitted(t *testing.T) {
	for _, mode := range []Mode{Background, Sync} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			hold := make(chan struct{})
			b.disk.with(func() { b.disk.hold = hold })
			o := b.call(func() (Record, error) {
				return b.Submit(t.Context(), Task{
					Function: "f", Mode: mode, Wait: time.Minute, Key: &Key{Key: "k"}, Deadline: time.Now().Add(time.Second),
				})
			})
			later(time.Minute)
			close(hold)
			b.quiet()
			if r := o.must(t); r.State != Failed {
				t.Errorf("%s: accepted as %s", mode, r.State)
			}
		})
	}
}
