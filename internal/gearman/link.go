package gearman

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gearman-gateway/internal/gearman/wire"
)

// link is one connection to a job server: a writer that batches, a heartbeat, and one end for all of it.
//
// Packets are appended to a buffer under a lock, which sets their order on the wire; the writer takes whatever has gathered
// and writes it outside the lock, so that a burst of packets costs one system call.
type link struct {
	o      Options
	nc     net.Conn
	reader *wire.Reader
	wake   chan struct{} // has an element when the buffer may hold bytes
	done   chan struct{} // closed by fail
	wg     sync.WaitGroup
	born   time.Time
	alive  atomic.Int64 // when the peer last showed life: nanoseconds since born, on the monotonic clock

	mu      sync.Mutex
	room    sync.Cond // the buffer was taken by the writer, or the link ended
	buf     []byte
	end     int64 // offset in the stream of the buffer's end
	started int64 // offset up to which bytes were handed to the connection: beyond it nothing can have been sent
	err     error // why the link ended; nil while it lives
}

// errHung ends a link whose job server keeps the connection but does not answer: stopped, or in an endless loop.
var errHung = errors.New("job server does not answer ECHO_REQ")

func newLink(nc net.Conn, o Options) *link {
	l := &link{
		o:    o,
		nc:   nc,
		born: time.Now(),
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	l.room.L = &l.mu
	l.reader = wire.NewReader(bufio.NewReaderSize(touchOnRead{l}, 64<<10), wire.Response, o.MaxPacket)
	l.wg.Go(l.write)
	return l
}

// next blocks until a packet has come. Any error ends the link.
func (l *link) next() (wire.Packet, error) {
	p, err := l.reader.Next()
	if err != nil {
		return p, l.fail(fmt.Errorf("reading: %w", err))
	}
	return p, nil
}

// touchOnRead reads from a link's connection and takes whatever comes for a sign of life: a large packet may come slowly, and the answer
// to an ECHO_REQ comes behind it.
type touchOnRead struct{ l *link }

func (r touchOnRead) Read(p []byte) (int, error) {
	n, err := r.l.nc.Read(p)
	if n > 0 {
		r.l.touch()
	}
	return n, err
}

// appendLocked queues a packet and returns the offset of its first byte. l.mu is held.
func (l *link) appendLocked(t wire.Type, args ...[]byte) (start int64) {
	before := len(l.buf)
	l.buf = wire.Append(l.buf, wire.Request, t, args...)
	start = l.end
	l.end += int64(len(l.buf) - before)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return start
}

// send queues a packet. It blocks while more than MaxBuffered bytes wait, and returns why the link ended if it did.
func (l *link) send(t wire.Type, args ...[]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && len(l.buf) > l.o.MaxBuffered {
		l.room.Wait()
	}
	if l.err != nil {
		return l.err
	}
	l.appendLocked(t, args...)
	return nil
}

// Buffers that grew beyond this for one large packet are not kept.
const keepBuffer = 1 << 20

func (l *link) write() {
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		runtime.Gosched() // whoever is about to send gets on the same system call, which costs more than all else that is done for a packet
		l.mu.Lock()
		buf := l.buf
		l.buf = spare[:0]
		l.started = l.end
		l.room.Broadcast()
		l.mu.Unlock()

		if err := l.writeAll(buf); err != nil {
			l.fail(fmt.Errorf("writing: %w", err))
			return
		}
		if spare = buf; cap(spare) > keepBuffer {
			spare = nil
		}
	}
}

// writeAll writes in pieces, and takes each large piece that the peer accepted for a sign of life: a slow upload of a large
// workload is no silence. Small writes prove nothing, the kernel takes them for a peer that hangs.
func (l *link) writeAll(buf []byte) error {
	const piece = 256 << 10
	for len(buf) > piece {
		if _, err := l.nc.Write(buf[:piece]); err != nil {
			return err
		}
		buf = buf[piece:]
		l.touch()
	}
	_, err := l.nc.Write(buf)
	return err
}

func (l *link) touch() { l.alive.Store(int64(time.Since(l.born))) }

func (l *link) silence() time.Duration { return time.Since(l.born) - time.Duration(l.alive.Load()) }

// heartbeat asks for an ECHO when the peer was silent for Silence, and ends the link when nothing has come EchoTimeout later. It
// returns when the link has ended.
func (l *link) heartbeat(ask func()) {
	var asked time.Time // zero while no ECHO is waited for
	t := time.NewTimer(l.o.Silence)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-l.done:
			return
		}
		quiet := l.silence()
		if !asked.IsZero() && quiet >= time.Since(asked) {
			l.fail(fmt.Errorf("%w within %v", errHung, l.o.EchoTimeout))
			return
		}
		if quiet < l.o.Silence {
			asked = time.Time{}
			t.Reset(l.o.Silence - quiet)
			continue
		}
		asked = time.Now()
		ask()
		t.Reset(l.o.EchoTimeout)
	}
}

// fail ends the link: the first cause is kept and returned, also by later calls.
func (l *link) fail(cause error) error {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = cause
		close(l.done)
		l.room.Broadcast()
	}
	cause = l.err
	l.mu.Unlock()
	if first {
		l.nc.Close() // not under the lock: with TLS it writes a farewell
	}
	return cause
}

// cause returns why the link ended; nil while it lives.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// wait returns when the link has ended and its goroutines with it.
func (l *link) wait() {
	<-l.done
	l.wg.Wait()
}
