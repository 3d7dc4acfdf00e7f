package event_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"gearman-gateway/internal/event"
)

func TestEncodePayload(t *testing.T) {
	tests := []struct{ name, in, value, encoding string }{
		{"nothing", "", `""`, "text"},
		{"text", "olleh", `"olleh"`, "text"},
		{"quotes and control characters", "a\"b\\c\n\x00", `"a\"b\\c\n\u0000"`, "text"},
		{"markup stays readable", "<a> & b", `"<a> & b"`, "text"},
		{"beyond ASCII", "größe 🎉", `"größe 🎉"`, "text"},
		{"an object", `{"w":10}`, `{"w":10}`, "json"},
		{"an array", `[1, 2]`, `[1, 2]`, "json"},
		{"its white space", " \t\r\n{\n}\n", " \t\r\n{\n}\n", "json"},
		{"its duplicate keys", `{"a":1,"a":2}`, `{"a":1,"a":2}`, "json"},
		{"a number", "42", `"42"`, "text"},
		{"a JSON string", `"hello"`, `"\"hello\""`, "text"},
		{"null", "null", `"null"`, "text"},
		{"white space alone", " \n", `" \n"`, "text"},
		{"a broken object", `{"w":10`, `"{\"w\":10"`, "text"},
		{"two objects", `{}{}`, `"{}{}"`, "text"},
		{"not JSON's white space", "\v{}", `"\u000b{}"`, "text"},
		{"bytes", "\xff\x00", `"/wA="`, "base64"},
		{"an object that is not UTF-8", "{\"a\":\"\xff\"}", `"eyJhIjoi/yJ9"`, "base64"},
		{"nested deeper than a decoder goes", strings.Repeat("[", 20_000), `"` + strings.Repeat("[", 20_000) + `"`, "text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			value, encoding := event.EncodePayload([]byte(tt.in))
			if string(value) != tt.value || encoding != tt.encoding {
				t.Errorf("got %.80s as %s, want %.80s as %s", value, encoding, tt.value, tt.encoding)
			}
		})
	}
}

// FuzzEncodePayload asks that any bytes become one valid JSON value that gives them back.
func FuzzEncodePayload(f *testing.F) {
	for _, seed := range []string{"", "text", `{"w":10}`, "[1,", "\xff\x00", "\u2028"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		value, encoding := event.EncodePayload(in)
		if !json.Valid(value) || !utf8.Valid(value) {
			t.Fatalf("%q is not valid JSON", value)
		}
		got := value
		if encoding != "json" {
			var s string
			if err := json.Unmarshal(value, &s); err != nil {
				t.Fatal(err)
			}
			got = []byte(s)
		}
		if encoding == "base64" {
			var err error
			if got, err = base64.StdEncoding.DecodeString(string(got)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, in) {
			t.Errorf("%q came back as %q by %s", in, got, encoding)
		}
	})
}
