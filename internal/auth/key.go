package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"time"
)

// An API key is gwk_PPPPPPPP_S…S: a prefix of 40 random bits in base 32, by which the key is found and named in logs, and a secret of 256
// random bits in base 62, which is 43 letters and digits. A double click selects all of it, and scanners for secrets know it by
// gwk_[a-z2-7]{8}_[0-9A-Za-z]{43}. Such a secret cannot be guessed, so that one round of SHA-256 is enough to store it.
const (
	keyMark      = "gwk_"
	prefixLength = len(keyMark) + 8
	secretLength = 43
	keyLength    = prefixLength + 1 + secretLength
)

// Key is an API key as it is configured: by its digest.
type Key struct {
	Grant
	Prefix  string    // the first 12 bytes of the key: gwk_ and 8 more
	SHA256  string    // of the whole key, in hexadecimal
	Expires time.Time // zero: never
}

// NewKey returns a new key, and its prefix and digest, which are all of it that is to be stored.
func NewKey() (key, prefix, digest string) {
	var id [5]byte
	var secret [32]byte
	rand.Read(id[:]) // does not fail
	rand.Read(secret[:])
	prefix = keyMark + strings.ToLower(base32.StdEncoding.EncodeToString(id[:]))
	digits := new(big.Int).SetBytes(secret[:]).Text(62)
	key = prefix + "_" + strings.Repeat("0", secretLength-len(digits)) + digits
	sum := sha256.Sum256([]byte(key))
	return key, prefix, hex.EncodeToString(sum[:])
}

var prefixes = regexp.MustCompile(`^gwk_[a-z2-7]{8}$`)

// label names a key in errors. A key that was pasted where its prefix belongs is not repeated.
func (k *Key) label() string {
	if !prefixes.MatchString(k.Prefix) {
		return ""
	}
	return " (" + k.Prefix + ")"
}

func (k *Key) check() error {
	errs := []error{k.Grant.check()}
	if !prefixes.MatchString(k.Prefix) {
		errs = append(errs, errors.New("prefix: is not gwk_ and 8 letters a-z or digits 2-7, which a key begins with"))
	}
	if sum, err := hex.DecodeString(k.SHA256); err != nil || len(sum) != sha256.Size {
		errs = append(errs, errors.New("sha256: is not 64 hexadecimal digits"))
	}
	return errors.Join(errs...)
}

// storedKey is a key that was checked.
type storedKey struct {
	digest  [sha256.Size]byte
	expires time.Time
	who     *Identity
}

func (k *Key) stored() storedKey {
	s := storedKey{expires: k.Expires, who: k.identity(k.Prefix)}
	_, _ = hex.Decode(s.digest[:], []byte(k.SHA256)) // check has looked at it
	return s
}

// byKey returns who has a key. Prefixes are no secret; what follows is compared as a digest and in constant time, also where there is
// no key with that prefix.
func (a *Authenticator) byKey(key string) (*Identity, error) {
	if len(key) != keyLength || key[prefixLength] != '_' {
		return nil, refused("a key is %d bytes long, or was cut", keyLength)
	}
	prefix := key[:prefixLength]
	stored, known := a.keys[prefix]
	sum := sha256.Sum256([]byte(key))
	same := subtle.ConstantTimeCompare(sum[:], stored.digest[:]) == 1
	switch {
	case !known && prefixes.MatchString(prefix):
		return nil, refused("there is no key %s", prefix)
	case !known:
		return nil, refused("there is no such key")
	case !same:
		return nil, refused("the key %s is another one", prefix)
	case !stored.expires.IsZero() && !a.now().Before(stored.expires):
		return nil, expired("the key %s of %s has expired at %s", prefix, stored.who.Name, stored.expires.UTC().Format(time.RFC3339))
	}
	return stored.who, nil
}
