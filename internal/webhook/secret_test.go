package webhook

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func secret(t testing.TB, text string) Secret {
	t.Helper()
	s, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// otherSecret is a second secret.
func otherSecret(t testing.TB) Secret {
	return secret(t, "whsec_"+base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))))
}

func TestSignatureOfTheStandardsVector(t *testing.T) {
	got := secret(t, vectorSecret).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseSecretRefusesWithoutRepeating(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"no prefix": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"no base64": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
		"23 bytes":  "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23)),
		"65 bytes":  "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65)),
	} {
		_, err := ParseSecret(text)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if key := strings.TrimPrefix(text, "whsec_"); key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("%s: %q repeats the secret", name, err)
		}
	}
	var configured Secret
	if err := configured.UnmarshalText([]byte(vectorSecret)); err != nil || configured.String() != "whsec_***" {
		t.Errorf("UnmarshalText: got %v, %v", configured, err)
	}
	for _, n := range []int{24, 64} {
		secret(t, "whsec_"+base64.StdEncoding.EncodeToString(make([]byte, n)))
	}
}

func TestSecretShowsNowhere(t *testing.T) {
	s := secret(t, vectorSecret)
	type config struct {
		Exported   Secret
		unexported Secret
		List       []Secret
		Pointer    *Secret
	}
	c := config{s, s, []Secret{s}, &s}
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{"json": string(marshalled), "string": s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown[verb] = fmt.Sprintf(verb+" "+verb+" "+verb, s, c, &c)
	}
	key := s.key()
	for how, text := range shown {
		for _, leak := range []string{vectorSecret[6:], string(key), fmt.Sprint(key), fmt.Sprintf("%x", key), fmt.Sprintf("%#v", key)} {
			if strings.Contains(text, strings.Trim(leak, "[]")) {
				t.Errorf("%s shows the key: %s", how, text)
			}
		}
	}
	if want := `"Exported":"whsec_***"`; !strings.Contains(shown["json"], want) {
		t.Errorf("JSON is %s, want %s in it", shown["json"], want)
	}
	if got := (Secret{}).String(); got != "" {
		t.Errorf("the zero Secret shows as %q, want nothing", got)
	}
}

func TestVerifySaysWhatIsWrong(t *testing.T) {
	mine, other := secret(t, vectorSecret), otherSecret(t)
	now := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	signed := func(s ...Secret) http.Header {
		h := http.Header{}
		h.Set("webhook-id", "msg_1")
		h.Set("webhook-timestamp", "1614265330")
		h.Set("webhook-signature", signAll(s, "msg_1", "1614265330", body))
		return h
	}
	with := func(h http.Header, key, value string) http.Header {
		h.Set(key, value)
		return h
	}
	for name, row := range map[string]struct {
		h    http.Header
		now  time.Time
		body string
		want string // part of the error; "" for none
	}{
		"good":                {h: signed(mine)},
		"one of two":          {h: signed(other, mine)},
		"another version too": {h: with(signed(mine), "webhook-signature", "v1a,AAAA "+signAll([]Secret{mine}, "msg_1", "1614265330", body))},
		"five minutes old":    {h: signed(mine), now: now.Add(5 * time.Minute)},
		"too old":             {h: signed(mine), now: now.Add(5*time.Minute + time.Second), want: "5m1s off"},
		"too new":             {h: signed(mine), now: now.Add(-6 * time.Minute), want: "6m0s off"},
		"another secret":      {h: signed(other), want: "no signature matches"},
		"another body":        {h: signed(mine), body: "{}", want: "no signature matches"},
		"another id":          {h: with(signed(mine), "webhook-id", "msg_2"), want: "no signature matches"},
		"another timestamp":   {h: with(signed(mine), "webhook-timestamp", "1614265331"), want: "no signature matches"},
		"no timestamp":        {h: with(signed(mine), "webhook-timestamp", ""), want: "missing"},
		"timestamp of words":  {h: with(signed(mine), "webhook-timestamp", "noon"), want: "not a number"},
		"no signature":        {h: with(signed(mine), "webhook-signature", ""), want: "missing"},
		"unversioned":         {h: with(signed(mine), "webhook-signature", strings.TrimPrefix(signAll([]Secret{mine}, "msg_1", "1614265330", body), "v1,")), want: "no signature matches"},
	} {
		if row.now.IsZero() {
			row.now = now
		}
		b := body
		if row.body != "" {
			b = []byte(row.body)
		}
		err := verify([]Secret{mine}, row.h, b, row.now)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: got %v, want %q", name, err, row.want)
		}
	}
}
