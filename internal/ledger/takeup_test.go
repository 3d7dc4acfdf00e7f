package ledger

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// forgotten submits background jobs until the first is in the store alone.
func (b *life) forgotten(t *testing.T) Record {
	t.Helper()
	_, r := b.background("", "H:1")
	b.background("", "H:2")
	if b.find(everyone, r.ID) != nil {
		t.Fatal("the first job is still in memory")
	}
	return r
}

// Where foreign workers run the jobs, nobody has told what became of one that is not in memory any more.
func TestAForgottenJobInTheBackgroundIsAskedFor(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		r := b.forgotten(t)
		b.servers.say(gearman.JobStatus{Known: true, Running: true})
		for _, ref := range []string{r.ID, "H:1"} {
			if got := b.now(ref); got.ID != r.ID || got.State != Running || got.Gearman == nil {
				t.Errorf("%s: while a job server knows it: %+v", ref, got)
			}
		}
		b.background("", "H:3") // it is forgotten once more
		b.servers.say(gearman.JobStatus{})
		if got := b.now(r.ID); got.State != Unknown || got.EndedAt.IsZero() {
			t.Errorf("when none does: %+v", got)
		}
		if got := b.disk.records[r.ID]; got.State != Unknown {
			t.Errorf("the store has %+v", got)
		}
	})
}

// Nobody knows whether a job server has what it was sent when the connection was lost: it is asked, and the job is not sent again.
func TestAJobWhoseSubmitWasCutIsAskedForHoweverItIsFound(t *testing.T) {
	for name, task := range map[string]Task{
		"scheduled": {RunAt: time.Now().Add(time.Second)},
		"keyed":     {Key: &Key{Key: "k", Fingerprint: []byte("f")}},
		"plain":     {},
	} {
		for _, found := range []string{"forgotten", "restart"} {
			lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
				task := task
				task.Function = "f"
				if !task.RunAt.IsZero() {
					task.RunAt = time.Now().Add(time.Second)
				}
				o := b.call(func() (Record, error) { return b.Submit(t.Context(), task) })
				s, _ := b.within(time.Minute)
				id := s.Unique
				s.cut()
				_, _ = o.get() // the caller of one that is not scheduled is told
				if found == "forgotten" {
					b.background("", "H:9")
					if b.find(everyone, id) != nil {
						t.Fatalf("%s: it is still in memory", name)
					}
				} else {
					b.restart()
				}
				b.servers.say(gearman.JobStatus{Known: true})
				if got := b.now(id); got.State != Queued || got.Gearman == nil {
					t.Errorf("%s, %s: while a job server knows it: %+v", name, found, got)
				}
				b.servers.say(gearman.JobStatus{})
				if got := b.now(id); got.State != Unknown {
					t.Errorf("%s, %s: when none does: %+v", name, found, got)
				}
				later(time.Minute)
				b.quiet()
			})
		}
	}
}

func TestAForgottenJobInTheBackgroundIsWaitedFor(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		r := b.forgotten(t)
		b.servers.say(gearman.JobStatus{Known: true})
		o := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, r.ID, time.Minute) })
		later(3 * time.Second)
		b.servers.say(gearman.JobStatus{})
		later(3 * time.Second)
		if got := o.must(t); got.State != Unknown {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAForgottenJobInTheBackgroundIsFollowedToItsEnd(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		r := b.forgotten(t)
		b.servers.say(gearman.JobStatus{})
		var last Entry
		followed := make(chan error, 1)
		go func() {
			followed <- b.Follow(t.Context(), everyone, r.ID, 0, func(e Entry) error { last = e; return nil })
		}()
		later(time.Second)
		b.now(r.ID)
		if err := <-followed; err != nil || last.State != Unknown {
			t.Errorf("last %+v, %v", last, err)
		}
	})
}

func TestAForgottenJobInTheBackgroundCanBeCancelled(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		r := b.forgotten(t)
		got, err := b.Cancel(t.Context(), everyone, r.ID)
		if err != nil || got.State != Cancelled || len(b.servers.cancelled) != 1 || b.servers.cancelled[0].Handle != "H:1" {
			t.Errorf("got %+v, %v, and the job server was told %+v", got, err, b.servers.cancelled)
		}
		if got := b.disk.types(r.ID); !slices.Equal(got, []event.Type{event.JobSubmitted, event.JobCancelled}) {
			t.Errorf("told %v", got)
		}
	})
}

// Jobs of which nobody told the end do not fill the memory at the start.
func TestAfterARestartNoMoreRecordsAreInMemoryThanMayBe(t *testing.T) {
	lives(t, Options{MaxRecords: 3}, func(t *testing.T, b *life) {
		var ids []string
		for _, h := range []string{"H:1", "H:2", "H:3", "H:4", "H:5"} {
			_, r := b.background("", h)
			ids = append(ids, r.ID)
		}
		b.restart()
		if n := b.Stats().Records; n != 3 {
			t.Errorf("%d records", n)
		}
		b.of(ids[4])
		b.servers.say(gearman.JobStatus{Known: true})
		if got := b.now(ids[0]); got.State != Queued || got.Gearman == nil {
			t.Errorf("the oldest is %+v", got)
		}
	})
}

// Whoever asks for an old job again and again leaves nothing behind each time.
func TestAForgottenJobLeavesNoAlarm(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		b.servers.say(gearman.JobStatus{Known: true})
		s, o := b.begin(t.Context(), Task{Function: "f", Deadline: time.Now().Add(time.Hour)})
		s.created(at("H:0"))
		id := o.must(t).ID
		for i := range 10 {
			b.background("", fmt.Sprint("H:", i+1))
			if got := b.now(id); got.State != Queued || got.Gearman == nil {
				t.Fatalf("got %+v", got)
			}
		}
		b.background("", "H:11")
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := len(b.deadlines.alarms); n > 0 {
			t.Errorf("%d alarms are set for a job that is not in memory", n)
		}
	})
}

// A job server that was started anew gives the handles once more.
func TestAJobThatIsTakenUpDoesNotTakeTheHandleOfANewerOne(t *testing.T) {
	lives(t, Options{MaxRecords: 2}, func(t *testing.T, b *life) {
		b.servers.say(gearman.JobStatus{Known: true})
		_, old := b.background("", "H:1")
		b.background("", "H:2")
		_, newer := b.background("", "H:1")
		b.now(old.ID)
		if got := b.now("H:1"); got.ID != newer.ID {
			t.Errorf("the handle leads to %s, want the newer %s and not %s", got.ID, newer.ID, old.ID)
		}
	})
}

// Nobody else would tell its end.
func TestAJobThatOurPoolRunsIsNotForgottenBeforeOthers(t *testing.T) {
	lives(t, Options{MaxRecords: 2}, func(t *testing.T, b *life) {
		s, r := b.background("", "H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.background("", "H:2")
		b.background("", "H:3")
		b.after(a, "done")
		if got := b.now(r.ID); got.State != Completed || string(got.Result) != "done" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAJobThatSomebodyWaitsForIsNotForgottenBeforeOthers(t *testing.T) {
	lives(t, Options{MaxRecords: 2}, func(t *testing.T, b *life) {
		b.servers.say(gearman.JobStatus{Known: true})
		_, r := b.background("", "H:1")
		o := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, r.ID, time.Minute) })
		b.background("", "H:2")
		b.background("", "H:3")
		b.servers.say(gearman.JobStatus{})
		began := time.Now()
		if got := o.must(t); got.State != Unknown || time.Since(began) > 5*time.Second {
			t.Errorf("after %v got %+v", time.Since(began), got)
		}
	})
}

// Where there is no other it is, and the wait goes on with what is taken up of it.
func TestAWaitOutlivesThatTheJobIsForgotten(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		b.servers.say(gearman.JobStatus{Known: true})
		_, r := b.background("", "H:1")
		o := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, r.ID, time.Minute) })
		var last Entry
		followed := make(chan error, 1)
		go func() {
			followed <- b.Follow(t.Context(), everyone, r.ID, 0, func(e Entry) error { last = e; return nil })
		}()
		later(time.Second / 2)
		b.background("", "H:2")
		b.servers.say(gearman.JobStatus{})
		began := time.Now()
		if got := o.must(t); got.State != Unknown || time.Since(began) > 5*time.Second {
			t.Errorf("after %v got %+v", time.Since(began), got)
		}
		if err := <-followed; err != nil || last.State != Unknown {
			t.Errorf("last %+v, %v", last, err)
		}
	})
}

// Without a store nobody has it any more, which is not to say that it has ended.
func TestAWaitEndsWithWhatIsForgottenForGood(t *testing.T) {
	bubble(t, Options{MaxRecords: 1}, func(t *testing.T, b *lab) {
		b.servers.say(gearman.JobStatus{Known: true})
		_, r := b.background("", "H:1")
		o := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, r.ID, time.Minute) })
		f := follow(t.Context(), b.plain, r.ID, 0)
		b.background("", "H:2")
		later(2 * askInterval)
		if got, err := o.get(); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %+v, %v", got, err)
		}
		if !f.ended() || !errors.Is(f.err, ErrNotFound) {
			t.Errorf("followed to the end: %v, %v", f.ended(), f.err)
		}
	})
}

// Else its end would be stored over: it is not on the disk yet.
func TestAJobThatHasEndedIsNotTakenUpFromADiskThatDoesNotKnowIt(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		s, r := b.background("", "H:1")
		b.disk.with(func() { b.disk.lazy, b.disk.stuck = true, true })
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "done")
		b.background("", "H:2")
		for _, ref := range []string{r.ID, "H:1"} {
			if got := b.now(ref); got.ID != r.ID || got.State != Queued {
				t.Errorf("%s: while nothing can be stored: %+v", ref, got)
			}
		}
		b.disk.with(func() { b.disk.stuck = false })
		if got := b.now(r.ID); got.State != Completed || string(got.Result) != "done" {
			t.Errorf("afterwards: %+v", got)
		}
	})
}
