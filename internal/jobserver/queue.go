package jobserver

import "bytes"

// Priorities in the order in which workers are given jobs.
const (
	high = iota
	normal
	low
	priorities
)

// A function is a name that jobs are submitted for and workers say they can do.
type function struct {
	name      string
	queues    [priorities]list[*job] // jobs ready to run, oldest first
	ready     int                    // jobs in queues
	scheduled int                    // jobs that wait for their time
	running   int
	limits    [priorities]int // maxqueue; 0 is no limit

	workers  int            // connections that can do it
	sleepers list[*ability] // those asleep, longest asleep first
	woken    int            // those that were sent NOOP and have not grabbed since
}

func (f *function) total() int { return f.ready + f.scheduled + f.running }

func (f *function) idle() bool {
	return f.total() == 0 && f.workers == 0 && f.limits == [priorities]int{}
}

// full says whether maxqueue forbids another job. It counts all jobs of the function, and the limit is that of the new
// job's priority: so does gearmand.
func (f *function) full(priority uint8) bool {
	return f.limits[priority] > 0 && f.total() >= f.limits[priority]
}

// maxFunction is libgearman's limit.
const maxFunction = 512

var errFunctionTable = &refusal{"QUEUE_ERROR", "Function table is full"}

// checkFunction refuses what cannot be a function's name. NUL would shift the fields of JOB_ASSIGN.
func checkFunction(name []byte) *refusal {
	if len(name) == 0 || len(name) > maxFunction {
		return &refusal{"ARGUMENT_TOO_LARGE", "Function name must have 1 to 512 bytes"}
	}
	if bytes.IndexByte(name, 0) >= 0 {
		return &refusal{"INVALID_COMMAND", "Function name has a NUL byte"}
	}
	return nil
}

// function returns the function of that name, and makes it if need be.
func (s *Server) function(name []byte) (*function, *refusal) {
	if f := s.functions[string(name)]; f != nil {
		return f, nil
	}
	if r := checkFunction(name); r != nil {
		return nil, r
	}
	if len(s.functions) >= s.opts.MaxFunctions {
		for name, f := range s.functions {
			if f.idle() {
				delete(s.functions, name)
			}
		}
	}
	if len(s.functions) >= s.opts.MaxFunctions {
		return nil, errFunctionTable
	}
	f := &function{name: string(name)}
	s.functions[f.name] = f
	return f, nil
}

// enqueue makes a job ready to run, last of its priority.
func (s *Server) enqueue(j *job) {
	s.lastSeq++
	j.seq = s.lastSeq
	j.fn.queues[j.priority].pushBack(&j.place)
	j.fn.ready++
	s.rouse(j.fn)
}

// requeue puts a job back where it was: behind those that became ready before it. Only other jobs that were put back can be
// ahead, so the walk is short.
func (s *Server) requeue(j *job) {
	queue := &j.fn.queues[j.priority]
	next := queue.front
	for next != nil && next.item.seq < j.seq {
		next = next.next
	}
	queue.insert(&j.place, next)
	j.fn.ready++
	s.rouse(j.fn)
}

// next returns the job that a worker is to have: of the highest priority among all it can do, and of those the oldest. It
// returns nil when there is none.
func (c *conn) next() (*job, *ability) {
	var best *job
	var can *ability
	for _, a := range c.abilities {
		if a.fn.ready == 0 {
			continue
		}
		if j := a.fn.first(); best == nil || j.before(best) {
			best, can = j, a
		}
	}
	return best, can
}

// first returns the job to run next, nil if none is ready.
func (f *function) first() *job {
	for i := range f.queues {
		if n := f.queues[i].front; n != nil {
			return n.item
		}
	}
	return nil
}

func (j *job) before(k *job) bool {
	if j.priority != k.priority {
		return j.priority < k.priority
	}
	return j.seq < k.seq
}
