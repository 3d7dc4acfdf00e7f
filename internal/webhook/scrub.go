package webhook

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// A scrubber takes out of texts what the gateway itself has sent in confidence: an answer may well repeat its request. The zero value
// takes out nothing.
type scrubber struct {
	replacer *strings.Replacer
	longest  int // bytes of a secret
}

// leastSecret is how long a text must be to be taken for a secret: shorter ones would be found everywhere.
const leastSecret = 4

// newScrubber knows the values of headers, and the password and query of a URL, or its user where there is no password: that is how some
// services have their tokens sent.
func newScrubber(u *url.URL, headers map[string]string) scrubber {
	var secrets []string
	for _, value := range headers {
		secrets = append(secrets, value)
		if _, token, ok := strings.Cut(value, " "); ok { // of "Bearer token"
			secrets = append(secrets, token)
		}
	}
	if u != nil {
		secrets = append(secrets, secretsOf(u)...)
	}
	var spelt []string
	for _, secret := range secrets {
		if len(secret) >= leastSecret {
			spelt = append(spelt, spellings(secret)...)
		}
	}
	if spelt == nil {
		return scrubber{}
	}
	slices.SortFunc(spelt, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the first is taken that is found
	var pairs []string
	for _, secret := range spelt {
		pairs = append(pairs, secret, "***")
	}
	return scrubber{strings.NewReplacer(pairs...), len(spelt[0])}
}

func secretsOf(u *url.URL) []string {
	secrets := []string{u.RawQuery}
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(part, "=")
		secrets = append(secrets, value) // as it is sent
	}
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	if u.User != nil {
		password, ok := u.User.Password()
		if !ok {
			secrets = append(secrets, u.User.Username())
		}
		secrets = append(secrets, password, base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	return secrets
}

// spellings are how an answer may repeat a secret.
func spellings(secret string) []string {
	quoted, _ := json.Marshal(secret)
	return []string{secret, url.QueryEscape(secret), url.PathEscape(secret), string(quoted[1 : len(quoted)-1])}
}

func (s scrubber) text(text string) string {
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

// needs returns how much of a text must be known to show so many bytes of it.
func (s scrubber) needs(most int) int { return most + s.longest }

// beginning returns at most so many bytes of what needs said is needed. Of a text that goes on behind it the end is left out as well, since
// that may be the beginning of a secret.
func (s scrubber) beginning(b []byte, most int) []byte {
	scrubbed := s.text(string(b))
	if len(b) >= s.needs(most) {
		scrubbed = scrubbed[:max(0, len(scrubbed)-s.longest)]
	}
	return []byte(scrubbed[:min(most, len(scrubbed))])
}

// redacted returns u without what may be secret: the user, the password, the query and the fragment.
func redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
