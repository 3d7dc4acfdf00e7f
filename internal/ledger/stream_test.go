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

// following is a call of Follow that goes on.
type following struct {
	entries []Entry
	done    chan struct{}
	err     error
}

func follow(ctx context.Context, l plain, ref string, after uint64) *following {
	f := &following{done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.err = l.Follow(ctx, everyone, ref, after, func(e Entry) error { f.entries = append(f.entries, e); return nil })
	}()
	synctest.Wait()
	return f
}

// say returns what the entries tell, each as "number: what".
func (f *following) say() []string {
	synctest.Wait()
	var s []string
	for _, e := range f.entries {
		what := string(e.State)
		switch {
		case e.Progress != nil:
			what = fmt.Sprint(e.Progress.Numerator, "/", e.Progress.Denominator)
		case e.Warning:
			what = "warning " + string(e.Payload)
		case e.Payload != nil:
			what = string(e.Payload)
		}
		s = append(s, fmt.Sprint(e.Seq, ": ", what))
	}
	return s
}

func (f *following) ended() bool {
	synctest.Wait()
	return isClosed(f.done)
}

func TestFollowTellsAllAndThenWhatComes(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		live := follow(t.Context(), b.plain, r.ID, 0)
		s.tell(gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2})
		s.data("a")
		all := []string{"1: queued", "2: running", "3: 1/2", "4: a", "5: warning w", "6: completed"}
		if diff := cmp.Diff(all[:4], live.say()); diff != "" {
			t.Error(diff)
		}
		back := follow(t.Context(), b.plain, "H:1", 2)
		s.tell(gearman.Update{Kind: gearman.Warning, Payload: []byte("w")})
		if live.ended() {
			t.Error("ended before the job")
		}
		s.completed("b")
		if !live.ended() || live.err != nil || !back.ended() {
			t.Fatal("goes on after the end", live.err)
		}
		if diff := cmp.Diff(all, live.say()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(all[2:], back.say()); diff != "" {
			t.Error(diff)
		}
		for _, where := range []string{"in memory", "in the store alone"} {
			if where != "in memory" {
				b.restart()
			}
			for after := range 8 {
				late := follow(t.Context(), b.plain, r.ID, uint64(after))
				if !late.ended() || late.err != nil {
					t.Fatalf("%s: ended %v, %v", where, late.ended(), late.err)
				}
				if diff := cmp.Diff(append([]string(nil), all[min(after, 6):]...), late.say()); diff != "" {
					t.Errorf("%s after %d: %s", where, after, diff)
				}
			}
		}
		if err := b.Follow(t.Context(), everyone, "nobody", 0, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("nobody: %v", err)
		}
	})
}

func TestALogIsBounded(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		for _, chunk := range []int{1, 1000, maxLogBytes, maxLogBytes + 1} {
			r := b.enter(Task{Mode: Tracked})
			s := b.next()
			s.created(at("H:1"))
			const n = 2000
			for range n {
				s.data(string(make([]byte, chunk)))
			}
			f := follow(t.Context(), b.plain, r.ID, 0)
			most := min(maxLogEntries, maxLogBytes/chunk)
			if len(f.entries) > most || len(f.entries) < most-1 {
				t.Errorf("chunks of %d bytes: %d entries", chunk, len(f.entries))
			}
			for i, e := range f.entries {
				if want := uint64(n + 2 - len(f.entries) + i + 1); e.Seq != want {
					t.Fatalf("chunks of %d bytes: entry %d has number %d, want %d", chunk, i, e.Seq, want)
				}
			}
			s.completed("")
			if !f.ended() || f.entries[len(f.entries)-1].State != Completed {
				t.Error("no end")
			}
			b.check()
		}
	})
}

// What jobs have logged that ended must not keep the streams of those that run empty.
func TestTheLogsOfEndedJobsMakeRoom(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		chunk := string(make([]byte, maxLogBytes))
		for range 2*maxLogs/maxLogBytes + 100 {
			b.enter(Task{Mode: Tracked})
			s := b.next()
			s.created(at("H:1"))
			s.data(chunk)
			s.failed()
		}
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:2"))
		f := follow(t.Context(), b.plain, r.ID, 0)
		s.data("hello")
		s.completed("")
		if diff := cmp.Diff([]string{"1: queued", "2: running", "3: hello", "4: completed"}, f.say()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFollowEndsWithItsCallerOrItsJob(t *testing.T) {
	lives(t, Options{MaxRecords: 1}, func(t *testing.T, b *life) {
		r := b.call(func() (Record, error) {
			o := make(chan struct{})
			defer close(o)
			go func() {
				select {
				case s := <-b.servers.submits:
					s.created(at("H:1"))
				case <-o:
				}
			}()
			return b.Submit(t.Context(), Task{Function: "f"})
		}).must(t)
		gone := errors.New("gone")
		if err := b.Follow(t.Context(), everyone, r.ID, 0, func(Entry) error { return gone }); err != gone {
			t.Errorf("error %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		f := follow(ctx, b.plain, r.ID, 0)
		cancel(gone)
		if !f.ended() || f.err != gone {
			t.Errorf("ended %v: %v", f.ended(), f.err)
		}
	})
}

func TestANumberIsNeverGivenTwice(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		r := b.enter(Task{Mode: Tracked})
		s := b.next()
		s.created(at("H:1"))
		for range 300 {
			s.data("x")
			later(time.Millisecond)
		}
		before := follow(t.Context(), b.plain, r.ID, 0)
		last := before.entries[len(before.entries)-1].Seq
		b.restart()
		after := follow(t.Context(), b.plain, r.ID, last)
		s = b.next()
		s.created(gearman.Job{Server: g1, Handle: "H:1", Generation: 1})
		s.completed("y")
		if !after.ended() || len(after.entries) == 0 || after.entries[0].Seq <= last {
			t.Errorf("after %d came %v", last, after.say())
		}
	})
}

func TestListInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, servers := inMemory(t, Options{})
		var ids []string // newest first
		for i := range 10 {
			task := Task{Function: fmt.Sprint("f", i%2), Mode: Tracked, Workload: []byte("w")}
			if i%3 == 0 {
				task.RunAt, task.Mode = time.Now().Add(time.Hour), Background
			}
			r, err := l.Submit(t.Context(), task)
			if err != nil {
				t.Fatal(err)
			}
			ids = append([]string{r.ID}, ids...)
			if i == 5 {
				s := <-servers.submits
				for s.Unique != r.ID {
					s = <-servers.submits
				}
				s.created(at("H:5"))
				s.data("x")
				s.completed("y")
			}
			later(time.Millisecond)
		}
		all := func(q Query) (got []string) {
			for range 100 {
				records, next, err := l.List(t.Context(), q)
				if err != nil || len(records) > q.Limit {
					t.Fatalf("%d records, %v", len(records), err)
				}
				for _, r := range records {
					if r.Result != nil || r.Log != nil {
						t.Errorf("with its result: %+v", r)
					}
					got = append(got, r.ID)
				}
				if next == "" {
					return got
				}
				q.Before = next
			}
			t.Fatal("no end")
			return nil
		}
		pick := func(numbers ...int) (want []string) {
			for _, n := range numbers {
				want = append(want, ids[9-n])
			}
			return want
		}
		for limit := 1; limit < 12; limit++ {
			for _, c := range []struct {
				q    Query
				want []string
			}{
				{Query{}, ids},
				{Query{Function: "f1"}, pick(9, 7, 5, 3, 1)},
				{Query{State: Scheduled}, pick(9, 6, 3, 0)},
				{Query{State: Completed}, pick(5)},
				{Query{Mode: Tracked, Function: "f0"}, pick(8, 4, 2)},
				{Query{Function: "nobody"}, nil},
			} {
				c.q.Limit = limit
				if diff := cmp.Diff(c.want, all(c.q)); diff != "" {
					t.Errorf("%+v: %s", c.q, diff)
				}
			}
		}
	})
}
