package jobserver_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

func TestDeadWorkersJobsGoToOthersInTheirOrder(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, doomed, other := connect(t, s), worker(t, s, "f"), worker(t, s, "f")
	var handles []string
	for range 5 {
		handles = append(handles, c.submit(wire.SubmitJob, "f", "", ""))
	}
	for _, h := range handles[:3] {
		doomed.grab(h)
	}
	doomed.send(wire.WorkStatus, handles[0], "1", "3")
	c.want(wire.WorkStatus, handles[0], "1", "3")
	doomed.close()
	eventually(t, "jobs put back", func() bool { return functionStatus(t, s, "f") == "5 0 1" })
	for _, h := range handles {
		other.grab(h)
	}
	c.wantStatus(handles[0], "1 1 0 0")
	other.send(wire.WorkComplete, handles[0], "r")
	c.want(wire.WorkComplete, handles[0], "r")
}

func TestJobThatKillsItsWorkersHoldsUpNoOther(t *testing.T) {
	s := start(t, jobserver.Options{})
	c := connect(t, s)
	poison := c.submit(wire.SubmitJob, "f", "", "")
	other := c.submit(wire.SubmitJob, "f", "", "")
	for range 2 {
		w := worker(t, s, "f")
		w.grab(poison)
		w.close()
		eventually(t, "worker gone", func() bool { return functionStatus(t, s, "f") == "2 0 0" })
	}
	w := worker(t, s, "f")
	w.grab(other)
	w.grab(poison)
}

func TestDeadWorkersJobWakesASleeper(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, doomed, other := connect(t, s), worker(t, s, "f"), worker(t, s, "f")
	h := c.submit(wire.SubmitJobBG, "f", "", "")
	doomed.grab(h)
	other.sleep()
	doomed.close()
	other.want(wire.Noop)
	other.grab(h)
}

func TestJobFailsAfterItsAttempts(t *testing.T) {
	s := start(t, jobserver.Options{JobAttempts: 2})
	c := connect(t, s)
	h := c.submit(wire.SubmitJob, "f", "", "")
	for range 2 {
		w := worker(t, s, "f")
		w.grab(h)
		w.close()
		eventually(t, "worker gone", func() bool {
			got := functionStatus(t, s, "f")
			return got == "1 0 0" || got == "0 0 0"
		})
	}
	c.want(wire.WorkFail, h)
	worker(t, s, "f").wantNoJob()
}

func TestOnlyTheHolderSpeaksForAJob(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, holder, stranger := connect(t, s), worker(t, s, "f"), worker(t, s, "f")
	h := c.submit(wire.SubmitJob, "f", "", "")
	holder.grab(h)
	for _, args := range []struct {
		packet wire.Type
		args   []string
	}{
		{wire.WorkData, []string{h, "x"}},
		{wire.WorkWarning, []string{h, "x"}},
		{wire.WorkStatus, []string{h, "1", "1"}},
		{wire.WorkComplete, []string{h, "x"}},
		{wire.WorkException, []string{h, "x"}},
		{wire.WorkFail, []string{h}},
	} {
		stranger.send(args.packet, args.args...)
		stranger.wantError("JOB_NOT_FOUND")
	}
	c.silent()
	holder.send(wire.WorkComplete, h, "r")
	c.want(wire.WorkComplete, h, "r")
}

func TestJobOverItsTimeFails(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), connect(t, s)
	w.send(wire.CanDoTimeout, "f", "50")
	h := c.submit(wire.SubmitJob, "f", "", "")
	w.grab(h)
	c.want(wire.WorkFail, h)
	c.wantStatus(h, "0 0 0 0")

	// The worker does not know, and is not harmed by it.
	w.send(wire.WorkStatus, h, "1", "1")
	w.send(wire.WorkComplete, h, "late")
	w.silent()
	c.silent()
	w.send(wire.WorkComplete, h, "again")
	w.wantError("JOB_NOT_FOUND")

	// In time it is an ordinary job, and CAN_DO lifts the limit.
	w.send(wire.CanDoTimeout, "f", "60000")
	h = c.submit(wire.SubmitJob, "f", "", "")
	w.grab(h)
	w.send(wire.WorkComplete, h, "")
	c.want(wire.WorkComplete, h, "")
	w.send(wire.CanDoTimeout, "f", "1")
	w.send(wire.CanDo, "f")
	h = c.submit(wire.SubmitJob, "f", "", "")
	w.grab(h)
	// An alarm set after 1 ms would ring before this one.
	w.send(wire.CanDoTimeout, "g", "100")
	timed := c.submit(wire.SubmitJob, "g", "", "")
	w.grab(timed)
	c.want(wire.WorkFail, timed)
	c.wantStatus(h, "1 1 0 0")
}

func TestTimeoutAsLibgearmanWritesIt(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), connect(t, s)
	// -1 and what else does not fit 31 bits; then what would overflow a time.Duration.
	for _, ms := range []string{"4294967295", "3000000000", "-1", "9223372036854775807"} {
		w.send(wire.CanDoTimeout, "f", ms)
		h := c.submit(wire.SubmitJob, "f", "", "")
		w.grab(h)
		w.send(wire.WorkComplete, h, "")
		c.want(wire.WorkComplete, h, "")
		w.send(wire.ResetAbilities)
	}
}

func TestEachJobWakesOneSleeper(t *testing.T) {
	s := start(t, jobserver.Options{})
	s.NeverOversleep()
	c := connect(t, s)
	var sleepers []*peer
	for range 3 {
		w := worker(t, s, "f")
		w.sleep()
		sleepers = append(sleepers, w)
	}
	for _, w := range sleepers { // who sleeps longest is woken first
		h := c.submit(wire.SubmitJobBG, "f", "", "")
		w.want(wire.Noop)
		w.grab(h)
	}
	for _, w := range sleepers {
		w.silent()
	}
}

func TestWokenWorkerThatTakesAnotherJobIsReplaced(t *testing.T) {
	s := start(t, jobserver.Options{})
	s.NeverOversleep()
	c, both, one := connect(t, s), worker(t, s, "f", "g"), worker(t, s, "f")
	both.sleep()
	one.sleep()
	inF := c.submit(wire.SubmitJobBG, "f", "", "")
	both.want(wire.Noop)
	one.silent()
	inG := c.submit(wire.SubmitJobHighBG, "g", "", "")
	both.grab(inG)
	one.want(wire.Noop)
	one.grab(inF)
}

func TestWokenWorkerIsReplacedWhenItIsNoUse(t *testing.T) {
	for name, fall := range map[string]func(*peer){
		"it dies":                func(p *peer) { p.close() },
		"it cannot do it":        func(p *peer) { p.send(wire.CantDo, "f") },
		"it can do nothing":      func(p *peer) { p.send(wire.ResetAbilities) },
		"it does nothing at all": func(*peer) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, jobserver.Options{})
			if name != "it does nothing at all" {
				s.NeverOversleep()
			}
			c, first, second := connect(t, s), worker(t, s, "f"), worker(t, s, "f")
			first.sleep()
			second.sleep()
			h := c.submit(wire.SubmitJobBG, "f", "", "")
			first.want(wire.Noop)
			fall(first)
			second.want(wire.Noop)
			second.grab(h)
		})
	}
}

func TestJobDoesNotWaitForEachSleeperThatIsBusyElsewhere(t *testing.T) {
	s := start(t, jobserver.Options{})
	c := connect(t, s)
	const busy = 8
	for range busy {
		worker(t, s, "f").sleep()
	}
	idle := worker(t, s, "f")
	idle.sleep()
	begin := time.Now()
	h := c.submit(wire.SubmitJobBG, "f", "", "")
	idle.want(wire.Noop)
	idle.grab(h)
	if took := time.Since(begin); took > busy*time.Second { // one at a time takes this at least
		t.Errorf("the idle worker was woken after %v", took)
	}
}

func TestPreSleepWithAJobWaitingIsAnsweredAtOnce(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f")
	c.submit(wire.SubmitJobBG, "f", "", "")
	for range 3 {
		w.send(wire.PreSleep)
		w.want(wire.Noop)
	}
}

func TestSleeperLearnsAFunction(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), connect(t, s)
	h := c.submit(wire.SubmitJobBG, "f", "", "")
	w.sleep()
	w.send(wire.CanDo, "f")
	w.want(wire.Noop)
	w.grab(h)
}

func TestWokenWorkerLearnsAFunction(t *testing.T) {
	s := start(t, jobserver.Options{})
	s.NeverOversleep()
	c, w, first, second := connect(t, s), worker(t, s, "f"), worker(t, s, "g"), worker(t, s, "g")
	w.sleep()
	h := c.submit(wire.SubmitJobBG, "f", "", "")
	w.want(wire.Noop)
	w.send(wire.CanDo, "g")
	w.grab(h)
	first.sleep()
	second.sleep()
	c.submit(wire.SubmitJobBG, "g", "", "")
	first.want(wire.Noop)
	second.silent()
}

func TestCantDoAndResetAbilities(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f", "g", "g")
	f := c.submit(wire.SubmitJobBG, "f", "", "")
	g := c.submit(wire.SubmitJobBG, "g", "", "")
	w.send(wire.CantDo, "f")
	w.grab(g)
	w.wantNoJob()
	w.send(wire.ResetAbilities)
	w.wantNoJob()
	w.send(wire.WorkComplete, g, "") // what it holds, it keeps
	w.send(wire.CanDo, "f")
	w.grab(f)
	w.silent()
}

func TestGrabJobAllIsAssignedWithUnique(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f")
	h := c.submit(wire.SubmitJobBG, "f", "u", "x")
	w.send(wire.GrabJobAll)
	w.want(wire.JobAssignUniq, h, "f", "u", "x")
}

// TestNoJobIsLeftWhileWorkersSleep runs workers that sleep whenever there is nothing to do, and clients that wait for each
// result: a wake-up lost anywhere leaves a client waiting.
func TestNoJobIsLeftWhileWorkersSleep(t *testing.T) {
	s := start(t, jobserver.Options{})
	s.NeverOversleep()
	functions := []string{"f", "g", "h"}
	var workers, clients sync.WaitGroup
	var all []*peer
	for i := range 6 {
		w := worker(t, s, functions[i%3], functions[(i+1)%3])
		all = append(all, w)
		workers.Go(func() { w.echoUntilClosed() })
	}
	for i := range 6 {
		c := connect(t, s)
		clients.Go(func() {
			for n := range 300 {
				if err := c.call(functions[(i+n)%3], itoa(n)); err != nil {
					t.Errorf("job %d of client %d: %v", n, i, err)
					return
				}
			}
		})
	}
	clients.Wait()
	for _, w := range all {
		w.close()
	}
	workers.Wait()
}

// echoUntilClosed is a worker's loop: grab, else sleep until NOOP.
func (p *peer) echoUntilClosed() {
	request := wire.Append(nil, wire.Request, wire.GrabJob)
	for {
		if _, err := p.nc.Write(request); err != nil {
			return
		}
		got, err := p.packets.Next()
		if err != nil {
			return
		}
		switch got.Type {
		case wire.NoJob:
			request = wire.Append(nil, wire.Request, wire.PreSleep)
			p.nc.Write(request)
			if _, err := p.packets.Next(); err != nil { // NOOP
				return
			}
			request = wire.Append(nil, wire.Request, wire.GrabJob)
		case wire.JobAssign:
			request = wire.Append(nil, wire.Request, wire.WorkComplete, got.Args[0], got.Args[2])
			request = wire.Append(request, wire.Request, wire.GrabJob)
		}
	}
}

// call submits a job and waits for its result, which is to be its workload.
func (p *peer) call(function, workload string) error {
	p.nc.Write(wire.Append(nil, wire.Request, wire.SubmitJob, []byte(function), nil, []byte(workload)))
	if _, err := p.packets.Next(); err != nil {
		return err
	}
	got, err := p.packets.Next()
	if err != nil {
		return err
	}
	if got.Type != wire.WorkComplete || string(got.Args[1]) != workload {
		return fmt.Errorf("got %s", line(got.Type, got.Args))
	}
	return nil
}
