package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	for _, tt := range []struct{ live, others, want int }{
		{0, 0, 480},
		{300, 80, 480},
		{300, 81, 481},
		{30, 4000, 4040},
		{6000, 100, 8100},
	} {
		if got := memoryLimit(uint64(tt.live)<<20, uint64(tt.others)<<20); got>>20 != int64(tt.want) {
			t.Errorf("with %d MiB live and %d others: the limit is %d MiB, want %d", tt.live, tt.others, got>>20, tt.want)
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
