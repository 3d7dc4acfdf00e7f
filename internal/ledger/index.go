package ledger

import (
	"container/list"
	"sync"
	"time"

	"gearman-gateway/internal/gearman"
)

// job is a record and what the ledger itself needs of it. All of it is guarded by index.mu; ID, Function, Mode and wire never
// change.
type job struct {
	Record
	wire       string              // the unique on the wire
	generation uint64              // of the connection that submitted it
	seq        uint64              // of its last event
	submitted  bool                // job.submitted was told
	ours       int                 // runs of it by our own pool, which tells more than the packets of the job server do
	spilled    bool                // its result is too large to keep
	bytes      int64               // of Result and Warnings
	waiters    int                 // who need its result yet
	run        *gearman.Assignment // the latest of them, if it has not ended: its data and its end count
	unheard    *gearman.Update     // how the job server said that it ended, while our own pool ran it
	refused    error               // it was withdrawn, and why
	merged     *job                // the job server coalesced it with this one
	done       chan struct{}       // closed when it has ended or was withdrawn
	at         *list.Element       // in ended or background, if it is in either
	kept       *list.Element       // in results, if it is there
	gone       bool                // forgotten
}

func (j *job) live() bool { return !j.gone && !j.State.Ended() }

// ended returns a channel that is closed when the job has ended; for no job, one that never is.
func (j *job) ended() <-chan struct{} {
	if j == nil {
		return nil
	}
	return j.done
}

type key struct{ function, unique string }

// index finds records, and bounds them.
type index struct {
	mu         sync.Mutex
	byID       map[string]*job
	byHandle   map[string]*job // the newest that has the handle
	byWire     map[key][]*job  // live jobs by function and the unique on the wire
	byUnique   map[key]*job    // live sync jobs by function and the caller's unique
	runs       map[*gearman.Assignment]*job
	background *list.List // live background jobs, oldest first
	ended      *list.List // ended jobs, in the order of their end
	results    *list.List // those of them that have results or warnings
	sync       int        // live sync jobs
	bytes      int64      // of all results and warnings
}

func newIndex() index {
	return index{
		byID:       map[string]*job{},
		byHandle:   map[string]*job{},
		byWire:     map[key][]*job{},
		byUnique:   map[key]*job{},
		runs:       map[*gearman.Assignment]*job{},
		background: list.New(),
		ended:      list.New(),
		results:    list.New(),
	}
}

func (x *index) insert(j *job) {
	x.byID[j.ID] = j
	wire := key{j.Function, j.wire}
	x.byWire[wire] = append(x.byWire[wire], j)
	if j.Mode == Background {
		j.at = x.background.PushBack(j)
		return
	}
	x.sync++
	if j.Unique != "" {
		x.byUnique[key{j.Function, j.Unique}] = j
	}
}

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

// settle takes a job from what is live.
func (x *index) settle(j *job) {
	wire := key{j.Function, j.wire}
	if live := without(x.byWire[wire], j); len(live) > 0 {
		x.byWire[wire] = live
	} else {
		delete(x.byWire, wire)
	}
	if j.Mode == Background {
		x.background.Remove(j.at)
		j.at = nil
		return
	}
	x.sync--
	if unique := (key{j.Function, j.Unique}); x.byUnique[unique] == j {
		delete(x.byUnique, unique)
	}
}

func without(live []*job, j *job) []*job {
	for i := range live {
		if live[i] == j {
			return append(live[:i:i], live[i+1:]...)
		}
	}
	return live
}

// forget takes a job from everything.
func (x *index) forget(j *job) {
	if j.State.Ended() {
		x.ended.Remove(j.at)
	} else {
		x.settle(j)
	}
	delete(x.byID, j.ID)
	x.unplace(j)
	if j.kept != nil {
		x.results.Remove(j.kept)
	}
	x.bytes -= j.bytes
	j.gone = true
}

// forgetOldest makes room for a record. Live sync jobs are never forgotten, so it may find none to forget.
func (x *index) forgetOldest() bool {
	for _, jobs := range []*list.List{x.ended, x.background} {
		if oldest := jobs.Front(); oldest != nil {
			x.forget(oldest.Value.(*job))
			return true
		}
	}
	return false
}

// shed drops the results of ended jobs, oldest first, until no more than max bytes are kept and none of a job that ended before
// the time. It passes over jobs that somebody waits for.
func (x *index) shed(max int64, before time.Time) {
	for e := x.results.Front(); e != nil; {
		j, next := e.Value.(*job), e.Next()
		if x.bytes <= max && !j.EndedAt.Before(before) {
			return
		}
		if j.waiters == 0 {
			x.results.Remove(e)
			x.bytes -= j.bytes
			j.kept, j.bytes, j.Kept, j.Result, j.Warnings = nil, 0, false, nil, nil
		}
		e = next
	}
}

// find returns the job that has the id or handle, held; nil if there is none.
func (x *index) find(ref string) *job {
	x.mu.Lock()
	defer x.mu.Unlock()
	j := x.byID[ref]
	if j == nil {
		j = x.byHandle[ref]
	}
	if j != nil {
		j.waiters++
	}
	return j
}
