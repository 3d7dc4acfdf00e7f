package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/ledger"
)

// How many items a list that has pages answers with that is not told, and at most.
const (
	pageSize    = 50
	maxPageSize = 200
)

var states = []string{
	string(ledger.Scheduled), string(ledger.Queued), string(ledger.Running), string(ledger.Completed), string(ledger.Failed),
	string(ledger.Cancelled), string(ledger.Lost), string(ledger.Unknown),
}

// page is GET /jobs: the records, newest first.
func (a *API) page(w *response, r *http.Request) error {
	filters, err := query(r, "function", "state", "mode", "owner", "limit", "cursor")
	if err != nil {
		return err
	}
	q, m := pageOf(filters)
	if m != nil {
		return wrongParameters(m)
	}
	if q.Owner, err = ownerFilter(w.who, filters); err != nil {
		return err
	}
	records, next, err := a.o.Jobs.List(r.Context(), q)
	if err != nil {
		return err
	}
	cursor := ""
	if next != "" {
		cursor = cursorOf(next)
		linkNext(w, "/jobs", filters, "cursor", cursor)
	}
	b := append(make([]byte, 0, 1<<10*(len(records)+1)), `{"items":[`...)
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJob(b, view{Record: &records[i], listed: true})
	}
	b = append(b, `],"next_cursor":`...)
	b = appendKnown(b, cursor)
	w.write(http.StatusOK, "application/json", append(b, "}\n"...))
	return nil
}

// pageOf reads the filters.
func pageOf(filters url.Values) (q ledger.Query, m mistakes) {
	q = ledger.Query{
		Function: filters.Get("function"), State: ledger.State(filters.Get("state")), Mode: ledger.Mode(filters.Get("mode")),
		Limit: pageSize,
	}
	check := func(name string, rule func(value string) error) { m = m.check(filters, name, rule) }
	check("function", gearman.CheckFunction)
	check("state", func(s string) error { return checkOneOf(s, states) })
	check("mode", checkMode)
	check("limit", func(s string) (err error) {
		q.Limit, err = parseLimit(s, maxPageSize)
		return err
	})
	if filters.Has("cursor") {
		before, ok := idOf(filters.Get("cursor"))
		if !ok {
			m = m.note("cursor", "is not a next_cursor of this list")
		}
		q.Before = before
	}
	return q, m
}

func parseLimit(s string, most int) (int, error) {
	limit, err := strconv.Atoi(s)
	if err != nil || limit < 1 || limit > most {
		return 0, fmt.Errorf("must be a whole number from 1 to %d", most)
	}
	return limit, nil
}

// linkNext tells where the next page is: at the same path and filters, with the cursor in a parameter.
func linkNext(w *response, path string, filters url.Values, parameter, cursor string) {
	if filters == nil {
		filters = url.Values{}
	}
	filters.Set(parameter, cursor)
	w.Header().Set("Link", "<"+path+"?"+filters.Encode()+`>; rel="next"`)
}

// A cursor is the id of the last job of a page.
func cursorOf(id string) string {
	u, err := uuid.Parse(id)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(u[:])
}

func idOf(cursor string) (id string, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return "", false
	}
	u, err := uuid.FromBytes(b)
	return u.String(), err == nil
}
