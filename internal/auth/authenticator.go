package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Options says whom to let in. The zero value lets nobody in.
type Options struct {
	Keys    []Key
	Clients []Client
	JWT     *JWTOptions    // nil: tokens are refused
	Log     zerolog.Logger // how the fetching of the JWKS goes

	now func() time.Time // nil: time.Now
}

// Authenticator finds out who sent a request. It is safe for concurrent use.
type Authenticator struct {
	keys    map[string]storedKey // by prefix
	clients map[string]storedClient
	tokens  *tokens // nil: no JWT
	now     func() time.Time
}

// New checks all that is configured. The errors name its keys, and no secret. A JWKS file is read, and nothing is fetched: that is for
// Start.
func New(o Options) (*Authenticator, error) {
	a := &Authenticator{keys: make(map[string]storedKey, len(o.Keys)), clients: make(map[string]storedClient, len(o.Clients)), now: o.now}
	if a.now == nil {
		a.now = time.Now
	}
	var errs []error
	wrong := func(where string, err error) {
		for line := range strings.Lines(err.Error()) {
			errs = append(errs, fmt.Errorf("auth.%s%s", where, strings.TrimSuffix(line, "\n")))
		}
	}
	for i := range o.Keys {
		k := &o.Keys[i]
		err := k.check()
		if _, twice := a.keys[k.Prefix]; twice && err == nil {
			err = errors.New("prefix: is that of another key, too")
		}
		if err != nil {
			wrong(fmt.Sprintf("keys: %q%s: ", cut(k.Name), k.label()), err)
			continue
		}
		a.keys[k.Prefix] = k.stored()
	}
	for i := range o.Clients {
		c := &o.Clients[i]
		err := c.check()
		if _, twice := a.clients[c.Subject]; twice && err == nil {
			err = errors.New("subject: is that of another client, too")
		}
		if err != nil {
			wrong(fmt.Sprintf("clients: %q: ", cut(c.Name)), err)
			continue
		}
		a.clients[c.Subject] = storedClient{order: i, Grant: &c.Grant}
	}
	if o.JWT != nil {
		t, err := newTokens(*o.JWT, a.now, o.Log)
		if err != nil {
			wrong("jwt.", err)
		}
		a.tokens = t
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return a, nil
}

// Start begins to fetch the JWKS, which goes on until Close. It does not wait for it: tokens do. What previous, which may be nil, has
// fetched of the same JWKS holds until then.
func (a *Authenticator) Start(previous *Authenticator) {
	if a.tokens == nil {
		return
	}
	if previous != nil && previous.tokens != nil {
		a.tokens.keys.inherit(previous.tokens.keys)
	}
	a.tokens.keys.start()
}

// Close ends what Start began, and waits for it. The Authenticator goes on with the keys that it has.
func (a *Authenticator) Close() {
	if a.tokens != nil {
		a.tokens.keys.close()
	}
}

// maxAuthorization bounds an Authorization header, in bytes, and with it all that is made of a token.
const maxAuthorization = 8 << 10

// Identify returns who sent a request. An Authorization header decides alone: a wrong one is not mended by a certificate. The error wraps
// ErrNoCredentials, ErrRefused or ErrExpired, and says why in words that hold no secret. It may wait for a fetch of the JWKS, up to
// fetchTimeout, where a token names a key that is not known.
func (a *Authenticator) Identify(r *http.Request) (*Identity, error) {
	switch values := r.Header["Authorization"]; {
	case len(values) > 1:
		return nil, refused("there are %d Authorization headers", len(values))
	case len(values) == 1:
		return a.bearer(r.Context(), values[0])
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		return a.byCertificate(r.TLS.VerifiedChains[0][0])
	}
	return nil, ErrNoCredentials
}

// bearer takes the Authorization header of RFC 6750 apart.
func (a *Authenticator) bearer(ctx context.Context, value string) (*Identity, error) {
	if len(value) > maxAuthorization {
		return nil, refused("the Authorization header is longer than %d bytes", maxAuthorization)
	}
	scheme, token, _ := strings.Cut(value, " ")
	token = strings.Trim(token, " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return nil, refused("the scheme of the Authorization header is not Bearer")
	case token == "" || strings.ContainsFunc(token, notInToken):
		return nil, refused("what follows Bearer is no token")
	case strings.HasPrefix(token, keyMark):
		return a.byKey(token)
	case a.tokens == nil:
		return nil, refused("this is no key, and JWT is not configured")
	}
	return a.tokens.identify(ctx, token)
}

// notInToken reports whether a character may not be in a bearer token (RFC 6750, section 2.1).
func notInToken(c rune) bool {
	return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune("-._~+/=", c)
}

// refused says, for the log, why credentials are not accepted.
func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

func expired(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrExpired, fmt.Sprintf(format, args...))
}

// cut bounds what an error repeats.
func cut(s string) string { return s[:min(len(s), 64)] }
