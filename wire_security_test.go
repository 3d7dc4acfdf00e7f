package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	gateway "gearman-gateway"
	"gearman-gateway/internal/auth"
)

// guarded starts a gateway with access control and HTTP/2, and returns its address and a key.
func guarded(t *testing.T) (addr, key string) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	key = newKey(t, file, "alice", auth.Submit, auth.Read)
	g, _ := startGateway(t, func(c *gateway.Config) { c.Auth.KeysFile, c.H2C = file, true })
	return g.Addr(), key
}

// What two parsers could read in two ways is refused, or ends its connection: what follows it is never taken for a request.
func TestNoRequestIsSmuggled(t *testing.T) {
	addr, key := guarded(t)
	head := "POST /functions/reverse HTTP/1.1\r\nHost: x\r\nAuthorization: " + key + "\r\n"
	hidden := "GET /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: " + key + "\r\n\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"both lengths":            {head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, 200},
		"both lengths, turned":    {head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + hidden, 200},
		"two lengths":             {head + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + hidden, 400},
		"a list of lengths":       {head + "Content-Length: 0, 5\r\n\r\n" + hidden, 400},
		"a length with a sign":    {head + "Content-Length: +0\r\n\r\n" + hidden, 400},
		"an unknown coding":       {head + "Transfer-Encoding: xchunked\r\n\r\n" + hidden, 501},
		"two codings":             {head + "Transfer-Encoding: chunked, identity\r\n\r\n" + hidden, 501},
		"a space before a colon":  {head + "Transfer-Encoding : chunked\r\n\r\n" + hidden, 400},
		"a bare carriage return":  {head + "X: y\rTransfer-Encoding: chunked\r\n\r\n" + hidden, 400},
		"two hosts":               {head + "Host: y\r\n\r\n" + hidden, 400},
		"no host":                 {"GET /jobs HTTP/1.1\r\n\r\n" + hidden, 400},
		"a chunk of no size":      {head + "Transfer-Encoding: chunked\r\n\r\nx\r\n" + hidden, 400},
		"an upgrade to HTTP/2":    {"GET /jobs HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 401},
		"a proxy":                 {"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", 404},
		"another's URL":           {"GET http://127.0.0.1:1/jobs HTTP/1.1\r\nHost: x\r\n\r\n", 401},
		"credentials as trailers": {"POST /functions/reverse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n0\r\nAuthorization: " + key + "\r\n\r\n", 401},
		"two credentials":         {"GET /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nAuthorization: " + key + "\r\n\r\n", 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprint(conn, c.request)
			reader := bufio.NewReader(conn)
			resp, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("got %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			if !strings.HasSuffix(c.request, hidden) {
				return
			}
			if rest, _ := io.ReadAll(reader); len(rest) > 0 {
				t.Errorf("what was hidden is answered: %q", rest)
			}
		})
	}
}

// Requests that only HTTP/2 can write are no way around the guard, nor around who may call.
func TestHTTP2IsNoWayAround(t *testing.T) {
	addr, key := guarded(t)
	for name, c := range map[string]struct {
		fields []string // name, value, …
		status string   // "": the stream or the connection is reset
	}{
		"a request":                  {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "authorization", key}, "200"},
		"without credentials":        {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "localhost"}, "401"},
		"two credentials":            {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "authorization", "Bearer x", "authorization", key}, "401"},
		"a browser, rebound":         {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "evil.example", "user-agent", "Mozilla/5.0", "authorization", key}, "403"},
		"a browser, rebound by host": {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", "host", "evil.example", "user-agent", "Mozilla/5.0", "authorization", key}, "403"},
		"authority and another host": {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "evil.example", "host", "localhost", "user-agent", "Mozilla/5.0", "authorization", key}, "403"},
		"a page of another origin":   {[]string{":method", "POST", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "origin", "http://evil.example", "authorization", key}, "403"},
		"CONNECT":                    {[]string{":method", "CONNECT", ":authority", "127.0.0.1:22", "authorization", key}, "404"},
		"extended CONNECT":           {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "authorization", key}, ""},
		"CONNECT with a path":        {[]string{":method", "CONNECT", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "authorization", key}, ""},
		"two paths":                  {[]string{":method", "GET", ":scheme", "http", ":path", "/livez", ":path", "/jobs", ":authority", "localhost"}, ""},
		"a path after a field":       {[]string{":method", "GET", ":scheme", "http", "x", "y", ":path", "/jobs", ":authority", "localhost"}, ""},
		"an empty path":              {[]string{":method", "GET", ":scheme", "http", ":path", "", ":authority", "localhost", "authorization", key}, ""},
		"a path that is none":        {[]string{":method", "GET", ":scheme", "http", ":path", "jobs", ":authority", "localhost", "authorization", key}, ""},
		"a line break in a field":    {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "x", "y\r\nauthorization: " + key}, ""},
		"a field in upper case":      {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "Authorization", key}, ""},
		"a coding of HTTP/1":         {[]string{":method", "GET", ":scheme", "http", ":path", "/jobs", ":authority", "localhost", "transfer-encoding", "chunked", "authorization", key}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := over2(t, addr, c.fields); got != c.status && (c.status != "" || !strings.HasPrefix(got, "4")) {
				t.Errorf("got %q, want %q", got, c.status)
			}
		})
	}
}

// over2 sends one request over HTTP/2 as it is, and returns the status of its answer; "" where it is reset.
func over2(t *testing.T, addr string, fields []string) (status string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // into memory
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil { // the connection was closed
			return ""
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return ""
		}
	}
}
