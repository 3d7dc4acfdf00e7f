//go:build !linux

package workerpool

func memory() int64 { return runtimeMemory() }
