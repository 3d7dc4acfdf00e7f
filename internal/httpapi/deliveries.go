package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gearman-gateway/internal/event"
	"gearman-gateway/internal/webhook"
)

// A deliveryItem is a delivery among others.
type deliveryItem struct {
	ID            string                `json:"id"`
	Sink          string                `json:"sink"`
	Event         eventItem             `json:"event"`
	State         webhook.DeliveryState `json:"state"`
	Attempts      int                   `json:"attempts"`
	NextAttemptAt *string               `json:"next_attempt_at"`
}

type eventItem struct {
	ID      string     `json:"id"`
	Type    event.Type `json:"type"`
	Subject *string    `json:"subject"`
	Time    *string    `json:"time"`
}

func newDeliveryItem(d webhook.Delivery) deliveryItem {
	return deliveryItem{
		ID: deliveryID(d), Sink: d.Sink, State: d.State, Attempts: d.Attempts, NextAttemptAt: timeOrNull(d.Due),
		Event: eventItem{d.EventID, d.Type, orNull(d.Subject), timeOrNull(d.Time)},
	}
}

// deliveryID is the id of the event and the name of the sink. The event's has no colon; the sink's name may have.
func deliveryID(d webhook.Delivery) string { return d.EventID + ":" + d.Sink }

// An attemptItem is one POST and what came of it.
type attemptItem struct {
	At             *string `json:"at"`
	DurationMS     float64 `json:"duration_ms"`
	OK             bool    `json:"ok"`
	Status         *int    `json:"status"` // null: there was no answer
	Error          *string `json:"error"`
	Answer         *string `json:"answer"`
	AnswerEncoding *string `json:"answer_encoding"`
}

func newAttemptItem(at webhook.Attempt) attemptItem {
	item := attemptItem{
		At: timeOrNull(at.At), DurationMS: float64(at.Duration.Microseconds()) / 1000, OK: at.Error == "", Error: orNull(at.Error),
	}
	if at.Status != 0 {
		text, encoding := answerText(at.Answer)
		item.Status, item.Answer, item.AnswerEncoding = &at.Status, &text, &encoding
	}
	return item
}

// maxAnswer is how many bytes are kept of a sink's answer.
const maxAnswer = 4 << 10

// answerText renders the first bytes of what a sink answered: JSON is text here, as it may be cut off. Text that was cut within a
// character ends before it.
func answerText(b []byte) (text, encoding string) {
	if len(b) >= maxAnswer {
		b = b[:maxAnswer]
		start := len(b) - 1
		for start > len(b)-utf8.UTFMax && !utf8.RuneStart(b[start]) {
			start--
		}
		if !utf8.FullRune(b[start:]) {
			b = b[:start]
		}
	}
	if utf8.Valid(b) {
		return string(b), "text"
	}
	return base64.StdEncoding.EncodeToString(b), "base64"
}

// deliveries is GET /deliveries: those of the newest events first.
func (a *API) deliveries(w *response, r *http.Request) error {
	filters, err := query(r, "sink", "state", "limit", "cursor")
	if err != nil {
		return err
	}
	q, m := deliveriesOf(filters)
	if m != nil {
		return wrongParameters(m)
	}
	limit := q.Limit
	q.Limit++ // whether there is one more is whether there is another page
	found, err := a.findDeliveries(r.Context(), w, q)
	if err != nil {
		return err
	}
	page := struct {
		Items []deliveryItem `json:"items"`
		Next  *string        `json:"next_cursor"`
	}{}
	if len(found) > limit {
		found = found[:limit]
		page.Next = new(deliveryCursor(found[limit-1]))
		linkNext(w, "/deliveries", filters, "cursor", *page.Next)
	}
	for _, d := range found {
		page.Items = append(page.Items, newDeliveryItem(d))
	}
	return writeJSON(w, http.StatusOK, page)
}

// deliveriesOf reads the filters. The sink need not be configured: deliveries of one that was are kept for a time.
func deliveriesOf(filters url.Values) (q webhook.DeliveryQuery, m mistakes) {
	q.Sink, q.State, q.Limit = filters.Get("sink"), webhook.DeliveryState(filters.Get("state")), pageSize
	m = m.check(filters, "sink", func(s string) error {
		if s == "" {
			return errors.New("must not be empty")
		}
		return nil
	})
	m = m.check(filters, "state", func(s string) error {
		if !slices.Contains(webhook.DeliveryStates, q.State) {
			return errors.New("must be one of pending, delivered, dead")
		}
		return nil
	})
	m = m.check(filters, "limit", func(s string) (err error) {
		q.Limit, err = parseLimit(s, maxPageSize)
		return err
	})
	m = m.check(filters, "cursor", func(s string) (err error) {
		q.Before, q.BeforeSink, err = parseDeliveryCursor(s)
		return err
	})
	return q, m
}

// A cursor of deliveries is the number of the last one's event, and its sink.
func deliveryCursor(d webhook.Delivery) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(d.N, 10) + ":" + d.Sink))
}

func parseDeliveryCursor(s string) (n int64, sink string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	number, sink, _ := strings.Cut(string(b), ":")
	u, wrong := strconv.ParseUint(number, 10, 63)
	if err != nil || wrong != nil || u == 0 || sink == "" {
		return 0, "", errors.New("is not a next_cursor of this list")
	}
	return int64(u), sink, nil
}

// delivery is GET /deliveries/{id}.
func (a *API) delivery(w *response, r *http.Request) error {
	sink, eventID, err := deliveryRef(r)
	if err != nil {
		return err
	}
	d, err := a.findDelivery(r.Context(), w, sink, eventID)
	if err != nil {
		return err
	}
	return writeDelivery(w, http.StatusOK, d)
}

// redeliver is POST /deliveries/{id}/redeliver.
func (a *API) redeliver(w *response, r *http.Request) error {
	sink, eventID, err := deliveryRef(r)
	if err != nil {
		return err
	}
	if _, err := a.members(w, r); err != nil {
		return err
	}
	if w.own() != "" {
		if _, err := a.findDelivery(r.Context(), w, sink, eventID); err != nil {
			return err
		}
	}
	if err := a.o.Limits.Repeat(w.who.Name); err != nil {
		return err
	}
	if err := a.o.Webhooks.Redeliver(r.Context(), sink, eventID); err != nil {
		return err
	}
	d, err := a.o.Webhooks.Delivery(r.Context(), sink, eventID)
	if err != nil {
		return err
	}
	w.set("Location", "/deliveries/"+url.PathEscape(deliveryID(d)))
	w.set("Retry-After", "1")
	return writeDelivery(w, http.StatusAccepted, d)
}

// findDeliveries returns those of what is selected that the caller sees, as findDelivery.
func (a *API) findDeliveries(ctx context.Context, w *response, q webhook.DeliveryQuery) ([]webhook.Delivery, error) {
	if q.Owner = w.own(); q.Owner != "" {
		if q.Sink != "" && q.Sink != webhook.CallbacksName {
			return nil, nil
		}
		q.Sink = webhook.CallbacksName
	}
	return a.o.Webhooks.Deliveries(ctx, q)
}

// findDelivery returns a delivery that the caller sees. Those to sinks belong to whoever runs the gateway, those to a job's callback to
// the job's owner.
func (a *API) findDelivery(ctx context.Context, w *response, sink, eventID string) (webhook.Delivery, error) {
	d, err := a.o.Webhooks.Delivery(ctx, sink, eventID)
	if own := w.own(); err == nil && own != "" && (d.Owner != own || sink != webhook.CallbacksName) {
		err = webhook.ErrNoDelivery
	}
	return d, err
}

// deliveryRef returns the event and the sink whose delivery the path names.
func deliveryRef(r *http.Request) (sink, eventID string, err error) {
	id, err := pathParam(r, "id")
	eventID, sink, ok := strings.Cut(id, ":")
	if err != nil || !ok || eventID == "" || sink == "" {
		return "", "", deliveryNotFound.because("This cannot be the id of a delivery.")
	}
	return sink, eventID, nil
}

// writeDelivery answers with a delivery and its attempts.
func writeDelivery(w *response, status int, d webhook.Delivery) error {
	whole := struct {
		deliveryItem
		Log []attemptItem `json:"log"`
	}{deliveryItem: newDeliveryItem(d)}
	for _, at := range d.Log {
		whole.Log = append(whole.Log, newAttemptItem(at))
	}
	return writeJSON(w, status, whole)
}

// timeOrNull is a time as appendTime writes it.
func timeOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC().Format(timeLayout))
}
