package workerpool

import "runtime"

// runtimeMemory returns the bytes that the Go runtime has from the system.
func runtimeMemory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
