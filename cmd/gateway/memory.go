package main

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// How the collector is set, unless GOGC says otherwise. It runs half as often as Go's default has it: records are most of
// what is in memory and live long, and to look through them for every piece of garbage as large as they are costs a sixth of the time of a
// busy gateway. Where that would take more than softMemory it runs more often, but not for less garbage than a third of what is live: a
// limit that is too low would have it run all the time. 10,000 callers that wait need some 400 MiB, 230 of them live. In a container it
// runs as often as it takes to stay below nine tenths of what the container may have, since beyond that the kernel ends the process.
// GOMEMLIMIT takes the place of these limits.
const (
	gcPercent  = 200
	softMemory = 480 << 20 // bytes
	leastShare = 3
)

func setCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(gcPercent)
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	most := mostMemory()
	last := memoryLimit(0, 0, most)
	debug.SetMemoryLimit(last)
	go func() {
		for range time.Tick(250 * time.Millisecond) {
			live, others := memoryUsed()
			if limit := memoryLimit(live, others, most); limit != last {
				debug.SetMemoryLimit(limit)
				last = limit
			}
		}
	}()
}

// mostMemory returns what the process may have of the memory of its control group. The rest is for what Go does not know of.
func mostMemory() uint64 {
	limit, err := memlimit.FromCgroup()
	if err != nil { // most often there is none
		return math.MaxInt64
	}
	return min(limit/10*9, math.MaxInt64)
}

// memoryLimit returns how many bytes the process may have where so many are live on the heap, and others are no heap.
func memoryLimit(live, others, most uint64) int64 {
	return int64(min(most, max(softMemory, others+live+live/leastShare)))
}

// memoryUsed returns what the heap had left after its last collection, and all that is not heap, such as stacks.
func memoryUsed() (live, others uint64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	return value(0), value(1) - value(2) - value(3) - value(4)
}
