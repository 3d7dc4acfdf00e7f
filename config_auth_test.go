package gateway_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v4"

	gateway "gearman-gateway"
	"gearman-gateway/internal/auth"
)

// newKey adds a key to a file, and returns what its bearer sends.
func newKey(t *testing.T, file, name string, scopes ...gateway.Scope) string {
	t.Helper()
	key, stored, err := gateway.NewKey(gateway.Grant{Name: name, Scopes: scopes}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.AppendKey(file, stored); err != nil {
		t.Fatal(err)
	}
	return "Bearer " + key
}

// call sends a request with an Authorization header, if it is not empty.
func call(t *testing.T, method, url, authorization, body string) answer {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(r)
	return read(t, resp, err)
}

func TestOnlyThoseWithAKeyMayCall(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	submits, reads := newKey(t, file, "billing", auth.Submit), newKey(t, file, "billing", auth.Read)
	var log journal
	url := start(t, func(c *gateway.Config) {
		c.Auth.KeysFile = file
		c.Log, c.LogLevel = zerolog.New(&log), gateway.Level(zerolog.TraceLevel)
	})
	const job = `{"function":"reverse","workload":"x"}`
	for _, c := range []struct {
		method, path, authorization, body string
		status                            int
		challenge                         string
	}{
		{"GET", "/readyz", "", "", 200, ""},
		{"POST", "/jobs", "", job, 401, "Bearer"},
		{"POST", "/jobs", submits + "x", job, 401, `Bearer error="invalid_token"`},
		{"POST", "/jobs", reads, job, 403, `Bearer error="insufficient_scope", scope="submit"`},
		{"POST", "/jobs", submits, job, 202, ""},
		{"GET", "/jobs", submits, "", 403, `Bearer error="insufficient_scope", scope="read"`},
		{"GET", "/jobs", reads, "", 200, ""},
		{"GET", "/workers", reads, "", 403, `Bearer error="insufficient_scope", scope="admin"`},
	} {
		a := call(t, c.method, url+c.path, c.authorization, c.body)
		if a.status != c.status || a.header.Get("WWW-Authenticate") != c.challenge {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, a.status, a.header.Get("WWW-Authenticate"), c.status, c.challenge)
		}
		for _, key := range []string{submits, reads} {
			if secret := key[len("Bearer gwk_12345678_"):]; strings.Contains(a.body+log.String(), secret) {
				t.Errorf("%s %s: the answer or the log shows the key", c.method, c.path)
			}
		}
	}
	if prefix := submits[len("Bearer "):][:12]; !strings.Contains(log.String(), prefix) && !strings.Contains(log.String(), "was cut") {
		t.Errorf("the log does not say why the key was refused:\n%s", log.String())
	}
}

// running starts a gateway until the test ends.
func running(t *testing.T, c gateway.Config) *gateway.Gateway {
	t.Helper()
	g, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestAReloadTakesKeysAndNeverTurnsAccessControlOff(t *testing.T) {
	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
	g := running(t, c)
	status := func(key string) int { return call(t, "GET", "http://"+g.Addr()+"/jobs", key, "").status }
	if got := status(""); got != 200 {
		t.Fatalf("without access control: %d", got)
	}
	file := filepath.Join(t.TempDir(), "keys.yaml")
	old := newKey(t, file, "billing", auth.Read)
	c.Auth.KeysFile = file
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if a, b := status(""), status(old); a != 401 || b != 200 {
		t.Errorf("turned on: %d without a key, %d with one", a, b)
	}
	next := newKey(t, file, "billing", auth.Read)
	if got := status(next); got != 401 {
		t.Errorf("the next key, before the reload: %d", got)
	}
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if a, b := status(old), status(next); a != 200 || b != 200 {
		t.Errorf("both keys live: %d, %d", a, b)
	}
	if err := os.WriteFile(file, []byte("- {name: billing, colour: blue}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(t.Context(), c); err == nil || !strings.Contains(err.Error(), "auth.keys_file: "+file) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a bad file: %v", err)
	}
	off := c
	off.Auth.KeysFile = ""
	if err := g.Reload(t.Context(), off); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("turned off: %v", err)
	}
	if a, b := status(old), status(""); a != 200 || b != 401 {
		t.Errorf("after bad reloads: %d with a key, %d without", a, b)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if a, b := status(old), status(next); a != 401 || b != 401 {
		t.Errorf("an empty file: %d, %d", a, b)
	}
}

func TestMistakesInAuthNameTheirKeyAndNoSecret(t *testing.T) {
	key, stored, err := gateway.NewKey(gateway.Grant{Name: "billing", Scopes: []gateway.Scope{auth.Read}}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	entry := fmt.Sprintf("name: billing, scopes: [read], prefix: %s, sha256: %s", stored.Prefix, stored.SHA256)
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "keys.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for text, want := range map[string]string{
		"auth: {keys: [{" + entry + "}]}\nlisten: 0.0.0.0:80":                                                          "",
		"auth: {keys: [{" + entry + ", expires: 2031-01-01T00:00:00+02:00, functions: ['img.*'], priorities: [low]}]}": "",
		"auth: {keys: []}":                                                                    "auth: there is an empty list",
		"auth: {clients: []}":                                                                 "auth: there is an empty list",
		"auth: {keys: [{name: x, scopes: [boss]}]}":                                           "line 1: auth.keys[0].scopes[0]: \"boss\"",
		"auth: {keys: [{" + entry + ", colour: blue}]}":                                       "line 1: auth.keys[0].colour: field colour",
		"auth: {keys: [{" + entry + ", expires: soon}]}":                                      "line 1: ",
		"auth: {keys: [{" + entry + ", functions: []}]}":                                      "functions: is a list of 0",
		"auth: {keys: [{" + entry + "}, {" + entry + "}]}":                                    "that of another key",
		"auth: {keys: [{" + entry + "}], keys_file: '" + file("- {"+entry+"}") + "'}":         "that of another key",
		"auth: {keys: [{name: x, scopes: [read], prefix: " + key + ", sha256: " + key + "}]}": "prefix: is not",
		"auth: {keys: " + key + "}":                                                           "line 1",
		"auth: {keys_file: '" + file(key) + "'}":                                              "auth.keys_file: ",
		"auth: {keys_file: '" + file("- "+key) + "'}":                                         "auth.keys_file: ",
		"auth: {keys_file: '" + file("a: b") + "'}":                                           "auth.keys_file: ",
		"auth: {keys_file: '" + file("- {"+entry+"}\n---\n[]") + "'}":                         "second document",
		"auth: {keys_file: /nonexistent}":                                                     "auth.keys_file: open /nonexistent",
		"auth: {jwt: {issuer: x}}":                                                            "auth.jwt.jwks: is missing",
		"auth: {jwt: {jwks: 'https://u:c4n4ry@x/'}}":                                          "auth.jwt.issuer: is missing",
		"auth: {jwt: {jwks: 'http://u:c4n4ry@x/', issuer: x, audience: x}}":                   "auth.jwt.jwks: is an http URL",
		"auth: {jwt: {jwks: 'ldap://u:c4n4ry@x/', issuer: x, audience: x}}":                   "line 1: auth.jwt.jwks: this is not the URL",
		"auth: {jwt: {jwks: 'https://x/', issuer: x, audience: x, algorithms: [HS256]}}":      `auth.jwt.algorithms: "HS256"`,
		"auth: {clients: [{name: x, scopes: [read], subject: billing}]}":                      `auth.clients: "x": subject:`,
		"auth: {clients: [{name: x, scopes: [read], subject: 'dns:a.b'}]}":                    "auth.clients: need tls.client_ca",
		"auth: {keys: [{" + entry + "}]}\njobserver: {listen: 0.0.0.0:4730}":                  "jobserver.listen: 0.0.0.0:4730 can be reached from other machines and Gearman has no access control, whatever auth says",
		"auth: {jwt: {algorithms: [RS256]}}\nlisten: 0.0.0.0:80":                              "listen: 0.0.0.0:80 can be reached",
	} {
		c := gateway.DefaultConfig()
		err := c.ReadFile(file(text))
		if err == nil {
			err = c.Check()
		}
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s\n\tgot  %v\n\twant %s", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), key[13:]) || strings.Contains(err.Error(), "c4n4ry")) {
			t.Errorf("the error holds a secret: %v", err)
		}
		printed, err := yaml.Marshal(c)
		if err != nil || strings.Contains(string(printed), "c4n4ry") {
			t.Errorf("printed: %v\n%s", err, printed)
		}
	}
}

func TestAppendKeyLeavesWhatItCannotAddTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	for before, ok := range map[string]bool{"": true, "# mine\n": true, "- {name: x}": true, "- name: x\n  scopes: []\n": true, "[]\n": false, "a: b\n": false} {
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		err := gateway.AppendKey(file, gateway.APIKey{Grant: gateway.Grant{Name: "y"}})
		after, readErr := os.ReadFile(file)
		if readErr != nil || !strings.HasPrefix(string(after), before) {
			t.Errorf("%q became %q, %v", before, after, readErr)
		}
		if ok != (err == nil) || !ok && string(after) != before {
			t.Errorf("%q: %v, %q", before, err, after)
		}
	}
}

// A gateway starts while its issuer is down, refuses tokens, and takes them when a reload finds the issuer.
func TestAGatewayStartsWithoutItsIssuer(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "one"}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []any{jwk.Marshal()}})
	if err != nil {
		t.Fatal(err)
	}
	var up atomic.Bool
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(set)
	}))
	defer issuer.Close()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": "me", "aud": "gateway", "sub": "alice", "scope": "read", "exp": time.Now().Add(time.Hour).Unix(),
	})
	token.Header["kid"] = "one"
	signed, err := token.SignedString(private)
	if err != nil {
		t.Fatal(err)
	}

	c := gateway.DefaultConfig()
	c.Listen, c.Jobserver.Listen = gateway.Listen{"127.0.0.1:0"}, "127.0.0.1:0"
	c.Auth.JWT.JWKS, c.Auth.JWT.Issuer, c.Auth.JWT.Audience = gateway.JWKS(issuer.URL), "me", "gateway"
	g := running(t, c)
	status := func() int { return call(t, "GET", "http://"+g.Addr()+"/jobs", "Bearer "+signed, "").status }
	if got := status(); got != 401 {
		t.Errorf("the issuer is down: %d", got)
	}
	up.Store(true)
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != 200 {
		t.Errorf("the issuer is up: %d", got)
	}
	up.Store(false)
	if err := g.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != 200 {
		t.Errorf("the issuer is down again: %d", got)
	}
}
