package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) issue(t *testing.T, template x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(0x1f2e)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, &template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func client(name, subject string) Client {
	return Client{Grant{Name: name, Scopes: []Scope{Submit}}, subject}
}

// withCertificate is a request for which TLS has verified a certificate.
func withCertificate(r *http.Request, c tls.Certificate) *http.Request {
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}, VerifiedChains: [][]*x509.Certificate{{c.Leaf}}}
	return r
}

func TestACertificateIsWhoItSays(t *testing.T) {
	ca := newAuthority(t)
	uri, err := url.Parse("spiffe://example.com/billing")
	if err != nil {
		t.Fatal(err)
	}
	cn := func(v string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}
	}
	a := authenticator(t, Options{now: time.Now, Clients: []Client{
		client("subject", "CN=billing,OU=a,O=Example\\, Inc"), client("dns", "dns:billing.example.com"), client("uri", "uri:spiffe://example.com/billing"),
		client("email", "email:billing@example.com"), client("cn", "CN=billing"), client("late", "dns:late.example.com"),
		client("wild", "dns:*.example.com"), client("injected", "CN=billing,CN=x"),
	}})
	for what, c := range map[string]struct {
		template x509.Certificate
		want     string
		why      string
	}{
		"subject":               {x509.Certificate{Subject: pkix.Name{CommonName: "billing", Organization: []string{"Example, Inc"}, OrganizationalUnit: []string{"a"}}}, "subject", ""},
		"common name":           {x509.Certificate{Subject: pkix.Name{CommonName: "billing"}}, "cn", ""},
		"DNS name":              {x509.Certificate{DNSNames: []string{"x.example", "billing.example.com"}}, "dns", ""},
		"URI":                   {x509.Certificate{URIs: []*url.URL{uri}}, "uri", ""},
		"email":                 {x509.Certificate{EmailAddresses: []string{"billing@example.com"}}, "email", ""},
		"first of the clients":  {x509.Certificate{Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{"late.example.com", "billing.example.com"}}, "dns", ""},
		"wildcard, as it is":    {x509.Certificate{DNSNames: []string{"*.example.com"}}, "wild", ""},
		"no wildcard":           {x509.Certificate{DNSNames: []string{"a.example.com"}}, "", "dns:a.example.com"},
		"other organization":    {x509.Certificate{Subject: pkix.Name{CommonName: "billing", Organization: []string{"X"}}}, "", "CN=billing,O=X"},
		"other case":            {x509.Certificate{Subject: pkix.Name{CommonName: "Billing"}}, "", "CN=Billing"},
		"two common names":      {x509.Certificate{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{cn("admin"), cn("billing")}}}, "", "CN=billing,CN=admin"},
		"comma in a name":       {x509.Certificate{Subject: pkix.Name{CommonName: "x,CN=billing"}}, "", `CN=x\\,CN=billing`},
		"DNS name as a subject": {x509.Certificate{Subject: pkix.Name{CommonName: "billing.example.com"}}, "", "CN=billing.example.com"},
		"subject as a DNS name": {x509.Certificate{DNSNames: []string{"CN=billing"}}, "", "dns:CN=billing"},
		"nothing":               {x509.Certificate{}, "", "names nobody"},
	} {
		who, err := a.Identify(withCertificate(request(), ca.issue(t, c.template)))
		if c.want == "" {
			wantRefused(t, what, err, ErrRefused, c.why)
		} else if err != nil || who.Name != c.want || who.Credential != "certificate 1f2e" || who.Scopes != Submit {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
	}
}

func TestACertificateMustBeVerifiedAndMendsNoHeader(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, x509.Certificate{Subject: pkix.Name{CommonName: "billing"}})
	key, k := newKey("mailer", Read)
	o := Options{now: time.Now, Clients: []Client{client("billing", "CN=billing")}, Keys: []Key{k}}
	a := authenticator(t, o)

	unverified := request()
	unverified.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
	_, err := a.Identify(unverified)
	wantRefused(t, "not verified", err, ErrNoCredentials, "")
	if who, err := a.Identify(withCertificate(request("Bearer "+key), cert)); err != nil || who.Name != "mailer" {
		t.Errorf("with a key: %+v, %v", who, err)
	}
	for _, header := range []string{"", "Bearer ", "Bearer " + key + "x", "Basic eDp5", "Bearer eyJhbGciOiJub25lIn0.e30."} {
		_, err := a.Identify(withCertificate(request(header), cert))
		wantRefused(t, "with "+header, err, ErrRefused, "")
	}
	o.now = at(time.Now().Add(2 * time.Hour))
	_, err = authenticator(t, o).Identify(withCertificate(request(), cert))
	wantRefused(t, "a connection that outlives the certificate", err, ErrExpired, "billing")
}

func TestCertificatesOverTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	subject := x509.Certificate{Subject: pkix.Name{CommonName: "billing"}}
	a := authenticator(t, Options{now: time.Now, Clients: []Client{client("billing", "CN=billing")}})
	for what, c := range map[string]struct {
		mode tls.ClientAuthType
		cert tls.Certificate
		want int // 0: no connection
	}{
		"ours":                      {tls.VerifyClientCertIfGiven, ca.issue(t, subject), 200},
		"a stranger's":              {tls.VerifyClientCertIfGiven, stranger.issue(t, subject), 0},
		"a stranger's, if asked to": {tls.RequestClientCert, stranger.issue(t, subject), 401},
		"ours, not looked at":       {tls.RequestClientCert, ca.issue(t, subject), 401},
	} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := a.Identify(r); err != nil {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		pool := x509.NewCertPool()
		pool.AddCert(ca.cert)
		server.TLS = &tls.Config{ClientAuth: c.mode, ClientCAs: pool}
		server.StartTLS()
		client := server.Client()
		client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.cert, nil }
		got := 0
		if resp, err := client.Get(server.URL); err == nil {
			resp.Body.Close()
			got = resp.StatusCode
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
		server.Close()
	}
}
