package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/ledger"
)

// populate stores n jobs of every function, state and mode, and returns them, oldest first.
func populate(t *testing.T, d *DB, n int) []ledger.Record {
	t.Helper()
	var all []ledger.Record
	for i := range n {
		r := job(newID())
		r.Function = fmt.Sprint("f", i%3)
		r.State = ledger.States[i%len(ledger.States)]
		r.Mode = ledger.Modes[i/2%len(ledger.Modes)]
		r.Owner = []string{"", "alice", "bob"}[i/7%3]
		all = append(all, r)
		d.Apply(&ledger.Change{Record: r})
	}
	return all
}

func TestListSelectsAndPages(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	all := populate(t, d, 300)
	slices.Reverse(all)
	functions, owners := []string{"", "f0", "f2", "none"}, []string{"", "alice", "carol"}
	for _, function := range functions {
		for _, state := range append([]ledger.State{"", "none"}, ledger.States...) {
			for _, mode := range append([]ledger.Mode{"", "none"}, ledger.Modes...) {
				owners = append(owners[1:], owners[0]) // there are many lists already
				q := ledger.Query{Owner: owners[0], Function: function, State: state, Mode: mode, Limit: 7}
				want := slices.DeleteFunc(slices.Clone(all), func(r ledger.Record) bool {
					return q.Owner != "" && r.Owner != q.Owner || function != "" && r.Function != function ||
						state != "" && r.State != state || mode != "" && r.Mode != mode
				})
				if d := cmp.Diff(want, pages(t, d, q), cmp.Comparer(func(a, b ledger.Record) bool { return a.ID == b.ID })); d != "" {
					t.Errorf("%+v: -want +got:\n%s", q, d)
				}
			}
		}
	}
}

func pages(t *testing.T, d *DB, q ledger.Query) []ledger.Record {
	t.Helper()
	all := []ledger.Record{}
	for {
		page, err := d.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if len(page) < q.Limit {
			return all
		}
		q.Before = page[len(page)-1].ID
	}
}

func TestUnfinishedComesOldestFirst(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	want := slices.DeleteFunc(populate(t, d, 3*page), func(r ledger.Record) bool { return r.State.Ended() })
	var got []ledger.Record
	err := d.Unfinished(t.Context(), func(r ledger.Record) error {
		if len(got) == 0 { // the writer is not kept waiting
			commit(t, d, ledger.Change{Record: ledger.Record{ID: newID(), State: ledger.Failed}})
		}
		got = append(got, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	diff(t, got, want)
	stop := fmt.Errorf("enough")
	if err := d.Unfinished(t.Context(), func(ledger.Record) error { return stop }); err != stop {
		t.Errorf("got %v, want %v", err, stop)
	}
}

// A list reads ranges of an index, each in order, and never sorts what it has read.
func TestListsUseAnIndex(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	for _, s := range []selection{
		{},
		{states: ledger.States, modes: ledger.Modes},
		{states: ledger.States[:1], modes: ledger.Modes},
		{states: ledger.States, modes: ledger.Modes, function: "f"},
		{states: live, modes: ledger.Modes},
		{states: ledger.States, modes: ledger.Modes, owner: "alice"},
		{states: ledger.States, modes: ledger.Modes, owner: "alice", function: "f"},
	} {
		for _, s.newest = range []bool{true, false} {
			for _, s.beyond = range []string{"", newID()} {
				s.limit = 50
				text, args := s.sql()
				plan := explain(t, d, text, args)
				if strings.Contains(plan, "TEMP B-TREE") || s.states != nil && strings.Contains(plan, "SCAN jobs") {
					t.Errorf("%s\n%s", text, plan)
				}
				index := ""
				switch {
				case s.owner != "" && s.function != "":
					index = "jobs_by_owner_and_function"
				case s.owner != "":
					index = "jobs_by_owner "
				case s.function != "":
					index = "jobs_by_function"
				}
				if !strings.Contains(plan, index) {
					t.Errorf("%s does not use %s:\n%s", text, index, plan)
				}
			}
		}
	}
}

// What is looked up, and what expires, is found by an index too.
func TestLookupsUseAnIndex(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	for text, index := range map[string]string{
		"SELECT id FROM jobs WHERE handle = 'x' AND handle <> '' ORDER BY id DESC LIMIT 1":          "jobs_by_handle",
		"SELECT id FROM jobs WHERE ended_at IS NOT NULL AND ended_at < 1 ORDER BY ended_at LIMIT 1": "jobs_by_end",
		"SELECT id FROM jobs WHERE kept = 1 AND ended_at < 1 ORDER BY ended_at LIMIT 1":             "jobs_by_end_kept",
		`SELECT id FROM jobs WHERE state IN ('queued', 'running') AND mode IN ('background', 'sync') AND id < 'x'
			AND (handle <> '' OR server <> '') AND coalesce(started_at, run_at, 0) < 1 LIMIT 1`: "jobs_by_state (state=? AND mode=? AND id<?)",
		"SELECT key FROM keys WHERE at < 1 ORDER BY at LIMIT 1":                                         "keys_by_age",
		"SELECT key FROM keys WHERE job = 'x'":                                                          "keys_by_job",
		"SELECT payloads.log FROM jobs LEFT JOIN payloads ON payloads.id = jobs.id WHERE jobs.id = 'x'": "sqlite_autoindex_payloads",
		"SELECT workload FROM workloads WHERE id = 'x'":                                                 "sqlite_autoindex_workloads",
	} {
		if plan := explain(t, d, text, nil); !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s does not use %s alone:\n%s", text, index, plan)
		}
	}
}

func explain(t *testing.T, d *DB, text string, args []any) string {
	t.Helper()
	rows, err := d.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var a, b, c int
		var detail string
		if err := rows.Scan(&a, &b, &c, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	return strings.Join(plan, "\n")
}

// million fills the database with 1,000,000 jobs: a hundredth are of function rare, one in a thousand failed, all of them tracked,
// and none of function rare is scheduled.
func million(b *testing.B, d *DB) {
	b.Helper()
	db, err := connect(d.o.Dir+"/gateway.db", 1, writing)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)
		INSERT INTO jobs (id, handle, server, function, uniq, mode, priority, state, kept, on_lost, retry_max, retry_backoff, attempt,
			deaths, sent, retry_of, traceparent, submitted_at, ended_at)
		SELECT printf('01930000-%04x-7%03x-8000-%012x', i >> 12, i & 4095, i * 7919), 'H:host:' || i, 'g1:4730',
			CASE WHEN i % 100 = 50 THEN 'rare' ELSE 'common' END, '',
			CASE WHEN i % 1000 = 7 OR i % 3 = 0 THEN 'tracked' WHEN i % 3 = 1 THEN 'sync' ELSE 'background' END, 0,
			CASE WHEN i % 1000 = 7 THEN 'failed' WHEN i % 100 = 99 THEN 'scheduled' ELSE 'completed' END, 0, '', 0, 0, 0, 0, 0, '', '', i, i
		FROM n`)
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkList lists a page of a million jobs, newest first. The slowest of a run is reported too.
func BenchmarkList(b *testing.B) {
	d := open(b, Options{Dir: b.TempDir(), Sweep: time.Hour})
	million(b, d)
	middle := "01930000-007a-7000"
	for _, q := range []ledger.Query{
		{},
		{Before: middle},
		{Function: "common"},
		{Function: "rare", Before: middle},
		{Function: "none"},
		{State: ledger.Completed},
		{State: ledger.Failed, Before: middle},
		{State: ledger.Running},
		{Mode: ledger.Tracked},
		{Function: "common", State: ledger.Completed, Mode: ledger.Sync, Before: middle},
		{Function: "rare", State: ledger.Scheduled},
		{Mode: ledger.Sync, State: ledger.Failed},
		{Function: "common", Mode: ledger.Background, Before: middle},
	} {
		for _, q.Limit = range []int{50, 200} {
			name := fmt.Sprintf("function=%s,state=%s,mode=%s,before=%t,limit=%d", q.Function, q.State, q.Mode, q.Before != "", q.Limit)
			b.Run(name, func(b *testing.B) {
				var slowest time.Duration
				for b.Loop() {
					began := time.Now()
					if _, err := d.List(context.Background(), q); err != nil {
						b.Fatal(err)
					}
					slowest = max(slowest, time.Since(began))
				}
				b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
			})
		}
	}
	b.Run("get", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := d.Get(context.Background(), fmt.Sprint("H:host:", i*7919%1_000_000)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
