package wire_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/gearman/wire"
)

func packet(t wire.Type, args ...string) wire.Packet {
	p := wire.Packet{Type: t}
	for _, a := range args {
		p.Args = append(p.Args, []byte(a))
	}
	return p
}

func encode(d wire.Direction, p wire.Packet) []byte { return wire.Append(nil, d, p.Type, p.Args...) }

func reader(d wire.Direction, b []byte) *wire.Reader {
	return wire.NewReader(bufio.NewReader(bytes.NewReader(b)), d, 0)
}

// diff is cmp.Diff for packets, which takes minutes over a large body, kept for those that differ.
func diff(want, got wire.Packet) string {
	if want.Type == got.Type && slices.EqualFunc(want.Args, got.Args, bytes.Equal) {
		return ""
	}
	return cmp.Diff(want, got)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// example is the PROTOCOL's "Binary Protocol Example": a worker registers reverse, a client submits "test" and gets "tset".
var example = []struct {
	step  string
	dir   wire.Direction
	p     wire.Packet
	bytes string
}{
	{
		"worker registers", wire.Request, packet(wire.CanDo, "reverse"),
		"00 52 45 51  00 00 00 01  00 00 00 07  72 65 76 65 72 73 65",
	},
	{
		"worker checks for a job", wire.Request, packet(wire.GrabJob),
		"00 52 45 51  00 00 00 09  00 00 00 00",
	},
	{
		"there is none", wire.Response, packet(wire.NoJob),
		"00 52 45 53  00 00 00 0a  00 00 00 00",
	},
	{
		"worker sleeps", wire.Request, packet(wire.PreSleep),
		"00 52 45 51  00 00 00 04  00 00 00 00",
	},
	{
		"client submits", wire.Request, packet(wire.SubmitJob, "reverse", "", "test"),
		"00 52 45 51  00 00 00 07  00 00 00 0d  72 65 76 65 72 73 65 00  00  74 65 73 74",
	},
	{
		"client gets a handle", wire.Response, packet(wire.JobCreated, "H:lap:1"),
		"00 52 45 53  00 00 00 08  00 00 00 07  48 3a 6c 61 70 3a 31",
	},
	{
		"worker is woken", wire.Response, packet(wire.Noop),
		"00 52 45 53  00 00 00 06  00 00 00 00",
	},
	{
		"worker gets the job", wire.Response, packet(wire.JobAssign, "H:lap:1", "reverse", "test"),
		"00 52 45 53  00 00 00 0b  00 00 00 14  48 3a 6c 61 70 3a 31 00  72 65 76 65 72 73 65 00  74 65 73 74",
	},
	{
		"worker answers", wire.Request, packet(wire.WorkComplete, "H:lap:1", "tset"),
		"00 52 45 51  00 00 00 0d  00 00 00 0c  48 3a 6c 61 70 3a 31 00  74 73 65 74",
	},
	{
		"client gets the result", wire.Response, packet(wire.WorkComplete, "H:lap:1", "tset"),
		"00 52 45 53  00 00 00 0d  00 00 00 0c  48 3a 6c 61 70 3a 31 00  74 73 65 74",
	},
}

func TestExampleOfTheProtocol(t *testing.T) {
	for _, tt := range example {
		t.Run(tt.step, func(t *testing.T) {
			want := unhex(t, tt.bytes)
			if got := encode(tt.dir, tt.p); !bytes.Equal(got, want) {
				t.Errorf("encoded\n got % x\nwant % x", got, want)
			}
			got, err := reader(tt.dir, want).Next()
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(tt.p, got); d != "" {
				t.Errorf("decoded (-want +got):\n%s", d)
			}
		})
	}
}

// protocol is the PROTOCOL's table of packet types: number, name, and how many arguments its text lists.
var protocol = []struct {
	t    wire.Type
	name string
	args int
}{
	{1, "CAN_DO", 1},
	{2, "CANT_DO", 1},
	{3, "RESET_ABILITIES", 0},
	{4, "PRE_SLEEP", 0},
	{5, "UNUSED", 0},
	{6, "NOOP", 0},
	{7, "SUBMIT_JOB", 3},
	{8, "JOB_CREATED", 1},
	{9, "GRAB_JOB", 0},
	{10, "NO_JOB", 0},
	{11, "JOB_ASSIGN", 3},
	{12, "WORK_STATUS", 3},
	{13, "WORK_COMPLETE", 2},
	{14, "WORK_FAIL", 1},
	{15, "GET_STATUS", 1},
	{16, "ECHO_REQ", 1},
	{17, "ECHO_RES", 1},
	{18, "SUBMIT_JOB_BG", 3},
	{19, "ERROR", 2},
	{20, "STATUS_RES", 5},
	{21, "SUBMIT_JOB_HIGH", 3},
	{22, "SET_CLIENT_ID", 1},
	{23, "CAN_DO_TIMEOUT", 2},
	{24, "ALL_YOURS", 0},
	{25, "WORK_EXCEPTION", 2},
	{26, "OPTION_REQ", 1},
	{27, "OPTION_RES", 1},
	{28, "WORK_DATA", 2},
	{29, "WORK_WARNING", 2},
	{30, "GRAB_JOB_UNIQ", 0},
	{31, "JOB_ASSIGN_UNIQ", 4},
	{32, "SUBMIT_JOB_HIGH_BG", 3},
	{33, "SUBMIT_JOB_LOW", 3},
	{34, "SUBMIT_JOB_LOW_BG", 3},
	{35, "SUBMIT_JOB_SCHED", 8},
	{36, "SUBMIT_JOB_EPOCH", 4},
	{37, "SUBMIT_REDUCE_JOB", 4},
	{38, "SUBMIT_REDUCE_JOB_BACKGROUND", 4},
	{39, "GRAB_JOB_ALL", 0},
	{40, "JOB_ASSIGN_ALL", 5},
	{41, "GET_STATUS_UNIQUE", 1},
	{42, "STATUS_RES_UNIQUE", 6},
}

func TestTypesAreThoseOfTheProtocol(t *testing.T) {
	if got, want := len(protocol), 42; got != want {
		t.Fatalf("the table has %d rows, want %d", got, want)
	}
	for i, row := range protocol {
		if got, want := row.t, wire.Type(i+1); got != want {
			t.Fatalf("row %d is of type %d", want, got)
		}
		if got := row.t.String(); got != row.name {
			t.Errorf("type %d is called %s, want %s", uint32(row.t), got, row.name)
		}
		if got := row.t.NumArgs(); got != row.args {
			t.Errorf("%s has %d arguments, want %d", row.name, got, row.args)
		}
	}
	for _, none := range []wire.Type{0, 43, 1 << 31} {
		if got := none.NumArgs(); got != 0 {
			t.Errorf("%v has %d arguments, want none", none, got)
		}
	}
	if got, want := wire.Type(43).String(), "type 43"; got != want {
		t.Errorf("an unknown type is called %q, want %q", got, want)
	}
}

func TestEveryTypeComesBackAsItWent(t *testing.T) {
	for _, row := range protocol {
		if row.t == wire.Unused {
			continue // refused: TestNonsenseIsSkippable
		}
		for _, want := range []wire.Packet{distinct(row.t), empty(row.t)} {
			for _, dir := range []wire.Direction{wire.Request, wire.Response} {
				got, err := reader(dir, encode(dir, want)).Next()
				if err != nil {
					t.Errorf("%v: %v", row.t, err)
				} else if d := diff(want, got); d != "" {
					t.Errorf("%v (-want +got):\n%s", row.t, d)
				}
			}
		}
	}
}

// distinct returns a packet of type t whose arguments all differ and whose last one holds NUL bytes, as it may.
func distinct(t wire.Type) wire.Packet {
	p := wire.Packet{Type: t}
	for i := range t.NumArgs() {
		p.Args = append(p.Args, bytes.Repeat([]byte{byte('a' + i)}, i+1))
	}
	if n := len(p.Args); n > 0 {
		p.Args[n-1] = []byte("\x00last\x00\xff\x00")
	}
	return p
}

func empty(t wire.Type) wire.Packet {
	p := wire.Packet{Type: t}
	for range t.NumArgs() {
		p.Args = append(p.Args, []byte{})
	}
	return p
}

func TestAppendExtendsWhatIsThere(t *testing.T) {
	var got, want []byte
	for _, tt := range example {
		got = wire.Append(got, tt.dir, tt.p.Type, tt.p.Args...)
		want = append(want, unhex(t, tt.bytes)...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n% x, want\n% x", got, want)
	}
}

func TestAppendPanicsOnAMistakeOfTheProgram(t *testing.T) {
	tests := []struct {
		name string
		p    wire.Packet
	}{
		{"too few arguments", packet(wire.SubmitJob, "f", "u")},
		{"too many arguments", packet(wire.SubmitJob, "f", "u", "w", "w")},
		{"arguments where there are none", packet(wire.Noop, "")},
		{"type 0", packet(0)},
		{"type 43", packet(43)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			encode(wire.Request, tt.p)
		})
	}
}
