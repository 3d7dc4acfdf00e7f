package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/webhook"
)

// Address is a host:port.
type Address string

// UnmarshalText checks that there is a host and a port.
func (a *Address) UnmarshalText(b []byte) error {
	_, port, err := net.SplitHostPort(string(b))
	if err != nil {
		return fmt.Errorf("%q is not host:port", b)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535", b)
	}
	*a = Address(b)
	return nil
}

// loopback reports whether only this machine can reach the address.
func (a Address) loopback() bool {
	host, _, _ := net.SplitHostPort(string(a))
	return isLoopback(host)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Duration is a time.Duration that is written as Go does: 1h30m, 300ms.
type Duration time.Duration

// UnmarshalText reads what String writes. "0" is zero.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 1h30m or 300ms", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Size is a number of bytes, written with one of the units B, KiB, MiB and GiB.
type Size int64

var units = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads what String writes; a number alone is bytes.
func (s *Size) UnmarshalText(b []byte) error {
	text, unit := string(b), Size(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(text, u.name); found {
			text, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > int64((1<<62)/unit) {
		return fmt.Errorf("%q is not a size such as 64MiB", b)
	}
	*s = Size(n) * unit
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", s/u.bytes, u.name)
		}
	}
	return "0"
}

// Level is how much is logged: trace, debug, info, warn, error or disabled.
type Level zerolog.Level

// UnmarshalText reads what MarshalText writes.
func (l *Level) UnmarshalText(b []byte) error {
	if !slices.Contains([]string{"trace", "debug", "info", "warn", "error", "disabled"}, string(b)) {
		return fmt.Errorf("%q is none of trace, debug, info, warn, error and disabled", b)
	}
	v, err := zerolog.ParseLevel(string(b))
	*l = Level(v)
	return err
}

// MarshalText writes the word.
func (l Level) MarshalText() ([]byte, error) { return []byte(zerolog.Level(l).String()), nil }

// URL is an http or https URL. Printed, it shows neither user nor query.
type URL string

// UnmarshalText checks scheme and host. Its error does not repeat the text, which may hold a password.
func (u *URL) UnmarshalText(b []byte) error {
	parsed, err := url.Parse(string(b))
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return errors.New("this is not the URL of an http or https server")
	}
	*u = URL(b)
	return nil
}

// MarshalText masks what may be secret.
func (u URL) MarshalText() ([]byte, error) {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return nil, errors.New("not a URL")
	}
	if parsed.User != nil {
		parsed.User = url.User("xxxxx")
	}
	if parsed.RawQuery != "" {
		parsed.RawQuery = "xxxxx"
	}
	return []byte(parsed.String()), nil
}

// Masked is a text that may be secret. Printed, it is masked.
type Masked string

// MarshalText returns a mask.
func (m Masked) MarshalText() ([]byte, error) {
	if m == "" {
		return nil, nil
	}
	return []byte("xxxxx"), nil
}

// UnmarshalText takes any text.
func (m *Masked) UnmarshalText(b []byte) error {
	*m = Masked(b)
	return nil
}

func (m Masked) String() string {
	b, _ := m.MarshalText() // cannot fail
	return string(b)
}

// Secret signs deliveries. Printed, it is masked.
type Secret = webhook.Secret

// setting is a number in the configuration, and its key.
type setting struct {
	key string
	n   float64
}

// atLeastZero returns an error for each that is not.
func atLeastZero(settings ...setting) error {
	var errs []error
	for _, s := range settings {
		if s.n < 0 {
			errs = append(errs, fmt.Errorf("%s: is less than zero", s.key))
		}
	}
	return errors.Join(errs...)
}
