package handler

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/workerpool"
)

func TestAJobOnTheWire(t *testing.T) {
	j := &workerpool.Job{
		ID: "i", Handle: "H:x:1", Unique: "a\nb\xff", Function: "f", Workload: []byte("hello"), Attempt: 2,
		Deadline: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), Traceparent: "00-1-2-01",
	}
	want := `job 5 {"id":"i","handle":"H:x:1","unique":"a\nb\ufffd","function":"f","attempt":2,"deadline":"2027-01-02T03:04:05Z",` +
		`"traceparent":"00-1-2-01"}` + "\n"
	if got := string(appendJob(nil, context.Background(), j)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFramesOnTheWire(t *testing.T) {
	const wire = "ready\nprogress 3 14\ndata 3\na\nbwarning 0\nretry 4 7\nbusyretry 0\nresult 10\n0123456789"
	r := bufio.NewReader(strings.NewReader(wire))
	for _, want := range []frame{
		{kind: "ready"},
		{kind: "progress", n: 3, d: 14},
		{kind: "data", body: []byte("a\nb")},
		{kind: "warning"},
		{kind: "retry", body: []byte("busy"), after: 7 * time.Second},
		{kind: "retry"},
		{kind: "result", body: []byte("0123456789")},
	} {
		got, err := readFrame(r, 10)
		if err != nil || got.kind != want.kind || string(got.body) != string(want.body) || got.n != want.n || got.d != want.d || got.after != want.after {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := readFrame(r, 10); err != io.EOF {
		t.Error(err)
	}
}

func TestWhatIsNoFrame(t *testing.T) {
	for wire, want := range map[string]error{
		"":                                   io.EOF,
		"result 5\nhalf":                     io.ErrUnexpectedEOF,
		"result 11\n":                        ErrTooLarge,
		"result 18446744073709551615\n":      ErrTooLarge,
		"data 11\n":                          ErrTooLarge,
		"result 18446744073709551616\n":      errGarbage,
		"result -1\n":                        errGarbage,
		"result 1 1\n":                       errGarbage,
		"result\n":                           errGarbage,
		"result 0x1\n":                       errGarbage,
		"ready 1\n":                          errGarbage,
		"progress 1\n":                       errGarbage,
		"progress 1 2 3\n":                   errGarbage,
		"retry 1 2 3\n":                      errGarbage,
		"warning 65537\n":                    errGarbage,
		"job 0 {}\n":                         errGarbage,
		"Result 0\n":                         errGarbage,
		"\n":                                 errGarbage,
		"result 1":                           errGarbage,
		strings.Repeat("x", 300):             errGarbage,
		"result " + strings.Repeat(" ", 300): errGarbage,
	} {
		if _, err := readFrame(bufio.NewReader(strings.NewReader(wire)), 10); !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", wire, err, want)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("ready\nprogress 1 2\ndata 3\nabcretry 0 99999999999999\nresult 0\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bufio.NewReader(strings.NewReader(string(wire)))
		for {
			frame, err := readFrame(r, 100)
			if err != nil {
				return
			}
			if len(frame.body) > maxText || len(frame.body) > len(wire) || frame.after < 0 || frame.after > maxPause {
				t.Fatalf("%+v", frame)
			}
			_, _ = frame.end()
		}
	})
}
