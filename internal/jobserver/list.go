package jobserver

// A list is a doubly linked list whose nodes live in the things it lists, so that adding and removing allocate nothing and
// take the same time at any length. The zero value is empty.
type list[T any] struct {
	front, back *node[T]
	len         int
}

// A node is a place in at most one list at a time.
type node[T any] struct {
	item       T
	in         *list[T]
	prev, next *node[T]
}

func (l *list[T]) pushBack(n *node[T]) { l.insert(n, nil) }

// insert puts n before next; nil is the end.
func (l *list[T]) insert(n, next *node[T]) {
	prev := l.back
	if next != nil {
		prev = next.prev
	}
	n.in, n.prev, n.next = l, prev, next
	if prev == nil {
		l.front = n
	} else {
		prev.next = n
	}
	if next == nil {
		l.back = n
	} else {
		next.prev = n
	}
	l.len++
}

// remove takes the node out of its list, if it is in one.
func (n *node[T]) remove() {
	l := n.in
	if l == nil {
		return
	}
	if n.prev == nil {
		l.front = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.back = n.prev
	} else {
		n.next.prev = n.prev
	}
	n.in, n.prev, n.next = nil, nil, nil
	l.len--
}
