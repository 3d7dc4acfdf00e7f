package gateway

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gearman-gateway/internal/auth"
)

// Auth says who may call. As soon as anything is configured here, nobody else may.
type Auth struct {
	Keys     []APIKey `yaml:"keys,omitempty"`
	KeysFile string   `yaml:"keys_file,omitempty"` // a YAML list of more keys
	JWT      JWT      `yaml:"jwt"`                 // without a JWKS, tokens are refused
	Clients  []Client `yaml:"clients,omitempty"`   // by their TLS certificates
}

// Scope is one thing that a caller may do: submit, read, cancel or admin.
type Scope = auth.Scope

// Grant is who somebody is and what he may do.
type Grant struct {
	Name       string   `yaml:"name"` // letters, digits and . _ @ / -, up to 64; what is made by one name belongs to all who have it
	Scopes     []Scope  `yaml:"scopes,flow"`
	Functions  []string `yaml:"functions,flow,omitempty"`  // that may be submitted: names, or patterns such as img.*; not given: all
	Priorities []string `yaml:"priorities,flow,omitempty"` // high, normal, low; not given: all
}

// APIKey is a key, of which only the digest is known here. `gateway key new` makes one.
type APIKey struct {
	Grant   `yaml:",inline"`
	Prefix  string    `yaml:"prefix"`            // gwk_ and 8 letters: what the key begins with
	SHA256  string    `yaml:"sha256"`            // of the whole key, in hexadecimal
	Expires time.Time `yaml:"expires,omitempty"` // not given: never
}

// Client is the bearer of a certificate that tls.client_ca has signed.
type Client struct {
	Grant   `yaml:",inline"`
	Subject string `yaml:"subject"` // as RFC 4514 writes it (CN=billing,O=Example), or dns:…, uri:… or email:… of an alternative name
}

// JWT says whose JSON Web Tokens are accepted.
type JWT struct {
	JWKS            JWKS     `yaml:"jwks"`            // https URL or file of the keys that sign them
	Issuer          string   `yaml:"issuer"`          // what their iss must be
	Audience        string   `yaml:"audience"`        // what must be in their aud
	Algorithms      []string `yaml:"algorithms,flow"` // of signatures; HMAC and none are not to be had
	OwnerClaim      string   `yaml:"owner_claim"`     // whose value, with jwt: before it, is the name that jobs belong to
	ScopeClaim      string   `yaml:"scope_claim"`     // a string with spaces, or an array; other words than scopes are ignored
	FunctionsClaim  string   `yaml:"functions_claim,omitempty"`
	PrioritiesClaim string   `yaml:"priorities_claim,omitempty"` // for both: where a token lacks the claim it allows none; not given: all
	Leeway          Duration `yaml:"leeway"`                     // of clocks, in exp, nbf and iat
}

func defaultAuth() Auth {
	return Auth{JWT: JWT{
		Algorithms: []string{"RS256", "ES256", "EdDSA"}, OwnerClaim: "sub", ScopeClaim: "scope", Leeway: Duration(30 * time.Second),
	}}
}

// JWKS is a URL or the name of a file. Printed, a URL shows neither user nor query.
type JWKS string

// UnmarshalText checks a URL. Its error does not repeat the text, which may hold a password.
func (j *JWKS) UnmarshalText(b []byte) error {
	*j = JWKS(b)
	if strings.Contains(string(b), "://") {
		return new(URL).UnmarshalText(b)
	}
	return nil
}

// MarshalText masks what may be secret.
func (j JWKS) MarshalText() ([]byte, error) {
	if strings.Contains(string(j), "://") {
		return URL(j).MarshalText()
	}
	return []byte(j), nil
}

// configured reports whether there is access control.
func (a *Auth) configured() bool {
	return len(a.Keys) > 0 || a.KeysFile != "" || a.JWT.JWKS != "" || len(a.Clients) > 0
}

// checkAuth looks at what is told of access control, and reads its files.
func (c *Config) checkAuth() error {
	a := &c.Auth
	if !a.configured() && (a.Keys != nil || a.Clients != nil) {
		return errors.New("auth: there is an empty list, which would let nobody in; leave auth out if there is to be no access control")
	}
	if a.JWT.JWKS == "" && (a.JWT.Issuer != "" || a.JWT.Audience != "" || a.JWT.FunctionsClaim != "" || a.JWT.PrioritiesClaim != "") {
		return errors.New("auth.jwt.jwks: is missing: without it, tokens are refused")
	}
	_, err := c.authenticator()
	if err == nil && len(a.Clients) > 0 && c.TLS.ClientCA == "" {
		err = errors.New("auth.clients: need tls.client_ca: without it no certificate is verified, and none counts")
	}
	return err
}

// authenticator returns what finds out who calls; nil if there is no access control. Files are read, and nothing is started.
func (c *Config) authenticator() (*auth.Authenticator, error) {
	a := &c.Auth
	if !a.configured() {
		return nil, nil
	}
	o := auth.Options{Log: c.Log}
	keys := a.Keys
	if a.KeysFile != "" {
		more, err := readKeys(a.KeysFile)
		if err != nil {
			return nil, fmt.Errorf("auth.keys_file: %w", err)
		}
		keys = append(keys[:len(keys):len(keys)], more...)
	}
	for _, k := range keys {
		o.Keys = append(o.Keys, k.key())
	}
	for _, client := range a.Clients {
		o.Clients = append(o.Clients, auth.Client{Grant: auth.Grant(client.Grant), Subject: client.Subject})
	}
	if j := a.JWT; j.JWKS != "" {
		o.JWT = &auth.JWTOptions{
			JWKS: string(j.JWKS), Issuer: j.Issuer, Audience: j.Audience, Algorithms: j.Algorithms, OwnerClaim: j.OwnerClaim,
			ScopeClaim: j.ScopeClaim, FunctionsClaim: j.FunctionsClaim, PrioritiesClaim: j.PrioritiesClaim, Leeway: time.Duration(j.Leeway),
		}
	}
	return auth.New(o)
}

func (k *APIKey) key() auth.Key {
	return auth.Key{Grant: auth.Grant(k.Grant), Prefix: k.Prefix, SHA256: k.SHA256, Expires: k.Expires}
}

func readKeys(file string) (keys []APIKey, err error) {
	err = readYAML(file, &keys)
	return keys, err
}

// NewKey makes an API key: the text for its bearer, which is kept nowhere, and what the configuration holds of it.
func NewKey(g Grant, expires time.Time) (key string, stored APIKey, err error) {
	stored = APIKey{Grant: g, Expires: expires}
	key, stored.Prefix, stored.SHA256 = auth.NewKey()
	_, err = auth.New(auth.Options{Keys: []auth.Key{stored.key()}})
	return key, stored, err
}

// AppendKey adds a key to a file for Auth.KeysFile, which it makes if there is none.
func AppendKey(file string, k APIKey) error {
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entry, err := yaml.Marshal([]APIKey{k})
	if err != nil {
		return err
	}
	if n := len(before); n > 0 && before[n-1] != '\n' {
		entry = append([]byte("\n"), entry...)
	}
	if err := yaml.Unmarshal(append(before, entry...), new([]APIKey)); err != nil {
		return fmt.Errorf("%s: is not a list of keys, one below the other, to which one can be added: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(entry)
	return errors.Join(err, f.Close())
}

// nextAuth returns what a reload puts in the place of the access control. It is not turned off by a reload: a list that became empty, or a
// line too much in a comment, is more likely than the wish to let everybody in.
func (g *Gateway) nextAuth(c *Config) (*auth.Authenticator, error) {
	if g.auth.Load() != nil && !c.Auth.configured() {
		return nil, errors.New("auth: is not there any more; access control is only turned off by a restart")
	}
	return c.authenticator()
}

func (g *Gateway) useAuth(a *auth.Authenticator) {
	if a == nil {
		return
	}
	before := g.auth.Load()
	a.Start(before)
	g.auth.Store(a)
	if before != nil {
		before.Close()
	}
}
