package ledger

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Bounds of one job's log. Beyond them the oldest entries are dropped, and whoever reads the log sees by its Seq that some are missing.
const (
	maxLogEntries = 500
	maxLogBytes   = 64 << 10
)

// maxLogs bounds the payloads of all logs in memory. Beyond it a payload is told to nobody but the store's events.
const maxLogs = 64 << 20

// log adds a line to a job's log and wakes who follows it.
func (l *Ledger) log(j *job, e Entry) {
	j.logSeq++
	if n := len(e.Payload); n > 0 && l.logBytes+n > maxLogs && !l.clearLogs(maxLogs-n) {
		return
	}
	e.Seq, e.At = j.logSeq, time.Now()
	if len(j.Log) == 1 {
		j.Log = slices.Grow(j.Log, 2) // most logs end with the third: queued, running, and how it ended
	}
	j.Log = append(j.Log, e)
	l.count(j, len(e.Payload))
	for len(j.Log) > maxLogEntries || j.logBytes > maxLogBytes {
		l.count(j, -len(j.Log[0].Payload))
		j.Log = j.Log[1:]
	}
	if j.followed != nil {
		close(j.followed)
		j.followed = nil
	}
}

// clearLogs gives up the logs of the oldest ended jobs until no more than max bytes are left, and reports whether it has come to that.
func (x *index) clearLogs(max int) bool {
	for x.logs.first != nil && x.logBytes > max {
		x.clearLog(x.logs.first)
	}
	return x.logBytes <= max
}

func (x *index) count(j *job, n int) {
	j.logBytes += n
	x.logBytes += n
}

func (x *index) clearLog(j *job) {
	x.count(j, -j.logBytes)
	j.Log = nil
	if x.logs.has(j) {
		x.logs.remove(j)
	}
}

// Follow calls send for each entry of a job's log after the one with the number after, and for those to come, until the job has
// ended, which is nil, or ctx ends or send fails. Entries may be missing where the log was full: Seq tells. The error is ErrNotFound
// for a job that is not in the ledger, a stranger's too.
func (l *Ledger) Follow(ctx context.Context, who Caller, ref string, after uint64, send func(Entry) error) error {
	for {
		err := l.followHere(ctx, who, ref, &after, send)
		if !errors.Is(err, errForgotten) {
			return err
		}
		select {
		case <-time.After(askInterval): // where there is no room for all who are followed they take each other's
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errForgotten: a job was forgotten before its end. The store may have it.
var errForgotten = errors.New("the job is not in memory any more")

// followHere is Follow as long as the job is in memory. It keeps what was sent last in after.
func (l *Ledger) followHere(ctx context.Context, who Caller, ref string, after *uint64, send func(Entry) error) error {
	j, r, err := l.lookUp(ctx, who, ref)
	switch {
	case err != nil:
		return err
	case j == nil:
		return sendAfter(r.Log, *after, send)
	}
	defer func() { l.release(j) }()
	for {
		entries, more := l.entries(j, *after)
		if err := sendAfter(entries, *after, send); err != nil {
			return err
		}
		if n := len(entries); n > 0 {
			*after = max(*after, entries[n-1].Seq)
		}
		if more == nil {
			if j = l.follow(j); j == nil {
				return errForgotten
			}
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// entries returns a job's log after an entry, and a channel that is closed when there is more; nil when there will be none.
func (l *Ledger) entries(j *job, after uint64) (entries []Entry, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, _ := slices.BinarySearchFunc(j.Log, after, func(e Entry, after uint64) int { return cmpSeq(e.Seq, after+1) })
	entries = slices.Clone(j.Log[from:])
	if !j.live() {
		return entries, nil
	}
	if j.followed == nil {
		j.followed = make(chan struct{})
	}
	return entries, j.followed
}

func cmpSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func sendAfter(entries []Entry, after uint64, send func(Entry) error) error {
	for _, e := range entries {
		if e.Seq <= after {
			continue
		}
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}

// move takes a job to a state and logs it.
func (l *Ledger) move(j *job, s State) {
	j.State = s
	l.log(j, Entry{State: s})
}
