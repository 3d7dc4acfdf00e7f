package webhook

import (
	"cmp"
	"context"
	"math"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
)

// MemoryOptions are how a Memory is to be.
type MemoryOptions struct {
	Source    string          // the events' CloudEvents source; "": "/gateway"
	Wanted    func(Head) bool // whether anybody may want an event; nil: all are kept
	MaxEvents int             // most events; 0: 100,000
	MaxBytes  int64           // most bytes of them, payloads and 1 KiB for each; 0: 64 MiB. The last one may go beyond
	Log       zerolog.Logger
}

// Memory is an Outbox that lives as long as the process. Events that all sinks have settled are kept for Events until their room is
// needed; then the oldest go first, though older ones may be left that are still to be delivered.
type Memory struct {
	o MemoryOptions

	mu    sync.Mutex
	log   []*memoryEvent         // without gaps, the first is number first
	first int64                  //
	left  map[int64]*memoryEvent // older than log: those that a sink is still to get
	bytes int64                  // of all of both
	ids   map[string]int64       // numbers of both by the events' ID
	sinks map[string]*memorySink
	grown chan struct{} // nil: nobody waits
	drops drops

	// At events up to floor all sinks have looked. It is asked for only when room is needed and sinks moved since (stale): that costs as
	// much as there are sinks, and Publish is the hot path of every job.
	floor int64
	stale bool
}

// A memoryEvent is one of the log.
type memoryEvent struct {
	message
	n          int64
	deliveries *memoryDelivery // any one; the others are its siblings
}

// NewMemory returns an empty one.
func NewMemory(o MemoryOptions) *Memory {
	o.Source = cmp.Or(o.Source, DefaultSource)
	o.MaxEvents = cmp.Or(o.MaxEvents, 100_000)
	o.MaxBytes = cmp.Or(o.MaxBytes, 64<<20)
	if o.Wanted == nil {
		o.Wanted = func(Head) bool { return true }
	}
	return &Memory{o: o, first: 1, left: map[int64]*memoryEvent{}, ids: map[string]int64{}, sinks: map[string]*memorySink{}, floor: math.MaxInt64}
}

// Publish implements Outbox. It does no work for any sink, and bodies are made when somebody asks for them.
func (m *Memory) Publish(events ...event.Event) {
	var few [4]*memoryEvent
	wanted := few[:0]
	for i := range events {
		if !m.o.Wanted(HeadOf(&events[i])) {
			continue
		}
		kept := new(memoryEvent)
		kept.take(&events[i])
		wanted = append(wanted, kept)
	}
	if len(wanted) == 0 {
		return
	}
	m.mu.Lock()
	for _, e := range wanted {
		m.add(e)
	}
	say := m.drops.note()
	m.mu.Unlock()
	say.log(m.o.Log)
}

func (m *Memory) add(e *memoryEvent) {
	if !m.shrink(1) && !e.event.Promised {
		m.drops.drop()
		return
	}
	e.n = m.last() + 1
	m.log = append(m.log, e)
	m.bytes += e.size
	m.ids[e.event.ID] = e.n
	if m.grown != nil {
		close(m.grown)
		m.grown = nil
	}
}

// last returns the number of the newest event.
func (m *Memory) last() int64 { return m.first + int64(len(m.log)) - 1 }

// at returns event n; nil if it is not there (any more).
func (m *Memory) at(n int64) *memoryEvent {
	if n < m.first || n > m.last() {
		return m.left[n]
	}
	return m.log[n-m.first]
}

// shrink gives up settled events, oldest first, until there is room for so many more. It reports whether there is.
func (m *Memory) shrink(more int) bool {
	for !m.room(more) {
		n := m.ahead()
		if n == 0 {
			return false
		}
		m.pass(n)
	}
	return true
}

// room reports whether so many more events, of a byte at least, are within the bounds.
func (m *Memory) room(more int) bool {
	return len(m.log)+len(m.left)+more <= m.o.MaxEvents && m.bytes+int64(more) <= m.o.MaxBytes
}

// seen reports whether all sinks have looked at the first event.
func (m *Memory) seen() bool {
	if m.stale && m.first > m.floor {
		m.stale, m.floor = false, math.MaxInt64
		for _, k := range m.sinks {
			if !k.givenUp() {
				m.floor = min(m.floor, k.position)
			}
		}
	}
	return len(m.log) > 0 && m.first <= m.floor
}

// maxAhead is how many events that are still to be delivered one looks behind for one that is settled.
const maxAhead = 500

// ahead returns how many events are to be passed to come to one that is settled, or to be able to look further for it; 0: there is none.
func (m *Memory) ahead() int {
	if !m.seen() {
		return 0
	}
	n := min(maxAhead, len(m.log), int(m.floor-m.first+1))
	for i, e := range m.log[:n] {
		if !e.held() {
			return i + 1
		}
	}
	if n == maxAhead {
		return n
	}
	return 0
}

// pass takes the first n events out of the log. Those that are still to be delivered are left, and the others given up.
func (m *Memory) pass(n int) {
	for _, e := range m.log[:n] {
		if e.held() {
			m.left[e.n] = e
		} else {
			m.giveUp(e)
		}
	}
	clear(m.log[:n])
	m.log = m.log[n:]
	m.first += int64(n)
}

// release gives up an event that is left, if no sink is to get it any more.
func (m *Memory) release(e *memoryEvent) {
	if m.left[e.n] != nil && !e.held() {
		delete(m.left, e.n)
		m.giveUp(e)
	}
}

// giveUp forgets an event and its deliveries: those that have ended, and those of sinks that are given up.
func (m *Memory) giveUp(e *memoryEvent) {
	m.bytes -= e.size
	delete(m.ids, e.event.ID)
	for d := e.deliveries; d != nil; d = d.sibling {
		d.sink.forget(d)
	}
}

// held reports whether a sink is still to get the event.
func (e *memoryEvent) held() bool {
	for d := e.deliveries; d != nil; d = d.sibling {
		if d.state == Pending && !d.sink.givenUp() {
			return true
		}
	}
	return false
}

// Full implements Outbox.
func (m *Memory) Full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shrink(0)
	for !m.room(1) {
		n := m.ahead()
		if n == 0 {
			return true
		}
		if !m.log[n-1].held() { // of what just reaches the bounds nothing is given up before something new comes
			return false
		}
		m.pass(n)
	}
	return false
}

// Dropped returns how many events were dropped because there was no room.
func (m *Memory) Dropped() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drops.total
}

// Register implements Outbox.
func (m *Memory) Register(_ context.Context, sink string) (Standing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.sinks[sink]
	if k == nil {
		k = newMemorySink(sink, m.last())
		m.sinks[sink] = k
		m.floor = min(m.floor, k.position)
	}
	if k.gone {
		k.gone = false
		m.floor, m.stale = 0, true // what it is to get is kept from now on
	}
	return k.standing, nil
}

// Unregister implements Outbox.
func (m *Memory) Unregister(_ context.Context, sink string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.sinks[sink]; k != nil {
		k.gone = true
		m.letGo(k)
		m.stale = true
	}
	return nil
}

// Advance implements Outbox.
func (m *Memory) Advance(_ context.Context, sink string, s Step) (Advanced, error) {
	m.mu.Lock()
	k := m.sinks[sink]
	if k == nil {
		m.mu.Unlock()
		return Advanced{}, ErrNoSink
	}
	now := time.Now()
	for _, end := range s.Ends {
		if d := m.delivery(k, end.N); d != nil {
			k.end(d, end, now)
			m.release(d.event)
		}
	}
	if s.Standing != nil {
		if k.standing.Disabled != "" && s.Standing.Disabled == "" {
			m.floor = 0 // what it is to get is kept from now on
		}
		k.standing = *s.Standing
		if k.standing.Disabled != "" {
			m.letGo(k)
		}
	}
	looked := m.look(k, s, now)
	m.stale = true
	m.shrink(0)
	say := m.drops.note()
	m.mu.Unlock()
	say.log(m.o.Log)
	return Advanced{Looked: looked}, nil
}

// look makes deliveries of the next events of the log that the sink wants.
func (m *Memory) look(k *memorySink, s Step, now time.Time) (looked int) {
	k.position = m.position(k)
	for looked < s.Look && k.position < m.last() {
		looked++
		k.position++
		if e := m.at(k.position); s.Wants == nil || s.Wants(HeadOf(&e.event)) {
			k.add(e, now)
		}
	}
	return looked
}

// letGo has a sink that is given up hold nothing that is older than the log: that was in the way of others.
func (m *Memory) letGo(k *memorySink) {
	pending := k.states[Pending]
	for n := pending.above(0); n != 0 && n < m.first; n = pending.above(n) {
		m.release(m.left[n])
	}
}

// position returns how far k has looked. The events of a sink that is given up may be given up in front of it.
func (m *Memory) position(k *memorySink) int64 { return max(k.position, m.first-1) }

// delivery returns k's of event n; nil: it has none.
func (m *Memory) delivery(k *memorySink, n int64) *memoryDelivery {
	e := m.at(n)
	if e == nil {
		return nil
	}
	for d := e.deliveries; d != nil; d = d.sibling {
		if d.sink == k {
			return d
		}
	}
	return nil
}
