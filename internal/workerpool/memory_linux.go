package workerpool

import (
	"bytes"
	"os"
	"strconv"
)

// memory returns the bytes of the process that are in memory: the second field of statm, in pages. Where it cannot be read it is what
// the runtime knows.
func memory() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(statm); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	return runtimeMemory()
}
