package jobserver_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

// Jobs are put where others were that have ended, and packets where those before were: each has its own unique and workload all the same,
// small or large, whoever else is there.
func TestNoJobHasAnothersBytes(t *testing.T) {
	s := start(t, jobserver.Options{})
	clients := []*peer{connect(t, s), connect(t, s)}
	w := worker(t, s, "f", "g")
	rng := rand.New(rand.NewPCG(1, 2))
	type job struct{ handle, function, unique, workload string }
	var queued []job
	for i := range 3000 {
		if len(queued) < 50 && (len(queued) == 0 || rng.IntN(2) == 0) {
			j := job{function: "f", unique: strings.Repeat(fmt.Sprint(i, "."), rng.IntN(8)), workload: strings.Repeat(fmt.Sprint("-", i), rng.IntN(20))}
			switch rng.IntN(20) {
			case 0:
				j.workload = strings.Repeat("large", 4000)
			case 1: // just what is copied, with the unique and what separates them, and a little more
				j.workload = strings.Repeat("x", 4096-len(j.unique)-4+rng.IntN(8))
			}
			if rng.IntN(2) == 0 {
				j.function = "g"
			}
			j.handle = clients[rng.IntN(2)].submit(wire.SubmitJobBG, j.function, j.unique, j.workload)
			queued = append(queued, j)
			continue
		}
		j := queued[0]
		queued = queued[1:]
		w.send(wire.GrabJobUniq)
		w.want(wire.JobAssignUniq, j.handle, j.function, j.unique, j.workload)
		if j.unique != "" {
			clients[0].send(wire.GetStatusUnique, j.unique)
			clients[0].want(wire.StatusResUnique, j.unique, "1", "1", "0", "0", "0")
		}
		w.send(wire.WorkComplete, j.handle, "")
		w.silent()
	}
}

// A job that has ended makes room for the next one: there is no garbage of it.
func TestAJobThatHasEndedIsUsedAgain(t *testing.T) {
	s := start(t, jobserver.Options{})
	c, w := connect(t, s), worker(t, s, "f")
	for range 100 {
		w.run(c.submit(wire.SubmitJobBG, "f", "u", "workload"))
	}
	if spare := s.Spare(); spare != 1 {
		t.Errorf("%d jobs are spare, want the one that was used 100 times", spare)
	}
}
