package ledger

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestChain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := chain{kind: byResult}
	var model []*job
	for step := range 2000 {
		switch n := len(model); {
		case n > 0 && r.IntN(2) == 0:
			at := r.IntN(n)
			c.remove(model[at])
			if c.has(model[at]) {
				t.Fatalf("step %d: it has what was removed", step)
			}
			model = slices.Delete(model, at, at+1)
		case n > 0 && r.IntN(2) == 0:
			at := r.IntN(n)
			j := new(job)
			c.insert(j, model[at])
			model = slices.Insert(model, at, j)
		default:
			j := new(job)
			c.push(j)
			model = append(model, j)
		}
		var ahead, back []*job
		for j := c.first; j != nil; j = c.next(j) {
			ahead = append(ahead, j)
		}
		for j := c.last; j != nil; j = c.prev(j) {
			back = append(back, j)
		}
		slices.Reverse(back)
		if !slices.Equal(ahead, model) || !slices.Equal(back, model) || c.n != len(model) {
			t.Fatalf("step %d: %d jobs ahead, %d back, %d counted, want %d", step, len(ahead), len(back), c.n, len(model))
		}
		if slices.ContainsFunc(model, func(j *job) bool { return !c.has(j) }) {
			t.Fatalf("step %d: it does not have what is in it", step)
		}
	}
}
