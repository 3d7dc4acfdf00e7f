package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// When a JWKS is fetched: at the start, every refreshEvery, or retryEvery after one that failed; and where a token names a key that is
// not known, but not within askEvery of the last time for that reason.
const (
	refreshEvery = 15 * time.Minute
	retryEvery   = 30 * time.Second
	askEvery     = 30 * time.Second
	fetchTimeout = 5 * time.Second
)

// keySet is the keys of a JWKS. That of a URL is fetched by a goroutine of its own; while it cannot be, the keys from before hold.
type keySet struct {
	source string
	client *http.Client // nil: of a file
	log    zerolog.Logger
	asked  chan struct{}      // wakes the goroutine; holds one
	stop   context.CancelFunc // nil: not started
	ended  chan struct{}      // closed when the goroutine has ended

	mu       sync.Mutex
	keys     []publicKey   // replaced, not changed
	fetching chan struct{} // closed at the end of the fetch that is due or under way; nil: none is
	lastAsk  time.Time
}

// newKeySet reads the JWKS of a file, and none of a URL.
func newKeySet(source string, log zerolog.Logger) (*keySet, error) {
	s := &keySet{source: source, log: log, asked: make(chan struct{}, 1), ended: make(chan struct{})}
	if !strings.Contains(source, "://") {
		text, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		if s.keys, err = parseJWKS(text); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		return s, nil
	}
	if err := checkURL(source); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // it is called too seldom
	transport.MaxResponseHeaderBytes = 64 << 10
	s.client = &http.Client{
		Transport: transport, Timeout: fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// checkURL wants https, because whoever can change the answer can make tokens. The error does not repeat the URL, which may hold a password.
func checkURL(source string) error {
	u, err := url.Parse(source)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("is neither an https URL nor the name of a file")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return errors.New("is an http URL of another machine; https is needed")
	}
	return nil
}

// inherit takes the keys of another set with the same source.
func (s *keySet) inherit(other *keySet) {
	if s.client == nil || s.source != other.source {
		return
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	s.keys = other.keys
}

// start fetches until close, where there is a URL. It is called once, and before find.
func (s *keySet) start() {
	if s.client == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.fetching = cancel, make(chan struct{})
	go s.run(ctx)
}

func (s *keySet) close() {
	if s.stop != nil {
		s.stop()
		<-s.ended
	}
}

func (s *keySet) run(ctx context.Context) {
	defer close(s.ended)
	for ctx.Err() == nil {
		timer := time.NewTimer(s.refresh(ctx))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.asked:
		}
		timer.Stop()
	}
}

// refresh fetches the keys, lets those go on that wait for it, and returns when the next is due.
func (s *keySet) refresh(ctx context.Context) time.Duration {
	s.mu.Lock()
	if s.fetching == nil {
		s.fetching = make(chan struct{})
	}
	s.mu.Unlock()
	keys, err := s.fetch(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.fetching)
	s.fetching = nil
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error().Err(err).Int("keys", len(s.keys)).Msg("the JWKS cannot be fetched: the keys from before hold")
		}
		return retryEvery
	}
	s.keys = keys
	s.log.Debug().Int("keys", len(keys)).Msg("the JWKS was fetched")
	return refreshEvery
}

func (s *keySet) fetch(ctx context.Context) ([]publicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.source, nil)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		var withURL *url.Error // which may hold a secret
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d, and not 200; redirects are not followed", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxJWKS {
		return nil, fmt.Errorf("it is longer than %d bytes", maxJWKS)
	}
	return parseJWKS(text)
}

// find returns the key for a token. Where there is none it waits for one fetch, if one is due.
func (s *keySet) find(ctx context.Context, kid *string, alg string) (*publicKey, error) {
	if k := s.lookup(kid, alg); k != nil {
		return k, nil
	}
	if s.wait(ctx) {
		if k := s.lookup(kid, alg); k != nil {
			return k, nil
		}
	}
	if kid == nil {
		return nil, refused("the JWT does not say by its kid which key of the JWKS it is for, and there is not exactly one for %s", alg)
	}
	return nil, refused("there is not exactly one key for %s with the kid %q in the JWKS", alg, cut(*kid))
}

func (s *keySet) lookup(kid *string, alg string) *publicKey {
	s.mu.Lock()
	keys := s.keys
	s.mu.Unlock()
	return choose(keys, kid, alg)
}

// wait waits for the end of a fetch, and reports whether there was one. Those who wait share it, and it goes on when they have left: a
// bearer of bad tokens who hangs up does not use up what others wait for.
func (s *keySet) wait(ctx context.Context) bool {
	s.mu.Lock()
	fetched := s.fetching
	if fetched == nil && s.stop != nil && time.Since(s.lastAsk) >= askEvery {
		s.lastAsk = time.Now()
		fetched = make(chan struct{})
		s.fetching = fetched
		select {
		case s.asked <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	if fetched == nil {
		return false
	}
	select {
	case <-fetched:
		return true
	case <-s.ended:
	case <-ctx.Done():
	}
	return false
}
