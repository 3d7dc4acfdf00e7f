package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// A signer makes tokens, as an issuer does.
type signer struct {
	alg, kid string
	private  crypto.Signer
}

// rsaKey is made once: it takes a while.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newSigner(t testing.TB, alg string) *signer {
	t.Helper()
	s := &signer{alg: alg, kid: "kid-" + alg}
	var err error
	switch alg {
	case "EdDSA":
		_, s.private, err = ed25519.GenerateKey(rand.Reader)
	case "ES256":
		s.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		s.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		s.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		s.private, err = rsaKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type members = map[string]any

// goodClaims are those of a token that is accepted at now.
func goodClaims() members {
	return members{
		"iss": "https://issuer.example", "aud": "gateway", "sub": "alice", "scope": "submit read openid",
		"exp": now.Add(time.Hour).Unix(), "nbf": now.Unix(), "iat": now.Unix(),
	}
}

// sign makes a good token whose header and claims were changed: nil takes a member away.
func (s *signer) sign(t testing.TB, header, claims members) string {
	t.Helper()
	h, c := members{"alg": s.alg, "kid": s.kid, "typ": "JWT"}, goodClaims()
	for to, from := range map[*members]members{&h: header, &c: claims} {
		maps.Copy(*to, from)
		maps.DeleteFunc(*to, func(_ string, v any) bool { return v == nil })
	}
	return s.signRaw(t, mustJSON(t, h), mustJSON(t, c))
}

func (s *signer) signRaw(t testing.TB, header, claims []byte) string {
	t.Helper()
	input := b64(header) + "." + b64(claims)
	sig, err := jwt.GetSigningMethod(s.alg).Sign(input, s.private)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(sig)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// jwk returns the public key, as an issuer publishes it.
func (s *signer) jwk(t testing.TB) members {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(s.private.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: s.kid, USE: jwkset.UseSig}})
	if err != nil {
		t.Fatal(err)
	}
	var m members
	if err := json.Unmarshal(mustJSON(t, k.Marshal()), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func jwks(t testing.TB, keys ...members) []byte {
	t.Helper()
	if keys == nil {
		keys = []members{}
	}
	return mustJSON(t, members{"keys": keys})
}

// jwtOptions trusts signers, by a file.
func jwtOptions(t testing.TB, signers ...*signer) *JWTOptions {
	t.Helper()
	var keys []members
	for _, s := range signers {
		keys = append(keys, s.jwk(t))
	}
	return &JWTOptions{
		JWKS: writeJWKS(t, jwks(t, keys...)), Issuer: "https://issuer.example", Audience: "gateway", OwnerClaim: "sub", ScopeClaim: "scope",
		Algorithms: []string{"RS256", "ES256", "EdDSA"},
	}
}

func writeJWKS(t testing.TB, text []byte) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
