package jobserver

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestTablesFindJustWhatIsThere adds and removes jobs in about their order, and keeps the first until the end. What the tables find
// is what a map does, and they do not grow with the jobs that have ended.
func TestTablesFindJustWhatIsThere(t *testing.T) {
	jobs, keys, want := newJobTable(), newKeyTable(), map[string]*job{}
	var waiting []*job
	remove := func(i int) {
		j := waiting[i]
		waiting = append(waiting[:i], waiting[i+1:]...)
		delete(want, string(j.key))
		jobs.remove(j)
	}
	random := rand.New(rand.NewPCG(1, 2))
	const held = 10_000
	for number := uint64(1); number <= 30*held; number++ {
		key := fmt.Appendf(nil, "%d", random.IntN(2*held))
		j := keys.find(&jobs, nil, key)
		if j != want[string(key)] {
			t.Fatalf("job %d: found %v for %s, want %v", number, j, key, want[string(key)])
		}
		if j == nil {
			j = &job{number: number, key: key}
			jobs.add(j)
			keys.add(j, &jobs)
			want[string(key)] = j
			waiting = append(waiting, j)
		}
		if len(waiting) >= held {
			remove(1 + random.IntN(100))
		}
		if number == 20*held {
			remove(0)
		}
	}
	if jobs.len != len(waiting) {
		t.Errorf("%d jobs, want %d", jobs.len, len(waiting))
	}
	n := 0
	for j := range jobs.all() {
		n++
		if jobs.get(j.number) != j || want[string(j.key)] != j {
			t.Errorf("job %d is not found", j.number)
		}
	}
	if n != len(waiting) {
		t.Errorf("%d jobs in all, want %d", n, len(waiting))
	}
	room := 0
	for i := range keys.shards {
		room += len(keys.shards[i].slots)
	}
	if room > 4*2*held {
		t.Errorf("room for %d keys of %d jobs", room, held)
	}
	if first := waiting[0].number; jobs.passed(first) || !jobs.passed(first-min(first, 10*pageJobs)) {
		t.Errorf("first page %d, first job %d", jobs.first, first)
	}
	for len(waiting) > 0 {
		remove(len(waiting) - 1)
	}
	if len(jobs.pages) != 0 {
		t.Errorf("%d pages of no jobs", len(jobs.pages))
	}
}
