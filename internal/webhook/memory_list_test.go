package webhook

import "testing"

// Whoever lists deliveries, and may own none of them, does not keep publishers waiting while all are looked at.
func TestAListOfDeliveriesLetsOthersHaveTheLock(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	if _, err := m.Register(t.Context(), CallbacksName); err != nil {
		t.Fatal(err)
	}
	const all = 2*maxListLook + 2
	for i := range uint64(all) {
		e := ev("a", i)
		e.Data.Owner = "bob"
		if i == 0 || i == all-1 {
			e.Data.Owner = "alice"
		}
		m.Publish(e)
	}
	if _, err := m.Advance(t.Context(), CallbacksName, Step{Look: all, Wants: func(Head) bool { return true }}); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	l := &listing{
		m: m, q: DeliveryQuery{Owner: "alice", Limit: 10}, sinks: []*memorySink{m.sinks[CallbacksName]}, states: DeliveryStates, n: all + 1,
	}
	pieces := 1
	for ; l.more(); pieces++ {
	}
	m.mu.Unlock()
	if pieces != 3 || len(l.found) != 2 || l.found[0].N != all || l.found[1].N != 1 {
		t.Errorf("%d pieces, found %+v", pieces, l.found)
	}
	if found, err := m.Deliveries(t.Context(), DeliveryQuery{Owner: "alice", Limit: 10}); err != nil || len(found) != 2 {
		t.Errorf("found %+v, %v", found, err)
	}
}
