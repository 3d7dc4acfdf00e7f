package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var aKey = regexp.MustCompile(`gwk_[a-z2-7]{8}_[0-9A-Za-z]{43}`)

func TestKeyNewPrintsAKeyThatTheGatewayTakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	stdout, stderr, code := execute(t, nil, "key", "new", "--name=billing", "--scopes=submit,read", "--append", file)
	if code != 0 || !aKey.MatchString(stdout) || len(stdout) != 57 {
		t.Fatalf("%d %q %s", code, stdout, stderr)
	}
	stored, err := os.ReadFile(file)
	if err != nil || aKey.Match(stored) || !strings.Contains(string(stored), "scopes: [submit, read]") {
		t.Errorf("%s %v", stored, err)
	}
	stdout, _, code = execute(t, nil, "key", "new", "--name=a", "--scopes=admin", "--functions=img.*,pdf", "--priorities=low", "--expires=90d")
	_, entry, ok := strings.Cut(stdout, "--keys-file:\n\n")
	if code != 0 || !ok || !aKey.MatchString(stdout) || aKey.MatchString(entry) || !strings.Contains(entry, "functions: [img.*, pdf]") || !strings.Contains(entry, "expires: 2") {
		t.Errorf("%d %s", code, stdout)
	}
	if err := os.WriteFile(file, append(stored, entry...), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = execute(t, []string{"GATEWAY_KEYS_FILE=" + file}, "config", "--listen=0.0.0.0:0")
	if code != 0 || !strings.Contains(stdout, "keys_file: "+file) {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
}

func TestKeyNewRefusesWhatTheConfigurationWould(t *testing.T) {
	file := writeFile(t, "a: b\n")
	for want, args := range map[string][]string{
		"--name":            {"--scopes=read"},
		"--scopes":          {"--name=x"},
		`"boss"`:            {"--name=x", "--scopes=boss"},
		"name: is not":      {"--name=jwt:x", "--scopes=read"},
		"priorities: ":      {"--name=x", "--scopes=read", "--priorities=urgent"},
		`"soon"`:            {"--name=x", "--scopes=read", "--expires=soon"},
		"not in the future": {"--name=x", "--scopes=read", "--expires=2001-01-01T00:00:00Z"},
	} {
		stdout, stderr, code := execute(t, nil, append([]string{"key", "new"}, args...)...)
		if code != 2 || !strings.Contains(stderr, want) || aKey.MatchString(stdout+stderr) {
			t.Errorf("%v: %d %s%s", args, code, stdout, stderr)
		}
	}
	stdout, stderr, code := execute(t, nil, "key", "new", "--name=x", "--scopes=read", "--append", file)
	if code != 1 || !strings.Contains(stderr, file) || aKey.MatchString(stdout+stderr) {
		t.Errorf("%d %s%s", code, stdout, stderr)
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 5, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"": "0001-01-01T00:00:00Z", "90d": "2026-05-01T11:00:00Z", "36h": "2026-02-01T23:00:00Z", "2030-01-31T00:00:00+01:00": "2030-01-30T23:00:00Z",
		"0d": "", "-1d": "", "d": "", "1.5d": "", "-1h": "", "2030-01-31": "", "999999999999999999d": "", "9999999d": "",
	} {
		got, err := expiry(text, now)
		if (err == nil) != (want != "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
