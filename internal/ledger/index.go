package ledger

import (
	"context"
	"strconv"
	"time"

	"gearman-gateway/internal/gearman"
)

// job is a record and what the ledger itself needs of it. All of it is guarded by index.mu; ID, Function and Mode never change.
type job struct {
	Record                         // its Log is bounded by Ledger.log, and stored when the job has ended
	wire       string              // the unique on the wire
	generation uint64              // of the connection that submitted it; 0 when that is gone for good
	since      time.Time           // when it might first have run; zero: it has not
	ours       int                 // runs of it by our own pool, which tells more than the packets of the job server do
	run        *gearman.Assignment // the latest of them that has not ended
	unheard    *gearman.Update     // how the job server said that it ended, while our own pool ran it
	waiters    int                 // who need its result yet
	done       chan struct{}       // closed when it is over; nil while nobody waits for that
	followed   chan struct{}       // not nil while somebody waits for its log to grow; closed when it does
	refused    error               // it was withdrawn, and why
	requestID  string              // of the request that submitted it, for the log; "" after a restart
	merged     *job                // the job server coalesced it with this one
	submitted  bool                // job.submitted was told
	timed      bool                // StartedAt is when its run began, and not when somebody said that it was over
	over       bool                // it has ended or was withdrawn
	keyed      bool                // a task with an idempotency key has joined it
	early      bool                // a caller was answered before it was over
	replied    bool                // it is in replied
	gone       bool                // forgotten
	spilled    bool                // its result is too large to keep

	durable  bool // the store has it from the beginning; in the background until a job server has it
	pending  bool // a submit is still to come
	there    bool // a job server has it by its latest submit
	entering bool // who submits it has no answer yet
	doubt    bool // it may be doomed where it is

	// where it is kept
	links    [kinds]link
	bytes    int64  // of Result and Warnings, and when it has ended of workload
	logSeq   uint64 // of the last entry of the log
	logBytes int    // of the payloads in it

	// of jobs that the ledger itself submits
	key      *Key          // of its submit
	workload []byte        // nil where the store keeps it
	size     int64         // of the workload
	epoch    int           // counts its submits
	ready    chan struct{} // closed when it is stored, or is not going to be
	due      *alarm        // of the next submit
	deadline *alarm
	pause    time.Duration
}

// shown returns a snapshot, without the log.
func (j *job) shown() *Record {
	r := new(Record)
	j.show(r)
	return r
}

func (j *job) show(r *Record) {
	*r = j.Record
	r.Log = nil
}

func (j *job) live() bool { return !j.gone && !j.State.Ended() }

// untilOver returns a channel that is closed when the job has ended or was withdrawn; for no job, one that never is.
func (x *index) untilOver(j *job) <-chan struct{} {
	if j == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if j.done == nil {
		j.done = make(chan struct{})
		if j.over {
			close(j.done)
		}
	}
	return j.done
}

// untilStored waits while a job is on its way to the disk. It may not have got there: then it was refused.
func (j *job) untilStored(ctx context.Context) error {
	if j.ready == nil {
		return nil
	}
	select {
	case <-j.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wake tells who waits for a job that it is over.
func (j *job) wake() {
	j.over = true
	if j.done != nil {
		close(j.done)
		j.done = nil
	}
}

type key struct{ function, unique string }

// shared is what jobs must have in common to be one: a caller's unique never joins jobs of different modes or owners.
type shared struct {
	owner string
	mode  Mode
	key
}

// index finds records, and bounds them.
type index struct {
	mu         lock
	byID       map[string]*job
	byHandle   map[string]*job // the newest that has the handle
	byWire     map[key][]*job  // live jobs by function and the unique on the wire, where that is not the job's id; see wired
	byUnique   map[shared]*job // live sync and tracked jobs by function and the caller's unique
	keys       map[*job][]*Key // of tasks that have joined live jobs, as long as these may be withdrawn
	runs       map[*gearman.Assignment]*job
	entered    chain    // all jobs, in the order of their ids
	background chain    // live background jobs that may be forgotten, oldest first
	syncs      chain    // live sync jobs, oldest first
	past       chain    // ended jobs, in the order of their end, but those of replied
	replied    chain    // sync jobs that completed while all their callers waited, in the order of their end
	results    chain    // ended jobs that have results, warnings or workloads, in the order of their end
	owned      holdings // what is held of each owner
	called     holdings // and of each function
	sync       int      // live sync jobs
	tracked    int      // live jobs that the ledger itself submits, or has
	workloads  int64    // bytes of their workloads
	bytes      int64    // of all results and warnings, and of workloads of ended jobs
	logs       chain    // ended jobs whose logs have payloads, in the order of their end
	logBytes   int      // of all logs' payloads
	doubtful   int      // jobs that a job server is to be asked for
}

func newIndex() index {
	return index{
		byID:       map[string]*job{},
		byHandle:   map[string]*job{},
		byWire:     map[key][]*job{},
		byUnique:   map[shared]*job{},
		keys:       map[*job][]*Key{},
		runs:       map[*gearman.Assignment]*job{},
		entered:    chain{kind: byEntry},
		background: chain{kind: byState},
		syncs:      chain{kind: byState},
		past:       chain{kind: byState},
		replied:    chain{kind: byState},
		results:    chain{kind: byResult},
		logs:       chain{kind: byLog},
		owned:      holdings{},
		called:     holdings{},
	}
}

func (x *index) insert(j *job) {
	x.byID[j.ID] = j
	x.hold(j, 1)
	x.entered.insert(j, x.newer(j))
	x.wireUp(j)
	switch {
	case j.durable || j.Mode == Tracked:
		x.tracked++
		x.workloads += j.size
	case j.Mode == Background:
		x.background.push(j)
	default:
		x.sync++
		x.syncs.push(j)
	}
	if j.Mode != Background && j.Unique != "" {
		x.byUnique[j.shared()] = j
	}
}

// newer returns the first job with a later id than j, which others may have been given, and be here, before j is; nil if there is none.
func (x *index) newer(j *job) (next *job) {
	other := x.entered.last
	for range listPiece {
		if other == nil || other.ID != "" && other.ID < j.ID { // without an id it is the mark of a list
			break
		}
		if other.ID != "" {
			next = other
		}
		other = x.entered.prev(other)
	}
	return next
}

func (j *job) shared() shared { return shared{j.Owner, j.Mode, key{j.Function, j.Unique}} }

// place notes the handle that a job server gave to a job.
func (x *index) place(j *job, where gearman.Job) {
	x.unplace(j)
	j.Server, j.Handle, j.generation = where.Server, where.Handle, where.Generation
	x.byHandle[j.Handle] = j
}

func (x *index) unplace(j *job) {
	if x.byHandle[j.Handle] == j {
		delete(x.byHandle, j.Handle)
	}
}

// handOver counts a job in the background as a job server's, which has it: nobody may ever tell its end.
func (x *index) handOver(j *job) {
	if j.Mode != Background || !j.durable || !j.live() {
		return
	}
	x.hold(j, -1)
	x.tracked--
	x.workloads -= j.size
	j.durable, j.workload = false, nil
	x.background.push(j)
}

// settle takes a job from what is live.
func (x *index) settle(j *job) {
	if j.keyed {
		delete(x.keys, j)
	}
	x.unwire(j)
	x.hold(j, -1)
	switch {
	case j.durable || j.Mode == Tracked:
		x.tracked--
		x.workloads -= j.size
	case j.Mode == Background:
		x.background.remove(j)
	default:
		x.sync--
		x.syncs.remove(j)
	}
	if j.Mode != Background && j.Unique != "" && x.byUnique[j.shared()] == j {
		delete(x.byUnique, j.shared())
	}
}

// wired returns the live jobs that have a unique on the wire: the one whose id it is, which most jobs have, and others.
func (x *index) wired(function, wire string) []*job {
	live := x.byWire[key{function, wire}]
	if j := x.byID[wire]; j != nil && j.wire == j.ID && j.Function == function && j.live() {
		live = append(live[:len(live):len(live)], j)
	}
	return live
}

func (x *index) wireUp(j *job) {
	if j.wire != j.ID {
		wire := key{j.Function, j.wire}
		x.byWire[wire] = append(x.byWire[wire], j)
	}
}

func (x *index) unwire(j *job) {
	if j.wire == j.ID {
		return
	}
	wire := key{j.Function, j.wire}
	if live := without(x.byWire[wire], j); len(live) > 0 {
		x.byWire[wire] = live
	} else {
		delete(x.byWire, wire)
	}
}

// rewire gives a job that is to run once more a unique of its own for that: the last run's is still known to the job server.
func (x *index) rewire(j *job) {
	x.unwire(j)
	j.wire = attemptWire(j)
	x.wireUp(j)
}

func attemptWire(j *job) string { return j.ID + "-" + strconv.Itoa(j.Attempt) }

func without(live []*job, j *job) []*job {
	for i := range live {
		if live[i] == j {
			return append(live[:i:i], live[i+1:]...)
		}
	}
	return live
}

// forget takes a job from everything, and what was to be done with it at a time. It may be gone already: cancelled and forgotten while it
// was being stored, which then failed.
func (l *Ledger) forget(j *job) {
	switch {
	case j.gone:
		return
	case j.replied:
		l.replied.remove(j)
	case j.State.Ended():
		l.past.remove(j)
	default:
		l.settle(j)
	}
	delete(l.byID, j.ID)
	l.entered.remove(j)
	l.unplace(j)
	if l.results.has(j) {
		l.results.remove(j)
	}
	l.bytes -= j.bytes
	l.clearLog(j)
	l.clock.unset(j.due)
	l.deadlines.unset(j.deadline)
	j.gone = true
	if j.followed != nil {
		close(j.followed)
		j.followed = nil
	}
}

// forgetOldest makes room for a record. Live jobs that the gateway holds are never forgotten, nor those in the background whose callers have
// no answer yet, so it may find none to forget. One that our own pool runs, or that somebody waits for, is forgotten where there is no other:
// its end would be told to nobody.
func (l *Ledger) forgetOldest() bool {
	oldest := l.past.first
	if a := l.replied.first; a != nil && (oldest == nil || a.EndedAt.Before(oldest.EndedAt)) {
		oldest = a
	}
	if oldest == nil {
		oldest = l.background.oldest(func(j *job) bool { return !j.entering && j.ours == 0 && j.waiters == 0 })
	}
	if oldest == nil {
		oldest = l.background.oldest(func(j *job) bool { return !j.entering })
	}
	if oldest == nil {
		return false
	}
	l.forget(oldest)
	return true
}

// abandonSync forgets the oldest sync job that nobody waits for any more: one for a function that has no worker stays for ever.
func (l *Ledger) abandonSync() bool {
	j := l.syncs.oldest(func(j *job) bool { return j.waiters == 0 && j.ours == 0 })
	if j == nil {
		return false
	}
	l.forget(j)
	return true
}

// shed gives up results of ended jobs, oldest first, until no more than max bytes are kept and none of a job that ended before
// the time. It passes over jobs that somebody waits for. What a store has is forgotten as a whole.
func (l *Ledger) shed(max int64, before time.Time, stored bool) {
	for j := l.results.first; j != nil; {
		next := l.results.next(j)
		if l.bytes <= max && !j.EndedAt.Before(before) {
			return
		}
		switch {
		case j.waiters > 0:
		case stored:
			l.forget(j)
		default:
			l.results.remove(j)
			l.bytes -= j.bytes
			j.bytes, j.Kept, j.Result, j.Warnings, j.workload = 0, false, nil, nil, nil
			l.clearLog(j)
		}
		j = next
	}
}

// find returns the job that has the id or handle, held; nil if there is none that the caller sees.
func (x *index) find(who Caller, ref string) *job {
	x.mu.Lock()
	defer x.mu.Unlock()
	j := x.byID[ref]
	if j == nil {
		j = x.byHandle[ref]
	}
	if j == nil || !who.sees(j.Owner) {
		return nil
	}
	j.waiters++
	return j
}
