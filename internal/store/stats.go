package store

import "time"

// A Meter counts transactions. It is called from the writer's goroutine alone, and must not block.
type Meter interface {
	// Committed is told of each transaction of the writer: how many changes were in it, how long it took, the sync of the disk
	// included, and why it failed.
	Committed(changes int, took time.Duration, err error)
}

func (d *DB) meter(changes int, begin time.Time, err error) {
	if d.o.Meter != nil {
		d.o.Meter.Committed(changes, time.Since(begin), err)
	}
}

// Stats is how the writer does.
type Stats struct {
	Waiting int  // changes that are not stored yet
	Failing bool // the last transaction could not be stored
}

// Stats returns how the writer does now. It does not block.
func (d *DB) Stats() Stats { return Stats{Waiting: d.queue.len(), Failing: d.failing.Load()} }

// Dropped returns how many events were dropped, since there was no room or they could not be stored.
func (d *DB) Dropped() uint64 {
	l := d.losses
	return uint64(l.waiting.total.Load() + l.promised.total.Load() + l.full.total.Load())
}
