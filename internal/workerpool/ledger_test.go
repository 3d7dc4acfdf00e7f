package workerpool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
	"gearman-gateway/internal/workerpool"
)

// startLedger starts a ledger for the jobs of a pool.
func startLedger(t testing.TB, addr string) *ledger.Ledger {
	t.Helper()
	cluster, err := gearman.NewCluster([]gearman.Options{{Addr: addr}})
	if err != nil {
		t.Fatal(err)
	}
	l := ledger.New(ledger.Options{Servers: cluster, Events: newRecorder()})
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Stop(); cluster.Close(ended()) })
	return l
}

// end waits until a job has ended.
func end(t testing.TB, l *ledger.Ledger, id string) *ledger.Record {
	t.Helper()
	r, err := l.Job(testContext(t), ledger.Caller{All: true}, id, deadline)
	if err != nil || !r.State.Ended() {
		t.Fatalf("job %s: %+v, %v", id, r, err)
	}
	return r
}

type attempts struct {
	mu   sync.Mutex
	seen []string
}

func (a *attempts) note(j *workerpool.Job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, fmt.Sprint(j.Attempt, " of ", j.ID, " ", j.Traceparent))
}

func (a *attempts) check(t testing.TB, id, trace string, n int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i+1, " of ", id, " ", trace))
	}
	if !slices.Equal(a.seen, want) {
		t.Errorf("ran as %q, want %q", a.seen, want)
	}
	a.seen = nil
}

func TestHowAHandlerFailsDecidesWhetherItsJobIsTriedAgain(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	contract(t, func(t *testing.T, addr string) {
		var seen attempts
		fail := func(err error) workerpool.Function {
			f := fn(func(_ context.Context, j *workerpool.Job) ([]byte, error) { seen.note(j); return nil, err })
			f.Retry = workerpool.RetryPolicy{Max: 4, Backoff: time.Millisecond}
			return f
		}
		l := startLedger(t, addr)
		plain := fail(errors.New("no luck"))
		plain.Retry = workerpool.RetryPolicy{}
		startPool(t, workerpool.Options{Observer: l, Functions: functions{
			"plain": plain, "again": fail(&workerpool.RetryError{After: time.Millisecond, Err: errors.New("busy")}),
			"never": fail(&workerpool.NeverRetryError{Err: errors.New("bad")}), "dies": fail(killedError{}),
		}}, addr)
		for _, test := range []struct {
			function string
			mode     ledger.Mode
			own      ledger.Retry
			runs     int
			message  string
		}{
			{"plain", ledger.Tracked, ledger.Retry{}, 1, "no luck"},
			{"plain", ledger.Tracked, ledger.Retry{Max: 2, Backoff: time.Millisecond}, 3, "no luck"},
			{"again", ledger.Tracked, ledger.Retry{}, 5, "busy"},
			{"again", ledger.Sync, ledger.Retry{}, 1, "busy"},
			{"never", ledger.Tracked, ledger.Retry{Max: 2, Backoff: time.Millisecond}, 1, "bad"},
			{
				"dies", ledger.Tracked,
				ledger.Retry{Max: 9, Backoff: time.Millisecond},
				3,
				"stopped, because its handler died 3 times, the last time so: exit status 3",
			},
		} {
			r, err := l.Submit(testContext(t), &ledger.Task{
				Function: test.function, Workload: []byte("w"), Mode: test.mode, Retry: test.own, Traceparent: trace, Wait: deadline,
			})
			if err != nil {
				t.Fatal(err)
			}
			r = end(t, l, r.ID)
			if r.State != ledger.Failed || r.Error.Message != test.message {
				t.Errorf("%s: %s, %+v", test.function, r.State, r.Error)
			}
			seen.check(t, r.ID, trace, test.runs)
			if strings.HasPrefix(test.message, "stopped") {
				again, err := l.RunAgain(testContext(t), ledger.Caller{All: true}, r.ID)
				if err != nil {
					t.Fatal(err)
				}
				end(t, l, again.ID)
				seen.check(t, again.ID, trace, 3)
			}
		}
	})
}
