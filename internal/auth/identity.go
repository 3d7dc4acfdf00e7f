// Package auth finds out who calls, and says what they may do.
package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Scope is one thing that an identity may do.
type Scope uint8

// The scopes. Admin has all of the others, and sees what belongs to other identities.
const (
	Submit Scope = 1 << iota // jobs, and what may be done with the deliveries to their callbacks
	Read                     // the identity's own jobs, their events and results, and what functions there are
	Cancel                   // the identity's own jobs
	Admin
)

// scopeNames are those of configuration, in the order of the constants.
var scopeNames = []string{"submit", "read", "cancel", "admin"}

// Has reports whether s has all of what other has.
func (s Scope) Has(other Scope) bool { return s&other == other || s&Admin != 0 }

// ParseScope returns the scope that has a name: submit, read, cancel or admin.
func ParseScope(name string) (Scope, error) {
	if i := slices.Index(scopeNames, name); i >= 0 {
		return 1 << i, nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(scopeNames, ", "))
}

// String returns the names, with a space between them.
func (s Scope) String() string {
	var names []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// UnmarshalText reads the name of a single scope.
func (s *Scope) UnmarshalText(b []byte) (err error) {
	*s, err = ParseScope(string(b))
	return err
}

// MarshalText writes what UnmarshalText reads of a single scope.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Identity is who calls. It is not changed after it was made.
type Identity struct {
	Name       string   // what it makes belongs to this name; "": there is no access control
	Credential string   // which of its keys or certificates it was, for the log; no secret
	Scopes     Scope    //
	Functions  []string // names, or globs of them; nil: all
	Priorities []string // high, normal, low; nil: all
}

// Anyone is who calls where there is no access control.
var Anyone = &Identity{Scopes: Submit | Read | Cancel | Admin}

// May reports whether the identity has a scope.
func (i *Identity) May(s Scope) bool { return i.Scopes.Has(s) }

// MayCall reports whether the identity may submit jobs of a function. A pattern must match all of the name, byte for byte; * stands
// for any number of any bytes, and every other byte for itself.
func (i *Identity) MayCall(function string) bool {
	return i.Functions == nil || slices.ContainsFunc(i.Functions, func(pattern string) bool { return match(pattern, function) })
}

// MayUse reports whether the identity may submit jobs of a priority.
func (i *Identity) MayUse(priority string) bool {
	return i.Priorities == nil || slices.Contains(i.Priorities, priority)
}

// match reports whether a glob matches all of a name. It takes the leftmost place for each part between stars, which is never worse
// than another, so that its time is bounded by the product of the lengths.
func match(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return strings.HasSuffix(name, parts[last])
}

// Why a request has no identity.
var (
	ErrNoCredentials = errors.New("no credentials")
	ErrRefused       = errors.New("the credentials are not accepted") // wrapped by what says why, for the log
	ErrExpired       = errors.New("the credentials have expired")     // of credentials that were right otherwise
)
