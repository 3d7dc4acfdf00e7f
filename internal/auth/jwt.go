package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"
)

// JWTOptions says whose tokens are accepted, and which claims say what. JWKS, Issuer, Audience, Algorithms, OwnerClaim and ScopeClaim
// are needed.
type JWTOptions struct {
	JWKS       string   // https URL, http URL of this machine, or name of a file
	Issuer     string   // what iss must be
	Audience   string   // what must be in aud
	Algorithms []string // that signatures may have; asymmetric ones alone

	OwnerClaim      string // the claim with the name of the identity, which Identity has with jwt: before it
	ScopeClaim      string // the claim with scopes, of which unknown ones are ignored
	FunctionsClaim  string // the claim with patterns of functions; "": all may be called
	PrioritiesClaim string // the claim with priorities; "": all may be used
	Leeway          time.Duration
}

// Algorithms are those that may be configured. HMAC is not among them: whoever could check a token could make one.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

const maxLeeway = 5 * time.Minute

func (o *JWTOptions) check() error {
	var errs []error
	for key, value := range map[string]string{
		"jwks": o.JWKS, "issuer": o.Issuer, "audience": o.Audience, "owner_claim": o.OwnerClaim, "scope_claim": o.ScopeClaim,
	} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s: is missing", key))
		}
	}
	if len(o.Algorithms) == 0 {
		errs = append(errs, errors.New("algorithms: are missing"))
	}
	for _, alg := range o.Algorithms {
		if !slices.Contains(Algorithms, alg) {
			errs = append(errs, fmt.Errorf("algorithms: %q is none of %s", alg, strings.Join(Algorithms, ", ")))
		}
	}
	if o.Leeway < 0 || o.Leeway > maxLeeway {
		errs = append(errs, fmt.Errorf("leeway: %v is not from 0s to %v", o.Leeway, maxLeeway))
	}
	return errors.Join(errs...)
}

// tokens checks JSON Web Tokens.
type tokens struct {
	o      JWTOptions
	keys   *keySet
	parser *jwt.Parser
}

func newTokens(o JWTOptions, now func() time.Time, log zerolog.Logger) (*tokens, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	keys, err := newKeySet(o.JWKS, log)
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	return &tokens{o: o, keys: keys, parser: jwt.NewParser(
		jwt.WithValidMethods(o.Algorithms), jwt.WithStrictDecoding(), jwt.WithIssuer(o.Issuer), jwt.WithAudience(o.Audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(o.Leeway), jwt.WithTimeFunc(now),
	)}, nil
}

// joseHeader is what this package reads of a token's header. Members that it does not know are ignored, as RFC 7515 wants it.
type joseHeader struct {
	Alg  string  `json:"alg"`
	Kid  *string `json:"kid"`
	Typ  string  `json:"typ"`
	Crit any     `json:"crit"`

	// Where the bearer would have us take the key from.
	JKU any `json:"jku"`
	JWK any `json:"jwk"`
	X5U any `json:"x5u"`
	X5C any `json:"x5c"`
}

// maxKid bounds the name of a key, in bytes. It is compared, and never part of a path or a query.
const maxKid = 256

// kinds are the types of tokens that may be used for access. Others, logout tokens for one, come from the same issuer for other ends
// (RFC 8725, section 3.11).
var kinds = []string{"", "jwt", "at+jwt"}

// readHeader decodes the header more strictly than the parser does afterwards: one with a member twice is refused, so that both read the
// same.
func (t *tokens) readHeader(token string) (h joseHeader, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return h, refused("this is neither a key nor a JWT: it has %d parts", len(parts))
	}
	header, err := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	if err != nil || json.Unmarshal(header, &h) != nil {
		return h, refused("the header of the JWT is malformed")
	}
	claims, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil || !jsontext.Value(claims).IsValid() {
		return h, refused("the claims of the JWT are malformed")
	}
	switch {
	case !slices.Contains(t.o.Algorithms, h.Alg):
		return h, refused("the algorithm %q of the JWT is not among those that are configured", cut(h.Alg))
	case h.Crit != nil:
		return h, refused("the JWT has extensions that must be understood (crit)")
	case h.JKU != nil || h.JWK != nil || h.X5U != nil || h.X5C != nil:
		return h, refused("the JWT brings a key of its own (jku, jwk, x5u or x5c)")
	case h.Kid != nil && len(*h.Kid) > maxKid:
		return h, refused("the kid of the JWT is longer than %d bytes", maxKid)
	case !slices.Contains(kinds, strings.TrimPrefix(strings.ToLower(h.Typ), "application/")):
		return h, refused("the JWT is of the type %q", cut(h.Typ))
	}
	return h, nil
}

// identify returns whose token this is.
func (t *tokens) identify(ctx context.Context, token string) (*Identity, error) {
	h, err := t.readHeader(token)
	if err != nil {
		return nil, err
	}
	key, err := t.keys.find(ctx, h.Kid, h.Alg)
	if err != nil {
		return nil, err
	}
	claims := jwt.MapClaims{}
	if _, err := t.parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return key.public, nil }); err != nil {
		return nil, whyNot(err, claims)
	}
	return t.identity(claims, key)
}

// whyNot says what the parser found, without the words of its errors, which may repeat a token. That a token has expired is only said
// of one that is right otherwise.
func whyNot(err error, claims jwt.MapClaims) error {
	for _, reason := range []struct {
		err  error
		text string
	}{
		{jwt.ErrTokenMalformed, "it is malformed"},
		{jwt.ErrTokenUnverifiable, "its algorithm is not supported"},
		{jwt.ErrTokenSignatureInvalid, "the signature is wrong"},
		{jwt.ErrTokenInvalidIssuer, "it is from another issuer (iss)"},
		{jwt.ErrTokenInvalidAudience, "it is for another audience (aud)"},
		{jwt.ErrTokenRequiredClaimMissing, "exp, iss or aud is missing"},
		{jwt.ErrInvalidType, "a claim has the wrong type"},
		{jwt.ErrTokenNotValidYet, "it is not valid yet (nbf)"},
		{jwt.ErrTokenUsedBeforeIssued, "it was issued in the future (iat)"},
	} {
		if errors.Is(err, reason.err) {
			return refused("the JWT is not accepted: %s", reason.text)
		}
	}
	if errors.Is(err, jwt.ErrTokenExpired) {
		exp, _ := claims.GetExpirationTime() // the parser has read it
		return expired("the JWT has expired at %s", exp.UTC().Format(time.RFC3339))
	}
	return refused("the JWT is not accepted")
}

// identity reads what the claims grant. Where a claim is configured and missing, it grants nothing.
func (t *tokens) identity(claims jwt.MapClaims, key *publicKey) (*Identity, error) {
	owner, _ := claims[t.o.OwnerClaim].(string)
	if owner == "" || len(owner) > maxOwner || !utf8.ValidString(owner) || strings.ContainsFunc(owner, unprintable) {
		return nil, refused("the claim %s of the JWT is not a string of 1 to %d printable bytes", t.o.OwnerClaim, maxOwner)
	}
	who := &Identity{Name: "jwt:" + owner, Credential: "jwt"}
	if key.kid != "" {
		who.Credential += " kid " + cut(key.kid)
	}
	names, err := words(claims, t.o.ScopeClaim)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if s, err := ParseScope(name); err == nil {
			who.Scopes |= s
		}
	}
	if t.o.FunctionsClaim != "" {
		if who.Functions, err = words(claims, t.o.FunctionsClaim); err != nil {
			return nil, err
		}
	}
	if t.o.PrioritiesClaim != "" {
		who.Priorities, err = words(claims, t.o.PrioritiesClaim)
	}
	return who, err
}

// maxOwner is what OpenID Connect allows a sub, in bytes.
const maxOwner = 255

func unprintable(c rune) bool { return !unicode.IsGraphic(c) }

// words returns a claim that is a string of words or an array of strings. It is not nil.
func words(claims jwt.MapClaims, name string) ([]string, error) {
	list := []string{}
	switch v := claims[name].(type) {
	case nil:
		return list, nil
	case string:
		return append(list, strings.Fields(v)...), nil
	case []any:
		for _, element := range v {
			word, ok := element.(string)
			if !ok {
				return nil, refused("an element of the claim %s of the JWT is not a string", name)
			}
			list = append(list, word)
		}
		return list, nil
	}
	return nil, refused("the claim %s of the JWT is neither a string nor an array", name)
}
