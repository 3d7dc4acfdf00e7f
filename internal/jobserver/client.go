package jobserver

import (
	"crypto/sha256"
	"strconv"
	"strings"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// submits says what the submitting packets mean. The two for reduce jobs and SUBMIT_JOB_SCHED are not served: no client but
// libgearman has the first, and gearmand refuses the second as well.
var submits = map[wire.Type]struct {
	priority         uint8
	background, when bool
}{
	wire.SubmitJob:       {priority: normal},
	wire.SubmitJobHigh:   {priority: high},
	wire.SubmitJobLow:    {priority: low},
	wire.SubmitJobBG:     {priority: normal, background: true},
	wire.SubmitJobHighBG: {priority: high, background: true},
	wire.SubmitJobLowBG:  {priority: low, background: true},
	wire.SubmitJobEpoch:  {priority: normal, background: true, when: true},
}

// maxUnique is gearmand's limit; it takes 64 bytes too, and then corrupts the job.
const maxUnique = 63

var (
	errUniqueTooLarge = &refusal{"ARGUMENT_TOO_LARGE", "Unique value too large"}
	errQueueFull      = &refusal{"QUEUE_ERROR", "Job queue is full"}
	errEpoch          = &refusal{"INVALID_COMMAND", "The time of SUBMIT_JOB_EPOCH is not a number of seconds"}
	errUnknownOption  = &refusal{"UNKNOWN_OPTION", "Server does not recognize given option"}
)

// A task is a submitting packet, taken apart.
type task struct {
	function   []byte
	key        []byte // of the job
	workload   []byte
	priority   uint8
	background bool
	delay      time.Duration
}

// size is that of the job.
func (t *task) size() int64 { return int64(len(t.function) + len(t.key) + len(t.workload)) }

// parseTask needs no lock: the digest of a large workload takes its time.
func parseTask(p wire.Packet) (task, *refusal) {
	kind := submits[p.Type]
	t := task{
		function:   p.Args[0],
		workload:   p.Args[len(p.Args)-1],
		priority:   kind.priority,
		background: kind.background,
	}
	if len(p.Args[1]) > maxUnique {
		return t, errUniqueTooLarge
	}
	if kind.when {
		seconds, err := strconv.ParseInt(string(p.Args[2]), 10, 64)
		if err != nil {
			return t, errEpoch
		}
		t.delay = untilEpoch(seconds)
	}
	t.key = coalescingKey(p.Args[1], t.workload)
	return t, nil
}

// coalescingKey returns job.key. "-" is gearmand's way to coalesce by the bytes of the workload, unless there are none; the key
// then begins with a NUL, which no unique has.
func coalescingKey(unique, workload []byte) []byte {
	if string(unique) != "-" {
		return unique
	}
	if len(workload) == 0 {
		return []byte{0}
	}
	digest := sha256.Sum256(workload)
	return append([]byte{0}, digest[:]...)
}

// farFuture keeps a time far away from overflowing a time.Duration.
const farFuture = 100 * 365 * 24 * time.Hour

func untilEpoch(seconds int64) time.Duration {
	now := time.Now()
	if seconds > now.Add(farFuture).Unix() {
		return farFuture
	}
	return time.Unix(max(seconds, 0), 0).Sub(now)
}

// submit makes a job or joins one of the same function and unique. The first submit's workload, priority and time hold.
func (s *Server) submit(c *conn, p wire.Packet) *refusal {
	t, refused := parseTask(p)
	if refused != nil {
		return refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, refused := s.function(t.function)
	if refused != nil {
		return refused
	}
	j := s.keys.find(&s.jobs, f, t.key)
	isNew := j == nil
	if isNew {
		if f.full(t.priority) || s.jobs.len >= s.opts.MaxJobs || s.bytes+t.size() > s.opts.MaxBytes {
			return errQueueFull
		}
		j = s.newJob(f, &t)
		s.addJob(j)
	}
	if t.background {
		j.durable = true
	} else {
		c.watch(j)
	}
	var handle [64]byte
	c.reply(wire.JobCreated, nil, s.appendHandle(handle[:0], j.number))
	if isNew {
		s.begin(j, t.delay)
	}
	return nil
}

// begin makes a new job ready to run, now or when its time has come.
func (s *Server) begin(j *job, delay time.Duration) {
	if delay <= 0 {
		s.enqueue(j)
		return
	}
	j.fn.scheduled++
	j.alarm = &alarm{ring: func() {
		s.detach(j)
		s.enqueue(j)
	}}
	s.alarms.ringIn(j.alarm, delay)
}

func (c *conn) watch(j *job) {
	w := &watch{job: j, conn: c}
	w.inJob.item, w.inConn.item = w, w
	j.watches.pushBack(&w.inJob)
	c.watches.pushBack(&w.inConn)
}

var no, yes = []byte("0"), []byte("1")

func flag(b bool) []byte {
	if b {
		return yes
	}
	return no
}

// getStatus answers a handle of any length and content; a job that is not known is four zeros.
func (s *Server) getStatus(c *conn, arg []byte) {
	handle := untilNUL(arg)
	j := s.jobs.get(s.handleNumber(handle))
	if j == nil {
		c.reply(wire.StatusRes, no, handle, no, no, no)
		return
	}
	num, den := j.progress()
	c.reply(wire.StatusRes, den, handle, yes, flag(j.worker != nil), num)
}

// getStatusUnique looks in all functions. The first field of the answer is the unique, and the last counts the foreground
// submits that wait for the job.
func (s *Server) getStatusUnique(c *conn, arg []byte) {
	unique := untilNUL(arg)
	j := s.keys.find(&s.jobs, nil, unique)
	if j == nil {
		c.reply(wire.StatusResUnique, no, unique, no, no, no, no)
		return
	}
	num, den := j.progress()
	clients := strconv.AppendInt(nil, int64(j.watches.len), 10)
	c.reply(wire.StatusResUnique, clients, unique, yes, flag(j.worker != nil), num, den)
}

// progress returns the last WORK_STATUS, zeros if there was none.
func (j *job) progress() (num, den []byte) {
	if j.status == nil {
		return no, no
	}
	return []byte(j.status.numerator), []byte(j.status.denominator)
}

// setOption knows one option: "exceptions" makes WORK_EXCEPTION come as such rather than as WORK_FAIL.
func (c *conn) setOption(name []byte) *refusal {
	if !strings.EqualFold(string(untilNUL(name)), "exceptions") {
		return errUnknownOption
	}
	c.exceptions = true
	c.reply(wire.OptionRes, name)
	return nil
}

// setID names the connection in the admin table "workers". gearmand keeps 127 bytes too.
func (c *conn) setID(id []byte) {
	id = untilNUL(id)
	c.id = string(id[:min(len(id), 127)])
}
