package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/webhook"
)

// SinkFaults make a bad sink of ServeSink, to try out what becomes of deliveries then.
type SinkFaults = webhook.Faults

// ServeSink receives webhooks at an address until ctx ends, and prints a line to out for each that one of the secrets has signed;
// without secrets, for each. It is for trying things out.
func ServeSink(ctx context.Context, listen Address, secrets []Secret, faults SinkFaults, out io.Writer, log zerolog.Logger) error {
	ln, err := net.Listen("tcp", string(listen))
	if err != nil {
		return portTaken(err, "listen", "--listen")
	}
	s := &http.Server{
		Handler:           &webhook.Receiver{Secrets: secrets, Faults: faults, Out: out, Log: log},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      faults.Delay + 15*time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	log.Info().Stringer("addr", ln.Addr()).Int("secrets", len(secrets)).Msg("sink listens")
	stopped := context.AfterFunc(ctx, func() { _ = s.Close() }) // whoever is cut off delivers again
	defer stopped()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
