package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// validTexts are JSON texts that must reach a worker byte for byte.
var validTexts = []string{
	`[]`, `{}`, `[ ]`, `{ }`, `[[]   ]`, `[""]`, `["a"]`, `[false]`, `[null]`, `[1]`, `[1, null, 1, "1", {}]`, `[null, 1, "1", {}]`,
	`[1,null,null,null,2]`, `[2] `, ` [1]`, "[1\n]", "\t[1]", "[\r\n1\r\n]", `true`, `false`, `null`, `42`, `-0.1`, `0`, `-0`,
	`[0e+1]`, `[0e1]`, `[ 4]`, `[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]`, `[20e1]`, `[-0]`,
	`[-123]`, `[-1]`, `[1E22]`, `[1E-2]`, `[1E+2]`, `[123e45]`, `[123.456e78]`, `[1e-2]`, `[1e+2]`, `[123]`, `[123.456789]`,
	`[123456789012345678901234567890]`, `[1e999]`, `[0.4e006000000000000000000000000000000000000000000000000000000000000001]`,
	`{"a":"b"}`, `{"a":"b","a":"c"}`, `{"a":"b","a":"b"}`, `{"":0}`, `{"foo\u0000bar": 42}`, `{"min": -1.0e+28, "max": 1.0e+28}`,
	`{"asd":"sdf", "dfg":"fgh"}`, `{"x":[{"id": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}], "id": "b"}`, `{"a":[]}`, "{\n\"a\": \"b\"\n}",
	`{"title":"\u041f\u043e\u043b\u0442\u043e\u0440\u0430"}`, `["\u0060\u012a\u12AB"]`, `["\uD801\udc37"]`, `["\ud83d\ude39\ud83d\udc8d"]`,
	`["\"\\\/\b\f\n\r\t"]`, `["\\u0000"]`, `["\""]`, `["a/*b*/c/*d//e"]`, `["\\a"]`, `["\u0012"]`, `["\uFFFF"]`, `["asd"]`, `[ "asd"]`,
	`["\uDBFF\uDFFF"]`, `["new\u00A0line"]`, "[\"\U0010FFFF\"]", "[\"\uffff\"]", `["\u0000"]`, `["\u002c"]`, "[\"π\"]", "[\"\U0001BFFF\"]",
	`["asd "]`, `["\u0821"]`, "[\"\u2028\u2029\"]", `["\u0061\u30af\u30EA\u30b9"]`, "[\"\x7f\"]", `["\uA66D"]`, "[\"⍂㈴⍂\"]",
	`{"a":{"a":{"a":1,"a":2},"a":3}}`, strings.Repeat("[", 500) + strings.Repeat("]", 500),
}

// invalidTexts are not JSON, or not UTF-8; each is refused wherever in the body it stands.
var invalidTexts = []string{
	``, ` `, `[`, `]`, `{`, `}`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1,,2]`, `[,]`, `[1 true]`, `["": 1]`, `[""],`, `["x"]]`, `[3[4]]`, `["a",4,1,`,
	`[x`, `[a]`, `[*]`, `["`, `["a`, `["a"`, `['a']`, `[abc]`, `["\x00"]`, `["\a"]`, `["\`, `["\"]`, `["\u"]`, `["\u00A"]`, `["\u{1}"]`, `["\ud800"]`,
	`["\uD800\u0041"]`, `["\uDC00"]`, "[\"\x00\"]", "[\"\t\"]", "[\"\n\"]", "[\"\xff\"]", "[\"\xc0\xaf\"]", "[\"\xed\xa0\x80\"]", "[\"\xf4\xbf\xbf\xbf\"]",
	"[\"\xe0\xff\"]", "[\xff]", "\xef\xbb\xbf{}", `[+1]`, `[-]`, `[-01]`, `[01]`, `[1.]`, `[.1]`, `[-.1]`, `[1e]`, `[1e+]`, `[1eE2]`, `[0x1]`, `[1 000]`,
	`[NaN]`, `[Infinity]`, `[-Infinity]`, `[nan]`, `[nul]`, `[True]`, `[tru]`, `[falsee]`, `{a:1}`, `{'a':1}`, `{"a"}`, `{"a":}`, `{"a" 1}`, `{"a":1,}`,
	`{"a":1,,"b":2}`, `{,"a":1}`, `{1:1}`, `{null:1}`, `{"a":1 "b":2}`, `{"a":1/*c*/}`, `{"a":1}//`, `{"a":1}#`, `{"a":1}}`, `[1]x`, "[\v1]", "[1\f]", "[\u00a01]",
	"[\u2060]", `<html>`, `abc`, `"abc`, `"\`, `'a'`, `--1`, `1 2`, strings.Repeat("[", 100_000), strings.Repeat(`{"":`, 100_000),
}

func TestValidJSONReachesTheWorkerByteForByte(t *testing.T) {
	c := newClient(t, Options{})
	for _, text := range validTexts {
		if !json.Valid([]byte(text)) {
			t.Errorf("the case %q is not JSON", text)
		}
		// White space around the value belongs to the envelope.
		want := strings.Trim(text, " \t\r\n")
		for _, encoding := range []string{"", `,"workload_encoding":"json"`} {
			c.post(http.StatusAccepted, `{"function":"f","workload":`+text+encoding+`}`)
			if got := string(c.lastTask().Workload); got != want {
				t.Errorf("%q: the worker gets %q", text, got)
			}
		}
		// As the whole workload of a raw call not even that is touched, and as text inside a string it comes out again.
		c.do(http.MethodPost, "/functions/f", text)
		if got := string(c.lastTask().Workload); got != text {
			t.Errorf("raw %q: the worker gets %q", text, got)
		}
		quoted, _ := json.Marshal(text)
		c.post(http.StatusAccepted, `{"workload":`+string(quoted)+`,"function":"f"}`)
		if got := string(c.lastTask().Workload); got != text {
			t.Errorf("quoted %q: the worker gets %q", text, got)
		}
	}
}

func TestInvalidJSONIsRefused(t *testing.T) {
	c := newClient(t, Options{})
	for _, text := range invalidTexts {
		for _, body := range []string{`{"function":"f","workload":` + text + `}`, `{"workload":` + text + `,"function":"f"}`} {
			res := c.do(http.MethodPost, "/jobs", body)
			if res.Code != http.StatusBadRequest {
				t.Errorf("%.80q: got %d: %s", body, res.Code, res.Body)
			}
		}
	}
	for _, text := range invalidTexts {
		if res := c.do(http.MethodPost, "/jobs", text); res.Code != http.StatusBadRequest {
			t.Errorf("%.80q: got %d: %s", text, res.Code, res.Body)
		}
	}
	if len(c.tasks) > 0 {
		t.Errorf("%d were submitted", len(c.tasks))
	}
}

func TestWorkloadEncodings(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, tt := range []struct{ members, want string }{
		{``, ""},
		{`,"workload":""`, ""},
		{`,"workload":"hé\u00e9\n\u0000\ud83d\ude39"`, "héé\n\x00😹"},
		{`,"workload":"{\"a\":1}"`, `{"a":1}`},
		{`,"workload":"x","workload_encoding":"text"`, "x"},
		{`,"workload":"\u0078","workload_encoding":"json"`, `"\u0078"`},
		{`,"workload":[1 , 2],"workload_encoding":"json"`, `[1 , 2]`},
		{`,"workload":null`, `null`},
		{`,"workload":"","workload_encoding":"base64"`, ""},
		{`,"workload":"` + base64.StdEncoding.EncodeToString(every) + `","workload_encoding":"base64"`, string(every)},
		{`,"workload":"aGk\u003d","workload_encoding":"base64"`, "hi"},
		{`,"workload_encoding":"base64"`, ""},
	} {
		c := newClient(t, Options{})
		c.post(http.StatusAccepted, `{"function":"f"`+tt.members+`}`)
		if got := string(c.lastTask().Workload); got != tt.want {
			t.Errorf("%s: the worker gets %q, want %q", tt.members, got, tt.want)
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, text := range append(validTexts, invalidTexts...) {
		f.Add([]byte(text), true)
		f.Add([]byte(text), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, whole bool) {
		body := text
		if !whole {
			body = []byte(`{"function":"f","workload":` + string(text) + `}`)
		}
		var s submission
		mistakes, err := decodeEnvelope(body, &s)
		if err != nil {
			return
		}
		if len(mistakes) <= maxMistakes && !json.Valid(body) {
			t.Errorf("accepted %q", body)
		}
		workload, _ := s.workload()
		if s.rawWorkload != nil && s.rawWorkload.Kind() != '"' && s.Encoding == "" && !strings.Contains(string(body), string(workload)) {
			t.Errorf("%q became %q", body, workload)
		}
	})
}
