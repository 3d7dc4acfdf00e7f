package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

func TestOurPoolMayFinishAJobBeforeItsHandleIsRead(t *testing.T) {
	for _, mode := range []Mode{Background, Sync} {
		bubble(t, Options{}, func(t *testing.T, b *lab) {
			s, o := b.begin(t.Context(), Task{Function: "f", Mode: mode, Wait: time.Minute})
			a := assign(s, "H:1")
			b.before(a)
			b.after(a, "result")
			s.created(at("H:1"))
			if mode == Sync {
				s.completed("result")
			}
			r := o.must(t)
			if r.State != Completed || string(r.Result) != "result" || r.Handle != "H:1" {
				t.Errorf("%s: %+v", mode, r)
			}
			want := []event.Type{
				event.JobSubmitted, event.JobStarted, event.FunctionBeforeExecute, event.FunctionAfterExecute, event.JobCompleted,
			}
			if diff := cmp.Diff(want, b.store.types(t, r.ID)); diff != "" {
				t.Errorf("%s: %s", mode, diff)
			}
		})
	}
}

func TestWhatOurPoolTellsIsNotDoubledByThePackets(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.Observe(a, event.JobProgress, &event.Data{Progress: &event.Progress{Numerator: 1, Denominator: 2}})
		s.tell(gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2})
		b.Observe(a, event.JobData, &event.Data{Chunk: []byte("a")})
		b.Observe(a, event.JobWarning, &event.Data{Chunk: []byte("w")})
		s.data("a")
		b.Observe(a, event.JobData, &event.Data{Chunk: []byte("b")})
		s.tell(gearman.Update{Kind: gearman.Warning, Payload: []byte("w")})
		b.after(a, "c")
		s.data("b")
		s.completed("c")
		r := o.must(t)
		if string(r.Result) != "abc" || len(r.Warnings) != 1 {
			t.Errorf("result %q, warnings %q", r.Result, r.Warnings)
		}
		want := []event.Type{
			event.JobSubmitted, event.JobStarted, event.FunctionBeforeExecute, event.JobProgress, event.JobData, event.JobWarning,
			event.JobData, event.FunctionAfterExecute, event.JobCompleted,
		}
		if diff := cmp.Diff(want, b.store.types(t, r.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAFailureOfOurPoolKeepsItsKindWhateverThePacketSays(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.failed(a, "panic", "panic: boom")
		s.tell(gearman.Update{Kind: gearman.Exception, Payload: []byte("panic: boom")})
		r := o.must(t)
		if r.State != Failed || !cmp.Equal(r.Error, &event.Error{Kind: "panic", Message: "panic: boom"}) {
			t.Errorf("got %+v", r)
		}
		types := b.store.types(t, r.ID)
		if diff := cmp.Diff([]event.Type{event.FunctionOnFailure, event.JobFailed}, types[3:]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEveryFunctionEventNamesItsWorker(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, _ := b.background("u", "H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.handedBack(a)
		again := assign(s, "H:1")
		b.before(again)
		b.after(again, "")
		for _, e := range b.store.events {
			switch e.Type {
			case event.FunctionBeforeExecute, event.FunctionAfterExecute, event.FunctionOnFailure:
				if e.Data.Worker != "w" {
					t.Errorf("%s names the worker %q", e.Type, e.Data.Worker)
				}
			}
		}
	})
}

// The worker's connection is another than the client's: our pool runs the job on when the latter is lost.
func TestAJobThatOurPoolRunsIsNotLostWithTheConnection(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		s.lost(errCut)
		if o.returned() {
			t.Fatal("the caller was told of an end")
		}
		b.after(a, "result")
		if r := o.must(t); r.State != Completed || string(r.Result) != "result" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestAHandedBackJobIsRunByAnother(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.handedBack(a)
		if o.returned() {
			t.Fatal("to be handed back is no end")
		}
		s.completed("by another")
		r := o.must(t)
		if r.State != Completed || string(r.Result) != "by another" {
			t.Errorf("got %+v", r)
		}
		events := b.store.of(t, r.ID)
		if e := events[3]; e.Type != event.FunctionOnFailure || e.Data.Reason != event.HandedBack {
			t.Errorf("told %s %+v", e.Type, e.Data)
		}
	})
}

// Whoever waits must be told: after the connection was lost nobody else will speak of the job.
func TestAJobHandedBackAfterItsConnectionWasLostIsLost(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		s.lost(errCut)
		b.handedBack(a)
		if r := o.must(t); r.State != Lost {
			t.Errorf("the job that nobody will tell of any more is %s, want lost", r.State)
		}
	})
}

// When the worker's connection is lost, the job server gives the job to another while ours runs on.
func TestAnEndByAnotherWorkerCountsWhenOursHandsTheJobBack(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		s.completed("by another")
		b.handedBack(a)
		if r := o.must(t); r.State != Completed || string(r.Result) != "by another" {
			t.Errorf("got %+v", r)
		}
	})
}

// Our pool lost its connection, got the job again over the next, and the first run ends by being handed back.
func TestAnEarlierRunsHandBackDoesNotDoubleTheLaterOnesData(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		first, second := assign(s, "H:1"), assign(s, "H:1")
		b.before(first)
		b.before(second)
		b.handedBack(first)
		b.Observe(second, event.JobData, &event.Data{Chunk: []byte("a")})
		s.data("a")
		b.after(second, "b")
		if r := o.must(t); string(r.Result) != "ab" {
			t.Errorf("result %q", r.Result)
		}
	})
}

// A handler may leave a goroutine behind that speaks when its job is over.
func TestWhatARunTellsAfterItsEndDoesNoHarm(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.after(a, "result")
		r := o.must(t)
		told := len(b.store.events)
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("panic: %v", v)
			}
		}()
		for _, typ := range []event.Type{event.JobData, event.JobWarning} {
			b.Observe(a, typ, &event.Data{Chunk: []byte("late")})
		}
		b.Observe(a, event.JobProgress, &event.Data{Progress: &event.Progress{Numerator: 1, Denominator: 1}})
		if diff := cmp.Diff(r, b.now(r.ID)); diff != "" || len(b.store.events) != told {
			t.Errorf("%d more events, %s", len(b.store.events)-told, diff)
		}
	})
}

func TestAForeignClientsJobHasFunctionEventsAndNoRecord(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		a := &gearman.Assignment{Server: g1, Handle: "H:7", Function: "f", Unique: "theirs"}
		b.before(a)
		b.Observe(a, event.JobProgress, &event.Data{Progress: &event.Progress{Numerator: 1, Denominator: 2}})
		b.Observe(a, event.JobData, &event.Data{Chunk: []byte("x")})
		b.Observe(a, event.JobWarning, &event.Data{Chunk: []byte("x")})
		b.after(a, "result")
		want := []event.Type{event.FunctionBeforeExecute, event.FunctionAfterExecute}
		if diff := cmp.Diff(want, b.store.types(t, "H:7")); diff != "" || len(b.store.events) != 2 {
			t.Errorf("%d events, %s", len(b.store.events), diff)
		}
		for _, e := range b.store.events {
			if e.Data.ID != "" || e.Data.Handle != "H:7" || e.Data.Server != g1 || e.Data.Function != "f" || e.Data.Result != nil {
				t.Errorf("%s says %+v", e.Type, e.Data)
			}
		}
		for _, r := range b.store.changes {
			if r.ID != "" {
				t.Errorf("a record was made: %+v", r)
			}
		}
		if len(b.byID)+len(b.byHandle)+len(b.runs) != 0 {
			t.Error("something was kept of it")
		}
	})
}

// Perl's job server does not tell the unique: the handle must do.
func TestAJobWithoutItsUniqueIsFoundByItsHandle(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		_, r := b.background("", "H:1")
		for _, stranger := range []*gearman.Assignment{
			{Server: g2, Handle: "H:1", Function: "f"}, {Server: g1, Handle: "H:1", Function: "g"},
		} {
			b.before(stranger)
			b.after(stranger, "no")
		}
		if got := b.now(r.ID); got.State != Queued {
			t.Fatalf("a stranger's job was taken for ours: %+v", got)
		}
		a := &gearman.Assignment{Server: g1, Handle: "H:1", Function: "f"}
		b.before(a)
		b.after(a, "yes")
		if got := b.now(r.ID); string(got.Result) != "yes" {
			t.Errorf("got %+v", got)
		}
	})
}

// The job server restarts and forgets the job, but our pool is at it and will tell its end.
func TestAJobThatOurPoolRunsIsNotUnknown(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, r := b.background("u", "H:1")
		a := assign(s, "H:1")
		b.before(a)
		b.servers.say(gearman.JobStatus{})
		if got := b.now(r.ID); got.State != Running {
			t.Errorf("while our pool runs it the job is %s", got.State)
		}
		b.after(a, "result")
		if got := b.now(r.ID); got.State != Completed || string(got.Result) != "result" {
			t.Errorf("and in the end %s with %q", got.State, got.Result)
		}
	})
}

// A handle that our pool told and JOB_CREATED corrects must not stay in the index.
func TestACorrectedHandleLeavesNoTrace(t *testing.T) {
	bubble(t, Options{MaxRecords: 1}, func(t *testing.T, b *lab) {
		s, o := b.begin(t.Context(), Task{Function: "f", Unique: "u"})
		a := assign(s, "H:1") // an earlier job of that unique
		b.before(a)
		b.after(a, "earlier")
		s.created(at("H:2"))
		o.must(t)
		b.background("v", "H:3")
		synctest.Wait()
		if len(b.byHandle) != 1 {
			t.Errorf("%d handles for one record", len(b.byHandle))
		}
	})
}

func TestARunKnowsItsJob(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		deadline := time.Now().Add(time.Hour)
		r := b.enter(Task{Mode: Tracked, Traceparent: trace, Deadline: deadline, Retry: Retry{Max: 1}})
		for attempt := 1; attempt <= 2; attempt++ {
			s, _ := b.within(time.Minute)
			a := assign(s, "H:1")
			b.before(a)
			want := event.Facts{ID: r.ID, Attempt: attempt, Deadline: deadline, Traceparent: trace}
			if got := b.Begin(a); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			b.failed(a, "exception", "no luck")
		}
		stranger := &gearman.Assignment{Server: g1, Handle: "H:9", Function: "f", Unique: "theirs"}
		b.before(stranger)
		if got := b.Begin(stranger); got != (event.Facts{}) {
			t.Errorf("of a foreign client's job: %+v", got)
		}
		b.after(stranger, "")
	})
}
