package ledger

import (
	"errors"
	"testing"
	"time"
)

var errNoRoom = errors.New("no room")

// What is held counts from a job's entry to its end, and background jobs, which are a job server's, do not count.
func TestRoomIsAskedWithWhatIsHeld(t *testing.T) {
	var asked []Held
	full := false
	o := Options{Room: func(owner, function string, size int64, owned, called Held) error {
		if owner != "a" || function != "f" || size != 3 {
			t.Errorf("asked for %q, %q, %d", owner, function, size)
		}
		asked = append(asked, owned, called)
		if full {
			return errNoRoom
		}
		return nil
	}}
	bubble(t, o, func(t *testing.T, b *lab) {
		task := Task{Owner: "a", Function: "f", Mode: Sync, Wait: time.Minute, Workload: []byte("abc")}
		b.background("u", "H:1")
		s, first := b.begin(t.Context(), task)
		s.created(at("H:2"))
		full = true
		if _, err := b.Submit(t.Context(), task); !errors.Is(err, errNoRoom) {
			t.Errorf("a second: %v", err)
		}
		s.completed("")
		first.must(t)
		full = false
		second, o := b.begin(t.Context(), task)
		second.refused(errNotSent)
		<-o.done
		want := []Held{{}, {}, {1, 3}, {1, 3}, {}, {}}
		if len(asked) != len(want) {
			t.Fatalf("asked with %v", asked)
		}
		for i := range want {
			if asked[i] != want[i] {
				t.Errorf("asked with %v, want %v", asked, want)
			}
		}
		if len(b.owned)+len(b.called) != 0 {
			t.Errorf("still held: %v, %v", b.owned, b.called)
		}
	})
}
