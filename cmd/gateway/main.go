// Command gateway serves HTTP/JSON in front of Gearman job servers. See `gateway --help`.
package main

import (
	"errors"
	"fmt"
	"os"
)

// version is set by the linker.
var version = "dev"

func main() {
	setCollector()
	if err := run(os.Args[1:]); err != nil {
		if !errors.As(err, &loggedError{}) {
			fmt.Fprintln(os.Stderr, "gateway:", err)
		}
		os.Exit(exitCode(err))
	}
}
