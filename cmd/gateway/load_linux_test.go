package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A load sends one request, encoded once, over many connections, and notes how each was answered. It does as little as it can: it
// shares the machine with what it measures.
type load struct {
	t       *testing.T
	addr    string
	request []byte

	mu       sync.Mutex
	statuses map[int]int
	took     []time.Duration // of what was done: of the 2xx
	refused  []time.Duration // of the 503
	unsent   int             // there was no idle connection for it
	elapsed  time.Duration
}

func newLoad(t *testing.T, addr, path, body string) *load {
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, len(body), body)
	return &load{t: t, addr: addr, request: request, statuses: map[int]int{}}
}

// fresh returns a load of the same requests that none was sent of.
func (l *load) fresh() *load {
	return &load{t: l.t, addr: l.addr, request: l.request, statuses: map[int]int{}}
}

// closed sends over some connections for a time, the next request on each when the last was answered.
func (l *load) closed(conns int, during time.Duration) *load {
	l = l.fresh()
	var wg sync.WaitGroup
	began := time.Now()
	for range conns {
		wg.Go(func() {
			c := l.dial()
			defer c.Close()
			for time.Since(began) < during && l.exchange(c) {
			}
		})
	}
	wg.Wait()
	l.elapsed = time.Since(began)
	return l
}

// open sends so many requests a second, whatever becomes of them, over at most so many connections.
func (l *load) open(perSecond float64, conns int, during time.Duration) *load {
	l = l.fresh()
	arrivals := make(chan struct{}) // not buffered: a request is sent at its time, or is not sent
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			var c *clientConn
			for range arrivals {
				if c == nil { // not before: a connection without a request is closed after a few seconds
					c = l.dial()
					defer c.Close()
				}
				if !l.exchange(c) {
					return
				}
			}
		})
	}
	began := time.Now()
	sent := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; time.Since(began) < during; <-tick.C {
		for due := int(perSecond * time.Since(began).Seconds()); sent < due; sent++ {
			select {
			case arrivals <- struct{}{}:
			default:
				l.unsent++
			}
		}
	}
	close(arrivals)
	wg.Wait()
	l.elapsed = time.Since(began)
	return l
}

func (l *load) dial() *clientConn {
	c, err := net.Dial("tcp", l.addr)
	if err != nil {
		l.t.Error(err)
		return &clientConn{Conn: nowhere{}, r: bufio.NewReader(nowhere{})}
	}
	return &clientConn{Conn: c, r: bufio.NewReaderSize(c, 2<<10)}
}

type clientConn struct {
	net.Conn
	r *bufio.Reader
}

type nowhere struct{ net.Conn }

func (nowhere) Read([]byte) (int, error)  { return 0, io.EOF }
func (nowhere) Write([]byte) (int, error) { return 0, io.EOF }
func (nowhere) Close() error              { return nil }

// exchange reports whether the connection can be used on.
func (l *load) exchange(c *clientConn) bool {
	began := time.Now()
	_, err := c.Write(l.request)
	status := 0
	if err == nil {
		status, err = c.response()
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.statuses[status]++
	switch {
	case err != nil:
		if l.statuses[0] < 4 {
			l.t.Errorf("a request failed: %v", err)
		}
	case status < 300:
		l.took = append(l.took, took)
	case status == 503:
		l.refused = append(l.refused, took)
	}
	return err == nil
}

func (c *clientConn) response() (status int, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch name, value, _ := bytes.Cut(line, []byte(":")); {
		case first:
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, err
			}
		case len(line) == 0:
			_, err := c.r.Discard(length)
			return status, err
		case string(name) == "Content-Length":
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))]
}

func (l *load) p99() time.Duration { return quantile(l.took, .99) }

func (l *load) rate() float64 { return float64(len(l.took)) / l.elapsed.Seconds() }

func (l *load) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("%.0f/s done, p50 %v, p99 %v; refused %d, p50 %v, p99 %v; not sent for want of a connection %d",
		l.rate(), round(quantile(l.took, .5)), round(l.p99()),
		len(l.refused), round(quantile(l.refused, .5)), round(quantile(l.refused, .99)), l.unsent)
}
