package ledger

import (
	"slices"
	"testing"
)

// Whoever lists jobs, and may own none of them, does not keep others waiting while all records are looked at.
func TestAListLetsOthersHaveTheLock(t *testing.T) {
	l, _ := inMemory(t, Options{})
	enter := func(owner string) *job {
		j := l.newJob(&Task{Owner: owner, Function: "f", Mode: Background})
		if _, err := l.room(j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	oldest := enter("alice")
	for range 2 * listPiece {
		enter("bob")
	}
	newest := enter("alice")

	l.mu.Lock()
	defer l.mu.Unlock()
	var records []Record
	mark, pieces := new(job), 1
	l.entered.push(mark)
	for ; l.listMore(mark, Query{Owner: "alice", Limit: 10}, &records); pieces++ {
		other := new(job) // of somebody else who lists
		l.entered.insert(other, mark)
		defer l.entered.remove(other)
		if next := l.entered.next(mark); next != newest {
			l.forget(next)
		}
		l.forget(l.entered.prev(other))
	}
	l.entered.remove(mark)
	if pieces != 3 {
		t.Errorf("it took %d pieces", pieces)
	}
	if len(records) != 2 || records[0].ID != newest.ID || records[1].ID != oldest.ID {
		t.Errorf("got %+v", records)
	}
}

// Of jobs that are submitted at a time one may get its id before another and its place after it: the pages of a list go by the ids.
func TestAPageSkipsNoJobThatWasOvertaken(t *testing.T) {
	l := New(Options{Servers: &counting{}})
	var jobs []*job
	for range 4 {
		jobs = append(jobs, l.newJob(&Task{Function: "f", Mode: Background}))
	}
	mark := new(job) // another list is under way
	for _, i := range []int{3, 1, 2, 0} {
		if _, err := l.room(jobs[i]); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			l.entered.push(mark)
		}
	}
	var got, want []string
	q := Query{Limit: 1}
	for more := true; more; more = q.Before != "" {
		records, next, err := l.List(t.Context(), q)
		if err != nil || len(records) != 1 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		got, q.Before = append(got, records[0].ID), next
	}
	for _, j := range slices.Backward(jobs) {
		want = append(want, j.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}
