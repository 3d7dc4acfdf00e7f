package store

import (
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// reportEvery is how often the log says how many events were dropped.
const reportEvery = 5 * time.Second

// losses are the events that are dropped, by the reason for it.
type losses struct {
	waiting, promised, full tally
	reported                time.Time // the writer's
}

func newLosses(log zerolog.Logger) *losses {
	return &losses{
		waiting: tally{
			log: log.With().Int("most", maxEvents).Logger(), begins: "too many events wait for their jobs to be stored: more are dropped",
			counts: "events were dropped while their jobs could not be stored",
		},
		promised: tally{
			log:    log.With().Int("most", maxPromised).Logger(),
			begins: "too many events of tracked and scheduled jobs wait to be stored: more are dropped, though their jobs go on",
			counts: "events of tracked and scheduled jobs were dropped while they could not be stored",
		},
		full: tally{
			log: log, begins: "too many events wait for their sinks: more are dropped, but for those of tracked and scheduled jobs",
			counts: "events were dropped because too many wait for their sinks",
		},
	}
}

// report logs what was dropped since it was last reported, at once or when it is time for it.
func (l *losses) report(now bool) {
	if !now && time.Since(l.reported) < reportEvery {
		return
	}
	l.reported = time.Now()
	for _, t := range []*tally{&l.waiting, &l.promised, &l.full} {
		t.report()
	}
}

// A tally counts events that are dropped for one reason. It logs that it begins, and then how many there were until there are none.
type tally struct {
	log            zerolog.Logger
	begins, counts string
	n              atomic.Int64 // not reported yet
	total          atomic.Int64
	going          atomic.Bool
}

func (t *tally) add(n int) {
	if n == 0 {
		return
	}
	t.n.Add(int64(n))
	t.total.Add(int64(n))
	if !t.going.Swap(true) {
		t.log.Error().Msg(t.begins)
	}
}

func (t *tally) report() {
	if n := t.n.Swap(0); n > 0 {
		t.log.Error().Int64("events", n).Msg(t.counts)
		return
	}
	t.going.Store(false)
}
