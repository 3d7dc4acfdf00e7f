package jobserver_test

import (
	"io"
	"net"
	"testing"
	"time"

	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/jobserver"
)

// FuzzConnection sends any bytes, and asks that the server survives, ends the connection when its peer has, and forgets what it
// had to do with it.
func FuzzConnection(f *testing.F) {
	seed := func(packets ...[]byte) {
		var all []byte
		for _, p := range packets {
			all = append(all, p...)
		}
		f.Add(all)
	}
	packet := func(t wire.Type, args ...string) []byte {
		raw := make([][]byte, len(args))
		for i, a := range args {
			raw[i] = []byte(a)
		}
		return wire.Append(nil, wire.Request, t, raw...)
	}
	seed(packet(wire.CanDo, "f"), packet(wire.SubmitJob, "f", "u", "x"), packet(wire.SubmitJobBG, "f", "u", "y"),
		packet(wire.PreSleep), packet(wire.GrabJob), packet(wire.SubmitJob, "f", "-", "z"), packet(wire.GrabJobUniq))
	seed(packet(wire.CanDoTimeout, "f", "1"), packet(wire.SubmitJobEpoch, "f", "", "1", "x"), packet(wire.GrabJobAll),
		packet(wire.ResetAbilities), packet(wire.PreSleep), packet(wire.CanDo, "f"), packet(wire.CantDo, "f"))
	seed(packet(wire.GetStatus, "H:x:1"), packet(wire.GetStatusUnique, "u"), packet(wire.OptionReq, "exceptions"))
	seed([]byte("status\nworkers\r\nshow jobs\nmaxqueue f 1\nversion\n"), packet(wire.EchoReq, "e"))
	seed([]byte("\x00REQ\x00\x00\x00\x07\xff\xff\xff\xff"), []byte("\x00RES"), []byte("\x00"))

	s := jobserver.New(jobserver.Options{Listen: "127.0.0.1:0", MaxBody: 1 << 16, MaxJobs: 100, MaxFunctions: 100})
	if err := s.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Stop)
	f.Fuzz(func(t *testing.T, stream []byte) {
		nc, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		go func() {
			nc.Write(stream)
			nc.(*net.TCPConn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, nc); err != nil && err.(net.Error).Timeout() {
			t.Fatal("the connection does not end")
		}
		connect(t, s).silent()
	})
}
