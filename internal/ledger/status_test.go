package ledger

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
)

func TestALiveJobIsAskedFor(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		_, r := b.background("u", "H:1")
		b.servers.say(gearman.JobStatus{Known: true})
		want := r
		want.Gearman = &gearman.JobStatus{Known: true}
		if diff := cmp.Diff(want, b.now(r.ID)); diff != "" {
			t.Errorf("queued: %s", diff)
		}
		if diff := cmp.Diff([]gearman.Job{at("H:1")}, b.servers.asked); diff != "" {
			t.Error(diff)
		}
		running := gearman.JobStatus{Known: true, Running: true, Numerator: 1, Denominator: 4}
		b.servers.say(running)
		want.State, want.StartedAt, want.Gearman, want.EventSeq = Running, time.Now(), &running, 2
		want.Progress = &event.Progress{Numerator: 1, Denominator: 4}
		if diff := cmp.Diff(want, b.now("H:1")); diff != "" {
			t.Errorf("running: %s", diff)
		}
		b.servers.say(gearman.JobStatus{Known: true}) // its worker died, and it is back in the queue
		if got := b.now(r.ID); got.State != Running {
			t.Errorf("states only move forward, got %s", got.State)
		}
		if diff := cmp.Diff([]event.Type{event.JobSubmitted, event.JobStarted}, b.store.types(t, r.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOnlyABackgroundJobBecomesUnknown(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		_, bg := b.background("u", "H:1")
		s, o := b.sync("H:2")
		b.servers.say(gearman.JobStatus{})
		got := b.now(bg.ID)
		if got.State != Unknown || got.EndedAt.IsZero() || got.Gearman != nil || got.Error != nil || got.Kept {
			t.Errorf("background: %+v", got)
		}
		if diff := cmp.Diff(got, b.now("H:1")); diff != "" {
			t.Errorf("an end is an end: %s", diff)
		}
		if got := b.now("H:2"); got.State != Queued { // its packets are on their way
			t.Errorf("sync: %+v", got)
		}
		s.completed("result")
		if r := o.must(t); string(r.Result) != "result" {
			t.Errorf("sync, in the end: %+v", r)
		}
	})
}

func TestAJobServerThatCannotBeAskedIsNoError(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		_, r := b.background("u", "H:1")
		if diff := cmp.Diff(r, b.now(r.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAWaitEndsWithTheJob(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		s, o := b.sync("H:1")
		begin := time.Now()
		waiting := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, "H:1", time.Hour) })
		<-time.After(10*time.Second + time.Millisecond) // the bubble's time
		s.completed("result")
		if r := waiting.must(t); string(r.Result) != "result" || time.Since(begin) != 10*time.Second+time.Millisecond {
			t.Errorf("after %v: %+v", time.Since(begin), r)
		}
		o.must(t)
	})
}

func TestAWaitEndsWhenItLapses(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		_, r := b.background("u", "H:1")
		b.servers.say(gearman.JobStatus{Known: true})
		begin := time.Now()
		got, err := b.Job(t.Context(), everyone, r.ID, 5500*time.Millisecond)
		if err != nil || got.State != Queued || time.Since(begin) != 5500*time.Millisecond {
			t.Errorf("after %v: %+v, %v", time.Since(begin), got, err)
		}
		if n := b.servers.timesAsked(); n != 7 {
			t.Errorf("the job server was asked %d times, want once a second and at both ends", n)
		}
	})
}

func TestAWaitEndsWithItsCaller(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		b.background("u", "H:1")
		ctx, leave := context.WithCancel(t.Context())
		waiting := b.call(func() (Record, error) { return b.Job(ctx, everyone, "H:1", time.Hour) })
		begin := time.Now()
		leave()
		if _, err := waiting.get(); !errors.Is(err, context.Canceled) || time.Since(begin) != 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

// The end of a background job that a foreign worker runs is told by nobody: it must be asked for.
func TestAWaitFindsThatAJobIsUnknown(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		b.background("u", "H:1")
		b.servers.say(gearman.JobStatus{Known: true, Running: true})
		waiting := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, "H:1", time.Hour) })
		<-time.After(2500 * time.Millisecond) // the bubble's time
		b.servers.say(gearman.JobStatus{})
		begin := time.Now()
		if r := waiting.must(t); r.State != Unknown || time.Since(begin) > askInterval {
			t.Errorf("after %v: %+v", time.Since(begin), r)
		}
	})
}

func TestAJobServerThatHangsHoldsUpAnAnswerForStatusTimeout(t *testing.T) {
	bubble(t, Options{StatusTimeout: 3 * time.Second}, func(t *testing.T, b *lab) {
		_, r := b.background("u", "H:1")
		b.o.Servers = hangs{b.servers}
		begin := time.Now()
		if got := b.now(r.ID); got.State != Queued || time.Since(begin) != 3*time.Second {
			t.Errorf("after %v: %+v", time.Since(begin), got)
		}
		begin = time.Now()
		if _, err := b.Job(t.Context(), everyone, "H:9", 0); !errors.Is(err, gearman.ErrUnavailable) || time.Since(begin) != 3*time.Second {
			t.Errorf("a stranger's job, after %v: %v", time.Since(begin), err)
		}
	})
}

// hangs are job servers that do not answer.
type hangs struct{ JobServers }

func (hangs) Status(ctx context.Context, _ gearman.Job, _ string) (gearman.JobStatus, error) {
	<-ctx.Done()
	return gearman.JobStatus{}, ctx.Err()
}

func (hangs) Find(ctx context.Context, _ string) (gearman.Job, gearman.JobStatus, bool, error) {
	<-ctx.Done()
	return gearman.Job{}, gearman.JobStatus{}, false, ctx.Err()
}

func TestAStrangersJob(t *testing.T) {
	found := func(s gearman.JobStatus) func(string) (gearman.Job, gearman.JobStatus, bool, error) {
		return func(h string) (gearman.Job, gearman.JobStatus, bool, error) {
			return gearman.Job{Server: g2, Handle: h, Generation: 3}, s, true, nil
		}
	}
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		queued := gearman.JobStatus{Known: true}
		b.servers.find = found(queued)
		want := Record{Handle: "H:5", Server: g2, State: Queued, Gearman: &queued}
		if diff := cmp.Diff(want, b.now("H:5")); diff != "" {
			t.Errorf("queued: %s", diff)
		}
		running := gearman.JobStatus{Known: true, Running: true, Numerator: 1, Denominator: 2}
		b.servers.find = found(running)
		want.State, want.Gearman, want.Progress = Running, &running, &event.Progress{Numerator: 1, Denominator: 2}
		if diff := cmp.Diff(want, b.now("H:5")); diff != "" {
			t.Errorf("running: %s", diff)
		}

		waiting := b.call(func() (Record, error) { return b.Job(t.Context(), everyone, "H:5", time.Minute) })
		b.servers.mu.Lock()
		b.servers.find = nil
		b.servers.mu.Unlock()
		want.State, want.Gearman = Unknown, &gearman.JobStatus{}
		if diff := cmp.Diff(want, waiting.must(t)); diff != "" {
			t.Errorf("gone while it was waited for: %s", diff)
		}
		if _, err := b.Job(t.Context(), everyone, "H:5", time.Minute); !errors.Is(err, ErrNotFound) {
			t.Errorf("gone: %v", err)
		}
		b.servers.find = func(string) (gearman.Job, gearman.JobStatus, bool, error) {
			return gearman.Job{}, gearman.JobStatus{}, false, errors.New("refused")
		}
		if _, err := b.Job(t.Context(), everyone, "H:5", 0); !errors.Is(err, gearman.ErrUnavailable) || errors.Is(err, ErrNotFound) {
			t.Errorf("not to be asked: %v", err)
		}
		if len(b.byID)+len(b.byHandle) != 0 {
			t.Error("a record was made of a stranger's job")
		}
	})
}

func TestWhatCanBeNoHandleIsNotAskedFor(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, b *lab) {
		for _, ref := range []string{
			"", "nonsense", "0193a5b0-0000-7000-8000-000000000000", "H:\x00", "H: 1", "H:\n", "H:" + string(make([]byte, 70)),
		} {
			if _, err := b.Job(t.Context(), everyone, ref, time.Minute); !errors.Is(err, ErrNotFound) {
				t.Errorf("%q: %v", ref, err)
			}
		}
		if len(b.servers.finds) != 0 {
			t.Errorf("asked for %q", b.servers.finds)
		}
		synctest.Wait()
	})
}
