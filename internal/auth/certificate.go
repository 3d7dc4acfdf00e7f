package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Client is a client certificate as it is configured, by its subject or by one of its alternative names:
//
//	CN=billing,O=Example Inc    the whole subject, as RFC 4514 writes it, byte for byte
//	dns:billing.example.com     a DNS name, uri:… or email:…, byte for byte; * stands for itself
type Client struct {
	Grant
	Subject string
}

func (c *Client) check() error {
	errs := []error{c.Grant.check()}
	kind, name, _ := strings.Cut(c.Subject, ":")
	alternative := (kind == "dns" || kind == "uri" || kind == "email") && name != ""
	if !alternative && !strings.Contains(c.Subject, "=") {
		errs = append(errs, errors.New("subject: is neither like CN=name,O=organization nor dns:…, uri:… or email:…"))
	}
	return errors.Join(errs...)
}

// storedClient is a client that was checked.
type storedClient struct {
	order int // in the configuration
	*Grant
}

// byCertificate returns whose certificate this is, which TLS has verified. Where several clients are meant, the first of the
// configuration is taken.
func (a *Authenticator) byCertificate(leaf *x509.Certificate) (*Identity, error) {
	names := namesOf(leaf)
	var found *storedClient
	for _, name := range names {
		if c, ok := a.clients[name]; ok && (found == nil || c.order < found.order) {
			found = &c
		}
	}
	switch {
	case found == nil && len(names) == 0:
		return nil, refused("the certificate names nobody")
	case found == nil:
		return nil, refused("there is no client for the certificate of %.256q", names[0])
	case a.now().After(leaf.NotAfter): // since the handshake
		return nil, expired("the certificate of %s has expired at %s", found.Name, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return found.identity(fmt.Sprintf("certificate %x", leaf.SerialNumber)), nil
}

// namesOf returns what a certificate may be configured by, the subject first. The subject is read from its bytes: x509's own parse keeps
// only the last of several common names.
func namesOf(leaf *x509.Certificate) (names []string) {
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(leaf.RawSubject, &subject); err == nil && len(rest) == 0 && len(subject) > 0 {
		names = append(names, subject.String())
	}
	for _, name := range leaf.DNSNames {
		names = append(names, "dns:"+name)
	}
	for _, name := range leaf.URIs {
		names = append(names, "uri:"+name.String())
	}
	for _, name := range leaf.EmailAddresses {
		names = append(names, "email:"+name)
	}
	return names
}
