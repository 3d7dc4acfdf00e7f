// Command gateway serves HTTP/JSON in front of Gearman job servers. See `gateway --help`.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
)

// version is set by the linker.
var version = "dev"

// gcPercent has the collector run half as often as Go's default does. Records are most of what is in memory and live long: to look through
// them for every piece of garbage as large as they are costs a sixth of the time of a busy gateway. GOGC says otherwise.
const gcPercent = 200

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if err := run(os.Args[1:]); err != nil {
		if !errors.As(err, &loggedError{}) {
			fmt.Fprintln(os.Stderr, "gateway:", err)
		}
		os.Exit(exitCode(err))
	}
}
