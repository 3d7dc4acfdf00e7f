package ledger

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// keyed is a task with an idempotency key.
func keyed(mode Mode, fingerprint string) Task {
	return Task{
		Function: "f", Mode: mode, Workload: []byte("w"), Wait: time.Minute,
		Key: &Key{Key: "k", Fingerprint: []byte(fingerprint)},
	}
}

func TestAKeyReplaysItsJob(t *testing.T) {
	for _, mode := range Modes {
		lives(t, Options{}, func(t *testing.T, b *life) {
			submit := func() (Record, error) { return b.Submit(t.Context(), keyed(mode, "a")) }
			first := b.call(submit)
			s := b.next()
			s.created(at("H:1"))
			synctest.Wait()
			second := b.call(submit)
			if second.returned() != (mode != Sync) {
				t.Errorf("%s: the second has returned: %v", mode, mode == Sync)
			}
			if mode == Sync {
				s.completed("result")
			}
			one, two := first.must(t), second.must(t)
			if one.ID != two.ID || one.Replayed || !two.Replayed {
				t.Errorf("%s: %s (replayed %v), then %s (%v)", mode, one.ID, one.Replayed, two.ID, two.Replayed)
			}
			if mode == Sync && string(two.Result) != "result" {
				t.Errorf("result %q", two.Result)
			}
			if _, err := b.Submit(t.Context(), keyed(mode, "another")); !errors.Is(err, ErrKeyReused) {
				t.Errorf("%s: another task: %v", mode, err)
			}
			b.quiet()
		})
	}
}

func TestTwoAtOnceWithOneKeyAreOneJob(t *testing.T) {
	for _, mode := range Modes {
		lives(t, Options{}, func(t *testing.T, b *life) {
			hold := make(chan struct{})
			b.disk.with(func() { b.disk.hold = hold })
			submit := func() (Record, error) { return b.Submit(t.Context(), keyed(mode, "a")) }
			calls := []*outcome{b.call(submit), b.call(submit)}
			close(hold)
			s := b.next()
			s.created(at("H:1"))
			s.completed("")
			b.quiet()
			var id string
			for _, o := range calls {
				r, err := o.get()
				switch {
				case errors.Is(err, ErrKeyPending):
				case err != nil:
					t.Errorf("%s: %v", mode, err)
				case id != "" && id != r.ID:
					t.Errorf("%s: two jobs", mode)
				default:
					id = r.ID
				}
			}
			if id == "" {
				t.Errorf("%s: neither was accepted", mode)
			}
			if len(b.byID) != 1 {
				t.Errorf("%s: %d records", mode, len(b.byID))
			}
		})
	}
}

// Who joins a job that is on its way to the disk must not be there first with the key of both.
func TestTwoAtOnceWithOneKeyAndOneUniqueAreOneJob(t *testing.T) {
	for _, mode := range []Mode{Sync, Tracked} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			task := keyed(mode, "a")
			task.Unique = "u"
			submit := func() (Record, error) { return b.Submit(t.Context(), task) }
			slow := make(chan struct{})
			b.disk.with(func() { b.disk.before = func() { <-slow } })
			first, second := b.call(submit), b.call(submit)
			close(slow)
			s := b.next()
			s.created(at("H:1"))
			s.completed("")
			r := first.must(t)
			if _, err := second.get(); !errors.Is(err, ErrKeyPending) {
				t.Errorf("%s: the second: %v", mode, err)
			}
			if again := b.enter(task); again.ID != r.ID || !again.Replayed {
				t.Errorf("%s: it is job %s, then %s", mode, r.ID, again.ID)
			}
		})
	}
}

// What was to be stored and was not is nobody's job, whoever has joined it.
func TestAKeyOfATaskThatJoinedWhatCouldNotBeStoredIsFree(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		hold := make(chan struct{})
		b.disk.with(func() { b.disk.hold, b.disk.fail = hold, ErrStoreFailed })
		first := b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Mode: Tracked, Unique: "u", Workload: []byte("w")})
		})
		task := keyed(Tracked, "a")
		task.Unique = "u"
		submit := func() (Record, error) { return b.Submit(t.Context(), task) }
		second := b.call(submit)
		close(hold)
		for _, o := range []*outcome{first, second} {
			if _, err := o.get(); !errors.Is(err, ErrStoreFailed) {
				t.Errorf("error %v", err)
			}
		}
		b.disk.with(func() { b.disk.fail = nil })
		if again := b.enter(task); again.Replayed {
			t.Errorf("replayed %+v", again)
		}
	})
}

func TestWhileABackgroundJobHasNoHandleItsKeyIsPending(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		submit := func() (Record, error) { return b.Submit(t.Context(), keyed(Background, "a")) }
		first := b.call(submit)
		if _, err := submit(); !errors.Is(err, ErrKeyPending) {
			t.Errorf("error %v", err)
		}
		b.next().created(at("H:1"))
		synctest.Wait()
		if one, two := first.must(t), b.call(submit).must(t); one.ID != two.ID || two.Handle != "H:1" {
			t.Errorf("%+v, then %+v", one, two)
		}
	})
}

func TestAKeyIsFreeAgainWhenNothingWasSent(t *testing.T) {
	for _, mode := range []Mode{Background, Sync} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			submit := func() (Record, error) { return b.Submit(t.Context(), keyed(mode, "a")) }
			first := b.call(submit)
			b.next().refused(errNotSent)
			if _, err := first.get(); !errors.Is(err, errNotSent) {
				t.Errorf("%s: %v", mode, err)
			}
			second := b.call(submit)
			s := b.next()
			s.created(at("H:1"))
			s.completed("")
			if r := second.must(t); r.Replayed {
				t.Errorf("%s: replayed %+v", mode, r)
			}
		})
	}
}

// The job was not stored before the task with the key joined it: whichever is first, its end or the key, nothing is left of it.
func TestAKeyOfATaskThatJoinedIsFreeAgainWhenNothingWasSent(t *testing.T) {
	for _, late := range []bool{false, true} {
		lives(t, Options{}, func(t *testing.T, b *life) {
			first := b.call(func() (Record, error) {
				return b.Submit(t.Context(), Task{Function: "f", Mode: Sync, Unique: "u", Wait: time.Minute})
			})
			s, slow := b.next(), make(chan struct{})
			if late {
				b.disk.with(func() { b.disk.before = func() { <-slow } })
			}
			task := keyed(Sync, "a")
			task.Unique = "u"
			submit := func() (Record, error) { return b.Submit(t.Context(), task) }
			second := b.call(submit)
			s.refused(errNotSent)
			synctest.Wait()
			close(slow)
			for _, o := range []*outcome{first, second} {
				if _, err := o.get(); !errors.Is(err, errNotSent) {
					t.Errorf("late %v: %v", late, err)
				}
			}
			b.disk.with(func() {
				if len(b.disk.records)+len(b.disk.keys) > 0 {
					t.Errorf("late %v: there still are %v and %v", late, b.disk.records, b.disk.keys)
				}
			})
			again := b.call(submit)
			s = b.next()
			s.created(at("H:1"))
			s.completed("")
			if r := again.must(t); r.Replayed {
				t.Errorf("late %v: replayed %+v", late, r)
			}
		})
	}
}

func TestAKeyWhoseOutcomeIsUnknownIsNotSubmittedAgain(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		ctx, cancel := context.WithCancel(t.Context())
		first := b.call(func() (Record, error) { return b.Submit(ctx, keyed(Background, "a")) })
		s := b.next()
		cancel()
		r, err := first.get()
		if !errors.Is(err, context.Canceled) || r.ID == "" {
			t.Errorf("%+v, %v", r, err)
		}
		again := b.call(func() (Record, error) { return b.Submit(t.Context(), keyed(Background, "a")) })
		if got := again.must(t); got.ID != r.ID || !got.Replayed {
			t.Errorf("got %+v", got)
		}
		s.created(at("H:1"))
		b.quiet()
	})
}

// A crash between the commit and the handle never leads to a second submit, and after it the key still answers.
func TestAKeyOutlivesTheGateway(t *testing.T) {
	for _, mode := range Modes {
		for _, when := range []string{"on its way", "with a handle", "ended"} {
			lives(t, Options{}, func(t *testing.T, b *life) {
				first := b.call(func() (Record, error) { return b.Submit(t.Context(), keyed(mode, "a")) })
				s := b.next()
				if when != "on its way" {
					s.created(at("H:1"))
				}
				if when == "ended" && mode != Background {
					s.completed("result")
				}
				synctest.Wait()
				b.restart()
				_, _ = first.get()
				again := b.call(func() (Record, error) { return b.Submit(t.Context(), keyed(mode, "a")) })
				r := again.must(t)
				if !r.Replayed || mode != Tracked && r.State == Queued && r.Handle == "" {
					t.Errorf("%s %s: %+v", mode, when, r)
				}
				if mode == Tracked && when != "ended" {
					if s := b.next(); s.Unique != r.ID {
						t.Errorf("%s: %+v", when, s.Task)
					}
				}
				b.quiet()
				if _, err := b.Submit(t.Context(), keyed(mode, "another")); !errors.Is(err, ErrKeyReused) {
					t.Errorf("%s %s: another task: %v", mode, when, err)
				}
			})
		}
	}
}

// A task that joined a job by its unique is answered with that job for ever, not with whatever has the unique by then.
func TestAKeyOfATaskThatJoinedAJobReplaysThatJob(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		plain := Task{Function: "f", Mode: Tracked, Unique: "u", Workload: []byte("w")}
		first := b.enter(plain)
		s := b.next()
		s.created(at("H:1"))
		task := keyed(Tracked, "a")
		task.Unique = "u"
		joined := b.enter(task)
		if joined.ID != first.ID {
			t.Fatalf("%+v did not join", joined)
		}
		if joined.Replayed {
			t.Error("replayed on the key's first use")
		}
		s.completed("result")
		synctest.Wait()
		if again := b.enter(task); again.ID != first.ID || !again.Replayed {
			t.Errorf("the second time it is job %s, was %s", again.ID, first.ID)
		}
		b.quiet()
	})
}

// The job server makes one job of two background jobs; the key's must answer all the same.
func TestAKeyOfACoalescedBackgroundJobAnswersStill(t *testing.T) {
	lives(t, Options{}, func(t *testing.T, b *life) {
		first := b.call(func() (Record, error) {
			return b.Submit(t.Context(), Task{Function: "f", Unique: "u", Workload: []byte("w")})
		})
		b.next().created(at("H:1"))
		first.must(t)
		task := keyed(Background, "a")
		task.Unique = "u"
		second := b.call(func() (Record, error) { return b.Submit(t.Context(), task) })
		b.next().created(at("H:1"))
		r := second.must(t)
		again := b.enter(task)
		if again.ID != r.ID || again.Handle != "H:1" || !again.Replayed {
			t.Errorf("accepted as %+v, replayed as %+v", r, again)
		}
		b.quiet()
	})
}

func TestKeysInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, servers := inMemory(t, Options{})
		r, err := l.Submit(t.Context(), keyed(Tracked, "a"))
		if err != nil {
			t.Fatal(err)
		}
		<-servers.submits
		again, err := l.Submit(t.Context(), keyed(Tracked, "a"))
		if err != nil || again.ID != r.ID || !again.Replayed {
			t.Errorf("%+v, %v", again, err)
		}
		later(keyTTL + time.Hour)
		fresh, err := l.Submit(t.Context(), keyed(Tracked, "b"))
		if err != nil || fresh.ID == r.ID {
			t.Errorf("after its time: %+v, %v", fresh, err)
		}
	})
}

// Without a store a record may be forgotten before its key: a repeat is not run again, and there is nothing to answer it with.
func TestAKeyOfAForgottenRecordReplaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, servers := inMemory(t, Options{MaxRecords: 1})
		for i, task := range []Task{keyed(Sync, "a"), {Function: "f", Workload: []byte("w"), Mode: Sync, Wait: time.Minute}} {
			go func() {
				s := <-servers.submits
				s.created(at(fmt.Sprint("H:", i)))
				s.completed("")
			}()
			if _, err := l.Submit(t.Context(), task); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := l.Submit(t.Context(), keyed(Sync, "a")); !errors.Is(err, ErrNotFound) || r.Replayed {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// A key is kept as long as it was taken for, whoever took it before and gave it back.
func TestAKeyThatWasGivenBackHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(nil)
		take := func(key, id string) error {
			return m.Commit(t.Context(), &Change{Key: &Key{Key: key, ID: id, At: time.Now()}})
		}
		for i, err := range []error{take("first", "1"), take("again", "2")} {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		m.Apply(&Change{Key: &Key{Key: "again", ID: "2"}, Forget: true})
		time.Sleep(time.Hour)
		if err := take("other", "3"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := take("again", "4"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyTTL - 30*time.Minute) // the other's time is over
		if err := take("other", "5"); err != nil {
			t.Errorf("a key whose time is over: %v", err)
		}
		if k, err := m.Key(t.Context(), "again"); err != nil || k.ID != "4" {
			t.Errorf("a key whose time is not over: %+v, %v", k, err)
		}
	})
}
