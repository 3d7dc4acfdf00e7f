package main

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHealthcheckOfEachKindOfListener(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir)
	ops, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := ops.Addr().String()
	ops.Close()
	for name, row := range map[string]struct{ listen, other []string }{
		"tls":  {[]string{"--listen=127.0.0.1:0"}, []string{"--tls-cert=" + cert, "--tls-key=" + key}},
		"unix": {[]string{"--listen=unix:" + filepath.Join(dir, "s") + ",127.0.0.1:0"}, nil},
		"operations, because no certificate of a client is at hand": {
			[]string{"--listen=127.0.0.1:0"}, []string{"--tls-cert=" + cert, "--tls-key=" + key, "--tls-client-ca=" + cert, "--ops-listen=" + free},
		},
	} {
		serve := command(nil, append(append([]string{"--jobserver-listen=127.0.0.1:0", "--drain-delay=1ms"}, row.listen...), row.other...)...)
		addr := startAndFind(t, serve, "gateway serves HTTP")
		check := append([]string{"healthcheck", "--listen=" + addr}, row.other...)
		if _, stderr, code := execute(t, nil, check...); code != 0 {
			t.Errorf("%s: exit code %d, %s", name, code, stderr)
		}
		if name == "tls" { // it is being renewed
			if err := os.WriteFile(cert, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, stderr, code := execute(t, nil, check...); code != 0 {
				t.Errorf("%s, while the certificate is being written: exit code %d, %s", name, code, stderr)
			}
			writeCertificate(t, dir)
		}
		serve.Process.Signal(syscall.SIGTERM)
		if err := serve.Wait(); err != nil {
			t.Errorf("%s: after SIGTERM: %v", name, err)
		}
		if _, _, code := execute(t, nil, check...); code != 1 {
			t.Errorf("%s, of a gateway that is gone: exit code %d, want 1", name, code)
		}
	}
}

// writeCertificate writes that of net/http's tests.
func writeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestSystemdIsTold plays systemd.
func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	told := make(chan string, 1000)
	go func() { // reads on: a message that nobody takes holds the gateway up
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:n])
		}
	}()
	wait := func(want string) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case got := <-told:
				if strings.HasPrefix(got, want) {
					return
				}
				if got != "WATCHDOG=1" {
					t.Errorf("got %s, want %s", got, want)
				}
			case <-deadline:
				t.Fatalf("waited in vain for %s", want)
			}
		}
	}
	serve := command([]string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"},
		"--listen=127.0.0.1:0", "--jobserver-listen=127.0.0.1:0", "--config="+writeFile(t, "log_level: info\n"))
	startAndFind(t, serve, "gateway serves HTTP")
	wait("READY=1")
	wait("WATCHDOG=1")
	serve.Process.Signal(syscall.SIGHUP)
	wait("RELOADING=1\nMONOTONIC_USEC=")
	wait("READY=1")
	serve.Process.Signal(syscall.SIGTERM)
	wait("STOPPING=1")
	if err := serve.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
