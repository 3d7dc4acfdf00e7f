//go:build !linux

package handler

// awaitExit blocks until the process has exited, and reaps it. There is a tiny chance that its group's id is another's before
// what is left in the group is killed; on Linux there is none.
func (p *process) awaitExit() { _ = p.cmd.Wait() }

func reapOrphans(int) {}

func noCore(int) {}

func resident(int) int64 { return -1 }
