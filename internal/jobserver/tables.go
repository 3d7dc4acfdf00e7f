package jobserver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The tables copy what they show under the lock and put it in words without: a table of a million jobs takes a while.

type functionRow struct {
	name                    string
	total, running, workers int
	waiting                 [priorities]int
}

func (s *Server) functionRows() []functionRow {
	s.mu.Lock()
	rows := make([]functionRow, 0, len(s.functions))
	for _, f := range s.functions {
		row := functionRow{name: f.name, total: f.total(), running: f.running, workers: f.workers}
		for i := range f.queues {
			row.waiting[i] = f.queues[i].len
		}
		row.waiting[normal] += f.scheduled // only SUBMIT_JOB_EPOCH schedules, and its jobs are normal
		rows = append(rows, row)
	}
	s.mu.Unlock()
	slices.SortFunc(rows, func(a, b functionRow) int { return cmp.Compare(a.name, b.name) })
	return rows
}

// statusTable has function, jobs, those of them that run, and workers. Jobs that wait for their time are counted as jobs.
func (s *Server) statusTable() string {
	var b strings.Builder
	for _, r := range s.functionRows() {
		fmt.Fprintf(&b, "%s\t%d\t%d\t%d\n", cell(r.name), r.total, r.running, r.workers)
	}
	return b.String() + endOfTable
}

// priorityTable has function, waiting jobs of high, normal and low priority, and workers.
func (s *Server) priorityTable() string {
	var b strings.Builder
	for _, r := range s.functionRows() {
		fmt.Fprintf(&b, "%s\t%d\t%d\t%d\t%d\n", cell(r.name), r.waiting[high], r.waiting[normal], r.waiting[low], r.workers)
	}
	return b.String() + endOfTable
}

type connRow struct {
	number    uint64
	host, id  string
	functions []string
}

// workersTable has all connections, clients too: number, address, id, and after a colon the functions. gearmand has the file
// descriptor for a number.
func (s *Server) workersTable() string {
	s.mu.Lock()
	rows := make([]connRow, 0, len(s.conns))
	for c := range s.conns {
		row := connRow{number: c.number, host: c.host, id: cmp.Or(c.id, "-")}
		for _, a := range c.abilities {
			row.functions = append(row.functions, a.fn.name)
		}
		rows = append(rows, row)
	}
	s.mu.Unlock()
	slices.SortFunc(rows, func(a, b connRow) int { return cmp.Compare(a.number, b.number) })

	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%d %s %s :", r.number, r.host, cell(r.id))
		for _, name := range r.functions {
			b.WriteString(" " + cell(name))
		}
		b.WriteByte('\n')
	}
	return b.String() + endOfTable
}

type jobRow struct {
	number   uint64
	attempts uint32
	durable  bool
	unique   string
}

func (s *Server) jobRows() []jobRow {
	s.mu.Lock()
	rows := make([]jobRow, 0, s.jobs.len)
	for j := range s.jobs.all() {
		rows = append(rows, jobRow{j.number, j.attempts, j.durable, string(j.unique())})
	}
	s.mu.Unlock()
	slices.SortFunc(rows, func(a, b jobRow) int { return cmp.Compare(a.number, b.number) })
	return rows
}

// show has "jobs" (handle, attempts, whether it is cancelled, which here none is, whether it is a background job) and "unique
// jobs" (the uniques, of those that have one).
func (s *Server) show(args []string) string {
	var b strings.Builder
	switch {
	case len(args) == 0:
		return errUnknownVerb
	case is(args, "jobs"):
		for _, r := range s.jobRows() {
			fmt.Fprintf(&b, "%s%d\t%d\t0\t%s\n", s.prefix, r.number, r.attempts, flag(r.durable))
		}
	case is(args, "unique", "jobs"):
		for _, r := range s.jobRows() {
			if r.unique != "" {
				b.WriteString(cell(r.unique) + "\n")
			}
		}
	default:
		return errShow
	}
	return b.String() + endOfTable
}
