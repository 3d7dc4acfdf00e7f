// Command own-handler is a gateway with a function of its own, in Go: curl -s localhost:8080/functions/greet -d world
package main

import (
	"context"
	"fmt"
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
	c.Handlers = map[string]gateway.Handler{"greet": gateway.HandlerFunc(greet)}
	if err := gateway.Run(context.Background(), c); err != nil {
		log.Fatal(err)
	}
}

func greet(_ context.Context, j *gateway.Job) ([]byte, error) {
	return fmt.Appendf(nil, "hello, %s", j.Workload), nil
}
