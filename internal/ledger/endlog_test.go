package ledger

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman"
)

// endings reads what a log says of jobs that have ended.
func endings(t *testing.T, log string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if fields["message"] == "job ended" {
			delete(fields, "message")
			lines = append(lines, fields)
		}
	}
	return lines
}

func TestTheEndOfAJobIsOneLine(t *testing.T) {
	var log bytes.Buffer
	bubble(t, Options{Log: zerolog.New(&log)}, func(t *testing.T, b *lab) {
		const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
		s, o := b.begin(t.Context(), Task{
			Function: "f", Mode: Sync, Wait: time.Minute, RequestID: "r-1", Traceparent: "00-" + trace + "-00f067aa0ba902b7-01",
		})
		s.created(at("H:1"))
		time.Sleep(2 * time.Second) // of the bubble
		s.tell(gearman.Update{Kind: gearman.Status, Numerator: 1, Denominator: 2})
		time.Sleep(3 * time.Second)
		s.tell(gearman.Update{Kind: gearman.Exception, Payload: []byte("canary")})
		r := o.must(t)
		want := []map[string]any{{
			"level": "info", "job": r.ID, "function": "f", "state": "failed", "mode": "sync", "kind": "exception", "handle": "H:1",
			"server": g1, "wait_ms": 2000.0, "total_ms": 5000.0, "run_ms": 3000.0, "request_id": "r-1", "trace_id": trace,
		}}
		if diff := cmp.Diff(want, endings(t, log.String())); diff != "" {
			t.Error(diff)
		}
		log.Reset()
		s, _ = b.sync("H:2")
		s.completed("canary")
		s, _ = b.sync("H:3")
		s.lost(errCut)
		a := &gearman.Assignment{Server: g1, Handle: "H:4", Function: "theirs", Unique: "u"}
		b.before(a)
		b.failed(a, "exit", "canary")
		synctest.Wait()
		var got []string
		for _, line := range endings(t, log.String()) {
			got = append(got, line["level"].(string)+" "+line["state"].(string))
		}
		if diff := cmp.Diff([]string{"debug completed", "warn lost", "info failed"}, got); diff != "" {
			t.Error(diff)
		}
		if strings.Contains(log.String(), "canary") {
			t.Errorf("tells too much: %s", log.String())
		}
	})
}

// slowLog is a log whose first write blocks.
type slowLog struct{ writing, written chan struct{} }

func (s *slowLog) Write(p []byte) (int, error) {
	s.writing <- struct{}{}
	<-s.written
	return len(p), nil
}

// A log that does not take its lines holds up who caused one, and nobody else.
func TestALogThatIsSlowDoesNotHoldUpTheLedger(t *testing.T) {
	slow := &slowLog{}
	bubble(t, Options{Log: zerolog.New(slow).Level(zerolog.InfoLevel)}, func(t *testing.T, b *lab) {
		slow.writing, slow.written = make(chan struct{}), make(chan struct{}) // of the bubble
		s, o := b.sync("H:1")
		go s.lost(errCut)
		<-slow.writing
		if r := o.must(t); r.State != Lost {
			t.Errorf("it is %s", r.State)
		}
		other, end := b.sync("H:2")
		other.completed("r")
		if r := end.must(t); r.State != Completed {
			t.Errorf("the other one is %s", r.State)
		}
		close(slow.written)
	})
}
