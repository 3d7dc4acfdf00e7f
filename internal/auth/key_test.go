package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// now is when most of these tests are.
var now = time.Date(2031, 5, 17, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// newKey returns a key and what is configured of it.
func newKey(name string, scopes ...Scope) (key string, k Key) {
	key, prefix, digest := NewKey()
	return key, Key{Grant: Grant{Name: name, Scopes: scopes}, Prefix: prefix, SHA256: digest}
}

func authenticator(t testing.TB, o Options) *Authenticator {
	t.Helper()
	if o.now == nil {
		o.now = at(now)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// request has these Authorization headers.
func request(authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/jobs", nil)
	for _, v := range authorization {
		r.Header.Add("Authorization", v)
	}
	return r
}

// wantRefused checks that an error is of a kind, says why, and holds none of the secrets.
func wantRefused(t *testing.T, what string, err, kind error, why string, secrets ...string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: got %v, want %v that says %q", what, err, kind, why)
		return
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error holds a secret: %v", what, err)
		}
	}
}

func TestNewKeysAreRandomAndHaveTheFormThatScannersKnow(t *testing.T) {
	form := regexp.MustCompile(`^gwk_[a-z2-7]{8}_[0-9A-Za-z]{43}$`)
	seen := map[string]bool{}
	for range 1000 {
		key, prefix, digest := NewKey()
		sum := sha256.Sum256([]byte(key))
		if !form.MatchString(key) || key[:prefixLength] != prefix || digest != hex.EncodeToString(sum[:]) || len(key) != keyLength {
			t.Fatalf("%q, %q, %q", key, prefix, digest)
		}
		if seen[key] {
			t.Fatal("a key came twice")
		}
		seen[key] = true
	}
}

func TestAKeyIsWhoItSays(t *testing.T) {
	key, k := newKey("billing", Submit, Read)
	k.Functions, k.Priorities = []string{"img.*"}, []string{"low"}
	a := authenticator(t, Options{Keys: []Key{k}})
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER ", "Bearer   "} {
		who, err := a.Identify(request(scheme + key))
		if err != nil {
			t.Fatalf("%q: %v", scheme, err)
		}
		if who.Name != "billing" || who.Credential != k.Prefix || who.Scopes != Submit|Read || !who.MayCall("img.x") || who.MayCall("x") || who.MayUse("high") {
			t.Errorf("%q: %+v", scheme, who)
		}
	}
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	key, k := newKey("billing", Submit)
	other, _ := newKey("billing", Submit)
	a := authenticator(t, Options{Keys: []Key{k}})
	secret := key[prefixLength+1:]
	changed := key[:len(key)-1] + "a"
	if changed == key {
		changed = key[:len(key)-1] + "b"
	}
	for what, c := range map[string]struct {
		headers []string
		why     string
	}{
		"another key":              {[]string{"Bearer " + other}, "there is no key " + other[:prefixLength]},
		"another secret":           {[]string{"Bearer " + changed}, k.Prefix + " is another one"},
		"the prefix alone":         {[]string{"Bearer " + k.Prefix}, "was cut"},
		"a key that was cut":       {[]string{"Bearer " + key[:len(key)-1]}, "was cut"},
		"something behind it":      {[]string{"Bearer " + key + "x"}, "was cut"},
		"the digest":               {[]string{"Bearer " + k.SHA256}, "JWT is not configured"},
		"a prefix of another form": {[]string{"Bearer gwk_ABCDEFGH_" + secret}, "there is no such key"},
		"another case":             {[]string{"Bearer " + strings.ToUpper(key)}, "JWT is not configured"},
		"two headers":              {[]string{"Bearer " + key, "Bearer " + key}, "2 Authorization headers"},
		"two headers, one empty":   {[]string{"", "Bearer " + key}, "2 Authorization headers"},
		"two in one header":        {[]string{"Bearer " + key + ", Bearer " + key}, "no token"},
		"with a space":             {[]string{"Bearer " + key + " " + key}, "no token"},
		"a tab for a space":        {[]string{"Bearer\t" + key}, "not Bearer"},
		"no scheme":                {[]string{key}, "not Bearer"},
		"Basic":                    {[]string{"Basic YmlsbGluZzo" + secret}, "not Bearer"},
		"the scheme alone":         {[]string{"Bearer"}, "no token"},
		"an empty token":           {[]string{"Bearer  "}, "no token"},
		"an empty header":          {[]string{""}, "not Bearer"},
		"quotes":                   {[]string{`Bearer "` + key + `"`}, "no token"},
		"very long":                {[]string{"Bearer " + key + strings.Repeat("x", maxAuthorization)}, "longer than 8192 bytes"},
	} {
		_, err := a.Identify(request(c.headers...))
		wantRefused(t, what, err, ErrRefused, c.why, secret, other[prefixLength+1:], changed[prefixLength+1:])
	}
	_, err := a.Identify(request())
	wantRefused(t, "no header", err, ErrNoCredentials, "")
	r := request()
	r.Header.Set("X-Api-Key", key)
	r.URL.RawQuery = "access_token=" + key
	_, err = a.Identify(r)
	wantRefused(t, "in other places", err, ErrNoCredentials, "")
}

func TestAnExpiredKeyIsOnlyToldToItsBearer(t *testing.T) {
	key, k := newKey("billing", Submit)
	k.Expires = now
	for _, c := range []struct {
		now  time.Time
		kind error
	}{{now.Add(-time.Nanosecond), nil}, {now, ErrExpired}, {now.Add(time.Hour), ErrExpired}} {
		a := authenticator(t, Options{Keys: []Key{k}, now: at(c.now)})
		if _, err := a.Identify(request("Bearer " + key)); !errors.Is(err, c.kind) {
			t.Errorf("at %v: %v", c.now, err)
		}
		_, err := a.Identify(request("Bearer " + k.Prefix + "_" + strings.Repeat("0", secretLength)))
		wantRefused(t, "a guess", err, ErrRefused, "another one")
	}
}

func TestTwoKeysOfOneNameAreOneIdentityDuringRotation(t *testing.T) {
	old, k1 := newKey("billing", Submit)
	next, k2 := newKey("billing", Submit, Read)
	k1.Expires = now.Add(time.Hour)
	for _, c := range []struct {
		now     time.Time
		oldKind error
	}{{now, nil}, {now.Add(time.Hour), ErrExpired}} {
		a := authenticator(t, Options{Keys: []Key{k1, k2}, now: at(c.now)})
		if _, err := a.Identify(request("Bearer " + old)); !errors.Is(err, c.oldKind) {
			t.Errorf("the old key: %v", err)
		}
		who, err := a.Identify(request("Bearer " + next))
		if err != nil || who.Name != "billing" || who.Credential != k2.Prefix || who.Scopes != Submit|Read {
			t.Errorf("the next key: %+v, %v", who, err)
		}
	}
}

func TestABadConfigurationNamesItsKeysAndNoSecret(t *testing.T) {
	key, good := newKey("billing", Submit)
	with := func(change func(*Key)) Options {
		k := good
		change(&k)
		return Options{Keys: []Key{k}}
	}
	ca, _ := newKey("ca", Submit)
	for what, c := range map[string]struct {
		o    Options
		want string
	}{
		"no name":             {with(func(k *Key) { k.Name = "" }), "auth.keys: \"\" (" + good.Prefix + "): name:"},
		"a name with a colon": {with(func(k *Key) { k.Name = "jwt:x" }), "name:"},
		"a name with a line":  {with(func(k *Key) { k.Name = "x\n" }), "name:"},
		"a long name":         {with(func(k *Key) { k.Name = strings.Repeat("x", 65) }), "name:"},
		"no scopes":           {with(func(k *Key) { k.Scopes = nil }), "scopes:"},
		"no functions":        {with(func(k *Key) { k.Functions = []string{} }), "functions:"},
		"an empty function":   {with(func(k *Key) { k.Functions = []string{""} }), "functions:"},
		"no priorities":       {with(func(k *Key) { k.Priorities = []string{} }), "priorities:"},
		"a priority":          {with(func(k *Key) { k.Priorities = []string{"urgent"} }), "urgent"},
		"a key as its prefix": {with(func(k *Key) { k.Prefix = key }), "prefix:"},
		"a key as its digest": {with(func(k *Key) { k.SHA256 = key }), "sha256:"},
		"a long digest":       {with(func(k *Key) { k.SHA256 += "00" }), "sha256:"},
		"a prefix twice":      {Options{Keys: []Key{good, good}}, "another key"},
		"no subject":          {Options{Clients: []Client{{Grant: good.Grant}}}, `auth.clients: "billing": subject:`},
		"an odd subject":      {Options{Clients: []Client{{good.Grant, "ip:127.0.0.1"}}}, "subject:"},
		"a subject twice":     {Options{Clients: []Client{{good.Grant, "CN=x"}, {good.Grant, "CN=x"}}}, "another client"},
	} {
		_, err := New(c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), key[prefixLength:]) || strings.Contains(err.Error(), ca) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func BenchmarkIdentifyByKey(b *testing.B) {
	var keys []Key
	var key string
	for range 1000 {
		text, k := newKey("billing", Submit)
		key, keys = text, append(keys, k)
	}
	a := authenticator(b, Options{Keys: keys})
	r := request("Bearer " + key)
	for b.Loop() {
		if _, err := a.Identify(r); err != nil {
			b.Fatal(err)
		}
	}
}

// No header makes Identify panic or lets somebody in who has no key, and no error repeats what the header says beyond the prefix of a key.
func FuzzIdentify(f *testing.F) {
	key, k := newKey("billing", Submit)
	rs := newSigner(f, "RS256")
	a := authenticator(f, Options{Keys: []Key{k}, JWT: jwtOptions(f, rs)})
	for _, seed := range []string{
		"", "Bearer", "Bearer " + key, "bearer  " + key, "Basic eDp5", "Bearer a.b.c", "Bearer " + rs.sign(f, nil, nil), "Bearer gwk_________________",
		"Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6e319.e30.AA", "Bearer ..", "Bearer gwk_aaaaaaaa_",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		who, err := a.Identify(request(value))
		switch {
		case err == nil && who.Name == "billing" && strings.HasSuffix(strings.TrimRight(value, " "), key):
		case err == nil && who.Name == "jwt:alice":
		case err == nil:
			t.Fatalf("%q lets %+v in", value, who)
		case !errors.Is(err, ErrRefused) && !errors.Is(err, ErrExpired):
			t.Fatalf("%q: %v", value, err)
		case len(err.Error()) > 500:
			t.Fatalf("%q: an error of %d bytes", value, len(err.Error()))
		}
	})
}
