package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	gateway "gearman-gateway"
)

// unit returns the service as it is shipped.
func unit(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("systemd/gearman-gateway.service")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// systemd knows all that the unit says, and rates what it leaves open from 0 to 10. What this one leaves open it needs: the network, above all.
func TestUnitIsValidAndHardened(t *testing.T) {
	program := filepath.Join(t.TempDir(), "gateway")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil { // verify looks whether it is there
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gearman-gateway.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit(t), "/usr/bin/gearman-gateway", program)), 0o600); err != nil {
		t.Fatal(err)
	}
	if complaints := output(t, nil, "systemd-analyze", "verify", "--man=no", file); complaints != "" {
		t.Error(complaints)
	}
	report := output(t, nil, "systemd-analyze", "security", "--offline=true", "--no-pager", "deploy/systemd/gearman-gateway.service")
	exposure := regexp.MustCompile(`Overall exposure level for gearman-gateway\.service: ([0-9.]+)`).FindStringSubmatch(report)
	if exposure == nil {
		t.Fatalf("no exposure level in\n%s", report)
	}
	if level, err := strconv.ParseFloat(exposure[1], 64); err != nil || level > 2 {
		t.Errorf("exposure level %s, want at most 2:\n%s", exposure[1], report)
	}
}

// A gateway that ends by its own rules is not killed by systemd meanwhile.
func TestUnitWaitsForTheDrain(t *testing.T) {
	allowed := regexp.MustCompile(`(?m)^TimeoutStopSec=([0-9]+)s$`).FindStringSubmatch(unit(t))
	if allowed == nil {
		t.Fatal("no TimeoutStopSec in seconds")
	}
	seconds, err := strconv.Atoi(allowed[1])
	c := gateway.DefaultConfig()
	if want := time.Duration(c.Drain+c.Workers.Grace) + 5*time.Second; err != nil || time.Duration(seconds)*time.Second < want {
		t.Errorf("TimeoutStopSec=%ds, %v; want at least %s", seconds, err, want)
	}
}

// Whoever follows docs/production.md has a configuration that works: its certificate, key and list of keys are made as the page says.
func TestConfigurationForProductionIsValid(t *testing.T) {
	b, err := os.ReadFile("../docs/production.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language, begin string) string {
		m := regexp.MustCompile("(?s)```" + language + "\n(" + regexp.QuoteMeta(begin) + ".*?)```").FindSubmatch(b)
		if m == nil {
			t.Fatalf("docs/production.md has no %s block that begins with %s", language, begin)
		}
		return string(m[1])
	}
	dir := t.TempDir()
	output(t, nil, "sh", "-ec", "cd "+dir+" && "+block("sh", "openssl req"))
	output(t, nil, "openssl", "verify", "-CAfile", filepath.Join(dir, "ca.pem"), filepath.Join(dir, "tls.pem"))
	var submit gateway.Scope
	if err := submit.UnmarshalText([]byte("submit")); err != nil {
		t.Fatal(err)
	}
	_, key, err := gateway.NewKey(gateway.Grant{Name: "billing", Scopes: []gateway.Scope{submit}}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.AppendKey(filepath.Join(dir, "keys.yaml"), key); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(block("", "listen:"), "/etc/gearman-gateway", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := gateway.DefaultConfig()
	if err := c.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}
