package auth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// issuer answers for a JWKS URL without a network, so that its time can be a bubble's.
type issuer struct {
	mu      sync.Mutex
	answer  func() (status int, body []byte)
	fetches int
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.fetches++
	answer := i.answer
	i.mu.Unlock()
	status, body := answer()
	if status == 0 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(string(body))), Request: r, Header: http.Header{}}, nil
}

func (i *issuer) answers(status int, body []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = func() (int, []byte) { return status, body }
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// trusting returns an Authenticator that fetches from an issuer, and was not started.
func trusting(t *testing.T, i *issuer, log zerolog.Logger) *Authenticator {
	t.Helper()
	o := jwtOptions(t, newSigner(t, "RS256"))
	o.JWKS = "https://c4n4ry:c4n4ry@issuer.example/jwks?k=c4n4ry"
	a := authenticator(t, Options{JWT: o, Log: log})
	a.tokens.keys.client.Transport = i
	return a
}

func (s *signer) named(kid string) *signer {
	copied := *s
	copied.kid = kid
	return &copied
}

func accepts(t *testing.T, a *Authenticator, s *signer) error {
	t.Helper()
	_, err := a.Identify(request("Bearer " + s.sign(t, nil, nil)))
	return err
}

func TestKeysOfAnIssuerRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newSigner(t, "ES256").named("one"), newSigner(t, "ES256").named("two")
		i := &issuer{}
		i.answers(200, jwks(t, one.jwk(t)))
		a := trusting(t, i, zerolog.Nop())
		a.Start(nil)
		defer a.Close()
		if err := accepts(t, a, one); err != nil { // waits for the first fetch
			t.Fatal(err)
		}
		i.answers(200, jwks(t, one.jwk(t), two.jwk(t)))
		if err := accepts(t, a, two); err != nil { // an unknown kid fetches
			t.Fatal(err)
		}
		if n := i.count(); n != 2 {
			t.Fatalf("%d fetches", n)
		}
		i.answers(200, jwks(t, two.jwk(t)))
		time.Sleep(refreshEvery + time.Second)
		synctest.Wait()
		if err := accepts(t, a, one); !errors.Is(err, ErrRefused) {
			t.Errorf("a key that was taken back: %v", err)
		}
		if err := accepts(t, a, two); err != nil {
			t.Error(err)
		}
		i.answers(200, jwks(t))
		time.Sleep(refreshEvery + time.Second)
		if err := accepts(t, a, two); !errors.Is(err, ErrRefused) {
			t.Errorf("all keys were taken back: %v", err)
		}
	})
}

func TestUnknownKidsDoNotFloodTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, "EdDSA")
		i := &issuer{}
		i.answers(200, jwks(t, s.jwk(t)))
		a := trusting(t, i, zerolog.Nop())
		a.Start(nil)
		defer a.Close()
		for range 100 {
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					if err := accepts(t, a, s.named("other")); !errors.Is(err, ErrRefused) {
						t.Error(err)
					}
				})
			}
			all.Wait()
			time.Sleep(time.Second)
		}
		if n := i.count(); n > 1+int(100*time.Second/askEvery)+1 {
			t.Errorf("%d fetches in 100 seconds", n)
		}
	})
}

// Those who wait for a key that was just published get it, also when the one that began to wait hangs up.
func TestAFetchOutlivesTheRequestThatAskedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := newSigner(t, "ES256").named("one"), newSigner(t, "ES256").named("two")
		i := &issuer{}
		i.answers(200, jwks(t, one.jwk(t)))
		a := trusting(t, i, zerolog.Nop())
		a.Start(nil)
		defer a.Close()
		if err := accepts(t, a, one); err != nil {
			t.Fatal(err)
		}
		both := jwks(t, one.jwk(t), two.jwk(t))
		i.mu.Lock()
		i.answer = func() (int, []byte) { time.Sleep(time.Second); return 200, both }
		i.mu.Unlock()

		var all sync.WaitGroup
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := a.Identify(request("Bearer " + two.sign(t, nil, nil)).WithContext(ctx))
			if !errors.Is(err, ErrRefused) || ctx.Err() == nil {
				t.Errorf("the one that hangs up: %v", err)
			}
		})
		for range 20 {
			all.Go(func() {
				if err := accepts(t, a, two); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := i.count(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestKeysHoldWhileTheIssuerIsDown(t *testing.T) {
	good := newSigner(t, "ES256")
	for what, answer := range map[string]struct {
		status int
		body   []byte
	}{
		"no answer":         {0, nil},
		"an error":          {500, jwks(t)},
		"a redirect":        {302, nil},
		"an empty body":     {200, nil},
		"another document":  {200, []byte(`{"error":"c4n4ry"}`)},
		"a page":            {200, []byte("<html>c4n4ry")},
		"a very long one":   {200, []byte(`{"keys":[` + strings.Repeat(" ", maxJWKS) + `]}`)},
		"too many keys":     {200, []byte(`{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`)},
		"keys of no use":    {200, []byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB"},7]}`)},
		"keys that are one": {200, []byte(`{"keys":{}}`)},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log lines
				i := &issuer{}
				i.answers(answer.status, answer.body)
				a := trusting(t, i, zerolog.New(&log))
				a.Start(nil)
				defer a.Close()
				if err := accepts(t, a, good); !errors.Is(err, ErrRefused) {
					t.Errorf("without keys: %v", err)
				}
				i.answers(200, jwks(t, good.jwk(t)))
				time.Sleep(retryEvery + fetchTimeout)
				synctest.Wait()
				if err := accepts(t, a, good); err != nil {
					t.Errorf("the issuer is back: %v", err)
				}
				i.answers(answer.status, answer.body)
				time.Sleep(time.Hour)
				if err := accepts(t, a, good); err != nil {
					t.Errorf("the issuer was down for an hour: %v", err)
				}
				if text := log.String(); !strings.Contains(text, "cannot be fetched") || strings.Contains(text, "c4n4ry") {
					t.Errorf("the log says %s", text)
				}
			})
		})
	}
}

// lines is a log that several goroutines write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestKeysAreInheritedOfTheSameSourceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, "ES256")
		i, down := &issuer{}, &issuer{}
		i.answers(200, jwks(t, s.jwk(t)))
		down.answers(503, nil)
		first := trusting(t, i, zerolog.Nop())
		first.Start(nil)
		if err := accepts(t, first, s); err != nil {
			t.Fatal(err)
		}
		same, other := trusting(t, down, zerolog.Nop()), trusting(t, down, zerolog.Nop())
		other.tokens.keys.source = "https://other.example/jwks"
		for _, a := range []*Authenticator{same, other} {
			a.Start(first)
			defer a.Close()
		}
		first.Close()
		if err := accepts(t, same, s); err != nil {
			t.Errorf("the same source: %v", err)
		}
		if err := accepts(t, other, s); !errors.Is(err, ErrRefused) {
			t.Errorf("another source: %v", err)
		}
		if err := accepts(t, first, s); err != nil {
			t.Errorf("after Close: %v", err)
		}
		if err := accepts(t, first, s.named("x")); !errors.Is(err, ErrRefused) {
			t.Errorf("an unknown kid after Close: %v", err)
		}
	})
}

func TestAJWKSOverHTTP(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := newSigner(t, "RS256")
	var set atomic.Pointer[[]byte]
	first := jwks(t, s.named("one").jwk(t))
	set.Store(&first)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			return
		}
		_, _ = w.Write(*set.Load())
	}))
	defer server.Close()
	o := jwtOptions(t, s)
	o.JWKS = server.URL + "/keys"
	a := authenticator(t, Options{JWT: o})
	a.Start(nil)
	defer a.Close()
	if err := accepts(t, a, s.named("one")); err != nil {
		t.Error(err)
	}
	second := jwks(t, s.named("two").jwk(t))
	set.Store(&second)
	if err := accepts(t, a, s.named("two")); err != nil {
		t.Errorf("after rotation: %v", err)
	}
	if err := accepts(t, a, s.named("one")); !errors.Is(err, ErrRefused) {
		t.Errorf("the old key: %v", err)
	}

	moved := *o
	moved.JWKS = server.URL + "/moved"
	b := authenticator(t, Options{JWT: &moved})
	b.Start(nil)
	defer b.Close()
	if err := accepts(t, b, s.named("two")); !errors.Is(err, ErrRefused) {
		t.Errorf("redirected: %v", err)
	}
}

func TestKeysForOtherEndsAreLeftOut(t *testing.T) {
	s := newSigner(t, "RS256")
	with := func(change members) members {
		k := s.jwk(t)
		for name, v := range change {
			k[name] = v
		}
		return k
	}
	for what, c := range map[string]struct {
		key  members
		want bool
	}{
		"as it is":                {with(nil), true},
		"no use":                  {with(members{"use": ""}), true},
		"its algorithm":           {with(members{"alg": "RS256"}), true},
		"another algorithm":       {with(members{"alg": "RS512"}), false},
		"a symmetric algorithm":   {with(members{"alg": "HS256"}), false},
		"encryption":              {with(members{"use": "enc"}), false},
		"verification":            {with(members{"key_ops": []string{"verify"}}), true},
		"other operations":        {with(members{"key_ops": []string{"encrypt"}}), false},
		"a bad certificate":       {with(members{"x5c": []string{"AAAA"}, "x5t": "AAAA"}), true},
		"a URL of certificates":   {with(members{"x5u": "https://127.0.0.1:1/"}), true},
		"a small modulus":         {with(members{"n": strings.Repeat("_", 128)}), false},
		"an exponent with a wrap": {with(members{"e": "AQAAAAAAAQAB"}), false},
		"another type":            {with(members{"kty": "EC"}), false},
	} {
		other := newSigner(t, "EdDSA")
		keys, err := parseJWKS(jwks(t, c.key, other.jwk(t)))
		if err != nil || choose(keys, nil, "EdDSA") == nil {
			t.Errorf("%s: %d keys, %v", what, len(keys), err)
		}
		if got := choose(keys, &s.kid, "RS256") != nil; got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
