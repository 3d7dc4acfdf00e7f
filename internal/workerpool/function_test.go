package workerpool_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/workerpool"
)

func TestTheLimitsOfARun(t *testing.T) {
	ran := make(chan string, 10)
	f := workerpool.Function{
		Timeout: 20 * time.Millisecond, MaxWorkload: 12, MaxResult: 4,
		Retry: workerpool.RetryPolicy{Max: 7, Backoff: time.Minute}, MaxDeaths: 2,
		Handler: workerpool.HandlerFunc(func(ctx context.Context, j *workerpool.Job) ([]byte, error) {
			ran <- string(j.Workload)
			switch string(j.Workload) {
			case "slow":
				<-ctx.Done()
				return nil, killedError{} // as a process does that is killed at its timeout
			case "large":
				return []byte("12345"), nil
			case "large parts":
				return []byte("123"), j.Data([]byte("45"))
			}
			return []byte("1234"), nil
		}),
	}
	rec := newRecorder()
	s := startServer(t, "127.0.0.1:0")
	startPool(t, workerpool.Options{Observer: rec, Functions: functions{"f": f}}, s.Addr())
	c := connect(t, s.Addr())
	policy := event.Verdict{MaxDeaths: 2, Retries: 7, Backoff: time.Minute}
	never := policy
	never.Never = true
	for _, test := range []struct {
		workload      string
		kind, message string
		verdict       event.Verdict
	}{
		{"slow", "timeout", "the run took longer than its function may: 20ms: exit status 3", policy},
		{"large", "failed", "the result is too large: 5 bytes, at most 4 are allowed", policy},
		{"large parts", "failed", "the result is too large: 5 bytes, at most 4 are allowed", policy},
		{"large workload", "failed", "the workload is too large: 14 bytes, at most 12 are allowed", never},
	} {
		u := submit(t, c, "f", test.workload)
		got := u.next(t)
		if got.Kind == gearman.Data {
			got = u.next(t)
		}
		if got.Kind != gearman.Exception || string(got.Payload) != test.message {
			t.Errorf("%s: %+v (%s)", test.workload, got, got.Payload)
		}
		heard := rec.all()
		last := heard[len(heard)-1].Data
		if diff := cmp.Diff(&event.Error{Kind: test.kind, Message: test.message}, last.Error); diff != "" {
			t.Errorf("%s: %s", test.workload, diff)
		}
		if diff := cmp.Diff(&test.verdict, last.Verdict); diff != "" {
			t.Errorf("%s: %s", test.workload, diff)
		}
	}
	if got := call(t, c, "f", "enough"); got.Kind != gearman.Completed {
		t.Errorf("within the limits: %+v", got)
	}
	if len(ran) != 4 {
		t.Errorf("%d jobs were run, want all but the one that is too large", len(ran))
	}
}

func TestAFunctionAtItsLimitIsLeftToOthers(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		h := newHeld(t)
		echo := fn(func(_ context.Context, j *workerpool.Job) ([]byte, error) { return j.Workload, nil })
		startPool(t, workerpool.Options{Concurrency: 4, Functions: functions{"f": {Handler: h, Concurrency: 1}, "g": echo}}, addr)
		c := connect(t, addr)
		first := submit(t, c, "f", "1")
		receive(t, h.began, "the first job")
		second := submit(t, c, "f", "2")
		for range 10 {
			if got := call(t, c, "g", "x"); got.Kind != gearman.Completed {
				t.Errorf("another function's job: %+v", got)
			}
		}
		startEcho(t, addr)
		if got := second.next(t); string(got.Payload) != "other: 2" {
			t.Errorf("the second job ended with %q, want it run by another worker", got.Payload)
		}
		h.finish <- struct{}{}
		if got := first.next(t); string(got.Payload) != "held 1" {
			t.Errorf("the first job: %+v", got)
		}
		if len(h.began) > 0 {
			t.Error("a job was run twice")
		}
	})
}

func TestFunctionsThatMakeNoSenseAreRefused(t *testing.T) {
	ok := workerpool.HandlerFunc(nothing)
	for name, f := range map[string]workerpool.Function{
		"no handler": {}, "timeout": {Handler: ok, Timeout: -1}, "concurrency": {Handler: ok, Concurrency: -1},
		"rate": {Handler: ok, Rate: -1}, "no rate": {Handler: ok, Rate: math.NaN()}, "workload": {Handler: ok, MaxWorkload: -1},
		"result": {Handler: ok, MaxResult: -1}, "deaths": {Handler: ok, MaxDeaths: -1},
		"retries": {Handler: ok, Retry: workerpool.RetryPolicy{Max: -1}},
	} {
		o := workerpool.Options{Servers: []gearman.Options{{Addr: "127.0.0.1:1"}}, Functions: functions{"f": f}}
		if _, err := workerpool.New(o); err == nil || errors.Is(err, workerpool.ErrNoFunctions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
