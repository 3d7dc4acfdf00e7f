package jobserver

import (
	"bufio"
	"errors"
	"net"
	"sync"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman/wire"
)

// readBuffer is also the longest text line.
const readBuffer = 16 << 10

// A conn is a client, a worker, an administrator, or all of them: Gearman does not tell them apart.
type conn struct {
	net     net.Conn
	host    string
	out     outbox
	written chan struct{} // closed when the writer has ended
	closing sync.Once
	cause   error // why it was closed; set by close

	// The rest is guarded by Server.mu.
	number     uint64
	id         string // SET_CLIENT_ID
	exceptions bool   // OPTION_REQ exceptions
	watches    list[*watch]
	held       list[*job]          // jobs it grabbed, oldest grab first
	revoked    map[uint64]struct{} // jobs that were taken from it, by number
	threw      uint64              // the job that it last ended with WORK_EXCEPTION
	abilities  []*ability
	rest       rest
	wakeUp     alarm // rings when it was sent NOOP and grabs nothing
}

func newConn(nc net.Conn, sendBuffer int) *conn {
	host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		host = nc.RemoteAddr().String()
	}
	return &conn{
		net:     nc,
		host:    host,
		out:     outbox{limit: sendBuffer, ready: make(chan struct{}, 1)},
		written: make(chan struct{}),
	}
}

// close ends the connection. The first cause stays.
func (c *conn) close(cause error) {
	c.closing.Do(func() {
		c.cause = cause
		c.net.Close()
	})
}

func (c *conn) logEnd(log zerolog.Logger) {
	event := log.Debug()
	if errors.Is(c.cause, errSlow) || errors.Is(c.cause, errHTTP) {
		event = log.Warn()
	}
	event.Err(c.cause).Str("remote", c.net.RemoteAddr().String()).Msg("connection ended")
}

// errSlow closes a connection whose peer does not read what it asked for.
var errSlow = errors.New("peer reads too slowly: its send buffer is full")

// reply puts a packet in the outbox, to be sent no later than when this connection's reader next has to wait. Only the
// connection's own reader calls it. head is copied; payload, the last argument, is kept.
func (c *conn) reply(t wire.Type, payload []byte, head ...[]byte) {
	if !c.out.put(t, payload, head...) {
		c.close(errSlow)
	}
}

// notify is reply for everyone else: the packet is sent at once.
func (c *conn) notify(t wire.Type, payload []byte, head ...[]byte) {
	c.reply(t, payload, head...)
	c.out.flush()
}

// write is the connection's writer. It ends when the outbox has ended and is empty, or the connection breaks.
func (c *conn) write() {
	defer close(c.written)
	for {
		chunks, ok := c.out.take()
		if !ok {
			return
		}
		if err := c.out.writeTo(c.net, chunks); err != nil {
			c.close(err)
			c.out.abandon()
			return
		}
	}
}

// flushOnRead reads from a connection, and before it may have to wait sends what that connection is owed. So the replies to a
// batch of requests leave in one write, and never later than the peer could expect them.
type flushOnRead struct{ c *conn }

func (f flushOnRead) Read(p []byte) (int, error) {
	f.c.out.flush()
	return f.c.net.Read(p)
}

// read is the connection's reader: packets and text lines, told apart by their first byte, in any order. It returns why it
// ended.
func (s *Server) read(c *conn) error {
	r := bufio.NewReaderSize(flushOnRead{c}, readBuffer)
	packets := wire.NewReader(r, wire.Request, s.opts.MaxBody)
	packets.Lend(smallJob) // what is kept of them is copied: see newJob, and outbox.put
	packet := wire.Packet{Args: make([][]byte, 0, 8)}
	for {
		first, err := r.Peek(1)
		if err == nil && first[0] == 0 {
			err = s.readPacket(c, packets, &packet)
		} else if err == nil {
			err = s.readLine(c, r)
		}
		if err != nil {
			return err
		}
	}
}

// readPacket acts on one packet, which it puts where the one before was. It returns an error when the stream cannot be read further.
func (s *Server) readPacket(c *conn, packets *wire.Reader, p *wire.Packet) error {
	err := packets.Read(p)
	if err == nil {
		c.refuse(s.handle(c, *p))
		clear(p.Args) // a connection that says no more is not to keep a large body
		return nil
	}
	if _, ok := errors.AsType[*wire.PacketError](err); ok {
		c.refuse(&refusal{"INVALID_COMMAND", err.Error()})
		return nil
	}
	if errors.Is(err, wire.ErrMagic) {
		c.refuse(&refusal{"INVALID_MAGIC", "Request magic expected"})
	}
	if _, ok := errors.AsType[*wire.SizeError](err); ok {
		c.refuse(&refusal{"ARGUMENT_TOO_LARGE", err.Error()})
	}
	return err
}

// readLine acts on one text line, which ends with LF or CRLF.
func (s *Server) readLine(c *conn, r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		c.out.putText([]byte("ERR INVALID_ARGUMENTS The+line+is+too+long\r\n"))
	}
	if err != nil {
		return err
	}
	return s.text(c, string(line))
}

// A refusal is an ERROR packet: the code that clients know, and a text for people.
type refusal struct{ code, text string }

func (c *conn) refuse(r *refusal) {
	if r != nil {
		c.reply(wire.Error, []byte(r.text), []byte(r.code))
	}
}

var errUnexpected = &refusal{"INVALID_COMMAND", "Command not expected"}

// handle acts on a request. Replies that must come in the order of requests are put in the outbox before it returns.
func (s *Server) handle(c *conn, p wire.Packet) *refusal {
	if _, ok := submits[p.Type]; ok {
		return s.submit(c, p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p.Type {
	case wire.EchoReq:
		c.reply(wire.EchoRes, p.Args[0])
	case wire.GetStatus:
		s.getStatus(c, p.Args[0])
	case wire.GetStatusUnique:
		s.getStatusUnique(c, p.Args[0])
	case wire.OptionReq:
		return c.setOption(p.Args[0])
	case wire.SetClientID:
		c.setID(p.Args[0])
	case wire.CanDo:
		return s.canDo(c, p.Args[0], nil)
	case wire.CanDoTimeout:
		return s.canDo(c, p.Args[0], p.Args[1])
	case wire.CantDo:
		s.cantDo(c, p.Args[0])
	case wire.ResetAbilities:
		s.resetAbilities(c)
	case wire.PreSleep:
		s.preSleep(c)
	case wire.GrabJob, wire.GrabJobUniq, wire.GrabJobAll:
		s.grab(c, p.Type)
	case wire.WorkStatus, wire.WorkData, wire.WorkWarning, wire.WorkComplete, wire.WorkFail, wire.WorkException:
		return s.work(c, p)
	case wire.AllYours: // a hint of old Perl workers that they have no other job server
	default:
		return errUnexpected
	}
	return nil
}
