package gateway_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gateway "gearman-gateway"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	a.cert, a.key = a.make("ca", nil, nil)
	a.pool.AddCert(a.cert)
	return a
}

// make writes NAME.pem and NAME.key, signed by a parent or by itself.
func (a *authority) make(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: parent == nil, BasicConstraintsValid: true,
		DNSNames: []string{"gateway.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) issue(name string) { a.make(name, a.cert, a.key) }

func (a *authority) write(name string, b []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), b, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// config is what a gateway with the certificate "server" needs.
func (a *authority) config() gateway.TLS {
	return gateway.TLS{Cert: a.path("server.pem"), Key: a.path("server.key")}
}

// client returns one that has a certificate, unless its name is empty, and dials addr whatever the URL says.
func (a *authority) client(certificate, addr string) *http.Client {
	a.t.Helper()
	c := &tls.Config{RootCAs: a.pool}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(a.path(certificate+".pem"), a.path(certificate+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// startGateway runs a gateway until the test ends.
func startGateway(t *testing.T, set func(*gateway.Config)) (*gateway.Gateway, gateway.Config) {
	t.Helper()
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen, c.DrainDelay = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0", gateway.Duration(time.Millisecond)
	set(&c)
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
	return g, c
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	g, _ := startGateway(t, func(c *gateway.Config) { c.TLS = a.config() })
	client := a.client("", g.Addr())
	for url, hsts := range map[string]string{"https://gateway.test": "max-age=31536000", "https://127.0.0.1": ""} {
		resp, err := client.Post(url+"/functions/reverse", "", strings.NewReader("abc"))
		got := read(t, resp, err)
		if got.status != 200 || got.body != "cba" || resp.ProtoMajor != 2 || got.header.Get("Strict-Transport-Security") != hsts {
			t.Errorf("%s: %s %d %s %v", url, resp.Proto, got.status, got.body, got.header)
		}
	}
	resp, err := http.Get("http://" + g.Addr() + "/livez")
	if got := read(t, resp, err); got.status != http.StatusBadRequest || !strings.Contains(got.body, "HTTPS") {
		t.Errorf("plain HTTP on the port of TLS: %d %s", got.status, got.body)
	}
	old := &tls.Config{RootCAs: a.pool, ServerName: "gateway.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", g.Addr(), old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// served returns the serial number of the certificate that new connections get.
func (a *authority) served(addr string) string {
	a.t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool, ServerName: "gateway.test"})
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestReloadTakesANewCertificate(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	g, c := startGateway(t, func(c *gateway.Config) { c.TLS = a.config() })
	first := a.served(g.Addr())
	a.issue("server")
	if got := a.served(g.Addr()); got != first {
		t.Error("the files are looked at without a reload")
	}
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	second := a.served(g.Addr())
	if second == first {
		t.Error("the old certificate is served after the reload")
	}
	a.write("server.key", []byte("nonsense"))
	if err := g.Reload(t.Context(), c); err == nil || !strings.Contains(err.Error(), "tls") {
		t.Errorf("a bad key: %v", err)
	}
	if got := a.served(g.Addr()); got != second {
		t.Error("a bad key has changed the certificate")
	}
}

func TestClientCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.issue("server")
	a.issue("client")
	other.issue("client")
	other.pool = a.pool
	for mode, without := range map[gateway.ClientAuth]bool{"": false, "required": false, "optional": true, "none": true} {
		g, c := startGateway(t, func(c *gateway.Config) {
			c.TLS = a.config()
			c.TLS.ClientCA, c.TLS.ClientAuth = a.path("ca.pem"), mode
		})
		ask := func(client *http.Client) bool {
			resp, err := client.Get("https://gateway.test/livez")
			if err != nil {
				return false
			}
			return read(t, resp, nil).status == http.StatusOK
		}
		if got := ask(a.client("", g.Addr())); got != without {
			t.Errorf("%q, no certificate: let in: %v", mode, got)
		}
		if !ask(a.client("client", g.Addr())) {
			t.Errorf("%q: a good certificate is refused", mode)
		}
		if got := ask(other.client("client", g.Addr())); got != (mode == "none") {
			t.Errorf("%q, a certificate of another authority: let in: %v", mode, got)
		}
		if mode != "required" {
			continue
		}
		c.TLS.ClientCA = other.path("ca.pem")
		if err := g.Reload(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if ask(a.client("client", g.Addr())) || !ask(other.client("client", g.Addr())) {
			t.Error("the new client_ca was not taken")
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()

	t.Run("served", func(t *testing.T) {
		g, c := startGateway(t, func(c *gateway.Config) {
			c.Listen = gateway.Listen{gateway.Door("unix:" + path), "127.0.0.1:0"}
			c.ListenMode = 0o600
		})
		if g.Addr() != "unix:"+path {
			t.Errorf("Addr: %s", g.Addr())
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Post("http://localhost/functions/reverse", "", strings.NewReader("abc"))
		if got := read(t, resp, err); got.body != "cba" {
			t.Errorf("%d %s", got.status, got.body)
		}
		c.Listen = gateway.Listen{c.Listen[0]}
		second, err := gateway.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "another program listens there") {
			t.Errorf("a socket that is in use: %v", err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the socket was removed by another gateway: %v", err)
		}
	})
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket after the end: %v", err)
	}
}

func TestAFileThatIsNoSocketIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{gateway.Door("unix:" + path)}, "127.0.0.1:0"
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("Start: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestH2C(t *testing.T) {
	for _, on := range []bool{true, false} {
		g, _ := startGateway(t, func(c *gateway.Config) { c.H2C = on })
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		resp, err := (&http.Client{Transport: transport}).Post("http://"+g.Addr()+"/functions/reverse", "", strings.NewReader("abc"))
		if on {
			if got := read(t, resp, err); got.body != "cba" || resp.ProtoMajor != 2 {
				t.Errorf("%s %d %s", resp.Proto, got.status, got.body)
			}
		} else if err == nil {
			resp.Body.Close()
			t.Errorf("HTTP/2 is spoken without being asked for: %s", resp.Proto)
		}
		transport.CloseIdleConnections()
	}
}

func TestOperationsListener(t *testing.T) {
	ops := freeAddress(t)
	g, _ := startGateway(t, func(c *gateway.Config) { c.OpsListen = ops })
	for path, want := range map[string]int{
		"/livez": 200, "/readyz": 200, "/debug/pprof/": 200, "/debug/pprof/goroutine?debug=1": 200, "/debug/pprof/profile?seconds=1": 200,
		"/debug/pprof/cmdline": 404, "/jobs": 404, "/metrics": 200,
	} {
		if got := get(t, "http://"+string(ops)+path); got.status != want {
			t.Errorf("operations %s: %d, want %d: %s", path, got.status, want, got.body)
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap"} {
		if got := get(t, "http://"+g.Addr()+path); got.status != 404 {
			t.Errorf("%s where there is no access control: %d", path, got.status)
		}
	}
	// A page whose name was pointed at the address is stopped here, too.
	r, _ := http.NewRequest(http.MethodGet, "http://"+string(ops)+"/debug/pprof/", nil)
	r.Host = "attacker.example"
	r.Header.Set("User-Agent", "Mozilla/5.0")
	resp, err := http.DefaultClient.Do(r)
	if got := read(t, resp, err); got.status != http.StatusForbidden {
		t.Errorf("a browser with a name of its own: %d", got.status)
	}
}

// freeAddress returns an address that nobody listens on at the moment.
func freeAddress(t *testing.T) gateway.Address {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return gateway.Address(ln.Addr().String())
}

func TestConfigurationOfListeners(t *testing.T) {
	a := newAuthority(t)
	a.issue("server")
	tls := fmt.Sprintf("cert: %s, key: %s", a.path("server.pem"), a.path("server.key"))
	for yaml, want := range map[string]string{
		"listen: [127.0.0.1:1, unix:/run/gateway.sock]\nlisten_mode: 0600": "",
		"listen: unix:/run/gateway.sock\nh2c: true":                        "",
		"tls: {" + tls + ", min_version: 1.3}":                             "",
		"tls: {" + tls + ", min_version: 1.1}":                             "neither 1.2 nor 1.3",
		"tls: {" + tls + ", client_auth: required}":                        "needs client_ca",
		"tls: {" + tls + ", client_auth: maybe}":                           "maybe",
		"tls: {" + tls + ", client_ca: " + a.path("server.key") + "}":      "holds no PEM certificate",
		"tls: {cert: " + a.path("server.pem") + "}":                        "cert and key are needed",
		"listen: []":                                "listen: is empty",
		"listen: [127.0.0.1:1, 127.0.0.1:1]":        "given twice",
		"listen: unix:gateway.sock":                 "is no absolute path",
		"listen: unix:/" + strings.Repeat("x", 107): "108 bytes",
		"listen: [127.0.0.1:1, 0.0.0.0:2]":          "0.0.0.0:2 can be reached",
		"listen_mode: rw":                           "not a mode",
		"ops_listen: 0.0.0.0:9090":                  "ops_listen",
		"max_connections: 0":                        "max_connections",
		"drain_delay: -1s":                          "drain_delay",
	} {
		file := filepath.Join(t.TempDir(), "gateway.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		c := gateway.DefaultConfig()
		err := c.ReadFile(file)
		if err == nil {
			err = c.Check()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", yaml, err, want)
		}
	}
}

// A caller that waits for a job which the pool has not taken yet when the gateway is told to stop has its answer.
func TestThePoolGoesOnForThoseWhoWait(t *testing.T) {
	running, leave := make(chan struct{}), make(chan struct{})
	url, stop := startStoppable(t, func(c *gateway.Config) {
		c.Workers.Concurrency = 1
		c.Handlers = map[string]gateway.Handler{
			"hold": gateway.HandlerFunc(func(context.Context, *gateway.Job) ([]byte, error) {
				close(running)
				<-leave
				return nil, nil
			}),
		}
	})
	if got := submit(t, url, `{"function":"hold"}`); got.status != http.StatusAccepted {
		t.Fatalf("%d %s", got.status, got.body)
	}
	<-running
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /functions/reverse HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	poll(t, "the end to begin", func() bool {
		resp, err := http.Get(url + "/readyz")
		return err != nil || read(t, resp, nil).status == http.StatusServiceUnavailable
	})
	close(leave)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != "cba" || err != nil {
		t.Errorf("%d %s, %v", resp.StatusCode, body, err)
	}
	<-stopped
}

// A trace is written while it goes on, and nobody ends it early.
func TestATraceOfTheProcessTakesAsLongAsItWasAskedFor(t *testing.T) {
	ops := freeAddress(t)
	startGateway(t, func(c *gateway.Config) { c.OpsListen = ops })
	began := time.Now()
	if got := get(t, "http://"+string(ops)+"/debug/pprof/trace?seconds=1.5"); got.status != http.StatusOK || time.Since(began) < 1500*time.Millisecond {
		t.Errorf("%d after %v", got.status, time.Since(began))
	}
}
