package jobserver

import (
	"encoding/binary"
	"net"
	"runtime"
	"sync"

	"gearman-gateway/internal/gearman/wire"
)

// An outbox gathers what a connection is owed until its writer takes all of it at once. Small packets are copied together;
// large payloads are passed on as they are, so that nobody copies 64 MiB under the server's lock.
type outbox struct {
	limit int
	ready chan struct{} // holds one token when there may be something for the writer

	mu     sync.Mutex
	chunks net.Buffers // full ones, ahead of tail
	tail   []byte      // being filled
	lent   []byte      // the tail that is being written
	spare  []byte      // an emptied tail, to be filled next
	size   int         // bytes in chunks and tail, and those being written
	ended  bool        // nothing is put any more
}

const (
	largePayload = 16 << 10
	keptTail     = 256 << 10 // an emptied tail larger than this is left to the collector
)

// put adds a response. Its arguments are head, which is copied, and then payload, if the type has one more, which may be kept. It
// returns false when the limit has just been passed: what waited is dropped and nothing more is taken.
func (o *outbox) put(t wire.Type, payload []byte, head ...[]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return true
	}
	if o.size > o.limit {
		o.drop()
		return false
	}
	before := len(o.tail)
	if len(payload) < largePayload {
		o.tail = appendPacket(o.tail, t, head, payload)
		o.size += len(o.tail) - before
		return true
	}
	o.tail = appendPacket(o.tail, t, head, nil)
	claimSize(o.tail[before:], len(payload))
	o.size += len(o.tail) - before + len(payload)
	o.chunks = append(o.chunks, o.tail, payload)
	o.tail = nil
	return true
}

func appendPacket(dst []byte, t wire.Type, head [][]byte, payload []byte) []byte {
	var args [6][]byte // no response has more
	//lint:ignore S1001 with copy the compiler puts the arguments on the heap
	for i, a := range head {
		args[i] = a
	}
	if len(head) < t.NumArgs() {
		args[len(head)] = payload
	}
	return wire.Append(dst, wire.Response, t, args[:t.NumArgs()]...)
}

// claimSize adds to the size in a packet's header, bytes 8 to 11, those of a last argument that follows in a chunk of its own.
func claimSize(packet []byte, more int) {
	size := packet[8:12]
	binary.BigEndian.PutUint32(size, binary.BigEndian.Uint32(size)+uint32(more))
}

// putText adds an answer of the admin protocol. The same limit holds.
func (o *outbox) putText(text []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return true
	}
	if o.size > o.limit {
		o.drop()
		return false
	}
	o.tail = append(o.tail, text...)
	o.size += len(text)
	return true
}

// flush tells the writer that there may be something to write.
func (o *outbox) flush() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// end lets the writer finish what was put so far.
func (o *outbox) end() {
	o.mu.Lock()
	o.ended = true
	o.mu.Unlock()
	o.flush()
}

// abandon drops what waits: nobody will read it.
func (o *outbox) abandon() {
	o.mu.Lock()
	o.drop()
	o.mu.Unlock()
	o.flush()
}

func (o *outbox) drop() {
	o.chunks, o.tail, o.spare, o.ended = nil, nil, nil, true
}

// take waits for something to write and returns all of it. It returns false when the outbox has ended and is empty.
func (o *outbox) take() (net.Buffers, bool) {
	for {
		if chunks, ended := o.taken(); len(chunks) > 0 || ended {
			return chunks, len(chunks) > 0
		}
		<-o.ready
		runtime.Gosched() // what others are about to put goes into the same system call
	}
}

func (o *outbox) taken() (chunks net.Buffers, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	chunks = o.chunks
	if len(o.tail) > 0 {
		chunks = append(chunks, o.tail)
		o.lent, o.tail, o.spare = o.tail, o.spare, nil
	}
	o.chunks = nil
	return chunks, o.ended
}

// writeTo writes what take returned in one call and counts it as sent.
func (o *outbox) writeTo(w net.Conn, chunks net.Buffers) error {
	n, err := chunks.WriteTo(w)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.size -= int(n)
	if o.lent != nil && cap(o.lent) <= keptTail && !o.ended {
		o.spare = o.lent[:0]
	}
	o.lent = nil
	return err
}
