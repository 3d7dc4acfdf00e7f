package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	const none = math.MaxInt64 >> 20
	for _, tt := range []struct{ live, others, most, want uint64 }{
		{0, 0, none, 480},
		{300, 80, none, 480},
		{300, 81, none, 481},
		{30, 4000, none, 4040},
		{6000, 100, none, 8100},
		{0, 0, 230, 230},
		{6000, 100, 7000, 7000},
	} {
		if got := memoryLimit(tt.live<<20, tt.others<<20, tt.most<<20); got>>20 != int64(tt.want) {
			t.Errorf("with %d MiB live, %d others and at most %d: the limit is %d MiB, want %d", tt.live, tt.others, tt.most, got>>20, tt.want)
		}
	}
}

// What the runtime calls live and what is not heap is about what it has in all, and no more.
func TestMemoryUsed(t *testing.T) {
	keep := make([]byte, 64<<20)
	debug.FreeOSMemory() // collects, too
	live, others := memoryUsed()
	used := live + others
	if least, most := uint64(len(keep)), uint64(len(keep)+256<<20); used < least || used > most {
		t.Errorf("%d MiB are used, want %d to %d", used>>20, least>>20, most>>20)
	}
	keep[0] = 1
}

func TestTheEnvironmentSetsTheCollector(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv(name, "off")
		before := debug.SetGCPercent(50)
		setCollector()
		want := map[string]int{"GOGC": 50, "GOMEMLIMIT": gcPercent}[name]
		if got := debug.SetGCPercent(before); got != want {
			t.Errorf("with %s the collector's percentage is %d, want %d", name, got, want)
		}
		if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
			t.Errorf("with %s the limit is %d", name, got)
		}
		t.Setenv(name, "")
	}
}
