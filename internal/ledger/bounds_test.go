package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

// finish runs a sync job to its end and returns its id.
func (b *lab) finish(handle, result string) (id string) {
	b.t.Helper()
	s, o := b.sync(handle)
	s.completed(result)
	return o.must(b.t).ID
}

func TestMoreLiveSyncJobsThanMaxLiveAreRefused(t *testing.T) {
	bubble(t, Options{MaxLive: 2}, func(t *testing.T, b *lab) {
		s, first := b.begin(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
		s.created(at("H:1"))
		second, _ := b.sync("H:2")
		task := Task{Function: "f", Mode: Sync, Wait: time.Minute}
		if _, err := b.Submit(t.Context(), task); !errors.Is(err, ErrFull) {
			t.Fatalf("a third: %v", err)
		}
		joined := b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
		})
		b.background("u", "H:3") // is not held
		s.completed("")
		first.must(t)
		joined.must(t)
		third, o := b.begin(t.Context(), task) // there is room again
		third.refused(errNotSent)
		<-o.done
		fourth, _ := b.begin(t.Context(), task) // and again
		fourth.created(at("H:4"))
		second.completed("")
	})
}

func TestTheOldestEndedJobIsForgottenFirst(t *testing.T) {
	bubble(t, Options{MaxRecords: 3}, func(t *testing.T, b *lab) {
		_, bg := b.background("u", "H:1")
		first := b.finish("H:2", "first")
		second := b.finish("H:3", "second")
		third := b.finish("H:4", "third")
		for id, kept := range map[string]bool{bg.ID: true, first: false, second: true, third: true} {
			if _, err := b.Job(t.Context(), everyone, id, 0); (err == nil) != kept {
				t.Errorf("job %s: %v, want it kept: %v", id, err, kept)
			}
		}
		if len(b.byHandle) != 3 {
			t.Errorf("%d handles of 3 records", len(b.byHandle))
		}
	})
}

func TestOfSyncJobsWhoseCallersWereAnsweredFewAreKept(t *testing.T) {
	bubble(t, Options{MaxReplied: 2}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		s.tell(gearman.Update{Kind: gearman.Failed})
		failed := o.must(t)
		_, bg := b.background("u", "H:2")
		slow, o := b.sync("H:3")
		time.Sleep(time.Minute) // its caller's wait has lapsed
		lapsed := o.must(t)
		slow.completed("late")
		first := b.finish("H:4", "first")
		second := b.finish("H:5", "second")
		third := b.finish("H:6", "third")
		for id, kept := range map[string]bool{failed.ID: true, bg.ID: true, lapsed.ID: true, first: false, second: true, third: true} {
			if _, err := b.Job(t.Context(), everyone, id, 0); (err == nil) != kept {
				t.Errorf("job %s: %v, want it kept: %v", id, err, kept)
			}
		}
	})
}

func TestThenTheOldestLiveBackgroundJobAndNeverALiveSyncJob(t *testing.T) {
	bubble(t, Options{MaxRecords: 3}, func(t *testing.T, b *lab) {
		fg, o := b.sync("H:1")
		forgotten, bg1 := b.background("a", "H:2")
		other, bg2 := b.background("b", "H:3")
		ours := assign(forgotten, "H:2")
		b.before(ours)
		b.before(assign(other, "H:3")) // else that would be the one
		_, bg3 := b.background("c", "H:4")
		for id, kept := range map[string]bool{fg.Unique: true, bg1.ID: false, bg2.ID: true, bg3.ID: true} {
			if _, err := b.Job(t.Context(), everyone, id, 0); (err == nil) != kept {
				t.Errorf("job %s: %v, want it kept: %v", id, err, kept)
			}
		}
		// What is told of the forgotten one does no harm.
		forgotten.tell(gearman.Update{Kind: gearman.Created, Job: at("H:2")})
		forgotten.tell(gearman.Update{Kind: gearman.Lost, Err: errNotSent})
		b.Observe(ours, event.JobData, &event.Data{Chunk: []byte("x")})
		b.Observe(ours, event.JobWarning, &event.Data{Chunk: []byte("x")})
		b.Observe(ours, event.JobProgress, &event.Data{Progress: &event.Progress{Numerator: 1, Denominator: 2}})
		b.after(ours, "result")
		if len(b.byID) != 3 || len(b.runs) != 1 || b.bytes != 0 {
			t.Errorf("%d records, %d runs, %d bytes", len(b.byID), len(b.runs), b.bytes)
		}
		fg.completed("sync")
		if r := o.must(t); string(r.Result) != "sync" {
			t.Errorf("got %+v", r)
		}
	})
}

// However many jobs are held: who submits a job in the background is to be told its handle.
func TestAJobIsNotForgottenWhileItIsSubmitted(t *testing.T) {
	bubble(t, Options{MaxRecords: 1}, func(t *testing.T, b *lab) {
		b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, RunAt: time.Now().Add(time.Hour)})
		}).must(t)
		first, one := b.begin(t.Context(), Task{Function: "f"})
		second, other := b.begin(t.Context(), Task{Function: "f"})
		first.created(at("H:1"))
		second.created(at("H:2"))
		if one, other := one.must(t).Handle, other.must(t).Handle; one != "H:1" || other != "H:2" {
			t.Errorf("answered %q and %q", one, other)
		}
		b.background("", "H:3")
		if len(b.byID) != 2 {
			t.Errorf("%d records, want the one that is held and the last", len(b.byID))
		}
	})
}

func TestAForgottenJobsHandleLeadsToTheJobServers(t *testing.T) {
	bubble(t, Options{MaxRecords: 1}, func(t *testing.T, b *lab) {
		b.background("a", "H:1")
		b.background("b", "H:2")
		b.servers.find = func(h string) (gearman.Job, gearman.JobStatus, bool, error) {
			return at(h), gearman.JobStatus{Known: true}, true, nil
		}
		if got := b.now("H:1"); got.ID != "" || got.State != Queued {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAWaitingCallerGetsTheResultOfAForgottenJob(t *testing.T) {
	bubble(t, Options{MaxRecords: 1}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		s.completed("result") // the caller has not run yet when the job is pushed out
		b.mu.Lock()
		b.forgetOldest()
		b.mu.Unlock()
		if r := o.must(t); string(r.Result) != "result" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestTheOldestResultsMakeRoom(t *testing.T) {
	bubble(t, Options{MaxBytes: 100}, func(t *testing.T, b *lab) {
		var ids []string
		for i := range 5 {
			ids = append(ids, b.finish(fmt.Sprint("H:", i), strings.Repeat("x", 30)))
		}
		for i, id := range ids {
			if r := b.now(id); r.State != Completed || r.Kept != (i >= 2) || len(r.Result) > 0 != r.Kept {
				t.Errorf("result %d of 5: %+v", i, r)
			}
		}
		if b.bytes != 90 {
			t.Errorf("%d bytes", b.bytes)
		}
	})
}

func TestAResultThatIsWaitedForIsNotDropped(t *testing.T) {
	bubble(t, Options{MaxBytes: 100}, func(t *testing.T, b *lab) {
		waited := b.finish("H:1", strings.Repeat("w", 60))
		j := b.find(everyone, waited) // as a caller does that has not got its answer yet
		other := b.finish("H:2", strings.Repeat("o", 60))
		if r := b.now(other); r.Kept || r.State != Completed {
			t.Errorf("there was no room for %+v", r)
		}
		if r := b.now(waited); !r.Kept {
			t.Error("the result that was waited for was dropped")
		}
		b.release(j)
		third := b.finish("H:3", strings.Repeat("t", 60))
		if r := b.now(third); !r.Kept {
			t.Errorf("the caller is gone, and there is room for %+v", r)
		}
	})
}

func TestAResultThatIsTooLargeIsLeftOut(t *testing.T) {
	for name, tell := range map[string]func(*submission){
		"at once":       func(s *submission) { s.completed(strings.Repeat("x", 101)) },
		"by and by":     func(s *submission) { s.data(strings.Repeat("x", 99)); s.data("xx"); s.data("x"); s.completed("x") },
		"with its last": func(s *submission) { s.data(strings.Repeat("x", 99)); s.completed("xx") },
		"with a warning": func(s *submission) {
			s.tell(gearman.Update{Kind: gearman.Warning, Payload: make([]byte, 50)})
			s.completed(strings.Repeat("x", 51))
		},
		"a huge last part": func(s *submission) { s.data("x"); s.completed(strings.Repeat("x", 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{MaxBytes: 100}, func(t *testing.T, b *lab) {
				s, o := b.sync("H:1")
				tell(s)
				if r := o.must(t); r.State != Completed || r.Kept || r.Result != nil {
					t.Errorf("got %+v", r)
				}
				b.check()
			})
		})
	}
}

func TestAResultThatFitsNowhereCostsNoOtherItsPlace(t *testing.T) {
	bubble(t, Options{MaxBytes: 100}, func(t *testing.T, b *lab) {
		small := b.finish("H:1", "small")
		b.finish("H:2", strings.Repeat("x", 101))
		if r := b.now(small); !r.Kept {
			t.Error("a result was dropped for one that is too large all the same")
		}
	})
}

func TestAFailedJobKeepsNoPartOfAResult(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		s.data("part")
		s.tell(gearman.Update{Kind: gearman.Warning, Payload: []byte("w")})
		s.tell(gearman.Update{Kind: gearman.Failed})
		if r := o.must(t); r.Result != nil || r.Kept || len(r.Warnings) != 1 || b.bytes != 1 {
			t.Errorf("%d bytes: %+v", b.bytes, r)
		}
	})
}

func TestWarningsAreKeptUpToABound(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		for range maxWarnings + 50 {
			s.tell(gearman.Update{Kind: gearman.Warning, Payload: []byte("w")})
		}
		s.completed("")
		if r := o.must(t); len(r.Warnings) != maxWarnings || !r.Kept {
			t.Errorf("%d warnings, kept %v", len(r.Warnings), r.Kept)
		}
	})
}

func TestAResultExpires(t *testing.T) {
	bubble(t, Options{ResultTTL: time.Hour}, func(t *testing.T, b *lab) {
		id := b.finish("H:1", "result")
		<-time.After(time.Hour) // the bubble's time
		if r := b.now(id); string(r.Result) != "result" {
			t.Errorf("within its time: %+v", r)
		}
		<-time.After(time.Second)
		if r := b.now(id); r.State != Completed || r.Kept || r.Result != nil {
			t.Errorf("after its time: %+v", r)
		}
		b.finish("H:2", "another") // the next end sweeps
		if b.bytes != int64(len("another")) {
			t.Errorf("%d bytes are kept", b.bytes)
		}
	})
}

// A worker that sends a large result in small parts must not cost time by its square: 200,000 chunks would be 300 GB of copies.
func TestManySmallChunksTakeLinearTime(t *testing.T) {
	b := newLab(t, Options{Store: nil})
	b.o.Store = newMemory(nil)
	const chunks, size = 200_000, 16
	go b.Submit(t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Minute})
	s := <-b.servers.submits
	s.created(at("H:1"))
	chunk := bytes.Repeat([]byte("x"), size)
	begin := time.Now()
	for range chunks {
		s.tell(gearman.Update{Kind: gearman.Data, Payload: chunk})
	}
	s.completed("")
	took := time.Since(begin)
	r := b.now("H:1")
	if len(r.Result) != chunks*size {
		t.Errorf("%d bytes", len(r.Result))
	}
	if took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

// A foreign worker's end of a background job is told by nobody, so a unique that is used again and again has many live records.
func TestManyRecordsOfOneUniqueTakeLinearTime(t *testing.T) {
	const records = 20_000
	b := newLab(t, Options{MaxRecords: records})
	b.o.Store = newMemory(nil)
	b.o.Servers = &counting{}
	cost := func(unique string) time.Duration {
		begin := time.Now()
		for range 2 * records {
			if _, err := b.Submit(t.Context(), Task{Function: "f", Unique: unique}); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(begin)
	}
	if own, same := cost(""), cost("nightly"); same > 10*own+time.Second {
		t.Errorf("%d submits of one unique took %v, and of uniques of their own %v", 2*records, same, own)
	}
}

// counting is a JobServers that takes every task for a new job.
type counting struct {
	JobServers
	n int
}

func (c *counting) Submit(_ context.Context, _ gearman.Task, w gearman.Watch) (gearman.Job, error) {
	c.n++
	j := at(fmt.Sprint("H:", c.n))
	w(gearman.Update{Kind: gearman.Created, Job: j})
	return j, nil
}
