package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/handler"
	"gearman-gateway/internal/httpapi"
	"gearman-gateway/internal/webhook"
	"gearman-gateway/internal/workerpool"
)

// Function is a function that this gateway's workers run: as a command (Exec), by a POST (HTTP), or, with neither, a handler in Go whose
// limits it sets. Zero values set no limit.
type Function struct {
	Function string        `yaml:"function"`
	Exec     []string      `yaml:"exec,omitempty"` // the command and its arguments; no shell looks at them
	HTTP     *HTTPFunction `yaml:"http,omitempty"`

	Timeout     Duration `yaml:"timeout,omitempty"`      // of a run
	Concurrency int      `yaml:"concurrency,omitempty"`  // runs at a time
	Rate        float64  `yaml:"rate,omitempty"`         // runs a second
	Retry       Retry    `yaml:"retry,omitempty"`        // of tracked jobs that bring no policy of their own
	MaxWorkload Size     `yaml:"max_workload,omitempty"` // larger ones are refused
	MaxResult   Size     `yaml:"max_result,omitempty"`   // larger ones fail the job; 0: 64MiB of Exec and HTTP
	Schema      string   `yaml:"schema,omitempty"`       // file of the JSON Schema of workloads; others are refused

	// of Exec
	Stream bool              `yaml:"stream,omitempty"` // standard output is sent as data while it comes
	Env    map[string]Masked `yaml:"env,omitempty"`    // the environment, besides PATH and JOB_…
	Dir    string            `yaml:"dir,omitempty"`    // working directory; "": a new one for each process, removed afterwards
	User   string            `yaml:"user,omitempty"`   // name, uid, or uid:gid; "": the gateway's own
	Limits ProcessLimits     `yaml:"limits,omitempty"`

	// Persistent keeps Processes of Exec and feeds them jobs (docs/persistent.md), each until it has reached one of the limits.
	Persistent bool     `yaml:"persistent,omitempty"`
	Processes  int      `yaml:"processes,omitempty"`  // 0: as many as Concurrency, or 1
	MaxJobs    int      `yaml:"max_jobs,omitempty"`   // that a process runs
	MaxMemory  Size     `yaml:"max_memory,omitempty"` // resident memory of a process, looked at after each job
	TTL        Duration `yaml:"ttl,omitempty"`        // age of a process
	IdleTTL    Duration `yaml:"idle_ttl,omitempty"`   // time of a process without a job
}

// HTTPFunction is where the jobs of a function are POSTed.
type HTTPFunction struct {
	URL         URL               `yaml:"url"`
	ContentType string            `yaml:"content_type,omitempty"` // of workloads; "": application/octet-stream
	Headers     map[string]Masked `yaml:"headers,omitempty"`
	Secret      Secret            `yaml:"secret,omitempty"` // whsec_ and base64: requests are signed as webhooks are
}

// ProcessLimits bound a process; see handler.Limits. They need Linux.
type ProcessLimits struct {
	Memory    Size     `yaml:"memory,omitempty"`
	CPU       Duration `yaml:"cpu,omitempty"`       // CPU time
	Files     int      `yaml:"files,omitempty"`     // open files
	Processes int      `yaml:"processes,omitempty"` // needs Cgroup, as does CPUs
	CPUs      float64  `yaml:"cpus,omitempty"`
	Cgroup    string   `yaml:"cgroup,omitempty"` // directory of a cgroup v2 hierarchy that is the gateway's alone
}

// Retry says how a tracked job is tried again that failed.
type Retry struct {
	Max     int      `yaml:"max,omitempty"`     // times
	Backoff Duration `yaml:"backoff,omitempty"` // before the first of them; it doubles each time, up to an hour. 0: 1 s
}

// checkHandlers looks at what is told of handlers.
func (c *Config) checkHandlers(wrong func(key, format string, args ...any)) {
	inGo := c.inGo()
	for i := range c.Functions {
		f := &c.Functions[i]
		key := fmt.Sprintf("handlers[%d]", i)
		if err := f.check(); err != nil {
			wrong(key, "%v", err)
		} else if f.Exec == nil && f.HTTP == nil && inGo[f.Function] == nil {
			wrong(key, "%q has neither exec nor http, and there is no handler in Go of that name", f.Function)
		}
		if slices.ContainsFunc(c.Functions[:i], func(other Function) bool { return other.Function == f.Function }) {
			wrong(key+".function", "%q is there more than once", f.Function)
		}
	}
}

// inGo returns the handlers in Go: the built-in ones, if they are to be registered, and those of the program.
func (c *Config) inGo() map[string]Handler {
	handlers := map[string]Handler{}
	if b := c.Workers.Builtin; b != nil && *b || b == nil && len(c.Gearman) == 0 {
		maps.Copy(handlers, handler.Builtin())
	}
	maps.Copy(handlers, c.Handlers)
	return handlers
}

func (f *Function) check() error {
	if err := gearman.CheckFunction(f.Function); err != nil {
		return fmt.Errorf("function: %w", err)
	}
	if f.Exec != nil && f.HTTP != nil {
		return errors.New("exec and http exclude each other")
	}
	if len(f.Exec) == 0 && (f.Exec != nil || f.Persistent || f.Stream || f.Env != nil || f.Dir != "" || f.User != "" || f.Limits != (ProcessLimits{})) {
		return errors.New("exec: is missing or empty")
	}
	if f.Persistent && f.Stream {
		return errors.New("stream: is of no use with persistent, where the process itself says what is data")
	}
	if !f.Persistent && (f.Processes != 0 || f.MaxJobs != 0 || f.MaxMemory != 0 || f.TTL != 0 || f.IdleTTL != 0) {
		return errors.New("processes, max_jobs, max_memory, ttl and idle_ttl are of persistent: true alone")
	}
	if f.HTTP != nil && f.HTTP.URL == "" {
		return errors.New("http.url: is missing")
	}
	if err := atLeastZero(
		setting{"timeout", float64(f.Timeout)}, setting{"concurrency", float64(f.Concurrency)}, setting{"rate", f.Rate},
		setting{"retry.max", float64(f.Retry.Max)}, setting{"retry.backoff", float64(f.Retry.Backoff)}, setting{"processes", float64(f.Processes)},
		setting{"max_jobs", float64(f.MaxJobs)}, setting{"ttl", float64(f.TTL)}, setting{"idle_ttl", float64(f.IdleTTL)},
	); err != nil {
		return err
	}
	if l := f.Limits; l.Cgroup == "" && (l.Processes != 0 || l.CPUs != 0) {
		return errors.New("limits.cgroup: is missing: without it limits.processes and limits.cpus cannot be enforced")
	}
	if _, err := f.user(); err != nil {
		return fmt.Errorf("user: %w", err)
	}
	_, err := f.schema()
	return err
}

// schema reads the schema; nil if there is none.
func (f *Function) schema() (*httpapi.Schema, error) {
	if f.Schema == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	s, err := httpapi.ParseSchema(text)
	if err != nil {
		return nil, fmt.Errorf("schema: %s: %w", f.Schema, err)
	}
	return s, nil
}

// user returns whom the command runs as; nil: as the gateway.
func (f *Function) user() (*handler.User, error) {
	if f.User == "" {
		return nil, nil
	}
	uid, gid, both := strings.Cut(f.User, ":")
	if !both {
		found, err := user.Lookup(uid)
		if err != nil {
			found, err = user.LookupId(uid)
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not a user's name or uid on this machine, nor uid:gid", f.User)
		}
		uid, gid = found.Uid, found.Gid
	}
	u, errUser := strconv.ParseUint(uid, 10, 32)
	g, errGroup := strconv.ParseUint(gid, 10, 32)
	if errUser != nil || errGroup != nil {
		return nil, fmt.Errorf("%q is not a user's name or uid, nor uid:gid", f.User)
	}
	return &handler.User{UID: uint32(u), GID: uint32(g)}, nil
}

// handler makes the handler of a function that has one in the configuration.
func (f *Function) handler(c *Config) (Handler, error) {
	if f.HTTP != nil {
		return f.http()
	}
	owner, err := f.user()
	if err != nil {
		return nil, err
	}
	l := f.Limits
	command := handler.Command{
		Argv: f.Exec, Dir: f.Dir, Grace: time.Duration(c.Workers.Grace), User: owner,
		Limits: handler.Limits{
			Memory: int64(l.Memory), CPU: time.Duration(l.CPU), Files: l.Files, Processes: l.Processes, CPUs: l.CPUs, Cgroup: l.Cgroup,
		},
		Log: c.Log.With().Str("function", f.Function).Logger(),
	}
	for name, value := range f.Env {
		command.Env = append(command.Env, name+"="+string(value))
	}
	slices.Sort(command.Env)
	if !f.Persistent {
		return handler.NewExec(handler.ExecOptions{Command: command, MaxResult: int64(f.MaxResult), Stream: f.Stream})
	}
	processes := f.Processes
	if processes == 0 {
		processes = f.Concurrency
	}
	return handler.NewPersistent(handler.PersistentOptions{
		Command: command, Processes: processes, MaxResult: int64(f.MaxResult), MaxJobs: f.MaxJobs, MaxMemory: int64(f.MaxMemory),
		TTL: time.Duration(f.TTL), IdleTTL: time.Duration(f.IdleTTL),
	})
}

func (f *Function) http() (Handler, error) {
	o := handler.HTTPOptions{
		URL: string(f.HTTP.URL), ContentType: f.HTTP.ContentType, Header: http.Header{}, MaxResult: int64(f.MaxResult), MaxIdle: f.Concurrency,
	}
	for name, value := range f.HTTP.Headers {
		o.Header.Set(name, string(value))
	}
	if s := f.HTTP.Secret; s.String() != "" {
		o.Sign = func(id string, at time.Time, body []byte) http.Header { return webhook.Sign([]Secret{s}, id, at, body) }
	}
	return handler.NewHTTP(o)
}

// functions makes what the workers run: the built-in functions, those of the program, and those of the configuration.
func (c *Config) functions() (map[string]workerpool.Function, error) {
	functions := map[string]workerpool.Function{}
	for name, h := range c.inGo() {
		functions[name] = workerpool.Function{Handler: h}
	}
	for i := range c.Functions {
		f := &c.Functions[i]
		h := functions[f.Function].Handler
		var err error
		if f.Exec != nil || f.HTTP != nil { // else Check has seen one in Go
			h, err = f.handler(c)
		}
		if err != nil {
			closeHandlers(functions)
			return nil, fmt.Errorf("handlers[%d] (%s): %w", i, f.Function, err)
		}
		functions[f.Function] = workerpool.Function{
			Handler: h, Timeout: time.Duration(f.Timeout), Concurrency: f.Concurrency, Rate: f.Rate,
			MaxWorkload: int64(f.MaxWorkload), MaxResult: int64(f.MaxResult),
			Retry: workerpool.RetryPolicy{Max: f.Retry.Max, Backoff: time.Duration(f.Retry.Backoff)},
		}
	}
	return functions, nil
}

// closeHandlers ends those that keep processes or connections, and that no pool has taken. Those of the program are not made anew, and
// may be in use.
func closeHandlers(functions map[string]workerpool.Function) {
	for _, f := range functions {
		switch h := f.Handler.(type) {
		case *handler.Persistent:
			h.Close()
		case *handler.HTTP:
			h.Close()
		}
	}
}

// rules returns what HTTP asks of the functions' workloads.
func (c *Config) rules() (map[string]httpapi.Rules, error) {
	rules := map[string]httpapi.Rules{}
	for i := range c.Functions {
		f := &c.Functions[i]
		s, err := f.schema()
		if err != nil {
			return nil, fmt.Errorf("handlers[%d] (%s): %w", i, f.Function, err)
		}
		rules[f.Function] = httpapi.Rules{MaxWorkload: int64(f.MaxWorkload), Schema: s}
	}
	return rules, nil
}
