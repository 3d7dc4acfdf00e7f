package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
)

// publicKey is a key that signatures are checked with.
type publicKey struct {
	kid    string
	alg    string // that it is for; "": any that fits its type
	public any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// Bounds of a JWKS.
const (
	maxJWKS   = 1 << 20 // bytes
	maxKeys   = 100
	minRSABit = 2048
)

// parseJWKS returns those keys of a JWKS (RFC 7517) that are for signatures and of a kind that is supported; others are common in it, and
// are left out. Private members and certificates are not looked at. A set without keys is what an issuer publishes that takes all back.
func parseJWKS(text []byte) ([]publicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("this is not a JWKS: it is no JSON object with keys")
	}
	switch {
	case set.Keys == nil:
		return nil, errors.New("this is not a JWKS: there are no keys in it")
	case len(set.Keys) > maxKeys:
		return nil, fmt.Errorf("there are %d keys in it, more than %d", len(set.Keys), maxKeys)
	}
	keys := []publicKey{}
	for _, raw := range set.Keys {
		if k, ok := parseJWK(raw); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 && len(set.Keys) > 0 {
		return nil, fmt.Errorf("none of its %d keys is a public RSA (of %d bits and more), EC or Ed25519 key for signatures", len(set.Keys), minRSABit)
	}
	return keys, nil
}

func parseJWK(raw []byte) (publicKey, bool) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return publicKey{}, false
	}
	m.X5C, m.X5U, m.X5T, m.X5TS256 = nil, "", "", "" // which nothing here asks for
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil || m.USE == jwkset.UseEnc || len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return publicKey{}, false
	}
	k := publicKey{kid: m.KID, alg: string(m.ALG), public: jwk.Key()}
	return k, slices.ContainsFunc(Algorithms, k.fits)
}

// fits reports whether the key is for signatures of an algorithm: RFC 7518 ties each to a type, and those of elliptic curves to one
// curve.
func (k *publicKey) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && public.N.BitLen() >= minRSABit
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[public.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// choose returns the key for signatures of an algorithm that has a kid. A token without one is only taken where there is no choice.
func choose(keys []publicKey, kid *string, alg string) *publicKey {
	var found *publicKey
	for i := range keys {
		k := &keys[i]
		if !k.fits(alg) || kid != nil && k.kid != *kid {
			continue
		}
		if found != nil {
			return nil
		}
		found = k
	}
	return found
}
