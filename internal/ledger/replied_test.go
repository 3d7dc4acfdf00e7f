package ledger

import (
	"testing"
	"time"
)

func TestASyncJobThatATaskWithAKeyJoinedIsKept(t *testing.T) {
	bubble(t, Options{MaxReplied: 1}, func(t *testing.T, b *lab) {
		s, first := b.begin(t.Context(), Task{Function: "f", Unique: "u", Workload: []byte("w"), Mode: Sync, Wait: time.Minute})
		s.created(at("H:1"))
		task := keyed(Sync, "a")
		task.Unique = "u"
		joined := b.call(func() (Record, error) { return b.Submit(t.Context(), task) })
		s.completed("result")
		id := first.must(t).ID
		if r := joined.must(t); r.ID != id {
			t.Fatalf("it has not joined: %+v", r)
		}
		b.finish("H:2", "")
		b.finish("H:3", "")
		again, err := b.Submit(t.Context(), task)
		if err != nil || again.ID != id || !again.Replayed || string(again.Result) != "result" {
			t.Errorf("%+v, %v", again, err)
		}
	})
}
