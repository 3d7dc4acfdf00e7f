package ledger

// A chain is a list of jobs whose links are in the jobs: a list of its own elements costs an allocation for each job and list, and there
// are as many records as fit into memory. A job is in at most one of the chains of a kind.
type chain struct {
	kind        int // which of a job's links
	first, last *job
	n           int
}

// The kinds of chains.
const (
	byEntry  = iota // entered
	byState         // past, replied, background or syncs
	byResult        // results
	byLog           // logs
	kinds
)

// A link is a job's place in a chain.
type link struct{ prev, next *job }

func (c *chain) prev(j *job) *job { return j.links[c.kind].prev }
func (c *chain) next(j *job) *job { return j.links[c.kind].next }

// has reports whether a job is in c, which it may be, or in none.
func (c *chain) has(j *job) bool { return j.links[c.kind].prev != nil || c.first == j }

// How many of the oldest jobs are looked at for one that may be forgotten.
const oldestWithin = 100

// oldest returns the first job of which ok says so; nil if none of the oldest is.
func (c *chain) oldest(ok func(*job) bool) *job {
	j := c.first
	for range min(oldestWithin, c.n) {
		if ok(j) {
			return j
		}
		j = c.next(j)
	}
	return nil
}

// push puts a job at the end.
func (c *chain) push(j *job) { c.insert(j, nil) }

// insert puts a job before another one; nil: at the end.
func (c *chain) insert(j, next *job) {
	l := &j.links[c.kind]
	l.next, l.prev = next, c.last
	if next != nil {
		l.prev = c.prev(next)
		next.links[c.kind].prev = j
	} else {
		c.last = j
	}
	if l.prev != nil {
		l.prev.links[c.kind].next = j
	} else {
		c.first = j
	}
	c.n++
}

// remove takes out a job that is in c.
func (c *chain) remove(j *job) {
	l := &j.links[c.kind]
	if l.prev != nil {
		l.prev.links[c.kind].next = l.next
	} else {
		c.first = l.next
	}
	if l.next != nil {
		l.next.links[c.kind].prev = l.prev
	} else {
		c.last = l.prev
	}
	*l = link{}
	c.n--
}
