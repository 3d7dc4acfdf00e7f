package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/webhook"
)

// How many events GET /events answers with that is not told, and at most.
const (
	feedSize    = 100
	maxFeedSize = 1000
)

const (
	// maxLooks is how many pages on which nothing is selected are passed over before an empty one is answered with.
	maxLooks = 50
	// feedPause is between two looks for events of one request that waits: where many come that it does not select, or one after the
	// other, it looks for all of them at once.
	feedPause = 50 * time.Millisecond
)

// feed is GET /events: the log of events, for who would rather ask than be called, or was away.
func (a *API) feed(w *response, r *http.Request) error {
	filters, err := query(r, "after", "type", "job", "limit", "wait")
	if err != nil {
		return err
	}
	q, m := eventsOf(filters)
	most := a.longestWait(w, "")
	m = m.check(filters, "wait", func(s string) error { _, err := parseWait(s, most); return err })
	if m != nil {
		return wrongParameters(m)
	}
	w.set("Vary", "Prefer")
	q.Owner = w.own()
	wait := a.waitFor(w, r, filters.Get("wait"), 0, most)
	if wait > 0 {
		w.waits()
	}
	page, err := a.nextEvents(r.Context(), q, wait)
	if err != nil {
		return err
	}
	cursor := strconv.FormatInt(page.Next, 10)
	if !page.End {
		linkNext(w, "/events", filters, "after", cursor)
	}
	size := 64
	for _, body := range page.Bodies {
		size += len(body) + 1
	}
	b := append(make([]byte, 0, size), `{"items":[`...)
	for i, body := range page.Bodies {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, body...) // byte for byte what sinks get
	}
	b = append(b, `],"next_cursor":`...)
	b = appendString(b, cursor)
	w.write(http.StatusOK, "application/json", append(b, "}\n"...))
	return nil
}

// eventsOf reads the filters.
func eventsOf(filters url.Values) (q webhook.EventQuery, m mistakes) {
	q.Limit = feedSize
	m = m.check(filters, "after", func(s string) (err error) {
		q.After, q.AfterID, err = parseAfter(s)
		return err
	})
	m = m.check(filters, "type", func(s string) (err error) {
		q.Types, err = parsePatterns(s)
		slices.Sort(q.Types)
		q.Types = slices.Compact(q.Types) // few are left, however long the list
		return err
	})
	m = m.check(filters, "job", func(s string) error {
		q.Subject = s
		if gearman.CheckHandle(s) != nil { // events of jobs that were not submitted here go by their handles
			return errors.New("can be neither the id nor the handle of a job")
		}
		return nil
	})
	m = m.check(filters, "limit", func(s string) (err error) {
		q.Limit, err = parseLimit(s, maxFeedSize)
		return err
	})
	return q, m
}

// maxEventID is more than the length of any event's id.
const maxEventID = 64

// parseAfter reads a next_cursor, which is the number of an event, or an event's id.
func parseAfter(s string) (n int64, id string, err error) {
	if strings.HasPrefix(s, "evt_") && len(s) <= maxEventID {
		return 0, s, nil
	}
	u, err := strconv.ParseUint(s, 10, 63) // which, other than ParseInt, takes no sign
	if err != nil {
		return 0, "", errors.New("must be a next_cursor, or the id of an event")
	}
	return int64(u), "", nil
}

// nextEvents returns the first page that has events; an empty one when the wait is over, or cut short by the end of the gateway.
func (a *API) nextEvents(ctx context.Context, q webhook.EventQuery, wait time.Duration) (webhook.EventPage, error) {
	if wait > 0 {
		if !a.waiting.take(1) {
			return webhook.EventPage{}, tooManyWaiting()
		}
		defer a.waiting.give(1)
	}
	held, lapse := context.WithTimeout(ctx, wait)
	defer lapse()
	defer context.AfterFunc(a.drain, lapse)()
	for looks := 1; ; looks++ {
		pause := time.After(feedPause)
		grown := a.o.Webhooks.Grown() // before it is looked: what comes in between is not missed
		page, err := a.o.Webhooks.Events(ctx, q)
		switch {
		case err != nil || len(page.Bodies) > 0:
			return page, err
		case page.Next < q.After: // the cursor is of another log: of one that was in memory, before a restart
			return page, webhook.ErrEventsExpired
		case !page.End && looks < maxLooks:
			q.After, q.AfterID = page.Next, ""
			continue
		case held.Err() != nil:
			return page, ctx.Err()
		case page.End:
			looks = 0
			if !either(held, grown) {
				return page, ctx.Err()
			}
		}
		q.After, q.AfterID = page.Next, ""
		if !either(held, pause) {
			return page, ctx.Err()
		}
	}
}

// either waits, and reports whether c came before the end of ctx.
func either[T any](ctx context.Context, c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}
