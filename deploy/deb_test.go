package deploy_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	gateway "gearman-gateway"
)

// output runs a program at the top of the repository.
func output(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// makeDeb builds a package as make does, and returns its file.
func makeDeb(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	output(t, []string{"SOURCE_DATE_EPOCH=1800000000", "MAKEFLAGS="}, "make", "deb", "BIN="+dir, "VERSION="+version)
	debs, err := filepath.Glob(filepath.Join(dir, "gearman-gateway_*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("make deb made %v, %v", debs, err)
	}
	return debs[0]
}

// The tests below it share the package, as it takes some seconds to make one.
func TestDeb(t *testing.T) {
	deb := makeDeb(t, "v1.0.0")
	t.Run("holds what Debian expects", func(t *testing.T) { testContents(t, deb) })
	t.Run("is reproducible", func(t *testing.T) { testReproducible(t, deb) })
	t.Run("serves", func(t *testing.T) { testServes(t, deb) })
	t.Run("lives and dies", func(t *testing.T) { testLife(t, deb) })
}

func testContents(t *testing.T, deb string) {
	if name := filepath.Base(deb); !regexp.MustCompile(`^gearman-gateway_1\.0\.0_[a-z0-9]+\.deb$`).MatchString(name) {
		t.Errorf("the package's file is %s", name)
	}
	contents := output(t, nil, "dpkg-deb", "--contents", deb)
	for _, want := range []string{
		`-rwxr-xr-x root/root .* \./usr/bin/gearman-gateway`,
		`drwxr-x--- root/root .* \./etc/gearman-gateway/`,
		`-rw-r----- root/root .* \./etc/gearman-gateway/gateway\.yaml`,
		`-rw-r--r-- root/root .* \./usr/lib/systemd/system/gearman-gateway\.service`,
		`-rw-r--r-- root/root .* \./usr/lib/sysusers\.d/gearman-gateway\.conf`,
		`-rw-r--r-- root/root .* \./usr/share/doc/gearman-gateway/copyright`,
		`-rw-r--r-- root/root .* \./usr/share/doc/gearman-gateway/changelog\.gz`,
		`-rw-r--r-- root/root .* \./usr/share/doc/gearman-gateway/prometheus/alerts\.yml`,
		`-rw-r--r-- root/root .* \./usr/share/doc/gearman-gateway/production\.md`,
	} {
		if !regexp.MustCompile("(?m)^" + want + "$").MatchString(contents) {
			t.Errorf("no line %s in\n%s", want, contents)
		}
	}
	if conffiles := output(t, nil, "dpkg-deb", "--info", deb, "conffiles"); strings.TrimSpace(conffiles) != "/etc/gearman-gateway/gateway.yaml" {
		t.Errorf("conffiles: %q", conffiles)
	}
	if depends := output(t, nil, "dpkg-deb", "--field", deb, "Depends"); !strings.HasPrefix(depends, "systemd | ") { // the program is static
		t.Errorf("Depends: %s", depends)
	}
	dir := t.TempDir()
	output(t, nil, "dpkg-deb", "--extract", deb, dir)
	c := gateway.DefaultConfig()
	if err := c.ReadFile(filepath.Join(dir, "etc/gearman-gateway/gateway.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil || c.Data != "/var/lib/gearman-gateway" {
		t.Errorf("the configuration that is shipped: data %q, %v", c.Data, err)
	}
	licenses, err := os.ReadFile(filepath.Join(dir, "usr/share/doc/gearman-gateway/licenses.txt"))
	for _, want := range []string{"The program contains modernc.org/sqlite v", "The program contains github.com/go-chi/chi/v5 v", "the Go standard library"} {
		if err != nil || !bytes.Contains(licenses, []byte(want)) {
			t.Errorf("no %q among the licenses, %v", want, err)
		}
	}
}

func testReproducible(t *testing.T, deb string) {
	a, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := os.Chtimes("deb/gateway.yaml", now, now); err != nil { // as after another checkout
		t.Fatal(err)
	}
	b, err := os.ReadFile(makeDeb(t, "v1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two packages of one commit differ")
	}
}

// Each version of git describe has one of Debian's, which is greater than that of the line above.
func TestDebVersionsSortAsCommitsDo(t *testing.T) {
	before := "0"
	for _, v := range []struct{ given, want string }{
		{"abc1234", "0~20270115080000.abc1234"},
		{"dev", "0~20270115080000.dev"},
		{"1234567-dirty", ""}, // a commit without a letter, which sorts anywhere among the untagged
		{"v0.9.0", "0.9.0"},
		{"v1.0.0-rc.1", "1.0.0~rc.1"},
		{"v1.0.0-rc.1-3-gabc1234", "1.0.0~rc.1+3.gabc1234"},
		{"v1.0.0-rc.2", "1.0.0~rc.2"},
		{"v1.0.0", "1.0.0"},
		{"v1.0.0-4-gabc1234", "1.0.0+4.gabc1234"},
		{"v1.0.0-12-gdef1234", "1.0.0+12.gdef1234"},
		{"v1.0.0-12-gdef1234-dirty", "1.0.0+12.gdef1234+dirty"},
		{"v1.0.1", "1.0.1"},
	} {
		got := strings.TrimSpace(output(t, []string{"SOURCE_DATE_EPOCH=1800000000"}, "deploy/deb/version", v.given))
		if v.want == "" {
			if got != "0~20270115080000.1234567+dirty" {
				t.Errorf("%s: got %s", v.given, got)
			}
			continue
		}
		if got != v.want {
			t.Errorf("%s: got %s, want %s", v.given, got, v.want)
		}
		if before != "0" {
			output(t, nil, "dpkg", "--compare-versions", before, "lt", got)
		}
		before = got
	}
}

// testServes runs the program of the package with the configuration of the package, but for ports and paths that are this machine's.
func testServes(t *testing.T, deb string) {
	dir := t.TempDir()
	output(t, nil, "dpkg-deb", "--extract", deb, dir)
	program := filepath.Join(dir, "usr/bin/gearman-gateway")
	if version := output(t, nil, program, "version"); version != "gateway v1.0.0\n" {
		t.Errorf("version: %q", version)
	}
	sockets, err := os.MkdirTemp("", "") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket, notify := filepath.Join(sockets, "http"), filepath.Join(sockets, "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	told.SetReadDeadline(time.Now().Add(30 * time.Second))

	var log bytes.Buffer
	serve := exec.Command(program, "serve", "--config", filepath.Join(dir, "etc/gearman-gateway/gateway.yaml"),
		"--listen=unix:"+socket, "--jobserver-listen=127.0.0.1:0", "--data="+filepath.Join(dir, "data"))
	serve.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		serve.Process.Kill()
		serve.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	state := make([]byte, 1024)
	if n, err := told.Read(state); err != nil || string(state[:n]) != "READY=1" {
		t.Fatalf("systemd is told %q, %v", state[:n], err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	answer, err := client.Post("http://localhost/functions/reverse", "", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || string(body) != "olleh" {
		t.Errorf("%s %q, %v", answer.Status, body, err)
	}
	serve.Process.Signal(syscall.SIGTERM)
	if err := serve.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// testLife installs, upgrades, removes and purges the package with dpkg, on a copy of this machine that is thrown away: neither its
// files nor dpkg's database change. That takes the right to mount.
func testLife(t *testing.T, deb string) {
	if os.Geteuid() != 0 || exec.Command("unshare", "--mount", "true").Run() != nil {
		t.Skip("only who may mount can make a copy of this machine")
	}
	dir := t.TempDir()
	for to, from := range map[string]string{"1.0.0.deb": deb, "1.1.0.deb": makeDeb(t, "v1.1.0")} {
		if err := os.Link(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	life := exec.Command("unshare", "--mount", "deb/testdata/copy", dir, "deb/testdata/life")
	out, err := life.CombinedOutput()
	if life.ProcessState.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
