package jobserver_test

import (
	"strings"
	"testing"
	"time"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

func TestForegroundJobTellsItsClientEverything(t *testing.T) {
	s := start(t, jobserver.Options{})
	client, w := connect(t, s), worker(t, s, "f")

	h := client.submit(wire.SubmitJob, "f", "u", "in\x00put")
	client.wantStatus(h, "1 0 0 0")
	w.send(wire.GrabJobUniq)
	w.want(wire.JobAssignUniq, h, "f", "u", "in\x00put")
	client.wantStatus(h, "1 1 0 0")

	w.send(wire.WorkStatus, h, "0.5", "2")
	client.want(wire.WorkStatus, h, "0.5", "2")
	client.wantStatus(h, "1 1 0.5 2")
	client.send(wire.GetStatusUnique, "u")
	client.want(wire.StatusResUnique, "u", "1", "1", "0.5", "2", "1")

	w.send(wire.WorkData, h, "part\x00")
	client.want(wire.WorkData, h, "part\x00")
	w.send(wire.WorkWarning, h, "careful")
	client.want(wire.WorkWarning, h, "careful")
	w.send(wire.WorkComplete, h, "done")
	client.want(wire.WorkComplete, h, "done")

	client.wantStatus(h, "0 0 0 0")
	client.send(wire.GetStatusUnique, "u")
	client.want(wire.StatusResUnique, "u", "0", "0", "0", "0", "0")
	w.wantNoJob()
}

func TestFailureAndException(t *testing.T) {
	s := start(t, jobserver.Options{})
	plain, curious, w := connect(t, s), connect(t, s), worker(t, s, "f")
	curious.send(wire.OptionReq, "exceptions")
	curious.want(wire.OptionRes, "exceptions")

	h := plain.submit(wire.SubmitJob, "f", "", "")
	w.grab(h)
	w.send(wire.WorkFail, h)
	plain.want(wire.WorkFail, h)

	h = plain.submit(wire.SubmitJob, "f", "shared", "")
	curious.submit(wire.SubmitJob, "f", "shared", "")
	w.grab(h)
	w.send(wire.WorkException, h, "boom")
	plain.want(wire.WorkFail, h)
	curious.want(wire.WorkException, h, "boom")
	plain.wantStatus(h, "0 0 0 0")

	w.send(wire.WorkFail, h) // as Perl workers do after an exception: once it is no error
	w.silent()
	w.send(wire.WorkFail, h)
	w.wantError("JOB_NOT_FOUND")
	plain.silent()
	curious.silent()
}

func TestPriorityGoesBeforeAgeAcrossFunctions(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f", "g")
	low := c.submit(wire.SubmitJobLow, "f", "", "")
	lowBG := c.submit(wire.SubmitJobLowBG, "g", "", "")
	second := c.submit(wire.SubmitJob, "g", "", "")
	third := c.submit(wire.SubmitJobBG, "f", "", "")
	fourth := c.submit(wire.SubmitJobBG, "g", "", "")
	first := c.submit(wire.SubmitJobHigh, "g", "", "")
	firstBG := c.submit(wire.SubmitJobHighBG, "f", "", "")
	if got, want := admin(t, s, "prioritystatus\n"), "f\t1\t1\t1\t1\ng\t1\t2\t1\t1\n.\n"; got != want {
		t.Errorf("prioritystatus: got %q, want %q", got, want)
	}
	for _, h := range []string{first, firstBG, second, third, fourth, low, lowBG} {
		w.grab(h)
	}
	w.wantNoJob()
}

func TestEverySubmitIsToldOnItsConnection(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f")
	h := c.submit(wire.SubmitJob, "f", "u", "")
	if again := c.submit(wire.SubmitJob, "f", "u", ""); again != h {
		t.Fatalf("handles %s and %s of one unique", h, again)
	}
	w.grab(h)
	w.send(wire.WorkData, h, "d")
	w.send(wire.WorkStatus, h, "1", "2")
	w.send(wire.WorkComplete, h, "r")
	for range 2 {
		c.want(wire.WorkData, h, "d")
	}
	for range 2 {
		c.want(wire.WorkStatus, h, "1", "2")
	}
	for range 2 {
		c.want(wire.WorkComplete, h, "r")
	}
	c.silent()
}

func TestRefusedRequests(t *testing.T) {
	s := start(t, jobserver.Options{})
	long := strings.Repeat("x", 70)
	for _, test := range []struct {
		name, code string
		packet     wire.Type
		args       []string
	}{
		{"unique of 64 bytes", "ARGUMENT_TOO_LARGE", wire.SubmitJob, []string{"f", long[:64], ""}},
		{"unique of 70 bytes", "ARGUMENT_TOO_LARGE", wire.SubmitJobBG, []string{"f", long, ""}},
		{"function of 513 bytes", "ARGUMENT_TOO_LARGE", wire.SubmitJob, []string{strings.Repeat("f", 513), "", ""}},
		{"no function", "ARGUMENT_TOO_LARGE", wire.SubmitJob, []string{"", "", ""}},
		{"ability of 513 bytes", "ARGUMENT_TOO_LARGE", wire.CanDo, []string{strings.Repeat("f", 513)}},
		{"ability with a NUL", "INVALID_COMMAND", wire.CanDo, []string{"f\x00g"}},
		{"timeout that is none", "INVALID_COMMAND", wire.CanDoTimeout, []string{"f", "soon"}},
		{"epoch that is none", "INVALID_COMMAND", wire.SubmitJobEpoch, []string{"f", "", "tomorrow", ""}},
		{"cron", "INVALID_COMMAND", wire.SubmitJobSched, []string{"f", "", "1", "1", "1", "1", "1", ""}},
		{"reduce", "INVALID_COMMAND", wire.SubmitReduceJob, []string{"f", "", "r", ""}},
		{"reduce in the background", "INVALID_COMMAND", wire.SubmitReduceJobBG, []string{"f", "", "r", ""}},
		{"a server's packet", "INVALID_COMMAND", wire.JobCreated, []string{"H:1"}},
		{"unknown option", "UNKNOWN_OPTION", wire.OptionReq, []string{"unheard-of"}},
		{"work without a job", "JOB_NOT_FOUND", wire.WorkComplete, []string{"H:nowhere:1", ""}},
		{"failure without a job", "JOB_NOT_FOUND", wire.WorkFail, []string{"H:nowhere:1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := connect(t, s)
			p.send(test.packet, test.args...)
			p.wantError(test.code)
			p.silent()
		})
	}
	if got := admin(t, s, "show jobs\n"); got != ".\n" {
		t.Errorf("jobs were made: %q", got)
	}
}

func TestPacketsWithoutAnswer(t *testing.T) {
	p := connect(t, start(t, jobserver.Options{}))
	p.send(wire.AllYours)
	p.send(wire.SetClientID, "me")
	p.send(wire.CantDo, "never-registered")
	p.send(wire.ResetAbilities)
	p.send(wire.PreSleep)
	p.silent()
}

func TestStatusOfAnyArgumentIsAnswered(t *testing.T) {
	s := start(t, jobserver.Options{})
	p := connect(t, s)
	h := p.submit(wire.SubmitJobBG, "f", "", "")
	for _, handle := range []string{"", "H:", "H:elsewhere:1", h + "0", strings.TrimSuffix(h, "1") + "01", strings.Repeat("h", 5000)} {
		p.wantStatus(handle, "0 0 0 0")
	}
	p.send(wire.GetStatus, h+"\x00") // a C string with its end
	p.want(wire.StatusRes, h, "1", "0", "0", "0")
	long := strings.Repeat("u", 5000)
	p.send(wire.GetStatusUnique, long)
	p.want(wire.StatusResUnique, long, "0", "0", "0", "0", "0")
}

func TestUniqueStatusLooksInAllFunctions(t *testing.T) {
	s := start(t, jobserver.Options{})
	p, w := connect(t, s), worker(t, s, "g")
	p.submit(wire.SubmitJobBG, "f", "u", "")
	h := p.submit(wire.SubmitJob, "g", "u", "")
	for range 2 {
		p.send(wire.GetStatusUnique, "u")
		if got := p.read(); !strings.HasPrefix(got, `STATUS_RES_UNIQUE "u" "1"`) {
			t.Fatalf("got %s", got)
		}
		if h != "" {
			w.grab(h)
			w.send(wire.WorkComplete, h, "")
			p.want(wire.WorkComplete, h, "")
			h = "" // and now the one in f alone
		}
	}
}

func TestEpochRunsAtItsTime(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f")
	w.sleep()
	due := time.Now().Add(1500 * time.Millisecond).Truncate(time.Second)
	cancelled := c.submit(wire.SubmitJobEpoch, "f", "", itoa(int(due.Unix())), "")
	h := c.submit(wire.SubmitJobEpoch, "f", "later", itoa(int(due.Unix())), "x")
	admin(t, s, "cancel job "+cancelled+"\n")
	w.want(wire.Noop)
	if now := time.Now(); now.Before(due) {
		t.Errorf("due at %v, woken at %v", due, now)
	}
	if got := w.grab(h); got != "x" {
		t.Errorf("workload %q", got)
	}
	past := c.submit(wire.SubmitJobEpoch, "f", "", "1", "")
	w.grab(past)
}

func TestJobThatWaitsForItsTimeHoldsUpNoOther(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f")
	w.sleep()
	waiting := c.submit(wire.SubmitJobEpoch, "f", "", "9223372036854775807", "")
	w.silent()
	low := c.submit(wire.SubmitJobLowBG, "f", "", "")
	w.want(wire.Noop)
	w.grab(low)
	w.wantNoJob()
	w.sleep()
	c.wantStatus(waiting, "1 0 0 0")
}
