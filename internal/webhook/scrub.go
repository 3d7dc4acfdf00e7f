package webhook

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// A scrubber takes out of texts what the gateway itself has sent in confidence: an answer may well repeat its request. The zero value
// takes out nothing.
type scrubber struct{ replacer *strings.Replacer }

// leastSecret is how long a text must be to be taken for a secret: shorter ones would be found everywhere.
const leastSecret = 4

// newScrubber knows the values of headers, and the user, password and query of a URL.
func newScrubber(u *url.URL, headers map[string]string) scrubber {
	var pairs []string
	add := func(secret string) {
		if len(secret) >= leastSecret {
			pairs = append(pairs, secret, "***")
		}
	}
	for _, value := range headers {
		add(value)
	}
	if u != nil {
		add(u.RawQuery)
		for _, values := range u.Query() {
			for _, value := range values {
				add(value)
			}
		}
		if password, ok := u.User.Password(); ok {
			add(base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password)))
			add(password)
		}
	}
	if pairs == nil {
		return scrubber{}
	}
	return scrubber{strings.NewReplacer(pairs...)}
}

func (s scrubber) text(text string) string {
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

func (s scrubber) bytes(b []byte) []byte {
	if s.replacer == nil || len(b) == 0 {
		return b
	}
	return []byte(s.replacer.Replace(string(b)))
}

// redacted returns u without what may be secret: the user, the password, the query and the fragment.
func redacted(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
