package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

const (
	secretPrefix = "whsec_"
	masked       = secretPrefix + "***"
	tolerance    = 5 * time.Minute // between the timestamp of a message and the receiver's clock, either way
)

// A Secret is a key shared with a receiver. It never shows its key: not in fmt, JSON, YAML or a log. The zero Secret is none.
type Secret struct {
	// A function, because fmt does not call the methods of a Secret in an unexported field, and looks through pointers.
	key func() []byte
}

// ParseSecret reads "whsec_" and the base64 of 24 to 64 bytes. Its errors do not repeat the text.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, fmt.Errorf("a webhook secret starts with %q", secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("a webhook secret is base64 after %q", secretPrefix)
	}
	if len(key) < 24 || len(key) > 64 {
		return Secret{}, fmt.Errorf("a webhook secret has 24 to 64 bytes, not %d", len(key))
	}
	return Secret{func() []byte { return key }}, nil
}

// String returns a mask; "" for the zero Secret.
func (s Secret) String() string {
	if s.key == nil {
		return ""
	}
	return masked
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, so what is marshalled cannot be parsed again.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSecret, for configurations.
func (s *Secret) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSecret(string(text))
	return err
}

// sign returns one signature: "v1," and the base64 of the HMAC-SHA256 of id.timestamp.body.
func (s Secret) sign(id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, s.key())
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// signAll signs with every secret, so that a receiver may know the old or the new one while they are changed.
func signAll(secrets []Secret, id, timestamp string, body []byte) string {
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		signatures[i] = s.sign(id, timestamp, body)
	}
	return strings.Join(signatures, " ")
}

// verify returns nil if one of the secrets signed the message not long ago, and otherwise says what is wrong with it. It
// compares in constant time.
func verify(secrets []Secret, h http.Header, body []byte, now time.Time) error {
	id, timestamp, signatures := h.Get(headerID), h.Get(headerTimestamp), strings.Fields(h.Get(headerSignature))
	if id == "" || timestamp == "" || len(signatures) == 0 {
		return errors.New("not signed: webhook-id, webhook-timestamp or webhook-signature is missing")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("webhook-timestamp is not a number of seconds")
	}
	if off := now.Sub(time.Unix(seconds, 0)).Abs(); off > tolerance {
		return fmt.Errorf("webhook-timestamp is %v off this clock, more than %v", off.Round(time.Second), tolerance)
	}
	for _, s := range secrets {
		want := []byte(s.sign(id, timestamp, body))
		for _, got := range signatures {
			if hmac.Equal([]byte(got), want) {
				return nil
			}
		}
	}
	return errors.New("no signature matches")
}

// Sign returns the headers that name a message and, with secrets, prove where it comes from, as Standard Webhooks has them.
func Sign(secrets []Secret, id string, at time.Time, body []byte) http.Header {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	h := http.Header{headerID: {id}, headerTimestamp: {timestamp}}
	if len(secrets) > 0 {
		h.Set(headerSignature, signAll(secrets, id, timestamp, body))
	}
	return h
}
