package httpapi

import (
	"errors"
	"strings"
	"time"

	"gearman-gateway/internal/ledger"
)

// farthest is how far ahead a job may be scheduled.
const farthest = 366 * 24 * time.Hour

// schedule reads run_at, delay and deadline as of now, and adds what is wrong with them to m. A run_at that has passed means at once.
func (s *submission) schedule(now time.Time, m mistakes) mistakes {
	start, member := now, ""
	var err error
	switch {
	case s.RunAt != "" && s.Delay != "":
		return m.note("run_at", "excludes delay").note("delay", "excludes run_at")
	case s.RunAt != "":
		member = "run_at"
		start, err = parseTime(s.RunAt)
	case s.Delay != "":
		member = "delay"
		var d time.Duration
		d, err = parseDelay(s.Delay)
		start = now.Add(d)
	}
	switch {
	case err != nil:
		return m.note(member, err.Error())
	case member != "" && s.Mode == string(ledger.Sync):
		m = m.note(member, "is not for mode sync")
	case start.Sub(now) > farthest:
		m = m.note(member, "must be at most 366 days ahead")
	case start.After(now):
		s.runAt = start
	}
	if s.Deadline == "" {
		return m
	}
	return s.endBefore(now, start, m)
}

// endBefore reads the deadline of a job that starts at start.
func (s *submission) endBefore(now, start time.Time, m mistakes) mistakes {
	d, err := time.ParseDuration(s.Deadline)
	relative := err == nil
	s.deadline = now.Add(d)
	if !relative {
		if s.deadline, err = parseTime(s.Deadline); err != nil {
			return m.note("deadline", `must be an RFC 3339 time, or a duration from now such as "10m"`)
		}
	}
	// A submission that comes again under its key must be taken as it was the first time, though what it names has passed since:
	// then only two times, or two durations, can be told to be in the wrong order.
	comparable := s.key == "" || relative == (s.RunAt == "")
	if comparable && !s.deadline.After(start) || s.deadline.IsZero() { // which would be none
		return m.note("deadline", "must be later than now and than run_at")
	}
	return m
}

// parseTime refuses what package time takes beyond RFC 3339: hours of one digit, and a comma before fractions.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || s[len("2006-01-02T15")] != ':' || strings.Contains(s, ",") {
		return t, errors.New(`must be an RFC 3339 time such as "2027-01-01T00:00:00Z"`)
	}
	return t, nil
}

func parseDelay(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, errors.New(`must be a duration such as "30s" or "1m30s"`)
	case d < 0:
		return 0, errors.New("must not be negative")
	}
	return d, nil
}
