package handler_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/jobserver"
	"gearman-gateway/internal/workerpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const deadline = 30 * time.Second

func TestTheBuiltInFunctions(t *testing.T) {
	want := []string{"echo", "fail", "reverse", "sleep", "wordcount"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(handler.Builtin()))); diff != "" {
		t.Error(diff)
	}
}

func run(t testing.TB, function, workload string) ([]byte, error) {
	return handler.Builtin()[function].Run(t.Context(), &workerpool.Job{Function: function, Workload: []byte(workload)})
}

func TestResults(t *testing.T) {
	big := strings.Repeat("ab", 1<<20)
	for _, test := range []struct{ function, workload, want string }{
		{"echo", "", ""},
		{"echo", "hello\x00\xff\r\n", "hello\x00\xff\r\n"},
		{"reverse", "", ""},
		{"reverse", "hello", "olleh"},
		{"reverse", "aé日😀", "😀日éa"},
		{"reverse", "a\uFFFDb", "b\uFFFDa"},
		{"reverse", "\x00\x01", "\x01\x00"},
		{"reverse", "a\xff\x80b", "b\x80\xffa"},
		{"reverse", "é\xff", "\xff\xa9\xc3"}, // not UTF-8: by bytes
		{"reverse", big, strings.Repeat("ba", 1<<20)},
		{"wordcount", "", "0"},
		{"wordcount", " \t\r\n", "0"},
		{"wordcount", "one", "1"},
		{"wordcount", "  one two\nthree\tfour ", "4"},
		{"wordcount", "un\u00a0deux\u2003trois", "3"}, // white space as Unicode has it
		{"wordcount", "a\xff \xfe", "2"},
	} {
		got, err := run(t, test.function, test.workload)
		if err != nil || string(got) != test.want {
			t.Errorf("%s of %.40q: %.40q, %v, want %.40q", test.function, test.workload, got, err, test.want)
		}
	}
}

func TestReverseLeavesItsWorkloadAsItIs(t *testing.T) {
	for _, workload := range []string{"hello", "a\xffb"} {
		w := []byte(workload)
		if _, err := handler.Builtin()["reverse"].Run(t.Context(), &workerpool.Job{Workload: w}); err != nil || string(w) != workload {
			t.Errorf("%q became %q, %v", workload, w, err)
		}
	}
}

func FuzzReverseTwiceIsTheWorkload(f *testing.F) {
	f.Add([]byte("aé日😀"))
	f.Add([]byte("a\xff\x80b"))
	f.Fuzz(func(t *testing.T, workload []byte) {
		once, err := run(t, "reverse", string(workload))
		if err != nil || len(once) != len(workload) {
			t.Fatalf("%q, %v", once, err)
		}
		// Bytes backwards may be UTF-8 where they were not before.
		if utf8.Valid(workload) != utf8.Valid(once) {
			return
		}
		if twice, err := run(t, "reverse", string(once)); err != nil || string(twice) != string(workload) {
			t.Errorf("%q, then %q, %v", once, twice, err)
		}
	})
}

func TestSleepRefusesWhatIsNoTime(t *testing.T) {
	for _, workload := range []string{
		"", "soon", "-1", "-0.001", "NaN", "Inf", "+Inf", "-Inf", "1e99", "86401", "1s", "1,5", "1 2", "\x00", "\xff", "[1]",
	} {
		begin := time.Now()
		got, err := run(t, "sleep", workload)
		if err == nil || errors.Is(err, workerpool.ErrFailed) || !strings.Contains(err.Error(), "86400") {
			t.Errorf("%q: %q, %v", workload, got, err)
		}
		if time.Since(begin) > deadline {
			t.Errorf("%q: slept", workload)
		}
	}
}

func TestFail(t *testing.T) {
	for _, workload := range []string{"", "anything", "Exception"} {
		if _, err := run(t, "fail", workload); !errors.Is(err, workerpool.ErrFailed) {
			t.Errorf("%q: %v", workload, err)
		}
	}
	if _, err := run(t, "fail", "exception"); err == nil || errors.Is(err, workerpool.ErrFailed) {
		t.Errorf("exception: %v", err)
	}
	defer func() {
		if v := recover(); v == nil {
			t.Error("panic: did not")
		}
	}()
	_, _ = run(t, "fail", "panic")
}

// startPool runs the built-in functions for a client.
func startPool(t *testing.T) (c *gearman.Client, p *workerpool.Pool) {
	s := jobserver.New(jobserver.Options{Listen: "127.0.0.1:0"})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	server := gearman.Options{Addr: s.Addr()}
	functions := map[string]workerpool.Function{}
	for name, h := range handler.Builtin() {
		functions[name] = workerpool.Function{Handler: h}
	}
	p, err := workerpool.New(workerpool.Options{Servers: []gearman.Options{server}, Functions: functions, Grace: deadline})
	if err != nil {
		t.Fatal(err)
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	c = gearman.NewClient(server)
	t.Cleanup(func() { c.Close(now) })
	if err := c.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Start()
	return c, p
}

func submit(t *testing.T, c *gearman.Client, function, workload string) <-chan gearman.Update {
	t.Helper()
	updates := make(chan gearman.Update, 100)
	if _, err := c.Submit(t.Context(), gearman.Task{Function: function, Workload: []byte(workload)},
		func(u gearman.Update) { updates <- u }); err != nil {
		t.Fatal(err)
	}
	return updates
}

// end collects updates until the last.
func end(t *testing.T, updates <-chan gearman.Update) (all []gearman.Update, last gearman.Update) {
	t.Helper()
	late := time.After(deadline)
	for {
		select {
		case u := <-updates:
			if all = append(all, u); u.Kind >= gearman.Completed {
				return all, u
			}
		case <-late:
			t.Fatalf("no end after %+v", all)
		}
	}
}

func TestSleepTellsHowFarItIs(t *testing.T) {
	c, p := startPool(t)
	defer p.Stop(t.Context())
	for _, workload := range []string{"0.2", " 0.05\n", "0"} {
		begin := time.Now()
		all, last := end(t, submit(t, c, "sleep", workload))
		if last.Kind != gearman.Completed || !strings.HasPrefix(string(last.Payload), "slept ") {
			t.Errorf("%q: %+v (%q)", workload, last, last.Payload)
		}
		if workload == "0.2" && time.Since(begin) < 200*time.Millisecond {
			t.Errorf("slept only %v", time.Since(begin))
		}
		var steps []string
		for _, u := range all {
			if u.Kind == gearman.Status {
				steps = append(steps, fmt.Sprint(u.Numerator, "/", u.Denominator))
			}
		}
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i+1, "/", 10))
		}
		if diff := cmp.Diff(want, steps); diff != "" {
			t.Errorf("%q: %s", workload, diff)
		}
	}
}

func TestSleepEndsWhenThePoolStops(t *testing.T) {
	c, p := startPool(t)
	updates := submit(t, c, "sleep", "600")
	handle := (<-updates).Job.Handle
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for late := time.After(deadline); ; {
		if s, err := c.Status(t.Context(), gearman.Job{Handle: handle}); err != nil {
			t.Fatal(err)
		} else if s.Running {
			break
		}
		select {
		case <-poll.C:
		case <-late:
			t.Fatal("the job does not run")
		}
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if err := p.Stop(now); err != nil || time.Since(begin) > deadline/2 {
		t.Errorf("Stop: %v after %v", err, time.Since(begin))
	}
}

func TestWhatTheClientOfFailGets(t *testing.T) {
	c, p := startPool(t)
	defer p.Stop(t.Context())
	for workload, want := range map[string]gearman.Update{
		"":          {Kind: gearman.Failed},
		"exception": {Kind: gearman.Exception, Payload: []byte("this is the exception that was asked for")},
		"panic":     {Kind: gearman.Exception, Payload: []byte("panic: this is the panic that was asked for")},
	} {
		_, got := end(t, submit(t, c, "fail", workload))
		if got.Kind != want.Kind || string(got.Payload) != string(want.Payload) {
			t.Errorf("%q: %+v (%q)", workload, got, got.Payload)
		}
	}
}
