package jobserver

import (
	"math"
	"slices"
	"strconv"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// An ability is one function that one connection can do.
type ability struct {
	conn    *conn
	fn      *function
	timeout time.Duration  // that a job may take; 0 is for ever
	bed     node[*ability] // in the function's sleepers
}

var errTimeout = &refusal{"INVALID_COMMAND", "The timeout of CAN_DO_TIMEOUT is not a number of milliseconds"}

// canDo registers a function, or registers it anew. timeout is the text of CAN_DO_TIMEOUT, nil for CAN_DO; 0 and less are no
// timeout. libgearman's workers write theirs as an unsigned 32-bit number, -1 too, and an ERROR would make them stop.
func (s *Server) canDo(c *conn, arg, timeout []byte) *refusal {
	var limit time.Duration
	if timeout != nil {
		ms, err := strconv.ParseInt(string(untilNUL(timeout)), 10, 64)
		if err != nil {
			return errTimeout
		}
		limit = time.Duration(min(max(ms, 0), math.MaxUint32)) * time.Millisecond
	}
	if i := c.ability(arg); i >= 0 {
		c.abilities[i].timeout = limit
		return nil
	}
	f, refused := s.function(arg)
	if refused != nil {
		return refused
	}
	a := &ability{conn: c, fn: f, timeout: limit}
	a.bed.item = a
	c.abilities = append(c.abilities, a)
	f.workers++
	switch c.rest {
	case asleep:
		f.sleepers.pushBack(&a.bed)
		s.rouse(f)
	case woken:
		f.woken++
	}
	return nil
}

// ability returns the index of a function in the connection's abilities, -1 if it is not there.
func (c *conn) ability(name []byte) int {
	return slices.IndexFunc(c.abilities, func(a *ability) bool { return a.fn.name == string(name) })
}

// cantDo takes a function back. Jobs that the worker holds stay with it.
func (s *Server) cantDo(c *conn, name []byte) {
	i := c.ability(name)
	if i < 0 {
		return
	}
	a := c.abilities[i]
	c.abilities = slices.Delete(c.abilities, i, i+1)
	s.dropAbility(a)
}

// resetAbilities takes all functions back.
func (s *Server) resetAbilities(c *conn) {
	all := c.abilities
	c.abilities = nil
	for _, a := range all {
		s.dropAbility(a)
	}
	if c.rest == woken {
		s.alarms.cancel(&c.wakeUp)
		c.rest = awake
	}
}

func (s *Server) dropAbility(a *ability) {
	a.bed.remove()
	a.fn.workers--
	if a.conn.rest == woken {
		a.fn.woken--
		s.rouse(a.fn)
	}
}

// grab gives a worker its next job, or NO_JOB. GRAB_JOB_ALL asks for reduce jobs too; there are none, so it is GRAB_JOB_UNIQ.
func (s *Server) grab(c *conn, t wire.Type) {
	wasWoken := s.rise(c)
	j, a := c.next()
	if j == nil {
		c.reply(wire.NoJob, nil)
	} else {
		s.assign(c, j, a)
		var scratch [64]byte
		handle := s.appendHandle(scratch[:0], j.number)
		if t == wire.GrabJob {
			c.reply(wire.JobAssign, j.workload, handle, []byte(j.fn.name))
		} else {
			c.reply(wire.JobAssignUniq, j.workload, handle, []byte(j.fn.name), j.unique())
		}
	}
	if wasWoken {
		s.rouseFor(c)
	}
}

// assign moves a job from its queue into a worker's hands and starts its time.
func (s *Server) assign(c *conn, j *job, a *ability) {
	s.detach(j)
	j.worker = c
	j.fn.running++
	j.status = nil
	c.held.pushBack(&j.place)
	if a.timeout > 0 {
		j.alarm = &alarm{ring: func() {
			s.log.Info().Str("function", j.fn.name).Uint64("job", j.number).Msg("job fails: its time is up")
			s.revoke(j)
		}}
		s.alarms.ringIn(j.alarm, a.timeout)
	}
}

// revoke takes a job from its worker and fails it. The worker is not told, and the server ignores what it still has to say of
// the job: an ERROR would make libgearman's workers stop.
func (s *Server) revoke(j *job) {
	if c := j.worker; len(c.revoked) < maxRevoked {
		if c.revoked == nil {
			c.revoked = map[uint64]struct{}{}
		}
		c.revoked[j.number] = struct{}{}
	}
	s.fail(j)
}

// maxRevoked bounds the jobs that are remembered of a worker that never ends them. Others are answered JOB_NOT_FOUND.
const maxRevoked = 1024

// tellException sends WORK_EXCEPTION to those who set the option, and WORK_FAIL to the others.
func (s *Server) tellException(j *job, text []byte) {
	for n := j.watches.front; n != nil; n = n.next {
		c, handle := n.item.conn, s.appendHandle(nil, j.number)
		if c.exceptions {
			c.notify(wire.WorkException, text, handle)
		} else {
			c.notify(wire.WorkFail, handle)
		}
	}
}

// notFound are gearmand's texts for a job that the sender does not hold.
func notFound(t wire.Type) *refusal {
	switch t {
	case wire.WorkData, wire.WorkWarning:
		return &refusal{"JOB_NOT_FOUND", "Job does not exist on server"}
	case wire.WorkException:
		return &refusal{"JOB_NOT_FOUND", "An exception was received for a job that does not exist"}
	}
	return &refusal{"JOB_NOT_FOUND", "Job given in work result not found"}
}

// work passes on what a worker says of a job that it holds. WORK_COMPLETE, WORK_FAIL and WORK_EXCEPTION end the job.
func (s *Server) work(c *conn, p wire.Packet) *refusal {
	number := s.handleNumber(untilNUL(p.Args[0]))
	j := s.jobs.get(number)
	if j == nil || j.worker != c {
		return c.belated(p.Type, number)
	}
	switch p.Type {
	case wire.WorkStatus:
		den := untilNUL(p.Args[2])
		j.status = &status{progressText(p.Args[1]), progressText(den)}
		s.tell(j, p.Type, den, p.Args[1])
	case wire.WorkFail:
		s.tellFail(j)
	case wire.WorkException:
		s.tellException(j, p.Args[1])
		c.threw = number
	default:
		s.tell(j, p.Type, p.Args[1])
	}
	if ends(p.Type) {
		s.removeJob(j)
	}
	return nil
}

// belated is what a worker hears that speaks of a job it does not hold: ERROR, unless it held the job and cannot know better.
// After WORK_EXCEPTION Perl workers say WORK_FAIL too, and an ERROR kills them.
func (c *conn) belated(t wire.Type, number uint64) *refusal {
	if _, ok := c.revoked[number]; ok {
		if ends(t) {
			delete(c.revoked, number)
		}
		return nil
	}
	if t == wire.WorkFail && number > 0 && number == c.threw {
		c.threw = 0
		return nil
	}
	return notFound(t)
}

func ends(t wire.Type) bool {
	return t == wire.WorkComplete || t == wire.WorkFail || t == wire.WorkException
}

// progressText is what GET_STATUS answers of a WORK_STATUS: a number as the worker wrote it, with a fraction if it has one. Clients
// put it through strtoul or the like, so what is not a number is 0.
func progressText(text []byte) string {
	if len(text) == 0 || len(text) > 20 {
		return "0"
	}
	for _, b := range text {
		if b != '.' && (b < '0' || b > '9') {
			return "0"
		}
	}
	return string(text)
}
