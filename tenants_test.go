package gateway_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v4"

	gateway "gearman-gateway"
	"gearman-gateway/internal/auth"
)

// Two tenants of one gateway, with real keys and a durable store, and one who runs it.
func TestTenants(t *testing.T) {
	var billing, media, root string
	dir := t.TempDir()
	set := func(c *gateway.Config) {
		c.Data, c.Auth.KeysFile = filepath.Join(dir, "data"), filepath.Join(dir, "keys.yaml")
		billing = newKey(t, c.Auth.KeysFile, "billing", auth.Submit, auth.Read, auth.Cancel)
		media = newKey(t, c.Auth.KeysFile, "media", auth.Submit, auth.Read, auth.Cancel)
		root = newKey(t, c.Auth.KeysFile, "root", auth.Admin)
	}
	url, stop := startStoppable(t, set)
	if got := submit(t, url, `{"function":"reverse"}`); got.status != http.StatusUnauthorized {
		t.Fatalf("without a key: %d %s", got.status, got.body)
	}
	job := call(t, "POST", url+"/jobs", billing, `{"function":"reverse","workload":"hello","mode":"tracked"}`)
	id := job.field(t, "id").(string)
	path := url + "/jobs/" + id
	if got := call(t, "GET", path+"?wait=10s", billing, ""); got.field(t, "result") != "olleh" || got.field(t, "owner") != "billing" {
		t.Errorf("its owner reads %s", got.body)
	}
	check := func() {
		t.Helper()
		for what, want := range map[string]map[string]int{
			path:                      {billing: 200, media: 404, root: 200},
			path + "/result":          {billing: 200, media: 404, root: 200},
			path + "/events":          {billing: 200, media: 404, root: 200},
			url + "/jobs?owner=media": {billing: 403, media: 200, root: 200},
			url + "/workers":          {billing: 403, media: 403, root: 200},
		} {
			for key, status := range want {
				if got := call(t, "GET", what, key, ""); got.status != status {
					t.Errorf("GET %s with %s: got %d, want %d: %s", what, key[7:19], got.status, status, got.body)
				}
			}
		}
		for key, want := range map[string]bool{billing: true, media: false, root: true} {
			for _, list := range []string{"/jobs", "/events", "/jobs?function=reverse&state=completed", "/events?job=" + id} {
				if got := call(t, "GET", url+list, key, ""); strings.Contains(got.body, id) != want {
					t.Errorf("GET %s with %s: %s", list, key[7:19], got.body)
				}
			}
		}
	}
	check()
	stop()
	// After a restart with other keys of the same names, all is read from the disk.
	url = start(t, set)
	path = url + "/jobs/" + id
	check()
}

// Canaries are in every place where a secret can be given, right or wrong, and in none where it can be read.
func TestNothingShowsACredential(t *testing.T) {
	var log journal
	file := filepath.Join(t.TempDir(), "keys.yaml")
	key := newKey(t, file, "root", auth.Admin)
	canary := "gwk_aaaaaaaa_" + strings.Repeat("Canary7", 7)[:43]
	var printed []byte
	url := start(t, func(c *gateway.Config) {
		c.Auth.KeysFile = file
		c.Log, c.LogLevel = zerolog.New(&log), gateway.Level(zerolog.TraceLevel)
		printed, _ = yaml.Marshal(c)
	})
	var answers []string
	for _, authorization := range []string{key, "Bearer " + canary, "Bearer canary." + canary + ".canary", "Basic " + canary} {
		for _, path := range []string{"/jobs", "/workers", "/nothing", "/jobs/x", "/events", "/metrics"} {
			answers = append(answers, call(t, "GET", url+path, authorization, "").body)
		}
		answers = append(answers,
			call(t, "POST", url+"/jobs", authorization, `{"function":"reverse","workload":"x","mode":"sync"}`).body,
			call(t, "GET", url+"/jobs?access_token="+strings.Fields(authorization)[1], key, "").body)
	}
	for where, text := range map[string]string{
		"log": log.String(), "configuration": string(printed), "answers": strings.Join(answers, "\n"),
	} {
		for _, secret := range []string{key[len("Bearer gwk_12345678_"):], canary[13:]} {
			if strings.Contains(text, secret) {
				t.Errorf("a credential is in the %s", where)
			}
		}
	}
	if !strings.Contains(log.String(), `"identity":"root","credential":"`+key[7:19]+`"`) {
		t.Errorf("the log does not say who called: %s", log.String())
	}
}
