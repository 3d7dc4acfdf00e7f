package auth

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Grant is what a configured key or certificate makes of its bearer. Keys and certificates with one name are one identity, to which the
// same jobs belong, and may do different things.
type Grant struct {
	Name       string  // of the identity
	Scopes     []Scope // at least one
	Functions  []string
	Priorities []string // for both: nil means all, and empty is an error, because it would be read as none by one and as all by another
}

// names are what identities of the configuration may be called. There is no colon in them, so that they never equal the name of a
// token's owner, and nothing that a log, a header or a label would have to escape.
var names = regexp.MustCompile(`^[A-Za-z0-9._@/-]{1,64}$`)

// Bounds of a grant, which each request of a function looks at.
const (
	maxPatterns = 1000
	maxPattern  = 512 // bytes
)

func (g *Grant) check() error {
	var errs []error
	if !names.MatchString(g.Name) {
		errs = append(errs, errors.New("name: is not 1 to 64 letters, digits or any of . _ @ / -"))
	}
	if len(g.Scopes) == 0 {
		errs = append(errs, errors.New("scopes: are missing, and without one there is nothing that may be done"))
	}
	if g.Functions != nil && (len(g.Functions) == 0 || len(g.Functions) > maxPatterns) {
		errs = append(errs, fmt.Errorf("functions: is a list of %d, not of 1 to %d; leave it out to allow all", len(g.Functions), maxPatterns))
	}
	if slices.ContainsFunc(g.Functions, func(p string) bool { return p == "" || len(p) > maxPattern }) {
		errs = append(errs, fmt.Errorf("functions: a pattern is not of 1 to %d bytes", maxPattern))
	}
	if g.Priorities != nil && len(g.Priorities) == 0 {
		errs = append(errs, errors.New("priorities: is empty; leave it out to allow all"))
	}
	for _, p := range g.Priorities {
		if p != "high" && p != "normal" && p != "low" {
			errs = append(errs, fmt.Errorf("priorities: %q is none of high, normal, low", p))
		}
	}
	return errors.Join(errs...)
}

// identity returns whom the grant makes of the bearer of a credential.
func (g *Grant) identity(credential string) *Identity {
	i := &Identity{Name: g.Name, Credential: credential, Functions: g.Functions, Priorities: g.Priorities}
	for _, s := range g.Scopes {
		i.Scopes |= s
	}
	return i
}
