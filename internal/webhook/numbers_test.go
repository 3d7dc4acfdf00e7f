package webhook

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestNumbersFindsNeighbours(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var set numbers
	var want []int64 // sorted
	for range 3_000 {
		n := 1 + random.Int64N(1<<(1+random.IntN(47)))
		i, in := slices.BinarySearch(want, n)
		switch {
		case in:
			set.remove(n)
			want = slices.Delete(want, i, i+1)
		case len(want) > 100:
			i = random.IntN(len(want))
			set.remove(want[i])
			want = slices.Delete(want, i, i+1)
		default:
			set.add(n)
			want = slices.Insert(want, i, n)
		}
		if set.len != len(want) {
			t.Fatalf("got %d numbers, want %d", set.len, len(want))
		}
		var up, down []int64
		for n := set.above(0); n != 0; n = set.above(n) {
			up = append(up, n)
		}
		for n := set.below(1<<48 - 1); n != 0; n = set.below(n) {
			down = append(down, n)
		}
		slices.Reverse(down)
		if !slices.Equal(up, want) || !slices.Equal(down, want) {
			t.Fatalf("got %v and %v, want %v", up, down, want)
		}
	}
}
