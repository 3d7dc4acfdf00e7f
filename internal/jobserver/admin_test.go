package jobserver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

func TestAdminAnswers(t *testing.T) {
	incomplete := func(verb string) string {
		return "ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + verb + "\r\n"
	}
	const unknown = "ERR UNKNOWN_COMMAND Unknown+server+command\r\n"
	s := start(t, jobserver.Options{Version: "1.2.3", Log: zerolog.New(&logBook{}).Level(zerolog.ErrorLevel)})
	for _, test := range []struct{ line, want string }{ // in this order
		{"version\n", "OK 1.2.3\n"},
		{"VERSION\r\n", "OK 1.2.3\n"},
		{"getpid\n", fmt.Sprintf("OK %d\n", os.Getpid())},
		{"verbose\n", "OK ERROR\n"},
		{"status\n", ".\n"},
		{"prioritystatus\n", ".\n"},
		{"show jobs\n", ".\n"},
		{"show unique jobs\n", ".\n"},
		{"show\n", unknown},
		{"show something\n", "ERR UNKNOWN_SHOW_ARGUMENTS\r\n"},
		{"create function lf\n", "OK\r\n"},
		{"create function crlf\r\n", "OK\r\n"},
		{"create function " + strings.Repeat("x", 513) + "\n", "ERR CREATE_FUNCTION " + strings.Repeat("x", 513) + "\r\n"},
		{"create\n", incomplete("create")},
		{"create function\n", incomplete("create")},
		{"create table t\n", incomplete("create")},
		{"status\n", "crlf\t0\t0\t0\nlf\t0\t0\t0\n.\n"},
		{"prioritystatus\r\n", "crlf\t0\t0\t0\t0\nlf\t0\t0\t0\t0\n.\n"},
		{"drop function crlf\r\n", "OK\r\n"},
		{"drop function crlf\r\n", "ERR function not found\r\n"},
		{"drop\n", incomplete("drop")},
		{"status\n", "lf\t0\t0\t0\n.\n"},
		{"maxqueue\n", incomplete("maxqueue")},
		{"maxqueue lf 1\n", "OK\r\n"},
		{"maxqueue lf -1\n", "OK\r\n"},
		{"maxqueue lf 1 2 3\r\n", "OK\r\n"},
		{"maxqueue lf 1 2\n", incomplete("maxqueue")},
		{"maxqueue lf many\n", incomplete("maxqueue")},
		{"cancel job H:nowhere:1\n", "ERR UNKNOWN_JOB\r\n"},
		{"cancel job\n", unknown},
		{"cancel the job\n", "ERR UNKNOWN_ERROR\r\n"},
		{"shutdown\n", unknown},
		{"\n", unknown},
		{" \r\n", unknown},
	} {
		if diff := cmp.Diff(test.want, admin(t, s, test.line)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.line, diff)
		}
	}
}

func TestAdminTablesOfJobsAndWorkers(t *testing.T) {
	s := start(t, jobserver.Options{})
	w, c := worker(t, s, "f", "g"), connect(t, s)
	w.send(wire.SetClientID, "me\n.\n\x00rest")
	w.silent()
	done := c.submit(wire.SubmitJobHigh, "f", "u1", "")
	held := c.submit(wire.SubmitJobBG, "f", "u2", "")
	c.submit(wire.SubmitJobLow, "g", "", "")
	c.submit(wire.SubmitJobEpoch, "g", "u4", "99999999999", "")
	c.submit(wire.SubmitJobBG, "h\nh", "", "") // a name that would break the tables
	w.grab(done)
	w.send(wire.WorkComplete, done, "")
	c.want(wire.WorkComplete, done, "")
	w.grab(held)

	for command, want := range map[string]string{
		"status\n":           "f\t1\t1\t1\ng\t2\t0\t1\nh?h\t1\t0\t0\n.\n",
		"prioritystatus\n":   "f\t0\t0\t0\t1\ng\t0\t1\t1\t1\nh?h\t0\t1\t0\t0\n.\n",
		"show jobs\n":        "P2\t0\t0\t1\nP3\t0\t0\t0\nP4\t0\t0\t1\nP5\t0\t0\t1\n.\n",
		"show unique jobs\n": "u2\nu4\n.\n",
	} {
		prefix := strings.TrimSuffix(done, "1")
		if diff := cmp.Diff(want, strings.ReplaceAll(admin(t, s, command), prefix, "P")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", command, diff)
		}
	}
	rows := strings.SplitAfter(admin(t, s, "workers\n"), "\n")
	want := []string{"1 127.0.0.1 me?.? : f g\n", "2 127.0.0.1 - :\n"}
	if diff := cmp.Diff(want, rows[:2]); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	for _, f := range []string{"f", "g"} {
		if got := admin(t, s, "drop function "+f+"\n"); got != "ERR there are still connected workers or executing clients\r\n" {
			t.Errorf("drop function %s: %q", f, got)
		}
	}
}

func TestDropFunctionKeepsQueuedJobs(t *testing.T) {
	s := start(t, jobserver.Options{})
	connect(t, s).submit(wire.SubmitJobBG, "f", "", "")
	if got := admin(t, s, "drop function f\n"); !strings.HasPrefix(got, "ERR") {
		t.Errorf("got %q", got)
	}
}

func TestCancel(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), connect(t, s)
	queued := c.submit(wire.SubmitJob, "f", "u", "")
	if got := admin(t, s, "cancel job "+queued+"\n"); got != "OK\r\n" {
		t.Errorf("got %q", got)
	}
	c.want(wire.WorkFail, queued)
	if got := admin(t, s, "cancel job "+queued+"\n"); got != "ERR UNKNOWN_JOB\r\n" {
		t.Errorf("a second time: got %q", got)
	}

	waiting := c.submit(wire.SubmitJobEpoch, "f", "u", "99999999999", "")
	admin(t, s, "cancel job "+waiting+"\n")
	c.wantStatus(waiting, "0 0 0 0")

	running := c.submit(wire.SubmitJob, "f", "u", "")
	w.send(wire.CanDo, "f")
	w.grab(running)
	admin(t, s, "cancel job "+running+"\n")
	c.want(wire.WorkFail, running)
	w.send(wire.WorkComplete, running, "for nothing")
	w.silent()
	c.silent()
	if got, want := functionStatus(t, s, "f"), "0 0 1"; got != want {
		t.Errorf("status: got %s, want %s", got, want)
	}
}

func TestTextAndPacketsOnOneConnection(t *testing.T) {
	p := connect(t, start(t, jobserver.Options{Version: "v"}))
	p.write([]byte("version\nsta"))
	for _, want := range []string{"OK v\n", ".\n"} {
		if got, err := p.br.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		if want == "OK v\n" {
			p.write([]byte("tus\n"))
		}
	}
	p.silent()
	p.write([]byte("version\r\n"))
	if got, err := p.br.ReadString('\n'); got != "OK v\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}
