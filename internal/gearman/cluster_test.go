package gearman_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearman/wire"
	"gearman-gateway/internal/gearmandtest"
)

func startCluster(t testing.TB, addrs ...string) *gearman.Cluster {
	var servers []gearman.Options
	for _, a := range addrs {
		servers = append(servers, gearman.Options{Addr: a})
	}
	c, err := gearman.NewCluster(servers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(c) })
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAClusterNeedsServersAndEachOnce(t *testing.T) {
	if _, err := gearman.NewCluster(nil); err == nil {
		t.Error("a cluster of none has no error")
	}
	if _, err := gearman.NewCluster([]gearman.Options{{Addr: "a:1"}, {Addr: "a:1"}}); err == nil {
		t.Error("a server given twice is no error")
	}
}

func TestOneDeadServerOfTwoStopsNothing(t *testing.T) {
	contract(t, func(t *testing.T, addr string) {
		c := startCluster(t, unusedAddr(t), addr)
		for i := range 10 {
			job, err := c.Submit(testContext(t), gearman.Task{Function: "f", Background: true, Unique: fmt.Sprint(i)}, nil)
			if err != nil || job.Server != addr {
				t.Fatalf("submit %d: %+v, %v", i, job, err)
			}
		}
		if err := c.Ping(testContext(t)); err != nil {
			t.Errorf("Ping: %v", err)
		}
		functions, err := c.Functions(testContext(t))
		if err != nil || len(functions) != 1 || functions[0].Queued != 10 {
			t.Errorf("Functions: %+v, %v", functions, err)
		}
	})
}

func TestAUniqueStaysOnOneServer(t *testing.T) {
	a, b := startEmbedded(t), startEmbedded(t)
	c := startCluster(t, a, b)
	used := map[string]int{}
	for i := range 50 {
		task := gearman.Task{Function: "f", Unique: fmt.Sprint("u", i), Background: true}
		first, err1 := c.Submit(testContext(t), task, nil)
		second, err2 := c.Submit(testContext(t), task, nil)
		if err1 != nil || err2 != nil || first != second {
			t.Fatalf("one unique went to %+v (%v) and %+v (%v)", first, err1, second, err2)
		}
		used[first.Server]++
	}
	if used[a] < 10 || used[b] < 10 {
		t.Errorf("50 uniques are spread %v", used)
	}
}

func TestATaskThatWasNotSentGoesToTheNextServer(t *testing.T) {
	a, b := gearmandtest.Start(t), gearmandtest.Start(t)
	c := startCluster(t, a.Addr(), b.Addr())
	a.Kill()
	poll(t, "the loss to be seen", func() bool { return !c.Servers(testContext(t))[0].Connected })
	for range 20 {
		job, err := c.Submit(testContext(t), gearman.Task{Function: "f", Background: true}, nil)
		if err != nil || job.Server != b.Addr() {
			t.Fatalf("with one server dead: %+v, %v", job, err)
		}
	}
	b.Kill()
	poll(t, "the other loss to be seen", func() bool { return !c.Servers(testContext(t))[1].Connected })
	begin := time.Now()
	_, err := c.Submit(testContext(t), gearman.Task{Function: "f", Background: true}, nil)
	if !errors.Is(err, gearman.ErrNotSent) || time.Since(begin) > time.Second {
		t.Errorf("with both dead: %v after %v", err, time.Since(begin))
	}
	if err := c.Ping(testContext(t)); err == nil {
		t.Error("with both dead Ping has no error")
	}
}

func TestATaskWhoseOutcomeIsUnknownIsNotSentAgain(t *testing.T) {
	a, b := startFake(t), startFake(t)
	c, err := gearman.NewCluster([]gearman.Options{{Addr: a.addr()}, {Addr: b.addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeNow(c)
	connA, connB := a.accept(), b.accept()
	if err := c.WaitConnected(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// Whichever server gets it dies with it; the other must hear nothing but its own ECHO.
	got := make(chan *fakeConn, 2)
	for _, conn := range []*fakeConn{connA, connB} {
		go func() {
			if p, err := conn.r.Next(); err == nil && p.Type == wire.SubmitJob {
				got <- conn
			}
		}()
	}
	call := submitAsync(testContext(t), c, gearman.Task{Function: "f"}, newUpdates().watch)
	first := <-got
	first.Close()
	if answer := <-call; !errors.Is(answer.err, gearman.ErrOutcomeUnknown) {
		t.Errorf("submit: %v, want ErrOutcomeUnknown", answer.err)
	}
	select {
	case <-got:
		t.Error("the task was sent to the other server too")
	default:
	}
}

func TestServersWithAWorkerComeFirst(t *testing.T) {
	a, b := startEmbedded(t), startEmbedded(t)
	startWorker(t, b, 1, echoWorker, "echo")
	c := startCluster(t, a, b)
	poll(t, "the workers to be known", func() bool {
		for range 4 {
			u := newUpdates()
			job, err := c.Submit(testContext(t), gearman.Task{Function: "echo"}, u.watch)
			if err != nil {
				t.Fatal(err)
			}
			if job.Server != b {
				return false
			}
		}
		return true
	})
}

func TestAHandleIsFoundWhereverItIs(t *testing.T) {
	a, b := startEmbedded(t), startEmbedded(t)
	c := startCluster(t, a, b)
	for range 3 { // so that the handle is not known to both
		submit(t, connect(t, b), gearman.Task{Function: "f", Background: true})
	}
	job, _ := submit(t, connect(t, b), gearman.Task{Function: "f", Background: true})
	found, status, ok, err := c.Find(testContext(t), job.Handle)
	if err != nil || !ok || found.Server != b || !status.Known {
		t.Errorf("Find: %+v, %+v, %v, %v", found, status, ok, err)
	}
	if _, _, ok, err := c.Find(testContext(t), "H:nowhere:1"); ok || err != nil {
		t.Errorf("Find of what does not exist: %v, %v", ok, err)
	}
}

func TestAHandleNoServerCouldBeAskedForIsAnError(t *testing.T) {
	c := startCluster(t, startEmbedded(t), unusedAddr(t))
	if _, _, ok, err := c.Find(testContext(t), "H:nowhere:1"); ok || err == nil {
		t.Errorf("with one server dead: %v, %v, want an error", ok, err)
	}
}

// After a restart the job server counts handles from 1: an old handle would name a new job.
func TestAnOldHandleIsNeverAskedFor(t *testing.T) {
	s := gearmandtest.Start(t)
	c := startCluster(t, s.Addr())
	old, err := c.Submit(testContext(t), gearman.Task{Function: "f", Unique: "old", Background: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Restart()
	var fresh gearman.Job
	poll(t, "the cluster to come back", func() bool {
		fresh, err = c.Submit(testContext(t), gearman.Task{Function: "f", Unique: "new", Background: true}, nil)
		return err == nil
	})
	if fresh.Handle != old.Handle {
		t.Fatalf("gearmand's handles do not start over: %s, then %s", old.Handle, fresh.Handle)
	}
	if s, err := c.Status(testContext(t), old, "old"); err != nil || s.Known {
		t.Errorf("the old job is %+v (%v), want it unknown", s, err)
	}
	if s, err := c.Status(testContext(t), fresh, "new"); err != nil || !s.Known {
		t.Errorf("the new job is %+v (%v), want it known", s, err)
	}
}

// TLS ends in a proxy here, as it does for job servers that were built without it.
func TestTLS(t *testing.T) {
	ca, server, client := certificates(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	backend := startEmbedded(t)
	go func() {
		for {
			front, err := ln.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", backend)
			if err != nil {
				front.Close()
				return
			}
			go func() { io.Copy(back, front); back.Close() }()
			go func() { io.Copy(front, back); front.Close() }()
		}
	}()
	good := &tls.Config{RootCAs: ca, Certificates: []tls.Certificate{client}, ServerName: "gearman.example"}
	for name, test := range map[string]struct {
		config *tls.Config
		works  bool
	}{
		"all given":             {good, true},
		"no client certificate": {&tls.Config{RootCAs: ca, ServerName: "gearman.example"}, false},
		"another server name":   {&tls.Config{RootCAs: ca, Certificates: good.Certificates, ServerName: "other.example"}, false},
		"unknown authority":     {&tls.Config{Certificates: good.Certificates, ServerName: "gearman.example"}, false},
		"plaintext":             {nil, false},
	} {
		c := gearman.NewClient(gearman.Options{Addr: ln.Addr().String(), TLS: test.config, DialTimeout: 5 * time.Second})
		if err := c.WaitConnected(testContext(t)); (err == nil) != test.works {
			t.Errorf("%s: %v", name, err)
		}
		closeNow(c)
	}
	a := gearman.NewAdmin(gearman.Options{Addr: ln.Addr().String(), TLS: good})
	if _, err := a.Version(context.Background()); err != nil {
		t.Errorf("admin over TLS: %v", err)
	}
}

// certificates returns an authority and two certificates of it: for the server gearman.example, and for a client.
func certificates(t testing.TB) (ca *x509.CertPool, server, client tls.Certificate) {
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	caKey, caCert := key(), template(1, "authority")
	caCert.IsCA, caCert.BasicConstraintsValid, caCert.ExtKeyUsage = true, true, nil
	issue := func(c *x509.Certificate, k *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, caCert, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	parsed, err := x509.ParseCertificate(issue(caCert, caKey))
	if err != nil {
		t.Fatal(err)
	}
	ca = x509.NewCertPool()
	ca.AddCert(parsed)
	serverKey, clientKey := key(), key()
	server = tls.Certificate{Certificate: [][]byte{issue(template(2, "gearman.example"), serverKey)}, PrivateKey: serverKey}
	client = tls.Certificate{Certificate: [][]byte{issue(template(3, "gateway"), clientKey)}, PrivateKey: clientKey}
	return ca, server, client
}

func TestStatsOfACluster(t *testing.T) {
	s := gearmandtest.Start(t)
	gone := "127.0.0.1:1" // nobody listens there
	c, err := gearman.NewCluster([]gearman.Options{{Addr: s.Addr()}, {Addr: gone}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if err := c.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Submit(t.Context(), gearman.Task{Function: "f", Background: true}, nil); err != nil {
		t.Fatal(err)
	}
	var got []gearman.ServerStats
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the table is asked for once a second
		if got = c.Stats(); len(got[0].Functions) > 0 || time.Now().After(deadline) {
			break
		}
	}
	want := []gearman.ServerStats{
		{Server: s.Addr(), Connected: true, Connections: 1, Functions: []gearman.FunctionStatus{{Function: "f", Total: 1}}}, {Server: gone},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
