//go:build linux

// Command bench measures the gateway beside what one would use instead: `make bench`, and README.md says how to read what it prints.
// It knows Linux's /proc, so it is built there alone.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// cli is the command line. Floor and Raw are contenders: the benchmark runs itself as those.
type cli struct {
	Run   runCmd   `cmd:"" default:"withargs" help:"Run the benchmark (the default)."`
	Soak  soakCmd  `cmd:"" help:"Load one gateway for long, and look at what it has kept."`
	Floor floorCmd `cmd:"" help:"Serve HTTP with a handler that only decodes and answers."`
	Raw   rawCmd   `cmd:"" help:"Load a job server with the gateway's own Gearman client."`
}

func main() {
	// A second signal ends the program at once, and the kernel then ends what it has started.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var c cli
	k := kong.Parse(&c, kong.Name("bench"), kong.UsageOnError(), kong.BindTo(ctx, (*context.Context)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// programs is what the benchmark runs.
type programs struct {
	Gateway  string `help:"The gateway's binary." default:"bin/gateway" placeholder:"FILE"`
	Gearmand string `help:"gearmand's." default:"/usr/sbin/gearmand" placeholder:"FILE"`
}

type runCmd struct {
	programs
	Time   time.Duration `help:"How long a round of the main rows is; one of the others takes half of it." default:"2s" env:"BENCH_TIME"`
	Rounds int           `help:"Rounds of the main rows; 0: 5 of these and 3 of the others." env:"BENCH_ROUNDS"`
	Limit  time.Duration `help:"When to end in any case." default:"9m"`
	Docs   string        `help:"Directory of performance.md and performance.svg, which are written anew; none: nothing is written." placeholder:"DIR"`
}

// smoke is the length of a round below which nothing is measured but that everything works: there is no warm-up, and what grows with
// the number of jobs or callers is a hundredth or a tenth of what it should be.
const smoke = 500 * time.Millisecond

// Run measures everything and prints it. What fails is a row that says so, and an error at the end.
func (c *runCmd) Run(ctx context.Context) error {
	interrupted := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("the limit of %v is over", c.Limit))
	defer cancel()
	b, err := newBench(c.programs)
	if err != nil {
		return err
	}
	defer b.close()
	b.time, b.smoke = c.Time, c.Time < smoke
	b.rounds, b.others = 5, 3
	if c.Rounds > 0 {
		b.rounds, b.others = c.Rounds, min(c.Rounds, b.others)
	}
	if b.smoke {
		b.rounds, b.others = 1, 1
	}
	r := report{about: about(ctx), time: c.Time, rounds: b.rounds, others: b.others}
	if err := b.answers(ctx); err != nil {
		return fmt.Errorf("the gateway does not do what is to be measured: %w", err)
	}
	r.growth = b.growth(ctx)
	r.callers = b.callers(ctx)
	r.cells = b.cells(ctx) // the last, because a limit that comes too early only costs it rounds
	if interrupted.Err() != nil {
		return context.Cause(interrupted)
	}
	r.points = points(&r)
	if err := r.write(os.Stdout, c.Docs); err != nil {
		return err
	}
	return r.failed(ctx)
}
