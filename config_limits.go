package gateway

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/limit"
)

// Limits bound what callers may have of the gateway.
type Limits struct {
	Concurrency int              `yaml:"concurrency"` // requests that are worked on at a time; 0: 32 for each processor
	Default     Limit            `yaml:"default"`     // of each identity that has none of its own; without access control, of everybody together
	Identities  map[string]Limit `yaml:"identities"`
	Functions   map[string]Limit `yaml:"functions"` // by name or glob; of each function that matches, for all identities together
}

// Limit is what one identity or function may have. A zero is no limit.
type Limit struct {
	Rate        Rate     `yaml:"rate"`         // of submissions
	Burst       int      `yaml:"burst"`        // submissions at once; 0: as many as the rate allows in a second
	Concurrency int      `yaml:"concurrency"`  // requests under way; of a function, submissions
	MaxJobs     int      `yaml:"max_jobs"`     // that have not ended
	MaxBytes    Size     `yaml:"max_bytes"`    // of their workloads
	MaxWorkload Size     `yaml:"max_workload"` // of one
	MaxWait     Duration `yaml:"max_wait"`     // of one request
}

// Rate is so many in a time, written as 100/s, 20/m or 5/h.
type Rate struct {
	n   float64
	per string // s, m or h; "": there is no limit
}

var perSecond = map[string]float64{"s": 1, "m": 1. / 60, "h": 1. / 3600}

// UnmarshalText reads what MarshalText writes. "0" is no limit.
func (r *Rate) UnmarshalText(b []byte) error {
	if string(b) == "0" {
		*r = Rate{}
		return nil
	}
	number, per, _ := strings.Cut(string(b), "/")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n > 0) || math.IsInf(n, 0) || perSecond[per] == 0 {
		return fmt.Errorf("%q is not a rate such as 100/s, 20/m or 5/h", b)
	}
	*r = Rate{n, per}
	return nil
}

// MarshalText writes the rate as it was read.
func (r Rate) MarshalText() ([]byte, error) {
	if r.per == "" {
		return []byte("0"), nil
	}
	return []byte(strconv.FormatFloat(r.n, 'f', -1, 64) + "/" + r.per), nil
}

func (l Limit) rule() limit.Rule {
	return limit.Rule{
		Rate: l.Rate.n * perSecond[l.Rate.per], Burst: l.Burst, Concurrency: l.Concurrency, MaxJobs: l.MaxJobs,
		MaxBytes: int64(l.MaxBytes), MaxWorkload: int64(l.MaxWorkload), MaxWait: time.Duration(l.MaxWait),
	}
}

func (l Limits) rules() limit.Rules {
	r := limit.Rules{Default: l.Default.rule(), Identities: map[string]limit.Rule{}, Functions: map[string]limit.Rule{}}
	for name, own := range l.Identities {
		r.Identities[name] = own.rule()
	}
	for name, own := range l.Functions {
		r.Functions[name] = own.rule()
	}
	return r
}

// gate bounds the work on requests. Its figures are measured: cmd/gateway's overload test prints what they come to.
func (l Limits) gate() *limit.Gate {
	cpus := runtime.GOMAXPROCS(0)
	places := l.Concurrency
	if places == 0 {
		places = 32 * cpus
	}
	return limit.NewGate(limit.GateOptions{
		Places: places, MaxQueue: 20_000, Patience: 50 * time.Millisecond, Wait: time.Second, Short: 100 * time.Millisecond,
		Pace: 500 * time.Microsecond / time.Duration(cpus), Idle: 5 * time.Millisecond, Busy: 2 * cpus,
	})
}

func (c *Config) checkLimits(wrong func(key, format string, args ...any)) {
	check := func(key string, l Limit) {
		if err := l.check(); err != nil {
			wrong(key, "%v", err)
		}
	}
	check("limits.default", c.Limits.Default)
	for name, l := range c.Limits.Identities {
		key := fmt.Sprintf("limits.identities[%q]", name)
		if name == "" {
			wrong(key, "has no name; limits.default is for everybody else")
		}
		check(key, l)
	}
	for name, l := range c.Limits.Functions {
		key := fmt.Sprintf("limits.functions[%q]", name)
		if err := gearman.CheckFunction(name); err != nil {
			wrong(key, "%v", err)
		}
		check(key, l)
	}
}

func (l Limit) check() error {
	if l.Burst > 0 && l.Rate.per == "" {
		return errors.New("burst is set, and rate is not")
	}
	return atLeastZero(
		setting{"burst", float64(l.Burst)}, setting{"concurrency", float64(l.Concurrency)}, setting{"max_jobs", float64(l.MaxJobs)},
		setting{"max_bytes", float64(l.MaxBytes)}, setting{"max_workload", float64(l.MaxWorkload)}, setting{"max_wait", float64(l.MaxWait)},
	)
}
