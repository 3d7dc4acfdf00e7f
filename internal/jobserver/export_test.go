package jobserver

import "time"

// NeverOversleep leaves a woken worker that does nothing to itself, so that a test sees just the wake-ups of jobs.
func (s *Server) NeverOversleep() { s.wakeGrace = time.Hour }

// Spare returns how many jobs that have ended wait to be used again.
func (s *Server) Spare() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spare)
}
