package ledger

import (
	"crypto/sha256"
	"encoding/base64"
)

// Caller is on whose behalf the ledger is asked. It sees the jobs of its Owner; with All every job, strangers' too. What a Caller does not
// see is for it as if it were not there. The zero Caller sees nothing.
type Caller struct {
	Owner string
	All   bool
}

func (c Caller) sees(owner string) bool { return c.All || c.Owner != "" && c.Owner == owner }

// keyOf returns the name under which an idempotency key of an owner is kept. A key has no NUL, which is no character of a header.
func keyOf(owner, key string) string {
	if owner == "" {
		return key
	}
	return owner + "\x00" + key
}

// wireUnique returns the unique under which the first submit of a job goes to the job server. A caller's own goes there for background
// jobs alone, whose coalescing is the job server's; that of an owner goes as a digest of both, so that no other's job can be joined
// or be kept from running by whoever guesses it. It fits: gearman.MaxUnique is 63 bytes.
func (l *Ledger) wireUnique(r *Record) string {
	switch {
	case r.Mode != Background || r.Unique == "":
		return r.ID
	case r.Owner == "" || l.o.SharedUniques:
		return r.Unique
	}
	sum := sha256.Sum256([]byte(r.Owner + "\x00" + r.Unique))
	return "u-" + base64.RawURLEncoding.EncodeToString(sum[:])
}
