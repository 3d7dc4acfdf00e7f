package ledger

import "testing"

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
