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

func TestATrackedJobIsStoredBeforeAJobServerHearsOfIt(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		hold := make(chan struct{})
		b.disk.with(func() { b.disk.hold = hold })
		o := b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, Workload: []byte("w"), Priority: gearman.Low})
		})
		if o.returned() {
			t.Fatal("accepted before it was stored")
		}
		b.quiet()
		close(hold)
		r := o.must(t)
		if r.State != Queued || r.Handle != "" {
			t.Errorf("accepted as %+v", r)
		}
		s := b.next()
		if diff := cmp.Diff(gearman.Task{Function: "f", Unique: r.ID, Workload: []byte("w"), Priority: gearman.Low}, s.Task); diff != "" {
			t.Error(diff)
		}
		s.created(at("H:1"))
		s.tell(gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2})
		s.tell(gearman.Update{Kind: gearman.Warning, Payload: []byte("careful")})
		s.data("res")
		s.completed("ult")
		got := b.ends(r.ID, Completed)
		if string(got.Result) != "result" || len(got.Warnings) != 1 || got.Progress == nil {
			t.Errorf("got %+v", got)
		}
		stored, err := b.disk.Get(t.Context(), r.ID)
		if err != nil || string(stored.Result) != "result" || stored.State != Completed || len(stored.Log) == 0 {
			t.Errorf("stored %+v, %v", stored, err)
		}
		want := []event.Type{
			event.JobSubmitted, event.JobStarted, event.JobProgress, event.JobWarning, event.JobData, event.JobCompleted,
		}
		if diff := cmp.Diff(want, b.disk.types(r.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestATrackedJobMayHaveNoWorkload(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r, err := b.Submit(t.Context(), Task{Function: "f", Mode: Tracked})
		if err != nil {
			t.Fatal(err)
		}
		s := b.next()
		s.created(at("H:1"))
		s.completed("")
		b.ends(r.ID, Completed)
	})
}

func TestWhatCannotBeStoredIsNotAccepted(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		full := fmt.Errorf("%w: no space", ErrStoreFailed)
		b.disk.with(func() { b.disk.fail = full })
		_, err := b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, Workload: []byte("w")})
		if !errors.Is(err, ErrStoreFailed) {
			t.Fatalf("error %v", err)
		}
		later(time.Minute)
		b.quiet()
		if len(b.byID) != 0 || b.tracked != 0 || b.workloads != 0 {
			t.Errorf("%d records, %d tracked, %d bytes", len(b.byID), b.tracked, b.workloads)
		}
		b.disk.with(func() { b.disk.fail = nil })
		b.enter(Task{Mode: Tracked})
		b.next()
	})
}

func TestATrackedJobIsAcceptedWhileNoJobServerIsReachable(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		least, most := pauseLeast/2, pauseLeast*3/2
		for range 12 {
			s.refused(errNotSent)
			var pause time.Duration
			s, pause = b.within(5 * time.Second)
			if pause < least || pause > most {
				t.Errorf("pause %v, want %v to %v", pause, least, most)
			}
			least, most = min(least*2, pauseMost/2), min(most*2, pauseMost*3/2)
		}
		if s.Unique != r.ID {
			t.Errorf("unique %q", s.Unique)
		}
		s.created(at("H:1"))
		s.completed("late")
		if got := b.ends(r.ID, Completed); string(got.Result) != "late" {
			t.Errorf("%+v", got)
		}
	})
}

func TestTrackedJobsAreBoundedInNumberAndBytes(t *testing.T) {
	lives(t, Options{MaxTracked: 3, MaxWorkloads: 100}, func(t *testing.T, b *life) {
		full := func(size int) {
			t.Helper()
			_, err := b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, Workload: make([]byte, size)})
			if !errors.Is(err, ErrFull) {
				t.Fatalf("error %v", err)
			}
		}
		b.enter(Task{Mode: Tracked, Workload: make([]byte, 60)})
		first := b.next()
		full(41)
		b.enter(Task{Mode: Tracked, Workload: make([]byte, 40)})
		b.next()
		full(1)
		b.enter(Task{Mode: Tracked, Workload: []byte{}})
		b.next()
		full(0)
		first.created(at("H:1"))
		first.completed("")
		b.enter(Task{Mode: Tracked, Workload: make([]byte, 60)})
		b.next()
		full(0)
	})
}

// lose has a tracked job lose its connection, and returns the submit that follows.
func (b *life) lose(s *submission) *submission {
	b.t.Helper()
	s.lost(errCut)
	again, pause := b.within(time.Second)
	if again.Unique != s.Unique || again.Background || pause == 0 {
		b.t.Errorf("submitted again after %v as %+v", pause, again.Task)
	}
	return again
}

func TestAfterALostConnectionARunningJobIsJoined(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		s.tell(gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2})
		again := b.lose(s)
		b.servers.say(gearman.JobStatus{Known: true, Running: true})
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		later(5 * time.Second)
		b.quiet()
		again.completed("once")
		again.completed("twice")
		s.completed("thrice")
		if got := b.ends(r.ID, Completed); string(got.Result) != "once" || got.Deaths != 0 {
			t.Errorf("got %+v", got)
		}
		asked := b.servers.timesAsked()
		if asked < 4 || asked > 6 {
			t.Errorf("asked %d times in 5 s", asked)
		}
		later(time.Minute)
		if b.servers.timesAsked() > asked+1 {
			t.Error("still asked for when it had ended")
		}
	})
}

func TestADoomedJobIsSubmittedAfresh(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		again := b.lose(s)
		b.servers.say(gearman.JobStatus{Known: true})
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		later(5 * time.Minute)
		b.quiet()
		b.servers.say(gearman.JobStatus{})
		fresh, _ := b.within(doubtInterval + time.Second)
		if fresh.Unique != r.ID {
			t.Errorf("unique %q", fresh.Unique)
		}
		fresh.created(gearman.Job{Server: g1, Handle: "H:2", Generation: 2})
		fresh.completed("result")
		if got := b.ends(r.ID, Completed); got.Deaths != 0 || got.Handle != "H:2" {
			t.Errorf("got %+v", got)
		}
	})
}

// While a submit is on its way, the handle of the earlier one says nothing about the job.
func TestWhoAsksForAJobThatIsBeingSubmittedAgainDoesNotHaveItSubmittedTwice(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		again := b.lose(s)
		b.servers.say(gearman.JobStatus{}) // the job server has restarted
		for range 20 {
			b.now(r.ID)
			synctest.Wait()
		}
		if n := len(b.servers.submits); n > 0 {
			t.Errorf("submitted %d times more", n)
		}
		if got := b.of(r.ID); got.Deaths != 0 || got.State.Ended() {
			t.Errorf("got %+v", got)
		}
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
	})
}

func TestAJobThatGoesToAnotherServerIsAskedForThere(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		again := b.lose(s)
		there := gearman.Job{Server: g2, Handle: "H:7", Generation: 1}
		b.servers.mu.Lock()
		b.servers.status = func(j gearman.Job, _ string) (gearman.JobStatus, error) {
			return gearman.JobStatus{Known: j == there}, nil
		}
		b.servers.mu.Unlock()
		again.created(there)
		later(time.Minute)
		if got := b.of(r.ID); got.Server != g2 || got.Handle != "H:7" {
			t.Errorf("the job is at %s, %s", got.Server, got.Handle)
		}
		b.quiet()
	})
}

func TestAnEarlierSubmitDoesNoHarmButItsEndCounts(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		again := b.lose(s)
		s.tell(gearman.Update{Kind: gearman.Created, Job: at("H:9")})
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		s.lost(errCut)
		b.servers.say(gearman.JobStatus{Known: true})
		later(time.Minute)
		b.quiet()
		if got := b.of(r.ID); got.Handle != "H:1" {
			t.Errorf("handle %s", got.Handle)
		}
		s.completed("late")
		if got := b.ends(r.ID, Completed); string(got.Result) != "late" {
			t.Errorf("%+v", got)
		}
	})
}

func TestAConnectionThatIsLostBeforeTheHandle(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		b.next().cut()
		again, _ := b.within(time.Second)
		b.servers.say(gearman.JobStatus{}) // it was doomed
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		fresh, _ := b.within(time.Minute)
		fresh.created(gearman.Job{Server: g1, Handle: "H:2", Generation: 2})
		fresh.completed("x")
		b.ends(r.ID, Completed)
	})
}

func TestAJobServerThatDoesNotAnswerIsNotGivenTheJobTwice(t *testing.T) {
	lives(t, Options{SubmitTimeout: time.Second}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		later(time.Minute)
		b.quiet()
		s.tell(gearman.Update{Kind: gearman.Created, Job: at("H:1")})
		s.completed("slow")
		b.ends(r.ID, Completed)
	})
}

// What a run sent that did not end is no part of the result of the next.
func TestTheDataOfALostRunIsNotInTheResultOfTheNext(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		s.data("par")
		again := b.lose(s)
		b.servers.say(gearman.JobStatus{})
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2}) // doomed
		fresh, _ := b.within(time.Minute)
		fresh.created(gearman.Job{Server: g1, Handle: "H:2", Generation: 2})
		fresh.data("par")
		fresh.completed("tial")
		if got := b.ends(r.ID, Completed); string(got.Result) != "partial" {
			t.Errorf("doomed: result %q", got.Result)
		}

		r = b.enter(Task{Mode: Tracked})
		s = b.next()
		s.created(at("H:3"))
		s.data("par")
		again = b.lose(s)
		again.created(gearman.Job{Server: g1, Handle: "H:4", Generation: 3}) // another handle: another run
		again.data("par")
		again.completed("tial")
		if got := b.ends(r.ID, Completed); string(got.Result) != "partial" {
			t.Errorf("another handle: result %q", got.Result)
		}
	})
}

func TestAJobThatMustNotRunTwiceIsLostWithItsConnection(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, OnLost: Fail})
		s := b.next()
		if stored, _ := b.disk.Get(t.Context(), r.ID); !stored.Sent {
			t.Error("it was sent before that was stored")
		}
		s.created(at("H:1"))
		s.lost(errCut)
		got := b.ends(r.ID, Lost)
		if got.Error == nil || got.Error.Kind != "lost" {
			t.Errorf("error %+v", got.Error)
		}
		later(time.Minute)
		b.quiet()
	})
}

func TestAJobThatMustNotRunTwiceIsTriedAgainWhileItWasSurelyNotSent(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, OnLost: Fail})
		b.next().refused(errNotSent)
		s, _ := b.within(time.Second)
		b.disk.with(func() { b.disk.fail = ErrStoreFailed }) // from here on it cannot be stored that it is sent
		s.refused(errNotSent)
		later(time.Minute)
		b.quiet()
		b.disk.with(func() { b.disk.fail = nil })
		s, _ = b.within(10 * time.Second)
		s.created(at("H:1"))
		s.completed("x")
		b.ends(r.ID, Completed)
	})
}

func TestAJobThatItsServerForgetsAgainAndAgainFails(t *testing.T) {
	lives(t, Options{MaxAttempts: 3}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked, Workload: []byte("w")})
		b.servers.say(gearman.JobStatus{})
		for n := range 3 {
			b.next().created(at(fmt.Sprint("H:", n)))
			b.now(r.ID) // asks
			synctest.Wait()
		}
		got := b.ends(r.ID, Failed)
		if got.Deaths != 3 || got.Error == nil || got.Error.Kind != "lost" {
			t.Errorf("got %+v", got)
		}
		b.quiet()
		if _, err := b.disk.Workload(t.Context(), r.ID); err != nil {
			t.Errorf("workload: %v", err)
		}
	})
}

func TestOurPoolsEndCountsWhileTheConnectionIsLost(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		a := assign(s, "H:1")
		b.before(a)
		s.lost(errCut)
		later(time.Minute)
		b.quiet()
		b.after(a, "ours")
		if got := b.ends(r.ID, Completed); string(got.Result) != "ours" {
			t.Errorf("%+v", got)
		}
		later(time.Minute)
		b.quiet()
	})
}

func TestAJobThatOurPoolHandsBackIsSubmittedAgainIfItsConnectionIsGone(t *testing.T) {
	for _, when := range []string{"lost while it ran", "lost before it ran"} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: Tracked})
			s := b.next()
			s.created(at("H:1"))
			a := assign(s, "H:1")
			if when == "lost while it ran" {
				b.before(a)
				s.lost(errCut)
			} else {
				s.lost(errCut)
				b.before(a)
			}
			later(time.Minute)
			b.quiet()
			b.handedBack(a)
			select {
			case again := <-b.servers.submits:
				again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
				again.completed("x")
				b.ends(r.ID, Completed)
			case <-time.After(time.Minute):
				t.Errorf("%s: not submitted again in a minute", when)
			}
		})
	}
}

func TestTrackedJobsOfOneUniqueAreOne(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		first := b.enter(Task{Mode: Tracked, Unique: "u"})
		s := b.next()
		if s.Unique != first.ID {
			t.Errorf("on the wire: %q", s.Unique)
		}
		second := b.enter(Task{Mode: Tracked, Unique: "u"})
		if second.ID != first.ID || second.Replayed {
			t.Errorf("second: %+v", second)
		}
		b.quiet()
		s.created(at("H:1"))
		s.completed("")
		if third := b.enter(Task{Mode: Tracked, Unique: "u"}); third.ID == first.ID {
			t.Error("joined a job that had ended")
		}
		b.next()
	})
}

func TestWhoJoinsAJobIsToldOfItWhenItIsStored(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		hold := make(chan struct{})
		b.disk.with(func() { b.disk.hold = hold })
		submit := func() (Record, error) { return b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, Unique: "u"}) }
		first, second := b.call(submit), b.call(submit)
		if second.returned() {
			t.Error("accepted before it was stored")
		}
		b.disk.with(func() { b.disk.fail = ErrStoreFailed })
		close(hold)
		for i, o := range []*outcome{first, second} {
			if _, err := o.get(); !errors.Is(err, ErrStoreFailed) {
				t.Errorf("caller %d: error %v", i, err)
			}
		}
	})
}

// A job that has ended leaves nothing behind that keeps it in memory until a time far away.
func TestAlarmsGoWithTheirJobs(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		for range 20 {
			r := b.enter(Task{Mode: Tracked, RunAt: time.Now().Add(1000 * time.Hour)})
			if _, err := b.Cancel(t.Context(), everyone, r.ID); err != nil {
				t.Fatal(err)
			}
			b.enter(Task{Mode: Tracked, Deadline: time.Now().Add(1000 * time.Hour)})
			s := b.next()
			s.created(at("H:1"))
			s.completed("")
		}
		later(time.Minute)
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := len(b.clock.alarms); n > 2 {
			t.Errorf("%d alarms of 40 jobs that ended", n)
		}
	})
}

func TestNothingIsSubmittedAfterStop(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		b.enter(Task{Mode: Tracked})
		s := b.next() // its Submit ends with Stop
		b.enter(Task{Mode: Tracked, RunAt: time.Now().Add(time.Second)})
		b.Stop()
		s.lost(errCut)
		later(time.Minute)
		b.quiet()
	})
}

// What is committed of a job must not undo what became of it in the same moment.
func TestAJobThatEndsWhileItIsCommittedHasEndedInTheStoreToo(t *testing.T) {
	t.Run("its submit", func(t *testing.T) {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: Tracked, OnLost: Fail, RunAt: time.Now().Add(time.Minute)})
			b.disk.with(func() {
				b.disk.before = func() {
					if _, err := b.Cancel(t.Context(), everyone, r.ID); err != nil {
						t.Error(err)
					}
				}
			})
			later(2 * time.Minute)
			b.ends(r.ID, Cancelled)
			if stored, err := b.disk.Get(t.Context(), r.ID); err != nil || stored.State != Cancelled {
				t.Errorf("stored as %s, %v", stored.State, err)
			}
			b.quiet()
		})
	})
	t.Run("the key of another that joins it", func(t *testing.T) {
		lives(t, Options{}, func(t *testing.T, b *life) {
			r := b.enter(Task{Mode: Tracked, Unique: "u"})
			s := b.next()
			s.created(at("H:1"))
			b.disk.with(func() { b.disk.before = func() { s.completed("result") } })
			task := keyed(Tracked, "a")
			task.Unique = "u"
			b.enter(task)
			if stored, err := b.disk.Get(t.Context(), r.ID); err != nil || stored.State != Completed || string(stored.Result) != "result" {
				t.Errorf("stored as %s with %q, %v", stored.State, stored.Result, err)
			}
			b.restart()
			b.quiet()
		})
	})
}

func TestDeathsOutliveTheGateway(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		b.servers.say(gearman.JobStatus{})
		b.next().created(at("H:1"))
		synctest.Wait()
		b.now(r.ID) // asks
		b.next()
		b.restart()
		if got := b.of(r.ID); got.Deaths != 1 {
			t.Errorf("%d deaths, want 1", got.Deaths)
		}
	})
}

// The jobs that merely wait for their time must not keep those from being asked for that are doomed.
func TestADoomedJobIsNoticedSoonAmongManyScheduled(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		for range 20_000 {
			if _, err := b.Submit(t.Context(), Task{Function: "g", Mode: Tracked, Workload: []byte("w"), RunAt: time.Now().Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		again := b.lose(s)
		b.servers.say(gearman.JobStatus{})
		again.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		b.within(5 * time.Second)
	})
}

func TestAJobThatCannotBeStoredAndIsForgottenMeanwhile(t *testing.T) {
	lives(t, Options{MaxRecords: 2}, func(t *testing.T, b *life) {
		hold := make(chan struct{})
		b.disk.with(func() { b.disk.hold = hold })
		o := b.call(func() (Record, error) { return b.Submit(t.Context(), Task{Function: "f", Mode: Tracked}) })
		b.mu.Lock()
		id := b.entered.first.ID
		b.mu.Unlock()
		if _, err := b.Cancel(t.Context(), everyone, id); err != nil {
			t.Fatal(err)
		}
		b.disk.with(func() { b.disk.hold = nil })
		for range 2 {
			b.enter(Task{Mode: Tracked})
			b.next()
		}
		b.disk.with(func() { b.disk.fail = ErrStoreFailed })
		close(hold)
		if _, err := o.get(); err == nil {
			t.Error("it was stored")
		}
		synctest.Wait()
		if err := b.consistent(); err != nil {
			t.Error(err)
		}
	})
}
