// Command own-handler is a gateway with a function of its own, in Go: curl -s localhost:8080/functions/words-go -d hello
package main

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"

	"github.com/rs/zerolog"

	gateway "gearman-gateway"
)

func main() {
	c := gateway.DefaultConfig()
	if len(os.Args) > 1 { // its configuration, a YAML file
		if err := c.ReadFile(os.Args[1]); err != nil {
			log.Fatal(err)
		}
	}
	c.Log = zerolog.New(os.Stderr)
	c.Handlers = map[string]gateway.Handler{"words-go": gateway.HandlerFunc(words)}
	if err := gateway.Run(context.Background(), c); err != nil {
		log.Fatal(err)
	}
}

// words does what examples/handlers/words.sh does. That the job cannot be told of its progress is no reason to give it up: its result may
// still be wanted.
func words(ctx context.Context, j *gateway.Job) ([]byte, error) {
	switch string(j.Workload) {
	case "progress":
		_ = j.Progress(1, 2)
		return []byte("half"), nil
	case "warning":
		_ = j.Warning([]byte("mind the gap"))
		return []byte("done"), nil
	case "exception":
		return nil, errors.New("no such word")
	case "slow":
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return bytes.ToUpper(j.Workload), nil
}
