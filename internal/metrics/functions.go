package metrics

import (
	"strings"
	"sync"
)

// MaxFunctions is how many functions have numbers of their own. Callers choose the names of functions, so only those count that the
// gateway has handlers for or that some worker can do, in the order in which they are heard of; all others are Other together.
const MaxFunctions = 200

// Other stands for what has no label value of its own.
const Other = "other"

// functions are those that have numbers of their own. Once known they stay so.
type functions struct {
	known     table[string, string] // labels by name
	hasWorker func(string) bool
	learning  sync.Mutex
}

func newFunctions(known []string, hasWorker func(string) bool) *functions {
	f := &functions{hasWorker: hasWorker}
	for _, name := range known {
		f.learn(name)
	}
	return f
}

// label returns a function's label value.
func (f *functions) label(name string) string {
	if l, ok := f.known.get(name); ok {
		return l
	}
	if f.hasWorker == nil || f.known.len() >= MaxFunctions || !f.hasWorker(name) {
		return Other
	}
	return f.learn(name)
}

// learn makes a function known while there is room, and returns its label value.
func (f *functions) learn(name string) string {
	f.learning.Lock()
	defer f.learning.Unlock()
	if l, ok := f.known.get(name); ok {
		return l
	}
	if f.known.len() >= MaxFunctions {
		return Other
	}
	name = strings.Clone(name) // it may be a part of something large
	return f.known.add(name, func() string { return valid(name) })
}

// Know makes functions known that the gateway has handlers for.
func (m *Metrics) Know(functions []string) {
	for _, name := range functions {
		m.functions.learn(name)
	}
}

// valid returns a label value that Prometheus takes: function names are any bytes.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
