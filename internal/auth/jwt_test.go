package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestATokenIsWhoItSays(t *testing.T) {
	for _, alg := range Algorithms {
		s := newSigner(t, alg)
		o := jwtOptions(t, s)
		o.Algorithms = []string{alg}
		a := authenticator(t, Options{JWT: o})
		who, err := a.Identify(request("Bearer " + s.sign(t, nil, nil)))
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if who.Name != "jwt:alice" || who.Credential != "jwt kid kid-"+alg || who.Scopes != Submit|Read || who.Functions != nil || who.Priorities != nil {
			t.Errorf("%s: %+v", alg, who)
		}
	}
}

func TestClaimsSayWhatMayBeDone(t *testing.T) {
	s := newSigner(t, "EdDSA")
	o := jwtOptions(t, s)
	o.OwnerClaim, o.ScopeClaim, o.FunctionsClaim, o.PrioritiesClaim = "client_id", "https://x.example/roles", "fns", "prio"
	a := authenticator(t, Options{JWT: o})
	for _, c := range []struct {
		claims     members
		scopes     Scope
		functions  []string
		priorities []string
	}{
		{members{"https://x.example/roles": []string{"read", "Admin", "cancel", "x"}}, Read | Cancel, []string{}, []string{}},
		{members{"scope": "admin", "fns": "img.* pdf", "prio": []string{"low"}}, 0, []string{"img.*", "pdf"}, []string{"low"}},
		{members{"https://x.example/roles": " admin\tread", "fns": "", "prio": []string{}}, Admin | Read, []string{}, []string{}},
		{members{"https://x.example/roles": nil, "fns": nil}, 0, []string{}, []string{}},
	} {
		c.claims["client_id"] = "c|1"
		who, err := a.Identify(request("Bearer " + s.sign(t, nil, c.claims)))
		if err != nil {
			t.Errorf("%v: %v", c.claims, err)
			continue
		}
		if who.Name != "jwt:c|1" || who.Scopes != c.scopes || !slices.Equal(who.Functions, c.functions) || who.Functions == nil ||
			!slices.Equal(who.Priorities, c.priorities) || who.Priorities == nil {
			t.Errorf("%v: %+v", c.claims, who)
		}
	}
	for what, claims := range map[string]members{
		"no owner":                     {},
		"an empty owner":               {"client_id": ""},
		"a number":                     {"client_id": 7},
		"a list":                       {"client_id": []string{"x"}},
		"a long one":                   {"client_id": strings.Repeat("x", 256)},
		"one with a line":              {"client_id": "a\nb"},
		"one that turns the direction": {"client_id": "a\u202eb"},
		"scopes by number":             {"client_id": "x", "https://x.example/roles": 1},
		"a scope that is a number":     {"client_id": "x", "https://x.example/roles": []any{"read", 1}},
		"functions as an object":       {"client_id": "x", "fns": members{"a": 1}},
		"priorities as a truth":        {"client_id": "x", "prio": true},
	} {
		_, err := a.Identify(request("Bearer " + s.sign(t, nil, claims)))
		wantRefused(t, what, err, ErrRefused, "the claim ")
	}
}

func TestTimesAndNamesOfATokenAreChecked(t *testing.T) {
	s := newSigner(t, "ES256")
	const leeway = 30 * time.Second
	o := jwtOptions(t, s)
	o.Leeway = leeway
	a := authenticator(t, Options{JWT: o})
	sec := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for what, c := range map[string]struct {
		claims members
		kind   error
		why    string
	}{
		"expired within leeway":          {members{"exp": sec(-leeway + time.Second)}, nil, ""},
		"expired":                        {members{"exp": sec(-leeway)}, ErrExpired, "2031-05-17T11:59:30Z"},
		"no exp":                         {members{"exp": nil}, ErrRefused, "missing"},
		"exp of 0":                       {members{"exp": 0}, ErrRefused, "missing"},
		"exp as a string":                {members{"exp": "2099-01-01"}, ErrRefused, "wrong type"},
		"exp as a list":                  {members{"exp": []int{1}}, ErrRefused, "wrong type"},
		"exp with a fraction":            {members{"exp": float64(sec(time.Hour)) + 0.5}, nil, ""},
		"nbf within leeway":              {members{"nbf": sec(leeway)}, nil, ""},
		"nbf to come":                    {members{"nbf": sec(leeway + time.Second)}, ErrRefused, "nbf"},
		"nbf as a string":                {members{"nbf": "0"}, ErrRefused, "wrong type"},
		"iat within leeway":              {members{"iat": sec(leeway)}, nil, ""},
		"iat to come":                    {members{"iat": sec(leeway + time.Second)}, ErrRefused, "iat"},
		"neither nbf nor iat":            {members{"nbf": nil, "iat": nil}, nil, ""},
		"another issuer":                 {members{"iss": "https://issuer.example/"}, ErrRefused, "iss"},
		"no issuer":                      {members{"iss": nil}, ErrRefused, "missing"},
		"issuers":                        {members{"iss": []string{"https://issuer.example"}}, ErrRefused, "wrong type"},
		"another audience":               {members{"aud": "gateway2"}, ErrRefused, "aud"},
		"no audience":                    {members{"aud": nil}, ErrRefused, "missing"},
		"one of several audiences":       {members{"aud": []string{"x", "gateway"}}, nil, ""},
		"an audience that is a number":   {members{"aud": []any{1, "gateway"}}, ErrRefused, "wrong type"},
		"expired, and another's":         {members{"exp": sec(-time.Hour), "aud": "x"}, ErrRefused, "aud"},
		"expired, and not valid yet":     {members{"exp": sec(-time.Hour), "nbf": sec(time.Hour)}, ErrRefused, "nbf"},
		"expired, and without an issuer": {members{"exp": sec(-time.Hour), "iss": nil}, ErrRefused, "missing"},
	} {
		token := s.sign(t, nil, c.claims)
		_, err := a.Identify(request("Bearer " + token))
		if c.kind == nil && err != nil {
			t.Errorf("%s: %v", what, err)
		} else if c.kind != nil {
			wantRefused(t, what, err, c.kind, c.why, strings.Split(token, ".")...)
		}
	}
}

// Attackers choose the header.
func TestTricksWithTheHeaderAreRefused(t *testing.T) {
	fetched := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a token made us fetch %s", r.URL)
	}))
	defer fetched.Close()
	rs, own := newSigner(t, "RS256"), newSigner(t, "ES256")
	a := authenticator(t, Options{JWT: jwtOptions(t, rs)}) // own is the attacker's
	own.kid = rs.kid
	der, err := x509.MarshalPKIXPublicKey(rs.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	// hs is the confusion of public keys with HMAC secrets.
	hs := func(alg string, secret []byte) string {
		input := b64(mustJSON(t, members{"alg": alg, "kid": rs.kid})) + "." + b64(mustJSON(t, goodClaims()))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil))
	}
	good := rs.sign(t, nil, nil)
	parts := strings.Split(good, ".")
	raw := func(header string) string { return rs.signRaw(t, []byte(header), mustJSON(t, goodClaims())) }
	cases := map[string]struct{ token, why string }{
		"HMAC with the PEM of the public key": {hs("HS256", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "algorithm"},
		"HMAC with the DER of the public key": {hs("HS256", der), "algorithm"},
		"HMAC with nothing":                   {hs("HS256", nil), "algorithm"},
		"HMAC that says RS256":                {hs("RS256", der), "signature"},
		"an algorithm that was not chosen":    {own.sign(t, members{"alg": "PS256"}, nil), "algorithm"},
		"an algorithm of another type of key": {own.sign(t, nil, nil), "not exactly one key for ES256"},
		"another's signature":                 {own.sign(t, members{"alg": "RS256"}, nil), "signature"},
		"an algorithm nobody knows":           {raw(`{"alg":"XS256","kid":"kid-RS256"}`), `"XS256"`},
		"an algorithm in another case":        {raw(`{"alg":"rs256","kid":"kid-RS256"}`), "algorithm"},
		"none, escaped":                       {raw(`{"alg":"n\u006fne","kid":"kid-RS256"}`), "algorithm"},
		"no algorithm":                        {raw(`{"kid":"kid-RS256"}`), "algorithm"},
		"an algorithm that is a list":         {raw(`{"alg":["RS256"],"kid":"kid-RS256"}`), "malformed"},
		"two algorithms":                      {raw(`{"alg":"RS256","alg":"none","kid":"kid-RS256"}`), "malformed"},
		"two algorithms, the other first":     {raw(`{"alg":"none","alg":"RS256","kid":"kid-RS256"}`), "malformed"},
		"an algorithm by another name":        {raw(`{"ALG":"RS256","kid":"kid-RS256"}`), "algorithm"},
		"a header that is a list":             {raw(`["RS256"]`), "malformed"},
		"no header":                           {"." + parts[1] + "." + parts[2], "malformed"},
		"kid: another":                        {rs.sign(t, members{"kid": "other"}, nil), `the kid "other"`},
		"kid: in another case":                {rs.sign(t, members{"kid": "KID-RS256"}, nil), "the kid"},
		"kid: empty":                          {rs.sign(t, members{"kid": ""}, nil), "the kid"},
		"kid: a path":                         {rs.sign(t, members{"kid": "../../../../dev/null"}, nil), "the kid"},
		"kid: a URL":                          {rs.sign(t, members{"kid": fetched.URL}, nil), "the kid"},
		"kid: SQL":                            {rs.sign(t, members{"kid": "' UNION SELECT 'x' --"}, nil), "the kid"},
		"kid: a command":                      {rs.sign(t, members{"kid": "x|sleep 9"}, nil), "the kid"},
		"kid: with a zero byte":               {rs.sign(t, members{"kid": "kid-RS256\x00"}, nil), "the kid"},
		"kid: very long":                      {rs.sign(t, members{"kid": strings.Repeat("k", maxKid+1)}, nil), "longer than 256 bytes"},
		"kid: a number":                       {rs.sign(t, members{"kid": 1}, nil), "malformed"},
		"kid: a list":                         {rs.sign(t, members{"kid": []string{rs.kid}}, nil), "malformed"},
		"kid: twice":                          {raw(`{"alg":"RS256","kid":"kid-RS256","kid":"x"}`), "malformed"},
		"jku":                                 {own.sign(t, members{"jku": fetched.URL + "/jku"}, nil), "key of its own"},
		"jku with a good signature":           {rs.sign(t, members{"jku": fetched.URL + "/jku"}, nil), "key of its own"},
		"x5u":                                 {rs.sign(t, members{"x5u": fetched.URL + "/x5u"}, nil), "key of its own"},
		"jwk":                                 {own.sign(t, members{"jwk": own.jwk(t)}, nil), "key of its own"},
		"x5c":                                 {rs.sign(t, members{"x5c": []string{b64(der)}}, nil), "key of its own"},
		"crit":                                {rs.sign(t, members{"crit": []string{"b64"}, "b64": false}, nil), "crit"},
		"empty crit":                          {rs.sign(t, members{"crit": []string{}}, nil), "crit"},
		"a logout token":                      {rs.sign(t, members{"typ": "logout+jwt"}, nil), "logout+jwt"},
		"bits behind the signature":           {trailingBits(good), "malformed"},
		"padding":                             {parts[0] + "." + parts[1] + "." + parts[2] + "==", "malformed"},
		"no signature":                        {parts[0] + "." + parts[1] + ".", "signature"},
		"two parts":                           {parts[0] + "." + parts[1], "2 parts"},
		"five parts":                          {good + "." + parts[1] + "." + parts[2], "5 parts"},
		"other claims":                        {parts[0] + "." + b64([]byte(`{"sub":"bob"}`)) + "." + parts[2], "signature"},
		"claims twice":                        {rs.signRaw(t, mustJSON(t, members{"alg": "RS256", "kid": rs.kid}), []byte(`{"sub":"a","sub":"b"}`)), "malformed"},
		"claims that are a list":              {rs.signRaw(t, mustJSON(t, members{"alg": "RS256", "kid": rs.kid}), []byte(`["x"]`)), "malformed"},
		"very long":                           {rs.sign(t, nil, members{"x": strings.Repeat("x", maxAuthorization)}), "longer than 8192 bytes"},
	}
	for _, none := range []string{"none", "None", "NONE", "nOnE", "none ", " none", "none\x00", ""} {
		cases["algorithm "+none] = struct{ token, why string }{
			b64(mustJSON(t, members{"alg": none, "kid": rs.kid})) + "." + parts[1] + ".", "algorithm",
		}
		cases["signed, algorithm "+none] = struct{ token, why string }{rs.sign(t, members{"alg": none}, nil), "algorithm"}
	}
	for what, c := range cases {
		_, err := a.Identify(request("Bearer " + c.token))
		wantRefused(t, what, err, ErrRefused, c.why, strings.Split(c.token, ".")...)
	}
	for what, header := range map[string]members{
		"a member that nobody knows": {"x5t": "AAAA", "foo": "bar"},
		"no type":                    {"typ": nil},
		"an access token":            {"typ": "at+JWT"},
		"the whole media type":       {"typ": "application/at+jwt"},
		"no kid, and one key":        {"kid": nil},
	} {
		if _, err := a.Identify(request("Bearer " + rs.sign(t, header, nil))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// trailingBits changes the last character of a signature of 256 bytes, of which only the first bits count.
func trailingBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + alphabet[last|1:last|1+1]
}

func TestATokenWithoutKidNeedsAKeyThatIsTheOnlyOne(t *testing.T) {
	one, two := newSigner(t, "ES256"), newSigner(t, "ES256")
	two.kid = "two"
	a := authenticator(t, Options{JWT: jwtOptions(t, one, two, newSigner(t, "RS256"))})
	for _, s := range []*signer{one, two} {
		if _, err := a.Identify(request("Bearer " + s.sign(t, nil, nil))); err != nil {
			t.Errorf("%s: %v", s.kid, err)
		}
		_, err := a.Identify(request("Bearer " + s.sign(t, members{"kid": nil}, nil)))
		wantRefused(t, "no kid", err, ErrRefused, "does not say by its kid")
	}
	_, err := a.Identify(request("Bearer " + one.sign(t, members{"kid": "two"}, nil)))
	wantRefused(t, "another's kid", err, ErrRefused, "signature")
	if _, err := a.Identify(request("Bearer " + newSigner(t, "RS256").sign(t, members{"kid": nil}, nil))); err != nil {
		t.Errorf("the only one of its kind: %v", err)
	}
}

func TestABadConfigurationOfTokensNamesItsKey(t *testing.T) {
	good := jwtOptions(t, newSigner(t, "EdDSA"))
	for what, c := range map[string]struct {
		change func(*JWTOptions)
		want   string
	}{
		"no issuer":        {func(o *JWTOptions) { o.Issuer = "" }, "auth.jwt.issuer: is missing"},
		"no audience":      {func(o *JWTOptions) { o.Audience = "" }, "auth.jwt.audience: is missing"},
		"no algorithms":    {func(o *JWTOptions) { o.Algorithms = nil }, "auth.jwt.algorithms: are missing"},
		"none":             {func(o *JWTOptions) { o.Algorithms = []string{"none"} }, `auth.jwt.algorithms: "none"`},
		"HMAC":             {func(o *JWTOptions) { o.Algorithms = []string{"RS256", "HS256"} }, `auth.jwt.algorithms: "HS256"`},
		"no owner":         {func(o *JWTOptions) { o.OwnerClaim = "" }, "auth.jwt.owner_claim:"},
		"no scope":         {func(o *JWTOptions) { o.ScopeClaim = "" }, "auth.jwt.scope_claim:"},
		"a long leeway":    {func(o *JWTOptions) { o.Leeway = time.Hour }, "auth.jwt.leeway:"},
		"a leeway below 0": {func(o *JWTOptions) { o.Leeway = -1 }, "auth.jwt.leeway:"},
		"no such file":     {func(o *JWTOptions) { o.JWKS = "/nonexistent" }, "auth.jwt.jwks: "},
		"http":             {func(o *JWTOptions) { o.JWKS = "http://c4n4ry:c4n4ry@issuer.example/jwks" }, "auth.jwt.jwks: is an http URL"},
		"ftp":              {func(o *JWTOptions) { o.JWKS = "ftp://c4n4ry@issuer.example/jwks" }, "auth.jwt.jwks: is neither"},
		"a bad URL":        {func(o *JWTOptions) { o.JWKS = "https://c4n4ry:%zz@/" }, "auth.jwt.jwks: is neither"},
		"not a JWKS":       {func(o *JWTOptions) { o.JWKS = writeJWKS(t, []byte(`{"k":"c4n4ry"}`)) }, "auth.jwt.jwks: "},
		"no JSON":          {func(o *JWTOptions) { o.JWKS = writeJWKS(t, []byte(`c4n4ry`)) }, "auth.jwt.jwks: "},
	} {
		o := *good
		c.change(&o)
		_, err := New(Options{JWT: &o})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "c4n4ry") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, u := range []string{"http://127.0.0.1/", "http://[::1]:80/", "http://localhost:1/x", "https://issuer.example/jwks?k=v"} {
		o := *good
		o.JWKS = u
		a, err := New(Options{JWT: &o})
		if err != nil {
			t.Errorf("%s: %v", u, err)
			continue
		}
		a.Close() // of what was not started
		_, err = a.Identify(request("Bearer " + newSigner(t, "EdDSA").sign(t, nil, nil)))
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func BenchmarkIdentifyByToken(b *testing.B) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			s := newSigner(b, alg)
			a := authenticator(b, Options{JWT: jwtOptions(b, s)})
			r := request("Bearer " + s.sign(b, nil, nil))
			for b.Loop() {
				if _, err := a.Identify(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
