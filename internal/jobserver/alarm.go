package jobserver

import (
	"container/heap"
	"time"
)

// An alarm rings once, under the server's lock: a job's time has come, or is up, or a woken worker has overslept.
type alarm struct {
	at   time.Time
	ring func()
	pos  int // in the heap, from 1; 0 when not set
}

// An alarmClock rings alarms in the order of their times. Server.mu guards it. Times come from the monotonic clock, so setting
// the machine's clock moves no alarm that is already set.
type alarmClock struct {
	set   alarmHeap
	timer *time.Timer
}

func newAlarmClock() alarmClock {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return alarmClock{timer: timer}
}

// ringIn sets an alarm, anew if it is set already.
func (k *alarmClock) ringIn(a *alarm, d time.Duration) {
	k.cancel(a)
	a.at = time.Now().Add(d)
	heap.Push(&k.set, a)
	if k.set[0] == a {
		k.timer.Reset(d)
	}
}

// cancel unsets an alarm, if it is set. The timer may then fire for nothing.
func (k *alarmClock) cancel(a *alarm) {
	if a.pos > 0 {
		heap.Remove(&k.set, a.pos-1)
	}
}

// watchClock rings what is due until the server stops.
func (s *Server) watchClock() {
	for {
		select {
		case <-s.alarms.timer.C:
			s.ringDue(time.Now())
		case <-s.stopped:
			s.alarms.timer.Stop()
			return
		}
	}
}

func (s *Server) ringDue(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.alarms
	for len(k.set) > 0 {
		first := k.set[0]
		if first.at.After(now) {
			k.timer.Reset(first.at.Sub(now))
			return
		}
		heap.Pop(&k.set)
		first.ring()
	}
}

type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	*h = append(*h, a)
	a.pos = len(*h)
}

func (h *alarmHeap) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	a.pos = 0
	return a
}
