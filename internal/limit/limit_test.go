package limit

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// submit submits and leaves, and returns which limit forbids it.
func submit(t *testing.T, l *Limiter, identity, function string) *Exceeded {
	t.Helper()
	leave, err := l.Submit(identity, function)
	if err == nil {
		leave()
		return nil
	}
	e, ok := errors.AsType[*Exceeded](err)
	if !ok {
		t.Fatal(err)
	}
	return e
}

func TestRatesSayWhenTheNextJobMayCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Default: Rule{Rate: 2, Burst: 3}, Identities: map[string]Rule{"free": {}}})
		for range 3 {
			if e := submit(t, l, "a", "f"); e != nil {
				t.Fatal(e)
			}
		}
		e := submit(t, l, "a", "f")
		if e == nil || e.Limit != "rate" || e.Of != "identity" || e.After != time.Second/2 {
			t.Fatalf("got %+v", e)
		}
		if _, err := l.Enter("a", true); err == nil {
			t.Error("a request that could submit nothing was let in")
		}
		if leave, err := l.Enter("a", false); err != nil {
			t.Errorf("reads are limited: %v", err)
		} else {
			leave()
		}
		if e := submit(t, l, "b", "f"); e != nil {
			t.Errorf("another identity: %v", e)
		}
		if e := submit(t, l, "free", "f"); e != nil {
			t.Errorf("one with a rule of its own: %v", e)
		}
		<-time.After(e.After)
		if e := submit(t, l, "a", "f"); e != nil {
			t.Errorf("when it was told to: %v", e)
		}
	})
}

func TestWhatAFunctionRefusesIsNotTakenFromTheIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Default: Rule{Rate: 1, Burst: 2}, Functions: map[string]Rule{"f": {Rate: 1}, "g": {Concurrency: 1}}})
		if e := submit(t, l, "other", "f"); e != nil {
			t.Fatal(e)
		}
		if e := submit(t, l, "a", "f"); e == nil || e.Of != "function" || e.Limit != "rate" {
			t.Errorf("got %+v", e)
		}
		leave, err := l.Submit("a", "g")
		if err != nil {
			t.Fatal(err)
		}
		if e := submit(t, l, "a", "g"); e == nil || e.Of != "function" || e.Limit != "concurrency" || e.After != time.Second {
			t.Errorf("got %+v", e)
		}
		leave()
		if e := submit(t, l, "a", "g"); e != nil {
			t.Errorf("the second of two: %v", e)
		}
		if e := submit(t, l, "a", "g"); e == nil || e.Of != "identity" {
			t.Errorf("the third of two: %+v", e)
		}
	})
}

func TestConcurrencyOfAnIdentity(t *testing.T) {
	l := New(Rules{Identities: map[string]Rule{"a": {Concurrency: 1}}})
	leave, err := l.Enter("a", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Enter("a", false); err == nil {
		t.Error("two at a time")
	}
	l.Reload(Rules{Identities: map[string]Rule{"a": {Concurrency: 2}}})
	second, err := l.Enter("a", false)
	if err != nil {
		t.Errorf("after a reload: %v", err)
	}
	l.Reload(Rules{Identities: map[string]Rule{"a": {Concurrency: 1}}})
	second()
	if _, err := l.Enter("a", false); err == nil {
		t.Error("a reload has forgotten the first")
	}
	leave()
	if leave, err = l.Enter("a", false); err != nil {
		t.Errorf("when the others are gone: %v", err)
	}
	leave()
}

func TestAReloadGivesNoNewBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Default: Rule{Rate: 1, Burst: 1}})
		submit(t, l, "a", "f")
		l.Reload(Rules{Default: Rule{Rate: 1, Burst: 1}})
		if e := submit(t, l, "a", "f"); e == nil {
			t.Error("unchanged rules: a new burst")
		}
		l.Reload(Rules{Default: Rule{Rate: 10, Burst: 5}})
		if e := submit(t, l, "a", "f"); e == nil || e.After > time.Second {
			t.Errorf("changed rules: %+v", e)
		}
	})
}

func TestTheLongestGlobCounts(t *testing.T) {
	r := Rules{Functions: map[string]Rule{"*": {Burst: 1}, "img.*": {Burst: 2}, "img.*.big": {Burst: 3}, "img.x": {Burst: 4}}}
	for function, want := range map[string]int{"mail": 1, "img.y": 2, "img.y.big": 3, "img.x": 4} {
		if got := r.function(function).Burst; got != want {
			t.Errorf("%s has rule %d, want %d", function, got, want)
		}
	}
}

func TestRoom(t *testing.T) {
	l := New(Rules{Default: Rule{MaxJobs: 2, MaxBytes: 10}, Functions: map[string]Rule{"f": {MaxJobs: 5}}})
	for _, row := range []struct {
		size          int64
		owned, called Held
		want          string
	}{
		{10, Held{1, 0}, Held{4, 99}, ""},
		{1, Held{2, 0}, Held{2, 0}, "max_jobs of the identity: 2"},
		{2, Held{1, 9}, Held{1, 9}, "max_bytes of the identity: 10"},
		{1, Held{0, 0}, Held{5, 0}, "max_jobs of the function: 5"},
	} {
		got := ""
		if err := l.Room("a", "f", row.size, row.owned, row.called); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%+v: %q, want %q", row, got, row.want)
		}
	}
}

// Names come from outside. Whoever is forgotten gains a burst, and whoever has a request under way is not forgotten.
func TestMetersAreBounded(t *testing.T) {
	l := New(Rules{Default: Rule{Rate: 1, Concurrency: 1}})
	leave, err := l.Enter("busy", false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxIdle + 10 {
		submit(t, l, fmt.Sprint(i), "f")
	}
	if n := len(l.identities.byName); n != maxIdle+1 {
		t.Errorf("%d meters", n)
	}
	if _, err := l.Enter("busy", false); err == nil {
		t.Error("a request under way is forgotten")
	}
	leave()
}

func TestNoLimiterLimitsNothing(t *testing.T) {
	var l *Limiter
	leave, err := l.Enter("a", true)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if e := submit(t, l, "a", "f"); e != nil || l.Identity("a") != (Rule{}) {
		t.Error(e)
	}
}

// Callers make up names of functions; those without a limit do not push out what another has used of its own.
func TestNamesWithoutALimitMakeNobodyForgotten(t *testing.T) {
	l := New(Rules{Default: Rule{Rate: 1e9}, Functions: map[string]Rule{"pay": {Rate: 1e-6}}})
	if e := submit(t, l, "a", "pay"); e != nil {
		t.Fatal(e)
	}
	for i := range maxIdle + 1 {
		if e := submit(t, l, "b", fmt.Sprint(i)); e != nil {
			t.Fatal(e)
		}
	}
	if e := submit(t, l, "b", "pay"); e == nil || e.Of != "function" {
		t.Errorf("got %+v", e)
	}
}
