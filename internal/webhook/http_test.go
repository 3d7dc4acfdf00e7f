package webhook

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/event"
)

// lines collects what is written: by a Receiver, or to a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await polls until done is true.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within 30 s", what)
		}
	}
}

func TestFromSenderToReceiver(t *testing.T) {
	key := secret(t, vectorSecret)
	var out lines
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(&Receiver{Secrets: []Secret{key}, Out: &out})
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	s := start(t, nil, Options{Source: "urn:gateway:test", Sinks: []SinkOptions{{URL: server.URL, Secrets: []Secret{key}, Concurrency: 2}}})
	const subjects, events = 10, 20
	for seq := range uint64(events) {
		for i := range subjects {
			s.publish(event.New(event.JobCompleted, fmt.Sprint("job", i), seq+1, time.Now(), event.Data{Result: []byte("done")}))
		}
	}
	await(t, "last line", func() bool { return strings.Count(out.String(), "\n") == subjects*events })
	stop(s.Sender, 30*time.Second)
	next := map[string]int{}
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		next[f[3]]++
		if want := fmt.Sprintf("seq=%d", next[f[3]]); f[1] != "verified" || f[2] != "job.completed" || f[4] != want {
			t.Fatalf("got %s, want it verified and %s", line, want)
		}
	}
	if got := connections.Load(); got > 4 {
		t.Errorf("%d connections for 2 deliveries at a time, want them kept", got)
	}
}

func TestKeptConnectionThatTheSinkClosedIsNoFailure(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	s := start(t, nil, Options{Sinks: []SinkOptions{{URL: server.URL}}})
	for i := range uint64(20) {
		s.publish(ev("a", i))
		await(t, "delivery", func() bool { return s.count(server.Listener.Addr().String(), Delivered) == int(i+1) })
		server.CloseClientConnections()
	}
	if st := s.status(server.Listener.Addr().String()); st.LastError != "" {
		t.Errorf("an attempt failed: %s", st.LastError)
	}
}

func TestURLSecretsAreSentAndNeverLogged(t *testing.T) {
	var log lines
	var basic, token atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		basic.Store(password)
		token.Store(r.URL.Query().Get("token"))
		if r.URL.Path == "/elsewhere" {
			t.Error("the redirect was followed")
		}
		http.Redirect(w, r, "/elsewhere?token=hunter2", http.StatusTemporaryRedirect)
	}))
	host := server.Listener.Addr().String()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	s := start(t, nil, Options{Log: zerolog.New(&log), Schedule: []time.Duration{0}, Sinks: []SinkOptions{
		{URL: "http://user:hunter2@" + host + "/hook?token=hunter2#hunter2"},
		{URL: "http://user:hunter2@" + closed.Listener.Addr().String() + "/hook?token=hunter2"},
	}})
	s.publish(ev("a", 1))
	await(t, "dead letters", func() bool { return s.count(host, Dead) == 1 && s.count(closed.Listener.Addr().String(), Dead) == 1 })
	stop(s.Sender, 30*time.Second)
	server.Close()
	if basic.Load() != "hunter2" || token.Load() != "hunter2" {
		t.Errorf("password %v and token %v reached the sink, want hunter2", basic.Load(), token.Load())
	}
	for _, want := range []string{"POST http://" + host + "/hook: answered 307", "connection refused"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q: %s", want, &log)
		}
	}
	for _, secret := range []string{"hunter2", "user"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows %s: %s", secret, &log)
		}
	}
}

func TestOwnTransportIgnoresTheProxyEnvironment(t *testing.T) {
	if newTransport(1, nil).Proxy != nil {
		t.Error("the transport asks for a proxy")
	}
}

func TestEndlessAnswerIsCutOff(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 4096)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	s := start(t, nil, Options{Sinks: []SinkOptions{{URL: server.URL, Timeout: time.Hour}}})
	s.publish(ev("a", 1))
	await(t, "delivery", func() bool { return s.count(server.Listener.Addr().String(), Delivered) == 1 })
}
