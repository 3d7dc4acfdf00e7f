package gearman

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Cluster is several job servers that share the work, as Gearman's clients and workers have it: the servers do not know of
// each other. Its methods are safe for concurrent use. Close it.
type Cluster struct {
	members []*member
	turn    atomic.Uint64
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// member is one job server of a cluster.
type member struct {
	*Client
	admin *Admin
	// functions is the server's table of functions when it was last asked; nil until then, and while it does not answer.
	functions atomic.Pointer[map[string]FunctionStatus]
}

// How often a cluster asks its servers for their functions.
const pollInterval = time.Second

// NewCluster returns a cluster that has begun to connect to each of the servers. It needs at least one, and no address
// twice.
func NewCluster(servers []Options) (*Cluster, error) {
	if len(servers) == 0 {
		return nil, errors.New("no job server given")
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Cluster{stop: stop}
	for i, o := range servers {
		if slices.ContainsFunc(servers[:i], func(p Options) bool { return p.Addr == o.Addr }) {
			stop()
			c.Close(ctx)
			return nil, fmt.Errorf("job server %s is given twice", o.Addr)
		}
		m := &member{Client: NewClient(o), admin: NewAdmin(o)}
		c.members = append(c.members, m)
		c.wg.Go(func() { m.poll(ctx) })
	}
	return c, nil
}

// poll keeps functions up to date, so that a job does not wait on a server where nobody will take it.
func (m *member) poll(ctx context.Context) {
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for {
		m.functions.Store(m.ask(ctx))
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *member) ask(ctx context.Context) *map[string]FunctionStatus {
	if m.WaitConnected(ctx) != nil {
		return nil
	}
	list, err := m.admin.Status(ctx)
	if err != nil {
		return nil
	}
	table := make(map[string]FunctionStatus, len(list))
	for _, f := range list {
		table[f.Function] = f
	}
	return &table
}

func (m *member) canDo(function string) bool {
	table := m.functions.Load()
	return table != nil && (*table)[function].Workers > 0
}

// WaitConnected blocks until each server is connected or its first attempt has failed, or ctx ends. It returns nil if any is
// connected.
func (c *Cluster) WaitConnected(ctx context.Context) error {
	return c.any(func(_ int, m *member) error { return m.WaitConnected(ctx) })
}

// Submit is Client.Submit on a server of the cluster's choice. It goes on to the next server where a task was surely not sent, and
// never where the outcome is unknown. Tasks with a unique go to the same server as long as that is connected, so that
// they coalesce; others to the one with the fewest requests pending. Servers with a worker for the function come first.
func (c *Cluster) Submit(ctx context.Context, t Task, watch Watch) (Job, error) {
	var notSent error
	for _, m := range c.order(t) {
		job, err := m.Submit(ctx, t, watch)
		if err == nil || !errors.Is(err, ErrNotSent) {
			return job, err
		}
		notSent = errors.Join(notSent, err)
	}
	return Job{}, notSent
}

// order returns the servers in the order in which to try them.
func (c *Cluster) order(t Task) []*member {
	if len(c.members) == 1 {
		return c.members
	}
	type candidate struct {
		*member
		connected, able bool
		rank            uint64
	}
	list := make([]candidate, len(c.members))
	turn := c.turn.Add(1) // among equals it goes round
	for i := range c.members {
		m := c.members[(uint64(i)+turn)%uint64(len(c.members))]
		info := m.Info()
		list[i] = candidate{m, info.Connected, m.canDo(t.Function), uint64(info.Pending)}
		if t.Unique != "" {
			list[i].rank = weight(m.Addr(), t.Function, t.Unique)
		}
	}
	first := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(first(a.connected), first(b.connected)),
			cmp.Compare(first(a.able), first(b.able)),
			cmp.Compare(a.rank, b.rank))
	})
	members := make([]*member, len(list))
	for i := range list {
		members[i] = list[i].member
	}
	return members
}

// weight is the rank of a server for a unique by rendezvous hashing: the same in every gateway, and when one server goes, only
// its own uniques move.
func weight(addr, function, unique string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, addr+"\x00"+function+"\x00"+unique) // cannot fail
	x := h.Sum64()
	x ^= x >> 33 // FNV's high bits hardly depend on the last bytes: mix them (as MurmurHash3 ends)
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// Status asks the server that has the job: by its handle on the connection that submitted it, and after a reconnect, when the
// handle may name another job, by the unique that was sent with it.
func (c *Cluster) Status(ctx context.Context, job Job, unique string) (JobStatus, error) {
	m := c.member(job.Server)
	if m == nil {
		return JobStatus{}, fmt.Errorf("job server %s: %w: not one of this cluster", job.Server, ErrUnavailable)
	}
	if job.Handle != "" && job.Generation != 0 {
		if status, err := m.Status(ctx, job); !errors.Is(err, ErrStale) {
			return status, err
		}
	}
	return m.StatusUnique(ctx, unique)
}

// CancelJob takes a queued background job of this connection's generation from its server's queue.
func (c *Cluster) CancelJob(ctx context.Context, job Job) error {
	m := c.member(job.Server)
	if m == nil || m.Generation() != job.Generation {
		return fmt.Errorf("job server %s: %w: the connection that submitted the job is gone", job.Server, ErrUnavailable)
	}
	return m.admin.CancelJob(ctx, job.Handle)
}

func (c *Cluster) member(addr string) *member {
	for _, m := range c.members {
		if m.Addr() == addr {
			return m
		}
	}
	return nil
}

// Find asks all servers at once for a handle that this cluster did not submit. found is false when every server answered
// and none knows it; where one could not be asked and no other knows it, that is an error.
func (c *Cluster) Find(ctx context.Context, handle string) (job Job, status JobStatus, found bool, err error) {
	answers := make([]JobStatus, len(c.members))
	errs := c.each(func(i int, m *member) (err error) {
		answers[i], err = m.Status(ctx, Job{Handle: handle})
		return err
	})
	for i, a := range answers {
		if a.Known {
			m := c.members[i]
			return Job{Server: m.Addr(), Handle: handle, Generation: m.Generation()}, a, true, nil
		}
	}
	return Job{}, JobStatus{}, false, errors.Join(errs...)
}

// Ping returns nil as soon as any server has answered an ECHO.
func (c *Cluster) Ping(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() { answers <- m.Echo(ctx) }() // ends with ctx
	}
	var errs error
	for range c.members {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// Functions returns the functions of all servers by name, counts added up. Servers that do not answer are left out; it is an
// error if none does.
func (c *Cluster) Functions(ctx context.Context) ([]FunctionInfo, error) {
	tables := make([][]FunctionStatus, len(c.members))
	err := c.any(func(i int, m *member) (err error) {
		tables[i], err = m.admin.Status(ctx)
		return err
	})
	byName := map[string]*FunctionInfo{}
	for i, table := range tables {
		for _, f := range table {
			joined := byName[f.Function]
			if joined == nil {
				joined = &FunctionInfo{Function: f.Function}
				byName[f.Function] = joined
			}
			one := FunctionInfo{
				Function: f.Function, Server: c.members[i].Addr(),
				Queued: f.Total - f.Running, Running: f.Running, Workers: f.Workers,
			}
			joined.Queued += one.Queued
			joined.Running += one.Running
			joined.Workers += one.Workers
			joined.Servers = append(joined.Servers, one)
		}
	}
	list := make([]FunctionInfo, 0, len(byName))
	for _, f := range byName {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b FunctionInfo) int { return cmp.Compare(a.Function, b.Function) })
	return list, err
}

// Load returns how many workers can do a function and how many of its jobs wait for one, over all servers, as they said a second ago
// or so. It does not block; ok is false while no server has said anything.
func (c *Cluster) Load(function string) (workers, queued int, ok bool) {
	for _, m := range c.members {
		if table := m.functions.Load(); table != nil {
			f := (*table)[function]
			workers, queued, ok = workers+f.Workers, queued+f.Total-f.Running, true
		}
	}
	return workers, queued, ok
}

// Workers returns the workers of all servers. Servers that do not answer are left out; it is an error if none does.
func (c *Cluster) Workers(ctx context.Context) ([]WorkerInfo, error) {
	tables := make([][]WorkerInfo, len(c.members))
	err := c.any(func(i int, m *member) (err error) {
		tables[i], err = m.admin.Workers(ctx)
		return err
	})
	return slices.Concat(tables...), err
}

// Servers returns how each server looks from here, in the order of the configuration.
func (c *Cluster) Servers(ctx context.Context) []ServerInfo {
	list := make([]ServerInfo, len(c.members))
	c.each(func(i int, m *member) error {
		list[i] = m.Info()
		if !list[i].Connected {
			return nil
		}
		var err error
		if list[i].Version, err = m.admin.Version(ctx); err != nil {
			list[i].Error = err.Error()
		}
		return nil
	})
	return list
}

// each calls f for all servers at once and returns the errors in their order.
func (c *Cluster) each(f func(i int, m *member) error) []error {
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() { errs[i] = f(i, m) })
	}
	wg.Wait()
	return errs
}

// any is each, and fails only if all did.
func (c *Cluster) any(f func(i int, m *member) error) error {
	errs := c.each(f)
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(errs...)
}

// Close closes every client as Client.Close does.
func (c *Cluster) Close(ctx context.Context) {
	c.stop()
	c.each(func(_ int, m *member) error { m.Close(ctx); return nil })
	c.wg.Wait()
}
