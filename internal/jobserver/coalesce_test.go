package jobserver_test

import (
	"testing"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

func TestWhatCoalesces(t *testing.T) {
	s := start(t, jobserver.Options{})
	c := connect(t, s)
	for _, test := range []struct {
		name                         string
		f1, u1, load1, f2, u2, load2 string
		same                         bool
	}{
		{"unique", "f1", "u", "a", "f1", "u", "b", true},
		{"unique of another function", "f2", "u", "a", "g2", "u", "a", false},
		{"no unique", "f3", "", "a", "f3", "", "a", false},
		{"dash and workload", "f4", "-", "a", "f4", "-", "a", true},
		{"dash and another workload", "f5", "-", "a", "f5", "-", "b", false},
		{"dash and no workload", "f6", "-", "", "f6", "-", "", false},
	} {
		first := c.submit(wire.SubmitJobBG, test.f1, test.u1, test.load1)
		second := c.submit(wire.SubmitJobBG, test.f2, test.u2, test.load2)
		if (first == second) != test.same {
			t.Errorf("%s: handles %s and %s", test.name, first, second)
		}
	}
}

func TestUniqueIsFreeAgainWhenItsJobEnds(t *testing.T) {
	for _, first := range []string{"f", "g"} { // whichever of two functions has the older job
		s := start(t, jobserver.Options{})
		c, w := connect(t, s), worker(t, s, "f")
		var inF string
		for _, function := range []string{first, map[string]string{"f": "g", "g": "f"}[first]} {
			h := c.submit(wire.SubmitJobBG, function, "u", "")
			if function == "f" {
				inF = h
			}
		}
		w.grab(inF)
		w.send(wire.WorkComplete, inF, "")
		w.silent()
		again := c.submit(wire.SubmitJob, "f", "u", "")
		if again == inF {
			t.Fatal("it attached to a job that has ended")
		}
		w.grab(again)
	}
}

func TestFirstWorkloadOfCoalescedJobsRunsOnce(t *testing.T) {
	s := start(t, jobserver.Options{})
	a, b, w := connect(t, s), connect(t, s), worker(t, s, "f")
	h := a.submit(wire.SubmitJob, "f", "u", "first")
	b.submit(wire.SubmitJobHigh, "f", "u", "second")
	if got := w.grab(h); got != "first" {
		t.Errorf("workload %q", got)
	}
	w.wantNoJob()
	w.send(wire.WorkComplete, h, "r")
	a.want(wire.WorkComplete, h, "r")
	b.want(wire.WorkComplete, h, "r")
}

// leave closes a client and waits until the server has taken notice, which shows in the unique's number of clients.
func leave(t *testing.T, s *jobserver.Server, client *peer, unique, wantLeft string) {
	t.Helper()
	client.close()
	p := connect(t, s)
	eventually(t, "client gone", func() bool {
		p.send(wire.GetStatusUnique, unique)
		packet, err := p.packets.Next()
		if err != nil {
			t.Fatal(err)
		}
		return string(packet.Args[5]) == wantLeft
	})
}

func TestQueuedJobGoesWithItsLastClient(t *testing.T) {
	s := start(t, jobserver.Options{})
	a, b, c := connect(t, s), connect(t, s), connect(t, s)
	h := a.submit(wire.SubmitJob, "f", "u", "")
	b.submit(wire.SubmitJob, "f", "u", "")
	leave(t, s, a, "u", "1")
	c.wantStatus(h, "1 0 0 0")
	leave(t, s, b, "u", "0")
	c.wantStatus(h, "0 0 0 0")

	// A later submit is a new job, and runs.
	again := c.submit(wire.SubmitJob, "f", "u", "")
	if again == h {
		t.Fatal("it attached to the job that was given up")
	}
	w := worker(t, s, "f")
	w.grab(again)
	w.send(wire.WorkComplete, again, "")
	c.want(wire.WorkComplete, again, "")
	w.wantNoJob()
}

func TestBackgroundJobOutlivesForegroundClients(t *testing.T) {
	for _, backgroundFirst := range []bool{true, false} {
		s := start(t, jobserver.Options{})
		fg, bg := connect(t, s), connect(t, s)
		var h string
		if backgroundFirst {
			h = bg.submit(wire.SubmitJobBG, "f", "u", "")
			fg.submit(wire.SubmitJob, "f", "u", "")
		} else {
			h = fg.submit(wire.SubmitJob, "f", "u", "")
			bg.submit(wire.SubmitJobBG, "f", "u", "")
		}
		leave(t, s, fg, "u", "0")
		bg.wantStatus(h, "1 0 0 0")
		worker(t, s, "f").grab(h)
	}
}

func TestRunningJobWithoutClientsTakesNewOnes(t *testing.T) {
	s := start(t, jobserver.Options{})
	a, w := connect(t, s), worker(t, s, "f")
	h := a.submit(wire.SubmitJob, "f", "u", "")
	w.grab(h)
	leave(t, s, a, "u", "0")

	b := connect(t, s)
	b.wantStatus(h, "1 1 0 0")
	if again := b.submit(wire.SubmitJob, "f", "u", ""); again != h {
		t.Fatalf("got the job %s, want %s, which runs", again, h)
	}
	w.send(wire.WorkComplete, h, "r")
	b.want(wire.WorkComplete, h, "r")
}

func TestRunningJobWithoutClientsIsNotRunAgain(t *testing.T) {
	s := start(t, jobserver.Options{})
	a, w := connect(t, s), worker(t, s, "f")
	h := a.submit(wire.SubmitJob, "f", "u", "")
	w.grab(h)
	leave(t, s, a, "u", "0")
	w.close()
	eventually(t, "job gone", func() bool { return functionStatus(t, s, "f") == "0 0 0" })
}

func TestJobOfAConnectionThatIsClientAndWorker(t *testing.T) {
	s := start(t, jobserver.Options{})
	both := worker(t, s, "f")
	h := both.submit(wire.SubmitJob, "f", "", "in")
	both.grab(h)
	both.send(wire.WorkComplete, h, "out")
	both.want(wire.WorkComplete, h, "out")

	both.grab(both.submit(wire.SubmitJob, "f", "", ""))
	both.submit(wire.SubmitJob, "f", "", "")
	both.close()
	eventually(t, "jobs gone", func() bool { return functionStatus(t, s, "f") == "0 0 0" })
}
