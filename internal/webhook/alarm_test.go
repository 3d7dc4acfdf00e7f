package webhook

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// The hand is full in both, so that lines are due that do not fit in it. That they are must not hide what is waited for.
func TestBacklogIsDeliveredAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, &wire{answer: ok}, Options{Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test", Rate: 2}}})
		for i := range 300 {
			s.publish(ev(fmt.Sprint("s", i, "-"), 1))
		}
		advance(time.Minute)
		if got := s.count("sink", Delivered); got < 120 || got > 122 {
			t.Errorf("%d deliveries in a minute, want two a second", got)
		}
	})
}

func TestBacklogIsDeliveredWhenTheSinksPauseIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{reply: http.Header{"Retry-After": {"60"}}}
		w.answer = func(*http.Request, call) (int, error) {
			if len(w.calls()) == 1 {
				return 503, nil
			}
			return 200, nil
		}
		s := start(t, w, Options{Sinks: []SinkOptions{{Name: "sink", URL: "http://sink.test", Concurrency: 1}}})
		for i := range 300 {
			s.publish(ev(fmt.Sprint("s", i, "-"), 1))
		}
		advance(62 * time.Second)
		if got := s.count("sink", Delivered); got != 300 {
			t.Errorf("%d of 300 are delivered after the pause of a minute", got)
		}
	})
}
