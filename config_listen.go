package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Door is where HTTP is served: host:port, or unix: and the absolute path of a Unix socket.
type Door string

// maxSocketPath is what the kernel takes, without the byte that ends it.
const maxSocketPath = 107

// UnmarshalText checks the form.
func (d *Door) UnmarshalText(b []byte) error {
	path, unix := strings.CutPrefix(string(b), "unix:")
	switch {
	case !unix:
		var a Address
		if err := a.UnmarshalText(b); err != nil {
			return fmt.Errorf("%w, nor unix:/path", err)
		}
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q: what follows unix: is no absolute path", b)
	case len(path) > maxSocketPath:
		return fmt.Errorf("%q has a path of %d bytes, and a socket may have %d", b, len(path), maxSocketPath)
	}
	*d = Door(b)
	return nil
}

// socket returns the path of a Unix socket.
func (d Door) socket() (path string, ok bool) { return strings.CutPrefix(string(d), "unix:") }

// loopback reports whether only this machine can reach it. Who may use a Unix socket is said by its mode.
func (d Door) loopback() bool {
	_, socket := d.socket()
	return socket || Address(d).loopback()
}

// Listen is everywhere that HTTP is served. In YAML it is a list, or one alone.
type Listen []Door

// UnmarshalYAML takes one or several.
func (l *Listen) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]Door)(l))
	}
	var one Door
	if err := n.Decode(&one); err != nil {
		return err
	}
	*l = Listen{one}
	return nil
}

// MarshalYAML writes one alone as itself.
func (l Listen) MarshalYAML() (any, error) {
	if len(l) == 1 {
		return l[0], nil
	}
	return []Door(l), nil
}

// loopback reports whether only this machine can reach any of it.
func (l Listen) loopback() bool {
	return !slices.ContainsFunc(l, func(d Door) bool { return !d.loopback() })
}

func (l Listen) String() string {
	texts := make([]string, len(l))
	for i, d := range l {
		texts[i] = string(d)
	}
	return strings.Join(texts, ", ")
}

// FileMode is the permissions of a file, in octal.
type FileMode os.FileMode

// UnmarshalText reads what MarshalText writes.
func (m *FileMode) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(string(b), "0o"), 8, 32)
	if err != nil || v > 0o777 {
		return fmt.Errorf("%q is not a mode such as 0660", b)
	}
	*m = FileMode(v)
	return nil
}

// MarshalText writes four octal digits.
func (m FileMode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(m)), nil }

// TLS says how the gateway speaks TLS to its callers on TCP. It is used when Cert is set.
type TLS struct {
	Cert       string     `yaml:"cert"`        // file of the PEM certificate, with those that lead to its root
	Key        string     `yaml:"key"`         // and of its key
	ClientCA   string     `yaml:"client_ca"`   // file of the PEM certificates that sign those of clients
	ClientAuth ClientAuth `yaml:"client_auth"` // default: required with ClientCA, else none
	MinVersion TLSVersion `yaml:"min_version"` // 1.2 or 1.3; default: 1.2
}

// ClientAuth says whether clients need a certificate: none, optional or required. One that is given must be good.
type ClientAuth string

// What ClientAuth can be.
const (
	NoClientAuth       ClientAuth = "none"
	OptionalClientAuth ClientAuth = "optional"
	RequiredClientAuth ClientAuth = "required"
)

// UnmarshalText checks that it is one of them.
func (a *ClientAuth) UnmarshalText(b []byte) error {
	switch v := ClientAuth(b); v {
	case NoClientAuth, OptionalClientAuth, RequiredClientAuth:
		*a = v
		return nil
	}
	return fmt.Errorf("%q is none of none, optional and required", b)
}

// TLSVersion is 1.2 or 1.3.
type TLSVersion string

// UnmarshalText checks that it is one of them.
func (v *TLSVersion) UnmarshalText(b []byte) error {
	if s := string(b); s != "1.2" && s != "1.3" {
		return fmt.Errorf("%q is neither 1.2 nor 1.3", b)
	}
	*v = TLSVersion(b)
	return nil
}

// config reads the files. It returns nil when TLS is not asked for. Ciphers and curves are Go's, which keeps them current.
func (t TLS) config() (*tls.Config, error) {
	if t == (TLS{}) {
		return nil, nil
	}
	if t.Cert == "" || t.Key == "" {
		return nil, errors.New("cert and key are needed, both")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if t.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	pair, err := keyPair(t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	c.Certificates = []tls.Certificate{pair}
	return c, t.clients(c)
}

// keyPair reads a certificate and its key. Its errors name the files.
func keyPair(cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil && !errors.As(err, new(*fs.PathError)) {
		err = fmt.Errorf("cert %s and key %s: %w", cert, key, err)
	}
	return pair, err
}

// clients sets what c asks of clients.
func (t TLS) clients(c *tls.Config) error {
	if t.ClientCA == "" {
		if t.ClientAuth != "" && t.ClientAuth != NoClientAuth {
			return fmt.Errorf("client_auth: %s needs client_ca", t.ClientAuth)
		}
		return nil
	}
	pem, err := os.ReadFile(t.ClientCA)
	if err != nil {
		return err
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no PEM certificate", t.ClientCA)
	}
	switch t.ClientAuth {
	case NoClientAuth:
	case OptionalClientAuth:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return nil
}

// checkListen checks what has to do with how HTTP is served, besides the refusal of open listening.
func (c *Config) checkListen(wrong func(key, format string, args ...any)) {
	if len(c.Listen) == 0 {
		wrong("listen", "is empty")
	}
	for i, d := range c.Listen {
		if _, port, _ := net.SplitHostPort(string(d)); port != "0" && slices.Contains(c.Listen[:i], d) {
			wrong("listen", "%s is given twice", d)
		}
	}
	if c.OpsListen != "" && !c.AllowUnauthenticated && !c.OpsListen.loopback() {
		wrong("ops_listen", "%s can be reached from other machines, and nobody is asked there who they are; "+
			"say --allow-unauthenticated (allow_unauthenticated: true) if that is meant", c.OpsListen)
	}
	if c.MaxConnections < 1 {
		wrong("max_connections", "%d is less than 1", c.MaxConnections)
	}
	if _, err := c.TLS.config(); err != nil {
		wrong("tls", "%v", err)
	}
}

// ProbeURL returns where a program on this machine asks whether the gateway is ready, and the Unix socket to dial for it, if it is one:
// the operations listener if there is one, else the first of Listen.
func (c *Config) ProbeURL() (url, socket string) {
	at, scheme := string(c.OpsListen), "http"
	if at == "" {
		if path, ok := c.Listen[0].socket(); ok {
			return "http://localhost/readyz", path
		}
		at = string(c.Listen[0])
		if c.TLS != (TLS{}) {
			scheme = "https"
		}
	}
	host, port, _ := net.SplitHostPort(at) // checked
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/readyz", ""
}
