package webhook

import (
	"container/heap"
	"container/list"
	"sync"
	"time"
)

// A queue holds the deliveries of one sink: in order within a subject, of which only the first is ever handed out, and
// earliest due first among subjects. It is bounded; when it is full, the oldest delivery that is not handed out makes room,
// one that waits for its next attempt included. Every operation costs at most the logarithm of the number of subjects.
// It is safe for concurrent use.
//
// It is in memory: what it holds is lost when the process dies.
type queue struct {
	maxEvents int
	maxBytes  int64

	mu       sync.Mutex
	closed   bool
	bytes    int64
	arrivals *list.List       // of *delivery, oldest first
	lines    map[string]*line // by subject; those with deliveries
	ready    lineHeap         // those of which none is handed out, by the time their first is due
}

// A delivery is one message on its way to one sink.
type delivery struct {
	*message
	attempts int       // made so far
	due      time.Time // of the next attempt

	line    *line
	next    *delivery     // in line
	arrival *list.Element // in queue.arrivals
}

// A line is the deliveries that share a subject.
type line struct {
	subject     string
	first, last *delivery
	busy        bool // first is handed out
	index       int  // in queue.ready
}

func newQueue(maxEvents int, maxBytes int64) *queue {
	return &queue{maxEvents: maxEvents, maxBytes: maxBytes, arrivals: list.New(), lines: map[string]*line{}}
}

// push adds m, to be sent when it is due and its turn. It returns how many deliveries were dropped: the oldest to make room,
// or m itself when the queue is closed (full is false).
func (q *queue) push(m *message, due time.Time) (dropped int, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 1, false
	}
	d := &delivery{message: m, due: due}
	d.arrival = q.arrivals.PushBack(d)
	q.bytes += m.size
	q.lineUp(d)
	for q.arrivals.Len() > q.maxEvents || q.bytes > q.maxBytes {
		if !q.dropOldest() {
			break
		}
		dropped++
	}
	return dropped, true
}

// lineUp puts d behind the deliveries of its subject.
func (q *queue) lineUp(d *delivery) {
	l := q.lines[d.subject]
	if l != nil {
		d.line = l
		l.last.next = d
		l.last = d
		return
	}
	l = &line{subject: d.subject, first: d, last: d}
	d.line = l
	q.lines[d.subject] = l
	heap.Push(&q.ready, l)
}

// take hands out the delivery that is due first, to be given back with done or retry. When nothing is due, or the time
// notBefore has not come, it returns nil and when to ask again; the zero time if nothing waits.
func (q *queue) take(now, notBefore time.Time) (*delivery, time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ready) == 0 {
		return nil, time.Time{}
	}
	at := q.ready[0].first.due
	if at.Before(notBefore) {
		at = notBefore
	}
	if at.After(now) {
		return nil, at
	}
	l := heap.Pop(&q.ready).(*line)
	l.busy = true
	return l.first, time.Time{}
}

// done forgets d, which take handed out; the next of its subject may be sent.
func (q *queue) done(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := d.line
	l.busy = false
	l.first = d.next
	q.forget(d)
	if l.first == nil {
		delete(q.lines, l.subject)
		return
	}
	heap.Push(&q.ready, l)
}

// retry takes back d, which take handed out, for another attempt. Its subject waits for it.
func (q *queue) retry(d *delivery, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d.due = due
	d.line.busy = false
	heap.Push(&q.ready, d.line)
}

// close makes push drop everything. What waits, waits on.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// clear drops everything that is not handed out and returns how much that was.
func (q *queue) clear() (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.dropOldest() {
		dropped++
	}
	return dropped
}

// len returns how many deliveries there are, those handed out included.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.arrivals.Len()
}

// dropOldest drops the oldest delivery that is not handed out; false: there is none. It looks past as many as are handed out.
func (q *queue) dropOldest() bool {
	for el := q.arrivals.Front(); el != nil; el = el.Next() {
		d := el.Value.(*delivery)
		l := d.line
		if l.busy && l.first == d {
			continue
		}
		q.forget(d)
		switch {
		case l.busy: // d is the oldest that waits, so it stands right behind the first
			l.first.next = d.next
			if d.next == nil {
				l.last = l.first
			}
		case d.next == nil:
			heap.Remove(&q.ready, l.index)
			delete(q.lines, l.subject)
		default:
			l.first = d.next
			heap.Fix(&q.ready, l.index)
		}
		return true
	}
	return false
}

func (q *queue) forget(d *delivery) {
	q.arrivals.Remove(d.arrival)
	q.bytes -= d.size
}

// lineHeap is a container/heap of lines by the time their first delivery is due.
type lineHeap []*line

func (h lineHeap) Len() int           { return len(h) }
func (h lineHeap) Less(i, j int) bool { return h[i].first.due.Before(h[j].first.due) }

func (h lineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *lineHeap) Push(x any) {
	l := x.(*line)
	l.index = len(*h)
	*h = append(*h, l)
}

func (h *lineHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
