package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/gearman"
)

func TestSyncJobsOfOneUniqueAreOne(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		task := Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute}
		s, first := b.begin(t.Context(), task)
		var joined []*outcome
		for range 5 {
			joined = append(joined, b.call(func() (Record, error) { return b.Submit(t.Context(), task) }))
		}
		if n := len(b.servers.submits); n != 0 {
			t.Fatalf("%d joined tasks were sent", n)
		}
		s.created(at("H:1"))
		s.completed("one")
		want := first.must(t)
		for _, o := range joined {
			if diff := cmp.Diff(want, o.must(t)); diff != "" {
				t.Error(diff)
			}
		}
		if n := len(b.store.types(t, want.ID)); n != 3 {
			t.Errorf("%d events of one job", n)
		}
	})
}

// Each of these tasks has something else than the live sync job: none joins it.
func TestOnlyLiveSyncJobsOfTheSameFunctionAndUniqueAreJoined(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		ended, o := b.begin(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
		ended.created(at("H:1"))
		ended.completed("before")
		o.must(t)
		handles := 1
		for name, task := range map[string]Task{
			"an ended one":     {Function: "f", Unique: "u", Mode: Sync},
			"another function": {Function: "g", Unique: "u", Mode: Sync},
			"another unique":   {Function: "f", Unique: "v", Mode: Sync},
			"no unique":        {Function: "f", Mode: Sync},
			"no unique again":  {Function: "f", Mode: Sync},
			"another mode":     {Function: "f", Unique: "u"},
		} {
			handles++
			task.Wait = time.Minute
			s, o := b.begin(t.Context(), task) // fails the test if it is not sent
			s.created(at(fmt.Sprint("H:", handles)))
			if task.Mode == Sync {
				s.completed(name)
				if r := o.must(t); string(r.Result) != name {
					t.Errorf("%s: %+v", name, r)
				}
			}
		}
	})
}

func TestACallerMayJoinAJobWhoseFirstCallerLeft(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		task := Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute}
		ctx, leave := context.WithCancel(t.Context())
		s, first := b.begin(ctx, task)
		s.created(at("H:1"))
		leave()
		<-first.done
		joined := b.call(func() (Record, error) { return b.Submit(t.Context(), task) })
		s.completed("for the second")
		if r := joined.must(t); string(r.Result) != "for the second" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestBackgroundJobsThatTheJobServerCoalescedAreOneRecord(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, first := b.background("u", "H:1")
		_, second := b.background("u", "H:1")
		if first.ID != second.ID || second.Handle != "H:1" {
			t.Errorf("ids %s and %s", first.ID, second.ID)
		}
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "result")
		// The job server had coalesced this one before the end, and its answer was read after it.
		_, third := b.background("u", "H:1")
		if third.ID != first.ID || string(third.Result) != "result" {
			t.Errorf("after the end: %+v", third)
		}
		if len(b.byID) != 1 {
			t.Errorf("%d records of one job", len(b.byID))
		}
		if n := len(b.store.events); n != 5 {
			t.Errorf("%d events of one job", n)
		}
	})
}

func TestBackgroundJobsAreNotMerged(t *testing.T) {
	for name, test := range map[string]struct {
		task  Task
		where gearman.Job
	}{
		"with another handle":          {Task{Function: "f", Unique: "u"}, at("H:2")},
		"on another server":            {Task{Function: "f", Unique: "u"}, gearman.Job{Server: g2, Handle: "H:1", Generation: 1}},
		"after a restart":              {Task{Function: "f", Unique: "u"}, gearman.Job{Server: g1, Handle: "H:1", Generation: 2}},
		"of another unique":            {Task{Function: "f", Unique: "v"}, at("H:1")},
		"of another function":          {Task{Function: "g", Unique: "u"}, at("H:1")},
		"of no unique with its like":   {Task{Function: "f"}, at("H:1")},
		"of another mode, by handle":   {Task{Function: "f", Mode: Sync, Wait: 1}, at("H:1")},
		"of another mode, by a unique": {Task{Function: "f", Unique: "u", Mode: Sync, Wait: 1}, at("H:1")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, b *lab) {
				_, first := b.background("u", "H:1")
				s, o := b.begin(t.Context(), test.task)
				s.created(test.where)
				second := o.must(t)
				if second.ID == first.ID || len(b.byID) != 2 {
					t.Fatalf("merged: %+v", second)
				}
				if got := b.now(test.where.Handle); got.ID != second.ID {
					t.Errorf("the handle leads to %s, want the newest", got.ID)
				}
			})
		})
	}
}

// Two submits of one unique are on their way, and our pool has the job that the job server made of both before either
// JOB_CREATED is read. Whichever record the run is entered in, both callers must find the result.
func TestACoalescedJobThatOurPoolHasBeforeItsHandlesAreRead(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		for _, ends := range []string{"before both", "between", "after both"} {
			t.Run(fmt.Sprintf("reverse %v, ends %s", reverse, ends), func(t *testing.T) {
				bubble(t, Options{}, func(t *testing.T, b *lab) {
					s1, o1 := b.begin(t.Context(), Task{Function: "f", Unique: "u"})
					s2, o2 := b.begin(t.Context(), Task{Function: "f", Unique: "u"})
					if reverse { // what was entered first was sent second
						s1, o1, s2, o2 = s2, o2, s1, o1
					}
					a := assign(s1, "H:1")
					b.before(a)
					if ends == "before both" {
						b.after(a, "result")
					}
					s1.created(at("H:1"))
					r1 := o1.must(t)
					if ends == "between" {
						b.after(a, "result")
					}
					s2.created(at("H:1"))
					r2 := o2.must(t)
					if ends == "after both" {
						b.after(a, "result")
					}
					b.servers.say(gearman.JobStatus{}) // it is over
					for name, r := range map[string]Record{"first": r1, "second": r2} {
						if got, err := b.Job(t.Context(), everyone, r.ID, 0); err != nil || string(got.Result) != "result" {
							t.Errorf("%s caller's id leads to %s, %q, %v", name, got.State, got.Result, err)
						}
					}
				})
			})
		}
	}
}

// The second submit timed out, so its id is known to a caller, who waits for it when the job server's answer tells that it was
// coalesced.
func TestAWaitForAJobThatIsMergedIsOneForTheOther(t *testing.T) {
	bubble(t, Options{SubmitTimeout: time.Second}, func(t *testing.T, b *lab) {
		first, _ := b.background("u", "H:1")
		s, o := b.begin(t.Context(), Task{Function: "f", Unique: "u"})
		second, _ := o.get()
		ctx, giveUp := context.WithCancelCause(t.Context())
		defer giveUp(nil)
		b.servers.status = func(gearman.Job, string) (gearman.JobStatus, error) {
			if len(b.servers.asked) > 100 { // in a busy loop, time does not pass
				giveUp(errors.New("the job server is asked without a pause"))
			}
			return gearman.JobStatus{Known: true}, nil
		}
		waiting := b.call(func() (Record, error) { return b.Job(ctx, everyone, second.ID, time.Minute) })
		s.created(at("H:1"))
		synctest.Wait()
		a := assign(first, "H:1")
		b.before(a)
		b.after(a, "result")
		if got := waiting.must(t); string(got.Result) != "result" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestARunOfAUniqueThatTwoServersHaveIsEnteredByItsHandle(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, here := b.background("u", "H:1")
		elsewhere, o := b.begin(t.Context(), Task{Function: "f", Unique: "u"})
		elsewhere.created(gearman.Job{Server: g2, Handle: "H:1", Generation: 1})
		there := o.must(t)
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "here")
		if got := b.now(here.ID); string(got.Result) != "here" {
			t.Errorf("here: %+v", got)
		}
		if got := b.now(there.ID); got.State != Queued {
			t.Errorf("there: %+v", got)
		}
	})
}

// After a restart handles start over: what happens to the new job must not be told of the old.
func TestARestartedServersJobNeverAnswersForAnOldRecord(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		old, oldRecord := b.background("old", "H:1")
		s, o := b.begin(t.Context(), Task{Function: "f", Unique: "new"})
		s.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		newRecord := o.must(t)
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "new")
		if got := b.now(oldRecord.ID); got.State != Queued {
			t.Errorf("the old record: %+v", got)
		}
		if got := b.now(newRecord.ID); string(got.Result) != "new" {
			t.Errorf("the new record: %+v", got)
		}
		if got := b.now("H:1"); got.ID != newRecord.ID {
			t.Errorf("the handle leads to %s", got.ID)
		}
		b.servers.mu.Lock()
		b.servers.asked = nil
		b.servers.mu.Unlock()
		b.now(oldRecord.ID)
		if got := b.servers.asked[0]; got.Generation != 1 || got.Handle != "H:1" {
			t.Errorf("the old record is asked for as %+v, want the generation that submitted it", got)
		}
		again := assign(old, "H:9") // a persistent queue: the job is back under another handle
		b.before(again)
		b.after(again, "old")
		if got := b.now(oldRecord.ID); string(got.Result) != "old" {
			t.Errorf("the old record, run at last: %+v", got)
		}
	})
}

// Our pool was done before JOB_CREATED was read, and then the job server died. After its restart the same unique gets the same
// handle, since both start over, but it is another job.
func TestAJobOfARestartedServerIsNotMergedWithOneWhoseHandleWasNeverRead(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, first := b.begin(t.Context(), Task{Function: "f", Unique: "nightly"})
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "last night")
		s.cut()
		<-first.done
		s, second := b.begin(t.Context(), Task{Function: "f", Unique: "nightly"})
		s.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 2})
		if r := second.must(t); r.State != Queued || r.ID == first.record.ID {
			t.Errorf("tonight's job is answered with %+v", r)
		}
	})
}

// Where uniques are shared one run is for jobs of several owners, and yet each has a record of its own that nobody else sees.
func TestJobsOfTwoOwnersAreNeverOneRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, servers := inMemory(t, Options{SharedUniques: true})
		submit := func(owner string) (r Record) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				var err error
				if r, err = l.Submit(t.Context(), Task{Owner: owner, Function: "f", Unique: "u", Mode: Background}); err != nil {
					t.Error(err)
				}
			}()
			s := <-servers.submits
			if s.Unique != "u" {
				t.Errorf("on the wire it is %q", s.Unique)
			}
			s.created(at("H:1")) // for both
			<-done
			return r
		}
		alices, bobs := submit("alice"), submit("bob")
		if alices.ID == bobs.ID || alices.ID == "" || bobs.ID == "" {
			t.Errorf("alice has %q, bob %q", alices.ID, bobs.ID)
		}
		for ref, sees := range map[string]string{alices.ID: "alice", bobs.ID: "bob"} {
			for _, owner := range []string{"alice", "bob", ""} {
				j := l.find(Caller{Owner: owner}, ref)
				if (j != nil) != (owner == sees) {
					t.Errorf("%q finds %v of %s", owner, j, sees)
				}
				l.release(j)
			}
		}
	})
}
