package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"testing"

	"gearman-gateway/internal/gearman/wire"
)

// FuzzReader asks of any bytes: no panic, no more out than came in, and what decodes survives another round trip.
func FuzzReader(f *testing.F) {
	for _, row := range protocol {
		f.Add(encode(wire.Request, distinct(row.t)))
		f.Add(encode(wire.Response, distinct(row.t)))
	}
	f.Add(append(header(wire.SubmitJob, 3), "f\x00u"...))
	f.Add(header(wire.EchoReq, 1<<32-1))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, dir := range []wire.Direction{wire.Request, wire.Response} {
			r := wire.NewReader(bufio.NewReader(bytes.NewReader(data)), dir, 1<<16)
			packets, size := 0, 0
			for {
				p, err := r.Next()
				var skippable *wire.PacketError
				if err != nil && !errors.As(err, &skippable) {
					break
				}
				packets++
				if err != nil {
					continue
				}
				for _, a := range p.Args {
					size += len(a)
				}
				again, err := reader(dir, encode(dir, p)).Next()
				if err != nil {
					t.Fatalf("%v does not decode again: %v", p.Type, err)
				}
				if d := diff(p, again); d != "" {
					t.Fatalf("%v changed (-first +second):\n%s", p.Type, d)
				}
			}
			if packets*12+size > len(data) {
				t.Fatalf("%d packets with %d bytes of arguments out of %d bytes", packets, size, len(data))
			}
		}
	})
}

// FuzzAppend asks that the arguments of a submit come out as they went in, whatever bytes the last one holds.
func FuzzAppend(f *testing.F) {
	f.Add("reverse", "", []byte("test"))
	f.Add("", "u", []byte("\x00\x00REQ"))
	f.Fuzz(func(t *testing.T, function, unique string, workload []byte) {
		if bytes.ContainsRune([]byte(function+unique), 0) {
			return // the caller keeps NUL out of all arguments but the last
		}
		want := packet(wire.SubmitJob, function, unique, string(workload))
		got, err := reader(wire.Request, encode(wire.Request, want)).Next()
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}
