package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gearman-gateway/internal/webhook"
)

func TestDeliveriesSelectAndPage(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	sinks := []string{"a", "b", "c"}
	const events = 60
	for _, sink := range sinks {
		register(t, d, sink)
	}
	for i := range events {
		d.Publish(happened(fmt.Sprint("s", i), 1))
	}
	var want []webhook.Delivery
	for i, sink := range sinks {
		var ends []webhook.Ended
		for n := int64(1); n <= events; n++ {
			state := webhook.DeliveryStates[(int(n)+i)%3]
			want = append(want, webhook.Delivery{N: n, Sink: sink, Subject: fmt.Sprint("s", n-1), State: state})
			if state != webhook.Pending {
				ends = append(ends, webhook.Ended{N: n, Subject: fmt.Sprint("s", n-1), State: state})
			}
		}
		advance(t, d, sink, webhook.Step{Look: events})
		advance(t, d, sink, webhook.Step{Ends: ends})
	}
	slices.SortStableFunc(want, func(a, b webhook.Delivery) int { return int(b.N - a.N) })
	for _, sink := range []string{"", "b", "none"} {
		for _, state := range append([]webhook.DeliveryState{"", "none"}, webhook.DeliveryStates...) {
			selected := slices.DeleteFunc(slices.Clone(want), func(w webhook.Delivery) bool {
				return sink != "" && w.Sink != sink || state != "" && w.State != state
			})
			got := deliveries(t, d, webhook.DeliveryQuery{Sink: sink, State: state, Limit: 7})
			ignored := cmpopts.IgnoreFields(webhook.Delivery{}, "EventID", "Type", "Time", "Due")
			if diff := cmp.Diff(selected, got, ignored, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("sink %q, state %q: -want +got:\n%s", sink, state, diff)
			}
		}
	}
	older, err := d.Deliveries(t.Context(), webhook.DeliveryQuery{Before: 10, Limit: 1}) // without a BeforeSink
	if err != nil || len(older) != 1 || older[0].N != 9 || older[0].Sink != "a" {
		t.Errorf("got %+v, %v, want that of event 9 for a", older, err)
	}
}

// deliveries returns what a query selects, page by page.
func deliveries(t *testing.T, d *DB, q webhook.DeliveryQuery) (all []webhook.Delivery) {
	t.Helper()
	for {
		page, err := d.Deliveries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if len(page) < q.Limit {
			return all
		}
		q.Before, q.BeforeSink = page[len(page)-1].N, page[len(page)-1].Sink
	}
}

func TestListsOfDeliveriesUseAnIndex(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	for _, q := range []webhook.DeliveryQuery{
		{},
		{Before: 5},
		{Before: 5, BeforeSink: "a"},
		{Sink: "a"},
		{Sink: "a", Before: 5},
		{State: "dead"},
		{State: "dead", Before: 5},
		{Sink: "a", State: "dead", Before: 5},
		{Owner: "alice", Sink: "a"},
		{Owner: "alice", Sink: "a", State: "dead", Before: 5},
	} {
		q.Limit = 50
		text, args := listing(q, []string{"a", "b"})
		plan := explain(t, d, text, args)
		filtered := q.Sink != "" || q.State != ""
		if strings.Contains(plan, "TEMP B-TREE") || filtered && strings.Contains(plan, "SCAN deliveries") ||
			q.Owner != "" && !strings.Contains(plan, "deliveries_by_owner") {
			t.Errorf("%s\n%s", text, plan)
		}
	}
}

// What a step of a sink looks up is found by an index.
func TestStepsUseAnIndex(t *testing.T) {
	d := open(t, Options{Dir: t.TempDir()})
	for text, index := range map[string]string{
		"SELECT subject, due FROM deliveries WHERE sink = ? AND due IS NOT NULL ORDER BY due, n":                                                        "COVERING INDEX deliveries_due (sink=?",
		"SELECT rowid FROM deliveries WHERE sink = ? AND due > ? ORDER BY due LIMIT 1":                                                                  "deliveries_due (sink=? AND due>?)",
		"SELECT n, due FROM deliveries WHERE sink = ? AND subject = ? AND state = 'pending' ORDER BY n LIMIT 1":                                         "deliveries_pending (sink=? AND subject=?)",
		"SELECT 1 FROM deliveries WHERE sink = ? AND subject = ? AND state = 'pending' AND n < ?":                                                       "deliveries_pending (sink=? AND subject=? AND n<?)",
		"SELECT d.n FROM deliveries d CROSS JOIN events e ON e.n = d.n WHERE d.sink = ? AND d.subject = ? AND d.state = 'pending' ORDER BY d.n LIMIT 9": "deliveries_pending (sink=? AND subject=?)",
		"SELECT n FROM deliveries WHERE sink = ? AND state = 'pending' ORDER BY n LIMIT 1":                                                              "COVERING INDEX deliveries_by_state (sink=? AND state=?)",
		"SELECT n, subject FROM deliveries WHERE sink = ? AND state = 'pending' AND n > ? AND n <= ? ORDER BY n LIMIT 9":                                "deliveries_by_state (sink=? AND state=? AND n>? AND n<?)",
		"DELETE FROM events WHERE n = ? AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.n = events.n AND d.state = 'pending')":                       "deliveries_by_event (n=?)",
		"SELECT count(*) FROM deliveries WHERE sink = ? AND state = ?":                                                                                  "COVERING INDEX deliveries_by_state (sink=? AND state=?)",
		"SELECT d.n, e.time FROM deliveries d CROSS JOIN events e ON e.n = d.n WHERE d.sink = ? AND d.state = 'dead' AND d.n > ? ORDER BY d.n LIMIT 9":  "deliveries_by_state (sink=? AND state=? AND n>?)",
		"UPDATE deliveries SET due = NULL WHERE n = ? AND sink = ? AND state = 'pending'":                                                               "deliveries_by_event (n=? AND sink=?)",
		"SELECT n, type FROM events WHERE subject = ? AND n > ? ORDER BY n":                                                                             "events_by_subject (subject=? AND rowid>?)",
		"SELECT n, type FROM events WHERE n > ?" + ofOwner + " ORDER BY n":                                                                              "events_by_owner (owner=? AND n>?)",

		"SELECT n FROM events WHERE id = ?": "events_by_id",

		// as the cascade does
		"DELETE FROM deliveries WHERE n = ?": "deliveries_by_event (n=?)",
	} {
		args := slices.Repeat([]any{"x"}, strings.Count(text, "?"))
		if plan := explain(t, d, text, args); !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s does not use %s alone:\n%s", text, index, plan)
		}
	}
}
