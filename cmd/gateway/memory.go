package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How the collector is set, unless GOGC says otherwise. It runs half as often as Go's default has it: records are most of
// what is in memory and live long, and to look through them for every piece of garbage as large as they are costs a sixth of the time of a
// busy gateway. Where that would take more than softMemory it runs more often, but not for less garbage than a third of what is live: a
// limit that is too low would have it run all the time. 10,000 callers that wait need some 400 MiB, 230 of them live. GOMEMLIMIT takes the
// place of that limit.
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
	debug.SetMemoryLimit(softMemory)
	go func() {
		last := int64(softMemory)
		for range time.Tick(250 * time.Millisecond) {
			if limit := memoryLimit(memoryUsed()); limit != last {
				debug.SetMemoryLimit(limit)
				last = limit
			}
		}
	}()
}

// memoryLimit returns how many bytes the process may have where so many are live on the heap, and others are no heap.
func memoryLimit(live, others uint64) int64 {
	return int64(max(softMemory, others+live+live/leastShare))
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
