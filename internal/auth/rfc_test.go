package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The examples of RFC 7515, appendix A, and RFC 8037, appendix A.4.
const (
	rfcClaims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

	rfcHS256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + rfcClaims + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	rfcRS256 = "eyJhbGciOiJSUzI1NiJ9." + rfcClaims + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7" +
		"AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K" +
		"0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB" +
		"p0igcN_IoypGlUPQGe77Rw"
	rfcES256 = "eyJhbGciOiJFUzI1NiJ9." + rfcClaims + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	rfcES512 = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7Xdt" +
		"AG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
	rfcNone  = "eyJhbGciOiJub25lIn0." + rfcClaims + "."
	rfcEdDSA = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
		"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"

	rfcKeys = `{"keys":[
		{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
		{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
		{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"},
		{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"},
		{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
)

func TestSignaturesOfTheRFCs(t *testing.T) {
	keys, err := parseJWKS([]byte(rfcKeys))
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 4 {
		t.Fatalf("%d keys, and not all but the symmetric one", len(keys))
	}
	for alg, token := range map[string]string{"RS256": rfcRS256, "ES256": rfcES256, "ES512": rfcES512, "EdDSA": rfcEdDSA} {
		key := choose(keys, nil, alg)
		if key == nil {
			t.Errorf("%s: no key", alg)
			continue
		}
		dot := strings.LastIndexByte(token, '.')
		sig, err := base64.RawURLEncoding.Strict().DecodeString(token[dot+1:])
		if err != nil {
			t.Fatal(err)
		}
		m := jwt.GetSigningMethod(alg)
		if err := m.Verify(token[:dot], sig, key.public); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		sig[10] ^= 1
		if err := m.Verify(token[:dot], sig, key.public); err == nil {
			t.Errorf("%s: a changed signature is right", alg)
		}
	}
}

// None of the examples is for us; what is said of each shows how far it came.
func TestTokensOfTheRFCs(t *testing.T) {
	a := authenticator(t, Options{now: at(time.Unix(1300819379, 0)), JWT: &JWTOptions{
		JWKS: writeJWKS(t, []byte(rfcKeys)), Issuer: "joe", Audience: "gateway", OwnerClaim: "iss", ScopeClaim: "scope",
		Algorithms: []string{"RS256", "ES256", "ES512", "EdDSA"},
	}})
	for token, why := range map[string]string{
		rfcHS256: `algorithm "HS256"`, rfcNone: `algorithm "none"`, // whose key is in the set, and which needs none
		rfcRS256: "exp, iss or aud is missing", rfcES256: "exp, iss or aud is missing", // all but the audience is right
		rfcES512: "malformed", rfcEdDSA: "malformed", // which sign no claims
	} {
		_, err := a.Identify(request("Bearer " + token))
		wantRefused(t, token[:30], err, ErrRefused, why)
		if errors.Is(err, ErrExpired) {
			t.Errorf("%s: expired", token[:30])
		}
	}
}
