package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	for used, want := range map[uint64]int64{
		0:         softMemory,
		100 << 20: softMemory,
		480 << 20: 540 << 20,
		8 << 30:   9 << 30,
	} {
		if got := memoryLimit(used); got != want {
			t.Errorf("of %d MiB used: the limit is %d MiB, want %d", used>>20, got>>20, want>>20)
		}
	}
}

// What the runtime calls live and what is not heap is about what it has in all, and no more.
func TestMemoryUsed(t *testing.T) {
	keep := make([]byte, 64<<20)
	debug.FreeOSMemory() // collects, too
	used := memoryUsed()
	if least, most := uint64(len(keep)), uint64(len(keep)+256<<20); used < least || used > most {
		t.Errorf("%d MiB are used, want %d to %d", used>>20, least>>20, most>>20)
	}
	keep[0] = 1
}

func TestTheEnvironmentSetsTheCollector(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv(name, "off")
		setCollector()
		if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
			t.Errorf("with %s the limit is %d", name, got)
		}
		t.Setenv(name, "")
	}
}
