package workerpool_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/workerpool"
)

// How often a worker looks for jobs depends on when they come.
var idle = []event.Type{event.WorkerOnNoJobs, event.WorkerOnWork, event.WorkerOnIOWait}

var connecting = []event.Type{
	event.WorkerServerOnConnect, event.WorkerServerOnConnected, event.WorkerOnBeforeRegisterFunctions,
	event.WorkerOnAfterRegisterFunctions,
}

func nothing(context.Context, *workerpool.Job) ([]byte, error) { return nil, nil }

func TestTheLifeOfAWorkerInItsEvents(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	rec := newRecorder()
	_, stop := startPool(t, workerpool.Options{
		ID: "worker-1", Observer: rec, Events: rec,
		Functions: functions{"f": fn(nothing), "e": fn(nothing)},
	}, s.Addr())
	rec.await(t, event.WorkerOnIOWait, 1)
	want := slices.Concat([]event.Type{event.WorkerBeforeRun}, connecting, idle)
	if diff := cmp.Diff(want, rec.types()); diff != "" {
		t.Errorf("until it waits: %s", diff)
	}
	call(t, connect(t, s.Addr()), "f", "")
	rec.await(t, event.WorkerAfterRun, 1)
	rec.await(t, event.WorkerOnIOWait, 2)
	if err := stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	want = slices.Concat([]event.Type{event.WorkerBeforeRun}, connecting, []event.Type{
		event.FunctionBeforeExecute, event.FunctionAfterExecute, event.WorkerAfterRun, event.WorkerOnBeforeDestroy,
	})
	if diff := cmp.Diff(want, rec.types(idle...)); diff != "" {
		t.Error(diff)
	}

	var seq uint64
	for _, e := range rec.all() {
		if e.Data.Worker != "worker-1" {
			t.Errorf("%s names the worker %q", e.Type, e.Data.Worker)
		}
		if e.ID == "" { // a function's: the ledger makes an event of it
			continue
		}
		if seq++; e.Seq != seq || e.Subject != "worker-1" {
			t.Errorf("%s has the subject %q and seq %d, want %d", e.Type, e.Subject, e.Seq, seq)
		}
		switch e.Type {
		case event.WorkerBeforeRun, event.WorkerOnBeforeRegisterFunctions, event.WorkerOnAfterRegisterFunctions:
			if diff := cmp.Diff([]string{"e", "f"}, e.Data.Functions); diff != "" {
				t.Errorf("%s: %s", e.Type, diff)
			}
		case event.WorkerServerOnConnect, event.WorkerServerOnConnected, event.WorkerOnIOWait:
			if diff := cmp.Diff([]string{s.Addr()}, e.Data.Servers); diff != "" {
				t.Errorf("%s: %s", e.Type, diff)
			}
		case event.WorkerAfterRun:
			if e.Data.Function != "f" || e.Data.Handle == "" {
				t.Errorf("%s: %+v", e.Type, e.Data)
			}
		}
	}
}

// It is the last that a worker tells: jobs that run when Stop is called end before it.
func TestTheLastEventIsOnBeforeDestroy(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	rec := newRecorder()
	started := make(chan struct{})
	_, stop := startPool(t, workerpool.Options{Observer: rec, Events: rec, Functions: functions{
		"f": fn(func(ctx context.Context, _ *workerpool.Job) ([]byte, error) {
			close(started)
			<-ctx.Done() // Stop has begun
			return nil, nil
		}),
	}}, s.Addr())
	submit(t, connect(t, s.Addr()), "f", "")
	receive(t, started, "the job")
	if err := stop(ended()); err != nil {
		t.Fatal(err)
	}
	types := rec.types()
	if n := rec.count(event.WorkerOnBeforeDestroy); n != 1 || types[len(types)-1] != event.WorkerOnBeforeDestroy {
		t.Errorf("told %v", types)
	}
}

func TestAnOutageIsToldOnceAndThenItBeginsAnew(t *testing.T) {
	s := startServer(t, "127.0.0.1:0")
	rec := newRecorder()
	_, stop := startPool(t, workerpool.Options{Events: rec, Functions: functions{"f": fn(nothing)}}, s.Addr())
	for outage := 1; outage <= 2; outage++ {
		rec.await(t, event.WorkerOnIOWait, outage)
		s.Stop()
		rec.await(t, event.WorkerOnFailure, outage)
		awaitAttempts(t, s.Addr(), 3)
		s = startServer(t, s.Addr())
		rec.await(t, event.WorkerOnAfterRegisterFunctions, outage+1)
	}
	rec.await(t, event.WorkerOnIOWait, 3)
	if got := call(t, connect(t, s.Addr()), "f", ""); got.Err != nil {
		t.Errorf("a job after the outages: %+v", got)
	}
	if err := stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	outage := append([]event.Type{event.WorkerOnFailure}, connecting...)
	want := slices.Concat([]event.Type{event.WorkerBeforeRun}, connecting, outage, outage,
		[]event.Type{event.WorkerAfterRun, event.WorkerOnBeforeDestroy})
	if diff := cmp.Diff(want, rec.types(idle...)); diff != "" {
		t.Error(diff)
	}
	for _, e := range rec.all() {
		if e.Type == event.WorkerOnFailure && e.Data.Reason == "" {
			t.Error("a failure without a reason")
		}
	}
}

// awaitAttempts plays a job server that is not well: it takes that many connections and closes each without a word.
func awaitAttempts(t testing.TB, addr string, n int) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(deadline))
	for range n {
		nc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
}
