package webhook

import (
	"time"

	"github.com/rs/zerolog"
)

// sayDropsEvery is how often dropped events are logged while it goes on. An outbox on the brink finds room and loses it again many times
// a second, so that it is over only after so long without a drop.
const sayDropsEvery = 5 * time.Second

// drops counts events that were dropped, and says when to log it: when it begins, every few seconds, and when it is over.
type drops struct {
	total  uint64
	unsaid uint64
	now    uint64 // since note
	going  bool
	last   time.Time // drop
	said   time.Time
}

func (d *drops) drop() { d.now++ }

// A saying is what to log; outside the lock, as a log may be slow.
type saying struct {
	level   zerolog.Level
	dropped uint64
	text    string // "": nothing
}

// note is called after drops, and whenever there might be something to say.
func (d *drops) note() saying {
	if d.now == 0 && !d.going {
		return saying{}
	}
	now := time.Now()
	if d.now > 0 {
		d.last = now
	}
	d.total += d.now
	d.unsaid += d.now
	d.now = 0
	s := saying{zerolog.ErrorLevel, d.unsaid, "webhook outbox is full: events dropped"}
	switch {
	case d.going && now.Sub(d.last) >= sayDropsEvery:
		d.going = false
		s.level, s.text = zerolog.InfoLevel, "webhook outbox has room again"
	case !d.going:
		d.going = true
	case d.unsaid == 0 || now.Sub(d.said) < sayDropsEvery:
		return saying{}
	}
	d.unsaid, d.said = 0, now
	return s
}

func (s saying) log(log zerolog.Logger) {
	if s.text != "" {
		log.WithLevel(s.level).Uint64("events", s.dropped).Msg(s.text)
	}
}
