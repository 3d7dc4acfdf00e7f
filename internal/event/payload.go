package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// PayloadEncoding names how EncodePayload renders bytes that a worker sent: a JSON object or array is embedded as it is ("json"),
// other UTF-8 becomes a string ("text"), and the rest a string of base64 ("base64").
func PayloadEncoding(b []byte) string {
	if !utf8.Valid(b) {
		return "base64"
	}
	if t := bytes.TrimLeft(b, " \t\r\n"); len(t) > 0 && (t[0] == '{' || t[0] == '[') && json.Valid(b) {
		return "json"
	}
	return "text"
}

// EncodePayload renders bytes that a worker sent as a JSON value, and names how. The value is valid JSON but, where embedded, laid
// out as the worker did it, duplicate keys included.
func EncodePayload(b []byte) (value []byte, encoding string) {
	switch encoding = PayloadEncoding(b); encoding {
	case "json":
		return b, encoding
	case "text":
		return quote(string(b)), encoding
	}
	return quote(base64.StdEncoding.EncodeToString(b)), encoding
}

func quote(s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into a buffer: cannot fail
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
