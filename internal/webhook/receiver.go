package webhook

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/rs/zerolog"
)

const maxReceived = 1 << 20 // bytes of a body

// A Receiver is a handler that checks deliveries and prints a line for each event:
//
//	2027-01-01T00:00:00.5Z verified job.completed 0193… seq=4 id=evt_0193… {"id":"0193…",…}
//
// It answers 204 once the line is written, unless Faults has it misbehave. It refuses, and says why: a message that none of Secrets signed in the last five
// minutes with 401, a body over 1 MiB with 413, one that is not an event with 400, another method than POST with 405. It is safe
// for concurrent use and must not be copied.
type Receiver struct {
	Secrets []Secret  // any of them may have signed; none: everything is taken, and its line says unsigned or unverified
	Out     io.Writer // one Write a line
	Faults  Faults
	Log     zerolog.Logger // of refusals

	mu sync.Mutex // held while writing to Out
}

// Faults make a bad sink, to try out what becomes of deliveries. The zero value makes none.
type Faults struct {
	Rate   float64       // how many of the deliveries are refused, and not printed: from 0 to 1
	Status int           // what the refused ones are answered; 0: 500
	Delay  time.Duration // before every answer
}

// strike delays the answer, and refuses the delivery if it is its turn.
func (f Faults) strike(ctx context.Context) (status int, err error) {
	select {
	case <-time.After(f.Delay):
	case <-ctx.Done():
		return http.StatusServiceUnavailable, context.Cause(ctx)
	}
	if rand.Float64() >= f.Rate {
		return 0, nil
	}
	return cmp.Or(f.Status, http.StatusInternalServerError), errors.New("refused, as it was asked to")
}

// ServeHTTP takes one delivery.
func (rc *Receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, err := rc.receive(w, r)
	if err != nil {
		rc.Log.Warn().Err(err).Int("status", status).Str("remote", r.RemoteAddr).Msg("delivery refused")
		http.Error(w, err.Error(), status)
		return
	}
	w.WriteHeader(status)
}

func (rc *Receiver) receive(w http.ResponseWriter, r *http.Request) (status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, errors.New("deliveries are POSTed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReceived))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", maxReceived)
	}
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("reading the body: %w", err)
	}
	trust, err := rc.trust(r.Header, body)
	if err != nil {
		return http.StatusUnauthorized, err
	}
	line, err := format(trust, body)
	if err != nil {
		return http.StatusBadRequest, err
	}
	if status, err := rc.Faults.strike(r.Context()); err != nil {
		return status, err
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if _, err := io.WriteString(rc.Out, line); err != nil {
		return http.StatusInternalServerError, fmt.Errorf("printing the event: %w", err)
	}
	return http.StatusNoContent, nil
}

// trust returns the line's word for how far the message can be trusted.
func (rc *Receiver) trust(h http.Header, body []byte) (string, error) {
	if len(rc.Secrets) > 0 {
		return "verified", verify(rc.Secrets, h, body, time.Now())
	}
	if h.Get(headerSignature) != "" {
		return "unverified", nil
	}
	return "unsigned", nil
}

// format renders the line of an event.
func format(trust string, body []byte) (string, error) {
	var e struct {
		SpecVersion, ID, Type, Subject string
		Time                           time.Time
		Data                           json.RawMessage
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return "", fmt.Errorf("the body is not a CloudEvent in JSON: %w", err)
	}
	if e.SpecVersion == "" || e.Type == "" {
		return "", errors.New("the body is not a CloudEvent: specversion or type is missing")
	}
	var data struct{ Seq json.Number }
	_ = json.Unmarshal(e.Data, &data) // others' data need not have a seq, nor be an object
	var compact bytes.Buffer
	if err := json.Compact(&compact, e.Data); err != nil {
		compact.Reset() // there is no data
	}
	return fmt.Sprintf("%s %s %s %s seq=%s id=%s %s\n", e.Time.UTC().Format(time.RFC3339Nano), trust, word(e.Type), word(e.Subject),
		word(data.Seq.String()), word(e.ID), escape(compact.String())), nil
}

// word keeps a field of the line in one piece: "-" for none, and no white space in it.
func word(s string) string {
	if s == "" {
		return "-"
	}
	return escape(strings.ReplaceAll(s, " ", `\u0020`))
}

// escape writes control characters as JSON does: a terminal would take them for commands, and a line must stay one.
func escape(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
