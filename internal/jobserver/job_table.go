package jobserver

import "iter"

// pageJobs is how many jobs a page of a jobTable has room for. One job that stays holds a page, so it is small beside a job.
const pageJobs = 64

// A jobTable finds jobs by their numbers. These are given in order, and jobs end in about that order: pages of neighbours are
// found in the processor's cache, where a map would look in a new place for every job.
type jobTable struct {
	pages map[uint64]*jobPage // by number / pageJobs
	len   int
	first uint64 // there are no pages before this one
	last  uint64 // the newest
}

type jobPage struct {
	jobs [pageJobs]*job
	len  int
}

func newJobTable() jobTable { return jobTable{pages: map[uint64]*jobPage{}} }

// startAfter says of an empty table that all jobs up to a number have ended.
func (t *jobTable) startAfter(number uint64) {
	if t.len == 0 {
		t.first, t.last = number/pageJobs, number/pageJobs
	}
}

// get returns the job of that number, nil if there is none.
func (t *jobTable) get(number uint64) *job {
	if p := t.pages[number/pageJobs]; p != nil {
		return p.jobs[number%pageJobs]
	}
	return nil
}

// add takes a job whose number the table does not have.
func (t *jobTable) add(j *job) {
	p := t.pages[j.number/pageJobs]
	if p == nil {
		p = &jobPage{}
		t.last = j.number / pageJobs
		t.pages[t.last] = p
	}
	p.jobs[j.number%pageJobs] = j
	p.len++
	t.len++
}

// remove takes out a job that the table has.
func (t *jobTable) remove(j *job) {
	p := t.pages[j.number/pageJobs]
	p.jobs[j.number%pageJobs] = nil
	p.len--
	t.len--
	if p.len > 0 {
		return
	}
	delete(t.pages, j.number/pageJobs)
	for range 8 { // first need not keep up at once when a job that stayed for long goes
		if t.first == t.last || t.pages[t.first] != nil {
			break
		}
		t.first++
	}
}

// passed says of a number that its job and all before it have ended. It may be late to say so, and never says it too early.
func (t *jobTable) passed(number uint64) bool { return number/pageJobs < t.first }

// all yields the jobs in no order.
func (t *jobTable) all() iter.Seq[*job] {
	return func(yield func(*job) bool) {
		for _, p := range t.pages {
			for _, j := range p.jobs {
				if j != nil && !yield(j) {
					return
				}
			}
		}
	}
}
