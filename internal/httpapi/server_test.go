package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gearman-gateway/internal/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server on a free port and stops it when the test ends.
func serve(t *testing.T, f *fake, o Options) (s *Server, url string) {
	t.Helper()
	o.Jobs, o.Servers, o.Webhooks = f, f, &f.hooks
	ln, err := ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s, "http://" + ln.Addr().String()
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	return finish(t)(http.Get(url))
}

func finish(t *testing.T) func(*http.Response, error) (*http.Response, string) {
	return func(res *http.Response, err error) (*http.Response, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
}

func TestAWaitOutlivesTheReadTimeout(t *testing.T) {
	const readTimeout = 100 * time.Millisecond
	f := &fake{}
	hold := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(4 * readTimeout):
			return nil
		}
	}
	f.submit = func(ctx context.Context, task ledger.Task) (ledger.Record, error) {
		return completed(task, []byte("done")), hold(ctx)
	}
	f.job = func(ctx context.Context, _ string, _ time.Duration) (ledger.Record, error) {
		return completed(ledger.Task{Function: "f"}, []byte("done")), hold(ctx)
	}
	_, url := serve(t, f, Options{ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, WriteTimeout: readTimeout})
	if res, body := get(t, url+"/jobs/x?wait=10s"); res.StatusCode != http.StatusOK || !strings.Contains(body, "done") {
		t.Errorf("GET: got %d %s", res.StatusCode, body)
	}
	res, body := finish(t)(http.Post(url+"/functions/f", "", strings.NewReader("x")))
	if res.StatusCode != http.StatusOK || body != "done" {
		t.Errorf("POST: got %d %s", res.StatusCode, body)
	}
	// A reader of unknown length is sent in chunks.
	res, body = finish(t)(http.Post(url+"/functions/f", "", io.MultiReader(strings.NewReader("x"))))
	if res.StatusCode != http.StatusOK || body != "done" {
		t.Errorf("chunked POST: got %d %s", res.StatusCode, body)
	}
}

func TestASlowBodyIsGivenUp(t *testing.T) {
	_, url := serve(t, &fake{}, Options{ReadTimeout: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST /functions/f HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	f := &fake{}
	f.has(completed(ledger.Task{Function: "f"}, make([]byte, 64<<20))) // far more than the sockets' buffers hold
	s, url := serve(t, f, Options{WriteTimeout: 100 * time.Millisecond, DrainDelay: time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /jobs/x/result HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("the response goes on: %v", err)
	}
}

func TestAClientThatLeavesEndsItsWait(t *testing.T) {
	f := &fake{}
	inside, left := make(chan struct{}), make(chan error, 1)
	f.submit = func(ctx context.Context, _ ledger.Task) (ledger.Record, error) {
		close(inside)
		<-ctx.Done()
		left <- ctx.Err()
		return ledger.Record{}, ctx.Err()
	}
	_, url := serve(t, f, Options{})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-inside
		leave()
	}()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/functions/f", strings.NewReader("x"))
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
		t.Errorf("got %d", res.StatusCode)
	}
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("Submit goes on")
	}
}

func TestChunkedRequestsEndTheirConnection(t *testing.T) {
	_, url := serve(t, &fake{}, Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	// Both lengths, and a second request hidden in what a proxy may take for the first one's body.
	fmt.Fprintf(conn, "POST /functions/f HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+
		"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	all, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
	if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 {
		t.Errorf("got %d responses:\n%s", n, all)
	}
}

func TestDrain(t *testing.T) {
	f := &fake{}
	inside, leave := make(chan struct{}), make(chan struct{})
	f.job = func(context.Context, string, time.Duration) (ledger.Record, error) {
		close(inside)
		<-leave
		return completed(ledger.Task{Function: "f"}, nil), nil
	}
	s, url := serve(t, f, Options{DrainDelay: 2 * time.Second})
	if res, _ := get(t, url+"/readyz"); res.StatusCode != http.StatusOK || res.Close {
		t.Fatalf("before: got %d, close %v", res.StatusCode, res.Close)
	}
	waiter := make(chan error, 1)
	go func() {
		res, err := http.Get(url + "/jobs/x?wait=1m")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusOK || !res.Close {
				err = fmt.Errorf("got %d, close %v", res.StatusCode, res.Close)
			}
		}
		waiter <- err
	}()
	<-inside

	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	ready := http.StatusOK
	for deadline := time.Now().Add(10 * time.Second); ready == http.StatusOK && time.Now().Before(deadline); {
		res, _ := get(t, url+"/readyz")
		ready = res.StatusCode
	}
	if ready != http.StatusServiceUnavailable {
		t.Fatalf("readyz while draining: got %d", ready)
	}
	res, body := finish(t)(http.Post(url+"/functions/f", "", strings.NewReader("late")))
	if res.StatusCode != http.StatusOK || body != "late" || !res.Close {
		t.Errorf("post while draining: got %d %s, close %v", res.StatusCode, body, res.Close)
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
	if res, err := http.Get(url + "/livez"); err == nil {
		res.Body.Close()
		t.Errorf("after: got %d", res.StatusCode)
	}
}

// net/http's own Shutdown drops requests that are sent while it begins: clients that post without a pause, and come back on a new
// connection when told to, must get an answer to each request that they could send.
func TestDrainAnswersWhoKeepsPosting(t *testing.T) {
	s, url := serve(t, &fake{}, Options{DrainDelay: 200 * time.Millisecond})
	var answered, dropped atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				res, err := client.Post(url+"/functions/f", "", io.MultiReader(strings.NewReader("x"))) // not replayable
				switch {
				case err == nil:
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					answered.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED): // the listener is closed
					return
				default:
					t.Log(err)
					dropped.Add(1)
					return
				}
			}
		})
	}
	for answered.Load() < 100 {
		_, _ = get(t, url+"/livez")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	wg.Wait()
	if dropped.Load() > 0 {
		t.Errorf("%d requests were dropped, %d answered", dropped.Load(), answered.Load())
	}
}

// A client that closes its side of the connection after the request looks to net/http like one that has gone. If it reads on, it
// must not take the end of the response for the result.
func TestAHalfClosedClientIsNotToldOfSuccess(t *testing.T) {
	f := &fake{}
	f.submit = func(ctx context.Context, _ ledger.Task) (ledger.Record, error) {
		<-ctx.Done()
		return ledger.Record{}, context.Cause(ctx)
	}
	_, url := serve(t, f, Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /functions/f HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v, want no response at all", b, err)
	}
}

func TestShutdownAnswersThoseWhoStillWait(t *testing.T) {
	f := &fake{}
	inside := make(chan struct{})
	f.submit = func(ctx context.Context, _ ledger.Task) (ledger.Record, error) {
		close(inside)
		<-ctx.Done()
		return ledger.Record{ID: jobID}, ctx.Err()
	}
	s, url := serve(t, f, Options{DrainDelay: time.Millisecond})
	type answer struct {
		status int
		body   string
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		res, err := http.Post(url+"/functions/f", "", strings.NewReader("x"))
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		answers <- answer{res.StatusCode, string(body), err}
	}()
	<-inside
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: got %v", err)
	}
	got := <-answers
	if got.err != nil || got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "shutting-down") ||
		!strings.Contains(got.body, jobID) {
		t.Errorf("the waiter got %+v", got)
	}
}
