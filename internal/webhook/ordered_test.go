package webhook

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type card struct{ value, index int }

func (c *card) before(other *card) bool { return c.value < other.value }
func (c *card) moved(to int)            { c.index = to }

func TestOrderedKeepsOrderAndPlaces(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var h ordered[*card]
	var cards []*card
	for range 3_000 {
		switch i := random.IntN(len(cards) + 2); {
		case i < len(cards) && random.IntN(2) == 0:
			h.remove(cards[i].index)
			cards = slices.Delete(cards, i, i+1)
		case i < len(cards):
			cards[i].value = random.IntN(100)
			h.fix(cards[i].index)
		default:
			c := &card{value: random.IntN(100)}
			cards = append(cards, c)
			h.push(c)
		}
		var got, want []int
		for c := range inOrder(h) {
			got = append(got, c.value)
		}
		for _, c := range cards {
			want = append(want, c.value)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i, c := range h {
			if c.index != i {
				t.Fatalf("the one at %d believes to be at %d", i, c.index)
			}
		}
	}
}
