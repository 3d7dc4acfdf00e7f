package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gearman-gateway/internal/ledger"
)

// caller is a connection on which requests are made by hand.
type caller struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func call(t *testing.T, url string) *caller {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &caller{t, c, bufio.NewReader(c)}
}

// ask sends a request, which answer reads the response to.
func (c *caller) ask(method, path string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", method, path); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) answer() (status int) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		c.t.Fatal(err)
	}
	return res.StatusCode
}

func TestIdleConnectionsMakeRoomAndBusyOnesAreWaitedFor(t *testing.T) {
	inside, leave := make(chan struct{}, 2), make(chan struct{})
	f := &fake{submit: func(_ context.Context, task ledger.Task) (ledger.Record, error) {
		inside <- struct{}{}
		<-leave
		return completed(task, nil), nil
	}}
	_, url := serve(t, f, Options{MaxConnections: 2, DrainDelay: time.Millisecond})
	first, second := call(t, url), call(t, url)
	for _, c := range []*caller{first, second} {
		c.ask("GET", "/livez")
		if got := c.answer(); got != http.StatusOK {
			t.Fatal(got)
		}
	}
	second.ask("POST", "/functions/f")
	<-inside
	third := call(t, url)
	third.ask("POST", "/functions/f") // takes the place of the first, which is idle
	<-inside
	if _, err := first.r.ReadByte(); err == nil {
		t.Error("the idle connection is still there")
	}
	fourth := call(t, url)
	fourth.ask("GET", "/livez")
	_ = fourth.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := fourth.r.Peek(1); err == nil {
		t.Error("there was room for a third busy connection")
	}
	close(leave)
	_ = fourth.SetReadDeadline(time.Now().Add(20 * time.Second))
	for _, c := range []*caller{second, third, fourth} {
		if got := c.answer(); got != http.StatusOK {
			t.Error(got)
		}
	}
}

// closing is a connection that knows whether it was closed.
type closing struct {
	net.Conn
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// Each listener has a connection that waits for room: an idle one is closed for each of them.
func TestEachListenerThatWaitsGetsAnIdleConnectionsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newConns(2)
		idle := []*closing{{}, {}}
		for _, c := range idle {
			b.enter()
			b.track(c, http.StateNew)
			b.track(c, http.StateIdle)
		}
		var listeners sync.WaitGroup
		defer listeners.Wait()
		defer b.lift()
		for range 2 {
			listeners.Go(b.enter)
		}
		synctest.Wait()
		for i, c := range idle {
			if !c.closed {
				t.Errorf("the idle connection %d keeps its place", i)
			}
			b.track(c, http.StateClosed)
		}
		synctest.Wait()
		if b.taken != 2 || b.leaving != 0 {
			t.Errorf("got %d connections and %d that leave, want 2 and 0", b.taken, b.leaving)
		}
	})
}

func TestShutdownAnswersThoseWhoWaitForRoom(t *testing.T) {
	leave := make(chan struct{})
	inside := make(chan struct{})
	f := &fake{submit: func(_ context.Context, task ledger.Task) (ledger.Record, error) {
		close(inside)
		<-leave
		return completed(task, nil), nil
	}}
	s, url := serve(t, f, Options{MaxConnections: 1, DrainDelay: 10 * time.Millisecond})
	busy, waiting := call(t, url), call(t, url)
	busy.ask("POST", "/functions/f")
	<-inside
	waiting.ask("GET", "/livez")
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	if got := waiting.answer(); got != http.StatusOK {
		t.Error(got)
	}
	close(leave)
	if got := busy.answer(); got != http.StatusOK {
		t.Error(got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A listener that is shut resets no connection: one that could be made is accepted.
func TestAShutListenerResetsNobody(t *testing.T) {
	unix := func(path string) (net.Listener, error) { return net.Listen("unix", path) }
	for name, listen := range map[string]func() (net.Listener, error){
		"tcp":  func() (net.Listener, error) { return ListenTCP("127.0.0.1:0") },
		"tcp6": func() (net.Listener, error) { return ListenTCP("[::1]:0") },
		"unix": func() (net.Listener, error) { return unix(filepath.Join(t.TempDir(), "s")) },
	} {
		ln, err := listen()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := &door{Listener: ln, conns: newConns(1 << 20)}
		go func() {
			for {
				c, err := d.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("x"))
				c.Close()
			}
		}()
		var clients sync.WaitGroup
		begun := make(chan struct{}, 8)
		for range cap(begun) {
			clients.Go(func() {
				for i := 0; ; i++ {
					c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
					if err != nil {
						return // refused, or no such file: nothing was sent
					}
					if _, err := io.ReadAll(c); err != nil {
						t.Errorf("%s: after %d connections: %v", name, i, err)
					}
					c.Close()
					if i == 20 {
						begun <- struct{}{}
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		d.shut(t.Context())
		clients.Wait()
	}
}

// h2client speaks HTTP/2 without TLS.
func h2client(t *testing.T) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// With HTTP/2 a connection is busy as long as one of its streams is, and clients are told by GOAWAY to come no more.
func TestDrainWithHTTP2(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	f := &fake{job: func(context.Context, string, time.Duration) (ledger.Record, error) {
		close(inside)
		<-leave
		return completed(ledger.Task{Function: "f"}, nil), nil
	}}
	s, url := serve(t, f, Options{H2C: true, DrainDelay: 10 * time.Millisecond})
	client := h2client(t)
	waiter := make(chan error, 1)
	go func() {
		res, err := client.Get(url + "/jobs/x?wait=1m")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
				err = fmt.Errorf("got %s %d", res.Proto, res.StatusCode)
			}
		}
		waiter <- err
	}()
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	// On the connection that is there, until GOAWAY, which says what requests were not looked at: those a client may send again, and
	// net/http's does when it can. Then the listener is closed.
	for refused := false; !refused; {
		res, err := client.Post(url+"/functions/f", "", strings.NewReader("x"))
		if refused = err != nil; !refused {
			if res.StatusCode != http.StatusOK {
				t.Errorf("post while draining: %d", res.StatusCode)
			}
			res.Body.Close()
		} else if !strings.Contains(err.Error(), "refused") {
			t.Error(err)
		}
	}
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(leave)
	if err := <-waiter; err != nil {
		t.Errorf("waiter: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestAnHTTP2ClientThatDoesNotReadIsCutOff(t *testing.T) {
	f := &fake{}
	f.has(completed(ledger.Task{Function: "f"}, make([]byte, 64<<20))) // far more than the flow-control window
	s, url := serve(t, f, Options{H2C: true, WriteTimeout: 100 * time.Millisecond, DrainDelay: time.Millisecond})
	res, err := h2client(t).Get(url + "/jobs/x/result")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("the response goes on: %v", err)
	}
}

func TestAWaitOutlivesTheTimeoutsOfHTTP2(t *testing.T) {
	const timeout = 100 * time.Millisecond
	f := &fake{submit: func(_ context.Context, task ledger.Task) (ledger.Record, error) {
		<-time.After(4 * timeout)
		return completed(task, []byte("done")), nil
	}}
	_, url := serve(t, f, Options{H2C: true, ReadTimeout: timeout, ReadHeaderTimeout: timeout, WriteTimeout: timeout})
	res, body := finish(t)(h2client(t).Post(url+"/functions/f", "", strings.NewReader("x")))
	if res.StatusCode != http.StatusOK || body != "done" || res.ProtoMajor != 2 {
		t.Errorf("got %s %d %s", res.Proto, res.StatusCode, body)
	}
}
