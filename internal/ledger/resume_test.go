package ledger

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gearman-gateway/internal/gearman"
)

// Whether a job server had the job at the end of the earlier life is not always known: the end may have come before its handle was
// stored. It is doomed there, all the same.
func TestATrackedJobOutlivesTheGateway(t *testing.T) {
	for _, when := range []string{"on its way", "its handle was not stored", "queued", "running"} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: Tracked})
			s := b.next()
			if when == "its handle was not stored" {
				b.disk = b.disk.reopen()
			}
			if when != "on its way" {
				s.created(at("H:1"))
			}
			if when == "running" {
				s.data("par")
			}
			synctest.Wait()
			b.restart()
			s = b.next()
			if s.Unique != r.ID || string(s.Workload) != "w" || s.Background {
				t.Errorf("%s: %+v", when, s.Task)
			}
			b.servers.say(gearman.JobStatus{Known: true})
			s.created(at("H:1")) // joined, but doomed
			later(time.Minute)
			b.servers.say(gearman.JobStatus{})
			select {
			case s = <-b.servers.submits:
			case <-time.After(time.Hour):
				t.Errorf("%s: the doomed job is waited for for ever", when)
				return
			}
			s.created(at("H:2"))
			s.data("par")
			s.completed("tial")
			if got := b.ends(r.ID, Completed); string(got.Result) != "partial" || got.Deaths != 0 {
				t.Errorf("%s: %+v", when, got)
			}
		})
	}
}

func TestAnAttemptOutlivesTheGateway(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Retry: Retry{Max: 3, Backoff: time.Minute}})
		first := b.next()
		first.created(at("H:1"))
		first.failed()
		b.restart()
		b.ends(r.ID, Scheduled)
		second, _ := b.within(2 * time.Minute)
		if second.Unique == first.Unique {
			t.Error("the second attempt has the unique of the first")
		}
		second.created(at("H:2"))
		synctest.Wait()
		b.restart()
		again := b.next()
		if again.Unique != second.Unique {
			t.Errorf("after the restart the unique is %q, was %q", again.Unique, second.Unique)
		}
		again.created(at("H:2"))
		again.completed("x")
		if got := b.ends(r.ID, Completed); got.Attempt != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAJobThatMustNotRunTwiceDoesNotOverARestart(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		hold := make(chan struct{})
		b.disk.with(func() { b.disk.hold = hold })
		task := Task{Function: "f", Mode: Tracked, OnLost: Fail, Workload: []byte("w")}
		o := b.call(func() (Record, error) { return b.Submit(t.Context(), task) })
		b.disk.with(func() { b.disk.hold = nil })
		close(hold)
		sent := o.must(t)
		b.next() // on its way
		scheduled := b.enter(Task{Mode: Tracked, OnLost: Fail, RunAt: time.Now().Add(time.Minute)})
		b.restart()
		b.quiet()
		if got := b.ends(sent.ID, Lost); got.Error == nil || got.Error.Kind != "lost" {
			t.Errorf("%+v", got)
		}
		if s, _ := b.within(2 * time.Minute); s.Unique != scheduled.ID {
			t.Errorf("%+v", s.Task)
		}
		b.restart()
		b.ends(scheduled.ID, Lost)
	})
}

// It was surely not sent: nothing is lost.
func TestAJobThatMustNotRunTwiceAndThatNoServerTookOutlivesTheGateway(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, OnLost: Fail})
		b.next().refused(errNotSent)
		synctest.Wait()
		b.restart()
		synctest.Wait()
		if got := b.of(r.ID); got.State != Queued {
			t.Fatalf("job is %s: %+v", got.State, got.Error)
		}
		s := b.next()
		s.created(at("H:1"))
		s.completed("x")
		b.ends(r.ID, Completed)
	})
}

func TestABackgroundJobOutlivesTheGateway(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		o := b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Unique: "u", Workload: []byte("w")})
		})
		b.next().created(at("H:1"))
		r := o.must(t)
		b.restart()
		b.quiet()
		b.servers.say(gearman.JobStatus{Known: true})
		if got := b.now(r.ID); got.State != Queued || got.Gearman == nil {
			t.Errorf("%+v", got)
		}
		if asked := b.servers.asked; len(asked) != 1 || asked[0].Generation != 0 {
			t.Errorf("asked for %v: the handle is of an earlier connection", asked)
		}
		a := &gearman.Assignment{Server: g1, Handle: "H:1", Function: "f", Unique: "u"}
		b.before(a)
		b.after(a, "result")
		if got := b.ends(r.ID, Completed); string(got.Result) != "result" {
			t.Errorf("%+v", got)
		}
	})
}

func TestASyncJobIsLostWithTheGateway(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		o := b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Minute, Workload: []byte("w")})
		})
		b.next().created(at("H:1"))
		synctest.Wait()
		id := b.byHandle["H:1"].ID
		b.restart()
		b.quiet()
		b.ends(id, Lost)
		o.get() // of the ledger that is no more
	})
}

func TestMoreAndMoreRestartsChangeNothing(t *testing.T) {
	lives(t, Options{MaxAttempts: 2}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		for range 20 {
			b.next().created(at("H:1"))
			synctest.Wait()
			b.restart()
		}
		s := b.next()
		s.created(at("H:1"))
		s.completed("x")
		if got := b.ends(r.ID, Completed); got.Deaths != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestStartTellsWhyItCannotReadTheStore(t *testing.T) {
	unreadable := errors.New("unreadable")
	l := New(Options{Servers: &servers{}, Store: broken{newDisk(), unreadable}})
	if err := l.Start(t.Context()); !errors.Is(err, unreadable) {
		t.Errorf("error %v", err)
	}
	l.Stop()
}

// broken is a disk that cannot be read.
type broken struct {
	*disk
	err error
}

func (b broken) Unfinished(context.Context, func(Record) error) error { return b.err }
