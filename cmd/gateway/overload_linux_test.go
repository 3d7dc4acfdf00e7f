package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOverload offers a gateway ten times what it can serve: the requests that it admits are answered nearly as fast as at its capacity,
// its memory stays bounded, and all is as before soon after. The gateway has one processor, and its requests cost it milliseconds, of a
// JSON Schema, but their sender nothing: so the sender can send all that it says, with time to spare.
func TestOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 15 s")
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	item := `{"items":{"type":"object","required":["id","name"],"properties":{"id":{"type":"integer"},"name":{"pattern":"^([a-z]+[0-9]*)+$"}}}}`
	schema := file("schema.json", `{"allOf":[`+strings.Repeat(item+",", 11)+item+`]}`)
	config := file("gateway.yaml", fmt.Sprintf(
		"listen: 127.0.0.1:0\njobserver: {listen: 127.0.0.1:0}\nlog_level: info\nhandlers: [{function: wordcount, schema: %s}]\n", schema))
	g := release(t, "--config", config)
	g.Env = append(os.Environ(), "GOMAXPROCS=1")
	addr := startAndFind(t, g, "gateway serves HTTP")

	items := make([]string, 100)
	for i := range items {
		items[i] = fmt.Sprintf(`{"id":%d,"name":"name%d"}`, i, i)
	}
	body := `{"function":"wordcount","workload":[` + strings.Join(items, ",") + `]}`
	l := newLoad(t, addr, "/jobs", body)
	l.closed(16, time.Second) // to warm up

	capacity := l.closed(64, 3*time.Second)
	before := memory(t, g.Process.Pid, "VmRSS")
	t.Logf("capacity, 64 callers:  %v; %d MiB", capacity, before>>20)
	offered := 10 * capacity.rate()
	over := l.open(offered, 4000, 5*time.Second)
	after := memory(t, g.Process.Pid, "VmRSS")
	t.Logf("offered %5.0f/s:        %v; %d MiB", offered, over, after>>20)
	ended := time.Now()
	recovered := l.closed(64, time.Second)
	for recovered.p99() > 2*capacity.p99() && time.Since(ended) < 5*time.Second {
		recovered = l.closed(64, time.Second)
	}
	t.Logf("%4.1f s after, 64 callers: %v", time.Since(ended).Seconds(), recovered)
	t.Logf("p99 of those admitted: %.2f of that at capacity", over.p99().Seconds()/capacity.p99().Seconds())

	// The bounds are loose: others use this machine, too. Without protection they are missed by far: p99 is seconds, and everybody's memory
	// is held.
	if most := 4 * capacity.p99(); over.p99() > most {
		t.Errorf("p99 of those admitted is %v, want at most %v", over.p99(), most)
	}
	if over.statuses[503] == 0 || over.statuses[202] == 0 || len(over.statuses) != 2 {
		t.Errorf("answers: %v", over.statuses)
	}
	if over.rate() < capacity.rate()/10 {
		t.Errorf("%v/s are served under overload, and %v/s else", over.rate(), capacity.rate())
	}
	if after > before+1<<30 {
		t.Errorf("memory went from %d to %d MiB", before>>20, after>>20)
	}
	if recovered.p99() > 4*capacity.p99() || len(recovered.refused) > len(recovered.took)/10 {
		t.Errorf("5 s after it is not as before: %v", recovered)
	}
}
