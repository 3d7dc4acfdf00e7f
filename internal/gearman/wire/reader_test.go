package wire_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"gearman-gateway/internal/gearman/wire"
)

// header returns the 12 bytes that announce a body of size bytes to a job server.
func header(t wire.Type, size uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte("\x00REQ"), uint32(t))
	return binary.BigEndian.AppendUint32(b, size)
}

func TestPacketsSurviveAnySplit(t *testing.T) {
	want := []wire.Packet{
		packet(wire.SubmitJob, "reverse", "u", "te\x00st"),
		packet(wire.GrabJob),
		packet(wire.WorkComplete, "H:lap:1", ""),
		packet(wire.SubmitJobBG, "reverse", "", strings.Repeat("large ", 50_000)), // over several steps of the body's buffer
	}
	var stream []byte
	for _, p := range want {
		stream = append(stream, encode(wire.Request, p)...)
	}
	check := func(name string, src io.Reader) {
		t.Helper()
		r := wire.NewReader(bufio.NewReaderSize(src, 16), wire.Request, 0)
		for i, p := range want {
			got, err := r.Next()
			if err != nil {
				t.Fatalf("%s: packet %d: %v", name, i, err)
			}
			if d := diff(p, got); d != "" {
				t.Fatalf("%s: packet %d (-want +got):\n%s", name, i, d)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("%s: after the last packet: %v, want EOF", name, err)
		}
	}
	check("byte by byte", iotest.OneByteReader(bytes.NewReader(stream)))
	check("by halves", iotest.HalfReader(bytes.NewReader(stream)))
	check("the end with the data", iotest.DataErrReader(bytes.NewReader(stream)))
	for at := range 100 { // beyond the three short packets
		check("in two", io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:])))
	}
}

func TestEndOfStreamInsideAPacketIsUnexpected(t *testing.T) {
	whole := encode(wire.Request, packet(wire.SubmitJob, "reverse", "", "test"))
	for at := range whole {
		want := io.ErrUnexpectedEOF
		if at == 0 {
			want = io.EOF
		}
		if _, err := reader(wire.Request, whole[:at]).Next(); err != want {
			t.Errorf("cut after %d bytes: %v, want %v", at, err, want)
		}
	}
	large := append(header(wire.EchoReq, 1<<20), make([]byte, 64<<10)...) // ends where the first step of its buffer does
	if _, err := reader(wire.Request, large).Next(); err != io.ErrUnexpectedEOF {
		t.Errorf("a large body cut short: %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestErrorsOfTheConnectionComeThrough(t *testing.T) {
	cause := errors.New("reset by peer")
	for _, sent := range []int{0, 5, 12, 20} {
		whole := encode(wire.Request, packet(wire.SubmitJob, "reverse", "", "test"))
		src := io.MultiReader(bytes.NewReader(whole[:sent]), iotest.ErrReader(cause))
		if _, err := wire.NewReader(bufio.NewReader(src), wire.Request, 0).Next(); !errors.Is(err, cause) {
			t.Errorf("after %d bytes: %v, want %v", sent, err, cause)
		}
	}
}

func TestOnlyTheExpectedMagicIsRead(t *testing.T) {
	tests := []struct {
		name  string
		dir   wire.Direction
		bytes string
	}{
		{"a response to a job server", wire.Request, string(encode(wire.Response, packet(wire.Noop)))},
		{"a request to a client", wire.Response, string(encode(wire.Request, packet(wire.GrabJob)))},
		{"a web server", wire.Response, "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"the admin protocol", wire.Request, "show unique jobs\n"},
		{"off by one byte", wire.Request, "\x00" + string(encode(wire.Request, packet(wire.GrabJob)))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := reader(tt.dir, []byte(tt.bytes)).Next()
			if !errors.Is(err, wire.ErrMagic) {
				t.Fatalf("%v, want %v", err, wire.ErrMagic)
			}
		})
	}
	_, err := reader(wire.Response, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")).Next()
	if !strings.Contains(err.Error(), `"HTTP"`) {
		t.Errorf("%q does not show what came instead", err)
	}
}

func TestNonsenseIsSkippable(t *testing.T) {
	tests := []struct {
		name  string
		bytes []byte
		want  wire.PacketError
	}{
		{"no argument of three", header(wire.SubmitJob, 0), wire.PacketError{Type: wire.SubmitJob, Reason: "1 arguments, not 3"}},
		{"two arguments of three", append(header(wire.SubmitJob, 3), "f\x00u"...), wire.PacketError{Type: wire.SubmitJob, Reason: "2 arguments, not 3"}},
		{"type 0", header(0, 0), wire.PacketError{Type: 0, Reason: "no such packet type"}},
		{"type 5", header(wire.Unused, 0), wire.PacketError{Type: wire.Unused, Reason: "no such packet type"}},
		{"type 43 with a body", append(header(43, 4), "body"...), wire.PacketError{Type: 43, Reason: "no such packet type"}},
		{"the largest type", header(1<<32-1, 0), wire.PacketError{Type: 1<<32 - 1, Reason: "no such packet type"}},
	}
	next := packet(wire.EchoReq, "still here")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := reader(wire.Request, append(tt.bytes, encode(wire.Request, next)...))
			_, err := r.Next()
			var got *wire.PacketError
			if !errors.As(err, &got) || *got != tt.want {
				t.Fatalf("got %v, want %v", err, &tt.want)
			}
			p, err := r.Next()
			if err != nil {
				t.Fatalf("the packet behind it: %v", err)
			}
			if d := diff(next, p); d != "" {
				t.Errorf("the packet behind it (-want +got):\n%s", d)
			}
		})
	}
}

func TestSizeLimit(t *testing.T) {
	const limit = 100
	next := func(size uint32, maxBody int) error {
		b := append(header(wire.EchoReq, size), make([]byte, min(size, 2*limit))...)
		_, err := wire.NewReader(bufio.NewReader(bytes.NewReader(b)), wire.Request, maxBody).Next()
		return err
	}
	if err := next(limit, limit); err != nil {
		t.Errorf("a body at the limit: %v", err)
	}
	var got *wire.SizeError
	if err := next(limit+1, limit); !errors.As(err, &got) {
		t.Errorf("a body over the limit: %v, want a SizeError", err)
	} else if want := (wire.SizeError{Type: wire.EchoReq, Size: limit + 1, Limit: limit}); *got != want {
		t.Errorf("a body over the limit: %+v, want %+v", *got, want)
	}
	for _, size := range []uint32{wire.DefaultMaxBody + 1, 1 << 31, 1<<32 - 1} {
		if err := next(size, 0); !errors.As(err, &got) {
			t.Errorf("%d bytes without a limit of our own: %v, want a SizeError", size, err)
		}
	}
}

func TestAClaimAloneCostsLittle(t *testing.T) {
	const claims = 20
	claim := header(wire.EchoReq, 64<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range claims {
		if _, err := reader(wire.Request, claim).Next(); err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got, most := (after.TotalAlloc-before.TotalAlloc)/claims, uint64(256<<10); got > most {
		t.Errorf("a header that claims 64 MiB allocates %d bytes, want at most %d", got, most)
	}
}

func TestPacketsAreTheCallersToKeep(t *testing.T) {
	first, second := packet(wire.JobAssign, "H:lap:1", "reverse", "one"), packet(wire.JobAssign, "H:lap:2", "reverse", "two")
	r := reader(wire.Response, append(encode(wire.Response, first), encode(wire.Response, second)...))
	got, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	_ = append(got.Args[0], "0 grown"...) // as its owner may; the body has room for it
	if d := diff(first, got); d != "" {
		t.Errorf("the first packet changed (-want +got):\n%s", d)
	}
}

// A body that fits is put where the one before was; a larger one is the caller's.
func TestWhatIsLentIsGoodForOnePacket(t *testing.T) {
	var stream []byte
	for _, text := range []string{"first", "large, and so kept", "third"} {
		stream = wire.Append(stream, wire.Request, wire.EchoReq, []byte(text))
	}
	r := wire.NewReader(bufio.NewReader(bytes.NewReader(stream)), wire.Request, 0)
	r.Lend(8)
	var packets [3]wire.Packet
	for i := range packets {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		packets[i] = p
	}
	for i, want := range []string{"third", "large, and so kept", "third"} {
		if got := string(packets[i].Args[0]); got != want {
			t.Errorf("packet %d has %q, want %q", i, got, want)
		}
	}
}
