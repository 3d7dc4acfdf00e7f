package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
)

// running makes a Job of f that knows a running job.
func (f *fake) running() {
	rec := queued(ledger.Task{Function: "f", Mode: ledger.Tracked})
	rec.State = ledger.Running
	f.has(rec)
}

// logged makes a Follow of f that has a job's whole log.
func (f *fake) logged(log ...ledger.Entry) {
	f.follow = func(_ context.Context, _ string, after uint64, send func(ledger.Entry) error) error {
		for _, e := range log {
			if e.Seq > after {
				if err := send(e); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func state(seq uint64, s ledger.State) ledger.Entry {
	return ledger.Entry{Seq: seq, At: submitted, State: s}
}

func TestTheEventsOfAJobThatHasEnded(t *testing.T) {
	c := newClient(t, Options{})
	c.has(completed(ledger.Task{Function: "f"}, nil))
	c.logged(
		state(1, ledger.Queued),
		ledger.Entry{Seq: 2, At: submitted, Progress: &event.Progress{Numerator: 0.5, Denominator: 3}},
		ledger.Entry{Seq: 3, At: submitted, Progress: &event.Progress{Numerator: math.NaN()}},
		ledger.Entry{Seq: 4, At: submitted, Payload: []byte("a\r\nb")},
		ledger.Entry{Seq: 5, At: submitted, Payload: []byte("{\r\"a\": \"\\u0041\",\n\"a\":1.0}")},
		ledger.Entry{Seq: 9, At: submitted, Payload: []byte("\xff"), Warning: true},
		ledger.Entry{Seq: 10, At: submitted, Payload: []byte{}},
		state(12, ledger.Completed),
	)
	res := c.do(http.MethodGet, "/jobs/"+jobID+"/events", "")
	const at = `data: {"at":"2027-01-01T00:00:00.000Z",`
	want := "retry: 3000\n\n" +
		"id: 1\nevent: state\n" + at + `"state":"queued"}` + "\n\n" +
		"id: 2\nevent: progress\n" + at + `"progress":{"numerator":0.5,"denominator":3}}` + "\n\n" +
		"id: 3\nevent: progress\n" + at + `"progress":null}` + "\n\n" +
		"id: 4\nevent: data\n" + at + `"value":"a\r\nb","encoding":"text"}` + "\n\n" +
		"id: 5\nevent: data\n" + at + `"value":{"a":"\u0041","a":1.0},"encoding":"json"}` + "\n\n" +
		"event: gap\ndata: {\"missing\":3}\n\n" +
		"id: 9\nevent: warning\n" + at + `"value":"/w==","encoding":"base64"}` + "\n\n" +
		"id: 10\nevent: data\n" + at + `"value":"","encoding":"text"}` + "\n\n" +
		"event: gap\ndata: {\"missing\":1}\n\n" +
		"id: 12\nevent: state\n" + at + `"state":"completed"}` + "\n\n" +
		"event: end\ndata: {\"state\":\"completed\"}\n\n"
	if diff := cmp.Diff(want, res.Body.String()); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Length": "",
	} {
		if got := res.Header().Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := c.api.streams.used.Load(); got != 0 {
		t.Errorf("%d streams were not given back", got)
	}
}

func TestAStreamGoesOnWhereItWas(t *testing.T) {
	c := newClient(t, Options{})
	c.has(completed(ledger.Task{Function: "f"}, nil))
	c.logged(state(4, ledger.Queued), state(5, ledger.Running), state(6, ledger.Completed))
	for _, tt := range []struct{ query, header, want string }{
		{"", "", "gap 4 5 6 end"},
		{"", "0", "gap 4 5 6 end"},
		{"", "2", "gap 4 5 6 end"},
		{"", "3", "4 5 6 end"},
		{"?last_event_id=4", "", "5 6 end"},
		{"?last_event_id=4", "5", "6 end"}, // a browser comes back to the same URL
		{"", "6", "204"},
		{"?last_event_id=7", "", "204"},
	} {
		res := c.do(http.MethodGet, "/jobs/x/events"+tt.query, "", "Last-Event-ID", tt.header)
		var got []string
		for line := range strings.Lines(res.Body.String()) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch {
			case name == "id":
				got = append(got, value)
			case name == "event" && (value == "gap" || value == "end"):
				got = append(got, value)
			}
		}
		if res.Code == http.StatusNoContent {
			got = append(got, "204")
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.query, tt.header, got, tt.want)
		}
	}
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events", "", "Last-Event-ID", "x"), invalidHeader)
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events", "", "Last-Event-ID", "-1"), invalidHeader)
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events?last_event_id=x", ""), validationError, "last_event_id")
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events?after=1", ""), validationError, "after")
}

func TestStreamsThatAreRefused(t *testing.T) {
	c := newClient(t, Options{MaxStreams: 1})
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events", ""), jobNotFound)
	c.has(ledger.Record{Handle: "H:x:1", State: ledger.Running})
	wantProblem(t, c.do(http.MethodGet, "/jobs/H:x:1/events", ""), jobNotFound)

	c.has(completed(ledger.Task{Function: "f"}, nil))
	inside, leave := make(chan struct{}), make(chan struct{})
	c.follow = func(context.Context, string, uint64, func(ledger.Entry) error) error {
		close(inside)
		<-leave
		return nil
	}
	first := make(chan int, 1)
	go func() { first <- c.do(http.MethodGet, "/jobs/x/events", "").Code }()
	<-inside
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events", ""), queueFull)
	close(leave)
	if got := <-first; got != http.StatusOK {
		t.Errorf("first: got %d", got)
	}
	c.logged()
	if got := c.do(http.MethodGet, "/jobs/x/events", "").Code; got != http.StatusOK {
		t.Errorf("after the first: got %d", got)
	}
	c.follow = func(context.Context, string, uint64, func(ledger.Entry) error) error { return ledger.ErrNotFound }
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events", "", "Last-Event-ID", "3"), jobNotFound)
}

// TestASilentStreamHasComments looks at the clock, so it is in a bubble and has no connection.
func TestASilentStreamHasComments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Options{})
		var asked atomic.Int64
		job := completed(ledger.Task{Function: "f"}, nil)
		c.job = func(context.Context, string, time.Duration) (ledger.Record, error) {
			asked.Add(1)
			return job, nil
		}
		c.follow = func(_ context.Context, _ string, _ uint64, send func(ledger.Entry) error) error {
			for i, pause := range []time.Duration{20 * time.Second, 10 * time.Second, 31 * time.Second} {
				<-time.After(pause)
				if err := send(state(uint64(i+1), ledger.Queued)); err != nil {
					return err
				}
			}
			return nil
		}
		body := c.do(http.MethodGet, "/jobs/x/events", "").Body.String()
		var got []string
		for block := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
			got = append(got, strings.Fields(block)[0])
		}
		if diff := cmp.Diff("retry: : id: id: : : id: event:", strings.Join(got, " ")); diff != "" {
			t.Errorf("blocks (-want +got):\n%s", diff)
		}
		if got := asked.Load(); got != 5 { // at the beginning and the end, and before each comment
			t.Errorf("asked for the job %d times", got)
		}
	})
}

// A reader reads a stream of a real server.
type reader struct {
	t   *testing.T
	res *http.Response
	*bufio.Scanner
}

func listen(ctx context.Context, t *testing.T, url string) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("got %d", res.StatusCode)
	}
	return &reader{t, res, bufio.NewScanner(res.Body)}
}

// until reads up to a line.
func (r *reader) until(line string) {
	r.t.Helper()
	for r.Scan() {
		if r.Text() == line {
			return
		}
	}
	r.t.Fatalf("the stream ended before %q: %v", line, r.Err())
}

// fed makes a Follow of f that sends what comes from the channel; when it returns, its error goes to left.
func (f *fake) fed() (entries chan ledger.Entry, left chan error) {
	entries, left = make(chan ledger.Entry), make(chan error, 1)
	f.follow = func(ctx context.Context, _ string, _ uint64, send func(ledger.Entry) error) (err error) {
		defer func() { left <- err }()
		for {
			select {
			case e, more := <-entries:
				if !more {
					return nil
				}
				if err := send(e); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return entries, left
}

func wait(t *testing.T, left <-chan error) error {
	t.Helper()
	select {
	case err := <-left:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the stream goes on")
		return nil
	}
}

func TestEventsComeAsTheyHappen(t *testing.T) {
	f := &fake{}
	f.running()
	entries, left := f.fed()
	_, url := serve(t, f, Options{ReadTimeout: 100 * time.Millisecond})
	r := listen(t.Context(), t, url+"/jobs/x/events")
	r.until("retry: 3000") // before anything happened
	for seq := range uint64(20) {
		entries <- state(seq+1, ledger.Running)
		r.until(fmt.Sprint("id: ", seq+1))
	}
	close(entries)
	r.until("event: end")
	r.until(`data: {"state":"running"}`)
	for r.Scan() {
		if r.Text() != "" {
			t.Errorf("after the end: %q", r.Text())
		}
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if err := wait(t, left); err != nil {
		t.Error(err)
	}
}

func TestDrainEndsStreams(t *testing.T) {
	f := &fake{}
	f.running()
	_, left := f.fed()
	s, url := serve(t, f, Options{DrainDelay: time.Millisecond})
	r := listen(t.Context(), t, url+"/jobs/x/events")
	r.until("retry: 3000")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := wait(t, left); !errors.Is(err, errStopped) {
		t.Errorf("the stream ended with %v", err)
	}
	for r.Scan() {
		if r.Text() == "event: end" {
			t.Error("the job is said to have ended")
		}
	}
	if err := r.Err(); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
}

func TestNoStreamsWhileDraining(t *testing.T) {
	c := newClient(t, Options{})
	c.running()
	c.api.beginDrain()
	wantProblem(t, c.do(http.MethodGet, "/jobs/x/events", ""), shuttingDown)
}

func TestAClientThatLeavesEndsItsStream(t *testing.T) {
	f := &fake{}
	f.running()
	_, left := f.fed()
	_, url := serve(t, f, Options{})
	ctx, leave := context.WithCancel(t.Context())
	listen(ctx, t, url+"/jobs/x/events").until("retry: 3000")
	leave()
	if err := wait(t, left); !errors.Is(err, context.Canceled) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestAClientThatDoesNotReadItsStreamIsCutOff(t *testing.T) {
	f := &fake{}
	f.running()
	left := make(chan error, 1)
	large := ledger.Entry{Payload: make([]byte, 1<<20)}
	f.follow = func(ctx context.Context, _ string, _ uint64, send func(ledger.Entry) error) (err error) {
		defer func() { left <- err }()
		for e := large; err == nil && ctx.Err() == nil; {
			e.Seq++
			err = send(e)
		}
		return err
	}
	_, url := serve(t, f, Options{WriteTimeout: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /jobs/x/events HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = wait(t, left)
}

func BenchmarkEntry(b *testing.B) {
	e := ledger.Entry{Seq: 7, At: submitted, Payload: []byte(`{"step":3}`)}
	buf := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendEntry(buf[:0], e)
	}
}
