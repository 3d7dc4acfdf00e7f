package deploy_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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

func TestDebHoldsWhatDebianExpects(t *testing.T) {
	deb := makeDeb(t, "v1.0.0")
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
		`-rw-r--r-- root/root .* \./usr/share/doc/gearman-gateway/production\.md`,
	} {
		if !regexp.MustCompile("(?m)^" + want + "$").MatchString(contents) {
			t.Errorf("no line %s in\n%s", want, contents)
		}
	}
	if conffiles := output(t, nil, "dpkg-deb", "--info", deb, "conffiles"); strings.TrimSpace(conffiles) != "/etc/gearman-gateway/gateway.yaml" {
		t.Errorf("conffiles: %q", conffiles)
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

func TestDebIsReproducible(t *testing.T) {
	a, err := os.ReadFile(makeDeb(t, "v1.0.0"))
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

// systemd rates what a unit leaves open from 0 to 10. What this one leaves open it needs: the network, above all.
func TestUnitIsHardened(t *testing.T) {
	report := output(t, nil, "systemd-analyze", "security", "--offline=true", "--no-pager", "deploy/systemd/gearman-gateway.service")
	exposure := regexp.MustCompile(`Overall exposure level for gearman-gateway\.service: ([0-9.]+)`).FindStringSubmatch(report)
	if exposure == nil {
		t.Fatalf("no exposure level in\n%s", report)
	}
	if level, err := strconv.ParseFloat(exposure[1], 64); err != nil || level > 1.5 {
		t.Errorf("exposure level %s, want at most 1.5:\n%s", exposure[1], report)
	}
}

// TestDebLivesAndDies installs, upgrades, removes and purges the package on a copy of this machine that systemd has booted.
func TestDebLivesAndDies(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can boot a copy of this machine")
	}
	dir := t.TempDir()
	for _, version := range []string{"1.0.0", "1.1.0"} {
		if err := os.Rename(makeDeb(t, "v"+version), filepath.Join(dir, version+".deb")); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("deb/testdata/lifecycle")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	booted, err := exec.CommandContext(ctx, "unshare", "--mount", "deb/testdata/machine", dir).CombinedOutput()
	code, _ := os.ReadFile(filepath.Join(dir, "code"))
	if err != nil || string(code) != "0\n" {
		lines, _ := os.ReadFile(filepath.Join(dir, "output"))
		t.Fatalf("exit code %q, %v\n%s\n%s", code, err, booted, lines)
	}
}
