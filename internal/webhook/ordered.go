package webhook

import "iter"

// An ordered is a binary heap: the least is first, and every operation costs at most the logarithm of its length. What is in it is told
// where, so that it can be taken out or fixed when its order changes.
type ordered[T ranked[T]] []T

type ranked[T any] interface {
	before(T) bool
	moved(to int)
}

func (h *ordered[T]) push(x T) {
	*h = append(*h, x)
	h.up(len(*h) - 1)
}

// remove takes out what is at i.
func (h *ordered[T]) remove(i int) {
	var none T
	last := len(*h) - 1
	(*h)[i] = (*h)[last]
	(*h)[last] = none
	*h = (*h)[:last]
	if i < last {
		h.fix(i)
	}
}

// fix puts what is at i where it belongs.
func (h ordered[T]) fix(i int) {
	if !h.down(i) {
		h.up(i)
	}
}

// init puts everything where it belongs.
func (h ordered[T]) init() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h ordered[T]) up(i int) {
	x := h[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !x.before(h[parent]) {
			break
		}
		h.set(i, h[parent])
		i = parent
	}
	h.set(i, x)
}

// down reports whether it moved anything.
func (h ordered[T]) down(i int) bool {
	x, from := h[i], i
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if right := child + 1; right < len(h) && h[right].before(h[child]) {
			child = right
		}
		if !h[child].before(x) {
			break
		}
		h.set(i, h[child])
		i = child
	}
	h.set(i, x)
	return i > from
}

func (h ordered[T]) set(i int, x T) {
	h[i] = x
	x.moved(i)
}

// inOrder yields what is in h, least first, and leaves it as it is. It costs the logarithm of how many were yielded for each.
func inOrder[T ranked[T]](h ordered[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		if len(h) == 0 || !yield(h[0]) {
			return
		}
		next := ordered[spot[T]]{}
		for i := 0; ; {
			for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
				next.push(spot[T]{h[child], child})
			}
			if len(next) == 0 || !yield(next[0].x) {
				return
			}
			i = next[0].i
			next.remove(0)
		}
	}
}

// A spot is x at index i of a heap.
type spot[T ranked[T]] struct {
	x T
	i int
}

func (s spot[T]) before(other spot[T]) bool { return s.x.before(other.x) }
func (s spot[T]) moved(int)                 {}
