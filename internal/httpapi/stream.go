package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/ledger"
)

// idleComment is how long a stream is silent before it sends a comment, which keeps proxies from closing it.
const idleComment = 15 * time.Second

// A stream writes Server-Sent Events. Its methods are called by one goroutine; the timer, which flushes what was written and sends
// comments, is the only other that writes.
type stream struct {
	idle   func() // called before each comment; when the stream is closed meanwhile, nobody waits for it
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	w      *response
	last   uint64 // the number of the last event that the client has, or was told to be missing
	opened bool
	dirty  bool // something is to be flushed
	closed bool // w must not be used any more
	timer  *time.Timer
}

func newStream(w *response, after uint64, cancel context.CancelCauseFunc, idle func()) *stream {
	return &stream{w: w, last: after, cancel: cancel, idle: idle}
}

// open sends the headers. It is done once.
func (s *stream) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		return
	}
	s.opened = true
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
	s.timer = time.AfterFunc(idleComment, s.tick)
	_ = s.write([]byte("retry: 3000\n\n")) // its error comes with the flush
}

// close waits until the timer is done with the response.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// send writes an entry of a job's log, and before it how many are missing.
func (s *stream) send(e ledger.Entry) error {
	s.open()
	s.mu.Lock()
	defer s.mu.Unlock()
	buf := buffers.Get().(*[]byte)
	b := (*buf)[:0]
	if e.Seq > s.last+1 {
		b = append(b, "event: gap\ndata: {\"missing\":"...)
		b = strconv.AppendUint(b, e.Seq-s.last-1, 10)
		b = append(b, "}\n\n"...)
	}
	s.last = e.Seq
	b = appendEntry(b, e)
	err := s.write(b)
	if *buf = b; cap(b) <= 64<<10 {
		buffers.Put(buf)
	}
	return err
}

// end writes the last event.
func (s *stream) end(state ledger.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write([]byte("event: end\ndata: {\"state\":\"" + string(state) + "\"}\n\n"))
}

// write writes b, and has the timer flush it together with what follows at once. s.mu is held.
func (s *stream) write(b []byte) error {
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	if !s.dirty {
		s.dirty = true
		s.timer.Reset(0)
	}
	return nil
}

// tick flushes what there is; when there was nothing for a while, a comment.
func (s *stream) tick() {
	if !s.pending() {
		s.idle()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	var err error
	if !s.dirty {
		_, err = s.w.Write([]byte(":\n\n"))
	}
	s.dirty = false
	if err == nil {
		err = s.w.flush()
	}
	if err != nil {
		s.cancel(err)
		return
	}
	s.timer.Reset(idleComment)
}

func (s *stream) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirty
}

// appendEntry appends an entry as an event. Its data is one line: a line break in it would end it.
func appendEntry(b []byte, e ledger.Entry) []byte {
	name := "state"
	switch {
	case e.Progress != nil:
		name = "progress"
	case e.State != "":
	case e.Warning:
		name = "warning"
	default:
		name = "data"
	}
	b = append(b, "id: "...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, "\nevent: "...)
	b = append(b, name...)
	b = append(b, "\ndata: {\"at\":"...)
	b = appendTime(b, e.At)
	switch name {
	case "state":
		b = append(b, `,"state":`...)
		b = appendString(b, string(e.State))
	case "progress":
		b = append(b, `,"progress":`...)
		b = appendProgress(b, e.Progress)
	default:
		value, encoding := event.EncodePayload(e.Payload)
		b = append(b, `,"value":`...)
		b = appendCompact(b, value)
		b = append(b, `,"encoding":"`...)
		b = append(b, encoding...)
		b = append(b, '"')
	}
	return append(b, "}\n\n"...)
}

// appendCompact appends a valid JSON value without the white space between its tokens.
func appendCompact(b, value []byte) []byte {
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return append(b, value...)
	}
	buf := bytes.NewBuffer(b)
	_ = json.Compact(buf, value) // fails on invalid JSON only
	return buf.Bytes()
}
