package store

import (
	"errors"
	"slices"
	"sync"

	"gearman-gateway/internal/ledger"
)

// Bounds. Beyond the first two, Commit fails at once; beyond the next two, events of an Apply are dropped: those that are Promised are
// bounded apart from the others. The changes of Apply are bounded by the number of records, since those of one record join each other.
const (
	maxCommits     = 10_000
	maxCommitBytes = 256 << 20
	maxEvents      = 100_000
	maxPromised    = 1_000_000

	maxBatch      = 1000 // changes in a transaction, so that nobody waits long for those before him
	maxBatchBytes = 16 << 20
)

var (
	errQueueFull = errors.New("too many changes wait to be stored")
	errClosed    = errors.New("the store is closed")
)

// op is a change on its way to the disk. Without a record it is its events alone, or what it runs. One with nothing but a done only
// waits for those before it.
type op struct {
	ledger.Change
	wipe    bool // what is stored of the record goes first: the change joined one that forgot it
	events  []entry
	run     func(*tx) error // in the transaction, maybe more than once
	load    int64           // bytes that run holds
	bytes   int64
	done    chan error // of one that somebody waits for, holds one; nil for an Apply
	refused bool       // it can never be stored
	err     error      // why it alone is not
}

// idle reports whether there is nothing to store.
func (o *op) idle() bool { return o.Record.ID == "" && len(o.events) == 0 && o.run == nil }

// join makes o a newer change of the same record. What the newer one does not bring stays.
func (o *op) join(newer *op) {
	older := o.Change
	o.Change, o.events = newer.Change, append(o.events, newer.events...)
	o.wipe = o.wipe || older.Forget
	if !older.Forget && !newer.Forget {
		o.inherit(older)
	}
	o.bytes = o.size()
}

func (o *op) inherit(older ledger.Change) {
	if o.Workload == nil {
		o.Workload = older.Workload
	}
	if o.Key == nil {
		o.Key = older.Key
	}
	was, is := older.Record, &o.Record
	if is.Result == nil {
		is.Result = was.Result
	}
	if is.Warnings == nil {
		is.Warnings = was.Warnings
	}
	if is.Log == nil {
		is.Log = was.Log
	}
}

// size is about how much memory the change holds.
func (o *op) size() int64 {
	c := o.Change
	n := int(o.load) + len(c.Workload) + len(c.Record.Result) + 500
	for _, w := range c.Record.Warnings {
		n += len(w)
	}
	for _, e := range c.Record.Log {
		n += len(e.Payload) + 50
	}
	for _, e := range o.events {
		n += e.size()
	}
	return int64(n)
}

// queue is what waits for the writer, in order.
type queue struct {
	wake chan struct{} // holds one: something was pushed

	mu      sync.Mutex
	ops     []*op
	open    map[string]*op // by record: the Apply in ops that a newer one may join
	commits int            // given and not answered
	bytes   int64          // of those
	events  held           // of the Applys given and not stored
	closed  bool
}

// held counts events.
type held struct{ promised, others int }

// add counts n more of those that are like e, and reports whether there was room for them.
func (h *held) add(e entry, n int) bool {
	count, most := &h.others, maxEvents
	if e.Promised {
		count, most = &h.promised, maxPromised
	}
	if *count+n > most {
		return false
	}
	*count += n
	return true
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), open: map[string]*op{}}
}

// push takes a change, or says why not. It drops the events of an Apply that it has no room for and returns how many.
func (q *queue) push(o *op) (dropped held, err error) {
	o.bytes = o.size()
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return held{}, errClosed
	case o.done == nil:
		o.events = slices.DeleteFunc(o.events, func(e entry) bool { return !q.events.add(e, 1) && dropped.add(e, 1) })
	case q.commits >= maxCommits || q.commits > 0 && q.bytes+o.bytes > maxCommitBytes:
		return held{}, errQueueFull
	default:
		q.commits++
		q.bytes += o.bytes
	}
	q.add(o)
	select {
	case q.wake <- struct{}{}:
	default: // it is awake already
	}
	return dropped, nil
}

// add puts a change in its place: an Apply in that of an older one of the same record, unless a Commit of it came in between,
// which it must not overtake. Events of no record go with the record that is their subject, so that the next of its changes does not
// overtake them.
func (q *queue) add(o *op) {
	id := o.Record.ID
	older := q.open[id]
	switch {
	case o.done != nil:
		delete(q.open, id)
		for _, e := range o.events {
			delete(q.open, e.Subject)
		}
	case id == "":
		if o.events = slices.DeleteFunc(o.events, q.attach); len(o.events) == 0 {
			return
		}
	case older != nil:
		older.join(o)
		return
	default:
		q.open[id] = o
	}
	q.ops = append(q.ops, o)
}

// attach gives an event to the change of its subject that is open, if there is any.
func (q *queue) attach(e entry) bool {
	o := q.open[e.Subject]
	if o == nil {
		return false
	}
	o.events = append(o.events, e)
	o.bytes += int64(e.size())
	return true
}

// take returns what comes next, as much as goes in one transaction.
func (q *queue) take() []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	var n int
	var bytes int64
	for ; n < min(len(q.ops), maxBatch) && (n == 0 || bytes+q.ops[n].bytes <= maxBatchBytes); n++ {
		o := q.ops[n]
		bytes += o.bytes
		if q.open[o.Record.ID] == o {
			delete(q.open, o.Record.ID)
		}
	}
	batch := q.ops[:n:n]
	if q.ops = q.ops[n:]; len(q.ops) == 0 {
		q.ops = nil
	}
	return batch
}

// putBack puts the Applys of a batch that was not stored back in front, and returns the Commits, those that wait included.
func (q *queue) putBack(batch []*op) (commits []*op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.ops
	q.ops = nil
	clear(q.open)
	for _, ops := range [][]*op{batch, waiting} {
		for _, o := range ops {
			if o.done != nil {
				commits = append(commits, o)
			} else {
				q.add(o)
			}
		}
	}
	return commits
}

// settled makes room for as much as these changes took.
func (q *queue) settled(ops []*op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range ops {
		if o.done == nil {
			for _, e := range o.events {
				q.events.add(e, -1)
			}
		} else {
			q.commits--
			q.bytes -= o.bytes
		}
	}
}

// close refuses what comes from now on.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// len returns how many changes wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ops)
}
