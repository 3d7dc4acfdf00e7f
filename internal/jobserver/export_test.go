package jobserver

import "time"

// NeverOversleep leaves a woken worker that does nothing to itself, so that a test sees just the wake-ups of jobs.
func (s *Server) NeverOversleep() { s.wakeGrace = time.Hour }
