package ledger

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

func TestABackgroundJobIsAnsweredWhenItHasAHandle(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.begin(t.Context(), Task{Function: "f", Workload: []byte("w"), Priority: gearman.High})
		if o.returned() {
			t.Fatal("answered before the job server did")
		}
		s.created(at("H:1"))
		r := o.must(t)
		if id, err := uuid.Parse(r.ID); err != nil || id.Version() != 7 {
			t.Errorf("id %q is no UUIDv7", r.ID)
		}
		want := Record{
			ID: r.ID, Handle: "H:1", Server: g1, Function: "f", Mode: Background, Priority: gearman.High, State: Queued,
			SubmittedAt: time.Now(), EventSeq: 1,
		}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Error(diff)
		}
		sent := gearman.Task{Function: "f", Unique: r.ID, Workload: []byte("w"), Priority: gearman.High, Background: true}
		if diff := cmp.Diff(sent, s.Task); diff != "" {
			t.Errorf("on the wire: %s", diff)
		}
		if got := b.store.types(t, r.ID); !cmp.Equal(got, []event.Type{event.JobSubmitted}) {
			t.Errorf("events %v", got)
		}
	})
}

func TestOnTheWireABackgroundJobHasItsCallersUniqueAndASyncJobItsId(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		bg, _ := b.begin(t.Context(), Task{Function: "f", Unique: "u"})
		if bg.Unique != "u" || !bg.Background {
			t.Errorf("background: %+v", bg.Task)
		}
		bg.created(at("H:1"))
		fg, o := b.begin(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
		fg.created(at("H:2"))
		fg.completed("")
		if r := o.must(t); fg.Unique != r.ID || fg.Background || r.Unique != "u" {
			t.Errorf("sync: %+v of %+v", fg.Task, r)
		}
	})
}

// The life of a sync job on another's worker, and what the store hears of it.
func TestASyncJobFromSubmitToResult(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		s.tell(gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2})
		s.tell(gearman.Update{Kind: gearman.Warning, Payload: []byte("careful")})
		s.data("hello, ")
		if o.returned() {
			t.Fatal("answered before the end")
		}
		s.completed("world")
		r := o.must(t)
		want := Record{
			ID: r.ID, Handle: "H:1", Server: g1, Function: "f", Mode: Sync, State: Completed,
			Progress: &event.Progress{Numerator: 1, Denominator: 2}, Result: []byte("hello, world"), Kept: true,
			Warnings:    [][]byte{[]byte("careful")},
			SubmittedAt: time.Now(), StartedAt: time.Now(), EndedAt: time.Now(), EventSeq: 6,
		}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, b.now(r.ID)); diff != "" {
			t.Errorf("asked for later: %s", diff)
		}
		events := b.store.of(t, r.ID)
		types := []event.Type{
			event.JobSubmitted, event.JobStarted, event.JobProgress, event.JobWarning, event.JobData, event.JobCompleted,
		}
		if diff := cmp.Diff(types, b.store.types(t, r.ID)); diff != "" {
			t.Fatal(diff)
		}
		last := event.Data{
			ID: r.ID, Handle: "H:1", Server: g1, Function: "f", Mode: "sync", Priority: "normal", State: "completed",
			Result: []byte("hello, world"),
		}
		if diff := cmp.Diff(last, events[5].Data); diff != "" {
			t.Error(diff)
		}
		if got := string(events[4].Data.Chunk); got != "hello, " {
			t.Errorf("job.data has the chunk %q", got)
		}
		if n := b.servers.timesAsked(); n != 0 {
			t.Errorf("a job server was asked %d times for an ended job", n)
		}
	})
}

func TestEachEndOfASyncJobIsItsState(t *testing.T) {
	for name, test := range map[string]struct {
		update gearman.Update
		state  State
		err    *event.Error
		event  event.Type
	}{
		"complete, empty": {gearman.Update{Kind: gearman.Completed}, Completed, nil, event.JobCompleted},
		"fail": {
			gearman.Update{Kind: gearman.Failed},
			Failed,
			&event.Error{Kind: "failed", Message: "the worker reported a failure"}, event.JobFailed,
		},
		"exception, not UTF-8": {
			gearman.Update{Kind: gearman.Exception, Payload: []byte("b\xffd")},
			Failed,
			&event.Error{Kind: "exception", Message: "b\uFFFDd"}, event.JobFailed,
		},
		"connection lost": {
			gearman.Update{Kind: gearman.Lost, Err: errCut},
			Lost,
			&event.Error{
				Kind:    "lost",
				Message: "the connection to the job server was lost while the job was there; it may have run or not",
			}, event.JobLost,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, b *lab) {
				s, o := b.sync("H:1")
				s.tell(test.update)
				r := o.must(t)
				if r.State != test.state || !cmp.Equal(r.Error, test.err) || r.EndedAt.IsZero() {
					t.Errorf("got %+v", r)
				}
				if r.State == Completed && (!r.Kept || r.Result == nil) {
					t.Errorf("an empty result is a result: %+v", r)
				}
				types := b.store.types(t, r.ID)
				if types[len(types)-1] != test.event {
					t.Errorf("events %v, want %s last", types, test.event)
				}
			})
		})
	}
}

func TestStatesOnlyMoveForward(t *testing.T) {
	after := map[string]gearman.Update{
		"a second result":     {Kind: gearman.Completed, Payload: []byte("second")},
		"a failure":           {Kind: gearman.Failed},
		"data":                {Kind: gearman.Data, Payload: []byte("more")},
		"progress":            {Kind: gearman.Status, Numerator: 1, Denominator: 9},
		"a warning":           {Kind: gearman.Warning, Payload: []byte("late")},
		"the connection lost": {Kind: gearman.Lost, Err: errCut},
	}
	for first, end := range map[string]gearman.Update{
		"completed": {Kind: gearman.Completed, Payload: []byte("first")},
		"failed":    {Kind: gearman.Failed},
		"lost":      {Kind: gearman.Lost, Err: errCut},
	} {
		for name, late := range after {
			t.Run(first+", then "+name, func(t *testing.T) {
				bubble(t, Options{}, func(t *testing.T, b *lab) {
					s, o := b.sync("H:1")
					s.tell(end)
					r := o.must(t)
					told := len(b.store.of(t, r.ID))
					s.tell(late)
					if diff := cmp.Diff(r, b.now(r.ID)); diff != "" {
						t.Error(diff)
					}
					if n := len(b.store.of(t, r.ID)); n != told {
						t.Errorf("%d more events", n-told)
					}
				})
			})
		}
	}
}

func TestABackgroundJobOutlivesItsConnection(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.begin(t.Context(), Task{Function: "f"})
		s.cut()
		r, err := o.get()
		if !errors.Is(err, gearman.ErrOutcomeUnknown) || r.ID == "" {
			t.Fatalf("got %+v, %v", r, err)
		}
		b.servers.say(gearman.JobStatus{Known: true})
		if got := b.now(r.ID); got.State != Queued || got.Server != g1 || got.Gearman == nil {
			t.Errorf("asked for later: %+v", got)
		}
		if got := b.servers.asked[0]; got != (gearman.Job{Server: g1, Generation: 1}) {
			t.Errorf("asked for %+v, want the unique on its server", got)
		}
	})
}

func TestASubmitWithoutAnAnswerHasAnIdToAskForLater(t *testing.T) {
	bubble(t, Options{SubmitTimeout: 3 * time.Second}, func(t *testing.T, b *lab) {
		begin := time.Now()
		s, o := b.begin(t.Context(), Task{Function: "f", Mode: Sync, Wait: time.Minute})
		r, err := o.get()
		if !errors.Is(err, gearman.ErrOutcomeUnknown) || r.ID == "" || time.Since(begin) != 3*time.Second {
			t.Fatalf("got %+v, %v after %v", r, err, time.Since(begin))
		}
		s.created(at("H:1"))
		s.completed("late")
		if got := b.now(r.ID); string(got.Result) != "late" || got.Handle != "H:1" {
			t.Errorf("asked for later: %+v", got)
		}
	})
}

// A submit whose caller is gone may still be refused: then nothing has the job.
func TestASubmitRefusedAfterItsCallerLeftIsLost(t *testing.T) {
	for _, mode := range []Mode{Background, Sync} {
		for _, why := range []error{errNotSent, &gearman.ServerError{Code: "QUEUE_ERROR", Text: "Job queue is full"}} {
			bubble(t, Options{}, func(t *testing.T, b *lab) {
				ctx, leave := context.WithCancel(t.Context())
				s, o := b.begin(ctx, Task{Function: "f", Mode: mode, Wait: time.Minute})
				leave()
				if _, err := o.get(); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: error %v", mode, err)
				}
				s.lost(why)
				if got := b.now(s.Unique); got.State != Lost || !strings.Contains(got.Error.Message, "no job server took") {
					t.Errorf("%s refused with %v: %+v", mode, why, got)
				}
			})
		}
	}
}

func TestATaskThatNoJobServerTookLeavesNoRecord(t *testing.T) {
	for _, why := range []error{
		errNotSent, &gearman.ServerError{Code: "QUEUE_ERROR", Text: "x"}, &gearman.NameError{Field: "function", Reason: "is empty"},
	} {
		bubble(t, Options{}, func(t *testing.T, b *lab) {
			s, first := b.begin(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
			joined := b.call(func() (Record, error) {
				return b.Submit(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
			})
			s.refused(why)
			for name, o := range map[string]*outcome{"the first": first, "who joined": joined} {
				if r, err := o.get(); !errors.Is(err, why) || r.ID != "" {
					t.Errorf("%s got job %q and %v, want none and %v", name, r.ID, err, why)
				}
			}
			if _, err := b.Job(t.Context(), everyone, s.Unique, 0); !errors.Is(err, ErrNotFound) {
				t.Errorf("the record: %v", err)
			}
			if n := len(b.store.events); n != 0 {
				t.Errorf("%d events told of a job that never was", n)
			}
			again, o := b.begin(t.Context(), Task{Function: "f", Unique: "u", Mode: Sync, Wait: time.Minute})
			again.created(at("H:1"))
			again.completed("")
			o.must(t)
		})
	}
}

func TestACallerThatGoesAwayCostsTheJobNothing(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		ctx, leave := context.WithCancelCause(t.Context())
		s, o := b.begin(ctx, Task{Function: "f", Mode: Sync, Wait: time.Minute})
		s.created(at("H:1"))
		synctest.Wait()
		begin := time.Now()
		gone := errors.New("client closed the connection")
		leave(gone)
		if _, err := o.get(); !errors.Is(err, gone) || time.Since(begin) != 0 {
			t.Errorf("returned %v after %v", err, time.Since(begin))
		}
		s.completed("result")
		if got := b.now("H:1"); string(got.Result) != "result" {
			t.Errorf("the job: %+v", got)
		}
	})
}

func TestASyncWaitThatLapsesReturnsTheLiveJob(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		begin := time.Now()
		s, o := b.sync("H:1")
		r := o.must(t)
		if r.State != Queued || time.Since(begin) != time.Minute {
			t.Errorf("after %v: %+v", time.Since(begin), r)
		}
		s.completed("late")
		if got := b.now(r.ID); string(got.Result) != "late" {
			t.Errorf("its result: %+v", got)
		}
	})
}

// Payloads of a record are shared with snapshots: what comes later must not change what a caller has.
func TestASnapshotDoesNotChange(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		var snapshots []Record
		var want []string
		for i := range 50 {
			s.data(string(rune('a' + i%26)))
			snapshots = append(snapshots, b.now("H:1"))
			want = append(want, string(snapshots[i].Result))
		}
		s.completed("end")
		o.must(t)
		for i, r := range snapshots {
			if got := string(r.Result); got != want[i] || len(got) != i+1 {
				t.Errorf("snapshot %d is %q now, was %q", i, got, want[i])
			}
		}
	})
}
