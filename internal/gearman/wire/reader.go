package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// DefaultMaxBody is the largest body that a Reader with no limit of its own takes: a 64 MiB workload and its names.
const DefaultMaxBody = 64<<20 + 64<<10

// ErrMagic says that the bytes are not a Gearman packet of the expected direction. The stream cannot be read further.
var ErrMagic = errors.New("not a Gearman packet")

// A SizeError is a header that claims more than the reader's limit. The stream cannot be read further.
type SizeError struct {
	Type        Type
	Size, Limit int
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%v of %d bytes is over the limit of %d", e.Type, e.Size, e.Limit)
}

// A PacketError is a whole packet that makes no sense: a type that does not exist, or too few arguments. The reader stands
// behind it, so a job server can answer ERROR and go on.
type PacketError struct {
	Type   Type
	Reason string
}

func (e *PacketError) Error() string { return fmt.Sprintf("%v: %s", e.Type, e.Reason) }

// A Reader reads packets of one direction. It is not safe for concurrent use.
type Reader struct {
	r     *bufio.Reader
	magic uint32
	limit int
	lent  []byte // for bodies that fit
}

// NewReader returns a Reader of packets whose bodies have at most maxBody bytes; 0 means DefaultMaxBody.
func NewReader(r *bufio.Reader, d Direction, maxBody int) *Reader {
	magic := magicReq
	if d == Response {
		magic = magicRes
	}
	if maxBody <= 0 {
		maxBody = DefaultMaxBody
	}
	return &Reader{r: r, magic: magic, limit: maxBody}
}

// Lend has the arguments of packets whose body has at most so many bytes be good until the next packet is read, and no longer.
func (r *Reader) Lend(size int) { r.lent = make([]byte, size) }

// Next blocks until a whole packet has come and returns it. The packet is the caller's to keep, but for Lend. At the end of the stream it
// returns io.EOF between packets and io.ErrUnexpectedEOF inside one.
func (r *Reader) Next() (Packet, error) {
	var p Packet
	if err := r.Read(&p); err != nil {
		return Packet{}, err
	}
	return p, nil
}

// Read is Next for a caller that uses one packet again and again: it sets p, whose Args are put where those of the packet before
// were. Their bytes are the caller's to keep, but for Lend. After an error p means nothing.
func (r *Reader) Read(p *Packet) error {
	h, err := r.r.Peek(headerSize)
	if err != nil {
		if err == io.EOF && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	t := Type(binary.BigEndian.Uint32(h[4:]))
	size := binary.BigEndian.Uint32(h[8:])
	if magic := binary.BigEndian.Uint32(h[:]); magic != r.magic {
		return fmt.Errorf("%w: it begins with %q", ErrMagic, h[:4])
	}
	if uint64(size) > uint64(r.limit) {
		return &SizeError{Type: t, Size: int(size), Limit: r.limit}
	}
	_, _ = r.r.Discard(headerSize) // it is in the buffer
	body, err := r.body(int(size))
	if err != nil {
		return err
	}
	return p.parse(t, body)
}

// bodyStep is how much of a body is allocated before its bytes have come: a header's claim alone costs no more than this.
const bodyStep = 64 << 10

func (r *Reader) body(size int) ([]byte, error) {
	body := r.lent[:min(size, len(r.lent))]
	if size > len(r.lent) {
		body = make([]byte, min(size, bodyStep))
	}
	for read := 0; ; {
		n, err := io.ReadFull(r.r, body[read:])
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		if read += n; read == size {
			return body, nil
		}
		body = append(body, make([]byte, min(size-read, read))...) // doubles what has really come
	}
}

func (p *Packet) parse(t Type, body []byte) error {
	if !t.known() || t == Unused {
		return &PacketError{t, "no such packet type"}
	}
	p.Type = t
	n := kinds[t].args
	if n == 0 {
		p.Args = p.Args[:0]
		return nil
	}
	if cap(p.Args) < n {
		p.Args = make([][]byte, n)
	}
	p.Args = p.Args[:n]
	for i := range n - 1 {
		nul := bytes.IndexByte(body, 0)
		if nul < 0 {
			return &PacketError{t, fmt.Sprintf("%d arguments, not %d", i+1, n)}
		}
		p.Args[i], body = body[:nul:nul], body[nul+1:]
	}
	p.Args[n-1] = body
	return nil
}
