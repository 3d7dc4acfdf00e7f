package webhook

import "time"

// How much of the outbox a sink has in memory: so many lines at least (more with a high concurrency), and so many letters of each.
const (
	leastLines  = 64
	lineLetters = 16
)

// A hand is what a sink has taken from the outbox to send. A subject is in hand until all that became of its letters is stored: the
// outbox would offer them again before that.
type hand struct {
	most  int              // lines
	lines map[string]*line // by subject
	ready []*line          // with letters and not busy, in the order in which they are to be sent
}

// A line's Letters are those that are still to be sent.
type line struct {
	Line
	busy    bool // the first is under way
	unsaved int  // ends that are not stored yet
}

func newHand(most int) hand { return hand{most: most, lines: map[string]*line{}} }

func (h *hand) take(lines []Line) {
	for _, from := range lines {
		if h.lines[from.Subject] == nil && len(from.Letters) > 0 {
			l := &line{Line: from}
			h.lines[from.Subject] = l
			h.push(l)
		}
	}
}

func (h *hand) push(l *line) { h.ready = append(h.ready, l) }

func (h *hand) pop() *line {
	l := h.ready[0]
	h.ready[0] = nil
	h.ready = h.ready[1:]
	return l
}

// release lets go of a line that is not ready: what was not sent of it is the outbox's again.
func (h *hand) release(l *line) {
	l.Letters = nil
	h.drop(l)
}

// releaseAll lets go of every line that is ready.
func (h *hand) releaseAll() {
	for _, l := range h.ready {
		h.release(l)
	}
	h.ready = nil
}

// saved notes that an end of the subject was stored, and lets go of its line if there is nothing left to do.
func (h *hand) saved(subject string) {
	if l := h.lines[subject]; l != nil {
		l.unsaved--
		h.drop(l)
	}
}

func (h *hand) drop(l *line) {
	if !l.busy && len(l.Letters) == 0 && l.unsaved == 0 {
		delete(h.lines, l.Subject)
	}
}

// gates are those of a sink's targets: one, or one for each host of the callbacks.
type gates map[string]*gate

func (gs gates) of(key string) *gate {
	g := gs[key]
	if g == nil {
		g = &gate{}
		gs[key] = g
	}
	return g
}

// maxGates bounds how many hosts are remembered.
const maxGates = 10_000

// tidy forgets the hosts with which all is well, once there are many; if none is well, all that are not under way.
func (gs gates) tidy() {
	if len(gs) <= maxGates {
		return
	}
	now := time.Now()
	for key, g := range gs {
		if g.inFlight == 0 && (g.failures == 0 && now.After(g.until) || len(gs) > 2*maxGates) {
			delete(gs, key)
		}
	}
}
