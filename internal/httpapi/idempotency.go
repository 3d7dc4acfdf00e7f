package httpapi

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
)

// maxKey is how many characters an idempotency key may have.
const maxKey = 255

// idempotencyKey returns the key of the Idempotency-Key header, bare or as a quoted string (RFC 8941), which name the same key; "" if
// there is no such header.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key, ok := values[0], len(values) == 1
	if strings.HasPrefix(key, `"`) {
		key, ok = unquoteString(key)
	}
	for i := range len(key) {
		ok = ok && '!' <= key[i] && key[i] <= '~'
	}
	if !ok || key == "" || len(key) > maxKey {
		return "", invalidHeader.because("Idempotency-Key must be one key of 1 to 255 visible ASCII characters, bare or quoted.")
	}
	return key, nil
}

// unquoteString reads a string of RFC 8941, in which only \ and " are escaped.
func unquoteString(s string) (string, bool) {
	var plain strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return plain.String(), i == len(s)-1
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
		}
		plain.WriteByte(s[i])
	}
	return "", false
}

// fingerprint tells submissions apart that were sent under one key. What says when a job is to run counts as it was written: the same
// delay, a minute later, is the same submission. How long the caller waits does not count.
func (s *submission) fingerprint(workload []byte) []byte {
	retry := ""
	if s.retry != nil {
		retry = fmt.Sprint(s.retry.Max, s.retry.Backoff)
	}
	sum := sha256.New()
	add := func(b []byte) { // with its length, so that no two lists of fields are the same bytes
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		sum.Write(size[:])
		sum.Write(b)
	}
	for _, field := range []string{s.Function, s.Mode, s.Priority, s.Unique, s.RunAt, s.Delay, s.Deadline, s.OnLost, retry} {
		add([]byte(field))
	}
	add(workload)
	if s.callback != nil { // only then: submissions without one keep the fingerprint that they have always had
		add([]byte(s.callback.URL))
		for _, pattern := range s.callback.Events {
			add([]byte(pattern))
		}
	}
	return sum.Sum(nil)
}
