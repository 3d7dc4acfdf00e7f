package jobserver

import (
	"slices"

	"gearman-gateway/internal/gearman/wire"
)

// A job is in one of three places: waiting for its time (alarm set, place empty), ready in a queue of its function, or held by
// the worker that grabbed it.
type job struct {
	number   uint64 // in the handle
	seq      uint64 // when it became ready; queues are in this order
	fn       *function
	key      []byte // the unique, or for "-" a NUL and the digest of the workload, if it has one
	workload []byte
	attempts uint32 // runs that ended with the death of the worker
	priority uint8
	durable  bool // submitted in the background: it runs whoever leaves

	place   node[*job]
	worker  *conn        // that runs it; nil while it waits
	watches list[*watch] // one for each foreground submit
	status  *status      // the last WORK_STATUS of its run, nil if there was none
	alarm   *alarm       // its time to run, or the end of the time it may run; nil for most
}

type status struct{ numerator, denominator string }

// A watch is one foreground submit whose connection is told what becomes of the job. Two submits of one unique on one
// connection make two, and every packet comes twice, as from gearmand.
type watch struct {
	job    *job
	conn   *conn
	inJob  node[*watch]
	inConn node[*watch]
}

// unique returns what the client sent.
func (j *job) unique() []byte {
	if len(j.key) > 0 && j.key[0] == 0 {
		return []byte("-")
	}
	return j.key
}

// coalesces says whether a key is one that jobs coalesce by: there is a unique, or for "-" a workload.
func coalesces(key []byte) bool { return len(key) > 1 || len(key) == 1 && key[0] != 0 }

// size is what a job counts in Server.bytes.
func (j *job) size() int64 { return int64(len(j.fn.name) + len(j.key) + len(j.workload)) }

// wanted says whether anybody would miss the job.
func (j *job) wanted() bool { return j.durable || j.watches.front != nil }

// smallJob is how many bytes of a job are copied, to where those of one that has ended were. It is less than largePayload.
const smallJob = 4 << 10

// maxSpare is how many jobs that have ended are kept for new ones. So the memory that a job needs is most often that of one that has
// just ended, which is in the processor's cache, whatever the queue's length is; and there is less garbage. They hold 16 MiB at most.
const maxSpare = 4096

// newJob makes a job of a task.
func (s *Server) newJob(f *function, t *task) *job {
	var j *job
	if n := len(s.spare); n > 0 {
		j, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		j = new(job)
	}
	room := j.key
	j.fn, j.key, j.workload, j.priority = f, t.key, t.workload, t.priority
	if n := len(t.key); n+len(t.workload) <= smallJob {
		room = append(append(slices.Grow(room, n+len(t.workload)), t.key...), t.workload...)
		j.key, j.workload = room[:n], room[n:]
	}
	return j
}

// reuse keeps a job that has ended for a new one, and with it what its key has room for, which was the workload's, too.
func (s *Server) reuse(j *job) {
	if len(s.spare) == maxSpare || len(j.key)+len(j.workload) > smallJob {
		return
	}
	*j = job{key: j.key[:0]}
	s.spare = append(s.spare, j)
}

func (s *Server) addJob(j *job) {
	s.lastJob++
	j.number = s.lastJob
	j.place.item = j
	s.jobs.add(j)
	s.bytes += j.size()
	s.keys.add(j, &s.jobs)
}

// detach takes a job out of the place where it waits or runs, and stops its clock.
func (s *Server) detach(j *job) {
	switch {
	case j.worker != nil:
		j.worker = nil
		j.fn.running--
	case j.place.in != nil:
		j.fn.ready--
	default:
		j.fn.scheduled--
	}
	j.place.remove()
	if j.alarm != nil {
		s.alarms.cancel(j.alarm)
		j.alarm = nil
	}
}

// removeJob ends a job: those who watched it hear no more, and nobody may look at it again.
func (s *Server) removeJob(j *job) {
	s.detach(j)
	for n := j.watches.front; n != nil; n = j.watches.front {
		n.remove()
		n.item.inConn.remove()
	}
	s.jobs.remove(j)
	s.bytes -= j.size()
	s.reuse(j)
}

// tell sends a packet about a job to all that watch it, once per submit.
func (s *Server) tell(j *job, t wire.Type, payload []byte, more ...[]byte) {
	if j.watches.front == nil {
		return
	}
	var scratch [64]byte
	head := append([][]byte{s.appendHandle(scratch[:0], j.number)}, more...)
	for n := j.watches.front; n != nil; n = n.next {
		n.item.conn.notify(t, payload, head...)
	}
}

// fail ends a job and tells those who watch it.
func (s *Server) fail(j *job) {
	s.tellFail(j)
	s.removeJob(j)
}

// tellFail sends WORK_FAIL, whose only argument is the handle.
func (s *Server) tellFail(j *job) {
	for n := j.watches.front; n != nil; n = n.next {
		n.item.conn.notify(wire.WorkFail, s.appendHandle(nil, j.number))
	}
}

// abandonWatches forgets what a connection waits for. A job that is not running and that nobody else wants goes with it, so that
// no later submit can attach to a job that will never run. A running one goes on; its result is dropped.
func (s *Server) abandonWatches(c *conn) {
	for n := c.watches.front; n != nil; n = c.watches.front {
		j := n.item.job
		n.remove()
		n.item.inJob.remove()
		if j.worker == nil && !j.wanted() {
			s.removeJob(j)
		}
	}
}

// abandonJobs gives what a worker held to others. It goes from the last grabbed to the first, so that each finds its place at
// the head of its queue. A job that has seen a worker die before goes to the end: if it is what kills them, and were first each
// time, no other would run.
func (s *Server) abandonJobs(c *conn) {
	for n := c.held.back; n != nil; n = c.held.back {
		j := n.item
		j.attempts++
		switch {
		case !j.wanted():
			s.removeJob(j)
		case s.opts.JobAttempts > 0 && int(j.attempts) >= s.opts.JobAttempts:
			s.log.Warn().Str("function", j.fn.name).Uint64("job", j.number).Uint32("attempts", j.attempts).
				Msg("job fails: its workers died")
			s.fail(j)
		case j.attempts > 1:
			s.detach(j)
			s.enqueue(j)
		default:
			s.detach(j)
			s.requeue(j)
		}
	}
}
