package limit

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var testGate = GateOptions{Places: 1, MaxQueue: 2, Patience: 20 * time.Millisecond, Wait: 50 * time.Millisecond, Short: 30 * time.Millisecond, Pace: 100 * time.Millisecond, Idle: time.Minute}

// knock enters in the background, and returns what became of it.
func knock(ctx context.Context, g *Gate) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- g.Enter(ctx, new(Place))
	}()
	synctest.Wait()
	return done
}

func TestPlacesAreGivenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(testGate)
		var first Place
		if err := g.Enter(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		second, third := knock(t.Context(), g), knock(t.Context(), g)
		first.Leave()
		first.Leave() // has no effect
		if err := <-second; err != nil {
			t.Errorf("the second: %v", err)
		}
		if err := <-third; !errors.Is(err, ErrOverloaded) {
			t.Errorf("the third: %v", err)
		}
	})
}

func TestUnderOverloadWhoCameLastIsLetInFirstAndTheOthersAreRefusedAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(testGate)
		var first Place
		if err := g.Enter(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		second, third := knock(t.Context(), g), knock(t.Context(), g)
		fourth := knock(t.Context(), g) // the second is refused for it, at once
		if err := <-second; !errors.Is(err, ErrOverloaded) || time.Since(began) != 0 {
			t.Errorf("the second: %v after %v", err, time.Since(began))
		}
		time.Sleep(testGate.Patience + 1) // the bubble's time
		first.Leave()
		if err := <-fourth; err != nil {
			t.Errorf("the fourth: %v", err)
		}
		if err := <-third; !errors.Is(err, ErrOverloaded) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("the third: %v after %v", err, time.Since(began))
		}
	})
}

func TestOverloadLastsUntilNoMoreWaitThanAreWorkedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testGate
		o.MaxQueue, o.Wait, o.Pace = 10, lasting, 0
		g := NewGate(o)
		enter := func() (*Place, <-chan time.Duration) { // the latter tells how long it took to be refused, or nothing
			p, refused := new(Place), make(chan time.Duration, 1)
			go func() {
				defer close(refused)
				if began := time.Now(); g.Enter(t.Context(), p) != nil {
					refused <- time.Since(began)
				}
			}()
			synctest.Wait()
			return p, refused
		}
		first, _ := enter()
		enter()
		second, _ := enter()
		time.Sleep(o.Patience + 1)
		first.Leave() // overload begins, and the second is let in
		time.Sleep(lasting + 1)

		_, refused := enter()
		third, _ := enter()
		second.Leave() // nobody has waited for long, but more wait than are worked on
		_, refusedToo := enter()
		if got := <-refused; got != o.Short {
			t.Errorf("who came under overload, refused after %v", got)
		}
		if got := <-refusedToo; got != o.Short {
			t.Errorf("who came after a place was given to one that had not waited, refused after %v", got)
		}

		third.Leave() // nobody waits
		fourth, _ := enter()
		fifth, refused := enter()
		time.Sleep(o.Short + 1)
		fourth.Leave()
		if got := <-refused; got != 0 {
			t.Errorf("who came after it, refused after %v", got)
		}
		fifth.Leave()
	})
}

func TestARefusalIsHeldBackForASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testGate
		o.MaxQueue, o.Pace = 100, time.Minute
		g := NewGate(o)
		if err := g.Enter(t.Context(), new(Place)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for _, done := range []<-chan error{knock(t.Context(), g), knock(t.Context(), g), knock(t.Context(), g)} {
			if err := <-done; !errors.Is(err, ErrOverloaded) {
				t.Errorf("got %v", err)
			}
		}
		if took := time.Since(began); took != maxHold+o.Wait {
			t.Errorf("it took %v", took)
		}
	})
}

func TestACallerThatLeavesDoesNotTakeAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(testGate)
		var first Place
		if err := g.Enter(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		second := knock(ctx, g)
		cancel()
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		first.Leave()
		if err := g.Enter(t.Context(), new(Place)); err != nil {
			t.Errorf("the place is lost: %v", err)
		}
	})
}

func TestARequestThatWaitsGivesItsPlaceAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testGate
		o.Idle = 10 * time.Millisecond
		g := NewGate(o)
		var first Place
		if err := g.Enter(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := <-knock(t.Context(), g); err != nil || time.Since(began) != o.Idle {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		second, third := knock(t.Context(), g), knock(t.Context(), g)
		first.Leave() // has no effect: the place is another's
		synctest.Wait()
		select {
		case err := <-second:
			t.Errorf("there are two places: %v", err)
		default:
		}
		if err := errors.Join(<-second, <-third); err != nil || time.Since(began) != 3*o.Idle {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// However requests come, leave and give up, in the end each place is free and nothing is left of an overload.
func TestNoPlaceIsLost(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			upTo := func(ms int) time.Duration { return time.Duration(random.IntN(ms)) * time.Millisecond }
			o := testGate
			o.Places, o.MaxQueue, o.Idle = 1+random.IntN(4), 1+random.IntN(30), upTo(100)+1
			g := NewGate(o)
			var requests sync.WaitGroup
			for range 300 {
				time.Sleep(upTo(20))
				ctx, cancel := context.WithTimeout(t.Context(), upTo(200))
				work, rest := upTo(100), upTo(100)
				requests.Go(func() {
					defer cancel()
					var p Place
					defer p.Leave()
					if g.Enter(ctx, &p) == nil {
						time.Sleep(work)
						p.Leave()
						time.Sleep(rest)
					}
				})
			}
			requests.Wait()
			time.Sleep(o.Idle) // the last look
			synctest.Wait()
			if g.free != o.Places || g.queue.Len() > 0 || g.inside.next != &g.inside || g.inside.prev != &g.inside || !g.over.IsZero() || g.looks {
				t.Errorf("seed %d: %d places of %d are free, %d wait, overload since %v, looks: %v", seed, g.free, o.Places, g.queue.Len(), g.over, g.looks)
			}
		})
	}
}

func TestNoGateLetsEverybodyIn(t *testing.T) {
	var g *Gate
	var p Place
	if err := g.Enter(t.Context(), &p); err != nil {
		t.Fatal(err)
	}
	p.Leave()
}
