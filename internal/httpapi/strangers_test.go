package httpapi

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gearman-gateway/internal/auth"
)

// Without credentials a connection cannot be held for the time of a whole request by a body that never comes.
func TestASlowBodyOfAStrangerIsGivenUpSoon(t *testing.T) {
	_, url := serve(t, &fake{}, Options{
		ReadTimeout: time.Hour, DrainDelay: time.Millisecond,
		Identify: func(*http.Request) (*auth.Identity, error) { return nil, auth.ErrNoCredentials },
	})
	for request, status := range map[string]int{
		"POST /jobs": 401, "POST /functions/f": 401, "POST /nothing": 404, "PUT /jobs": 405, "GET /livez": 200, "OPTIONS *": 404,
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n123", request)
			reader := bufio.NewReader(conn)
			res, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != status || !res.Close {
				t.Errorf("got %d, and that the connection ends is %v", res.StatusCode, res.Close)
			}
		})
	}
}

// What has arrived by then costs no connection, nor does it leave a deadline to the next request.
func TestARefusedRequestKeepsItsConnection(t *testing.T) {
	var known atomic.Bool
	_, url := serve(t, &fake{}, Options{Identify: func(*http.Request) (*auth.Identity, error) {
		if !known.Load() {
			return nil, auth.ErrNoCredentials
		}
		return &auth.Identity{Name: "alice", Scopes: auth.Submit}, nil
	}, DrainDelay: time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	reader := bufio.NewReader(conn)
	for _, status := range []int{401, 202} {
		fmt.Fprintf(conn, "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(job))
		if known.Load() {
			<-time.After(strangersBody + 100*time.Millisecond) // the body of a caller may take longer
		}
		fmt.Fprint(conn, job)
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("got %d, want %d", res.StatusCode, status)
		}
		known.Store(true)
	}
}
