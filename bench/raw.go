//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"gearman-gateway/internal/gearman"
	"gearman-gateway/internal/gearman/wire"
)

// rawCmd is what the gateway stands on, without HTTP: internal/gearman in a process of its own.
type rawCmd struct {
	Addr    string        `required:"" help:"The job server." placeholder:"HOST:PORT"`
	Work    string        `help:"background, sync, or pipeline: packets without a client, for what the job server can take." enum:"background,sync,pipeline" default:"background"`
	Callers int           `help:"Goroutines, which share one connection." default:"1"`
	Size    int           `help:"Bytes of a workload." default:"100"`
	Time    time.Duration `help:"How long." default:"1s"`
}

// Run prints what load.go reads.
func (c *rawCmd) Run(ctx context.Context) error {
	var took []time.Duration
	var err error
	begin := time.Now()
	l := loaded{}
	if c.Work == "pipeline" {
		l.Requests, err = c.pipeline()
	} else {
		took, err = c.call(ctx)
		l.Requests = len(took)
	}
	if err != nil {
		return err
	}
	l.US = time.Since(begin).Microseconds()
	if len(took) > 0 {
		slices.Sort(took)
		l.P50, l.P99 = took[len(took)/2].Microseconds(), took[len(took)*99/100].Microseconds()
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	l.CPU, l.RSS = (u.Utime.Nano()+u.Stime.Nano())/1000, u.Maxrss
	return json.NewEncoder(os.Stdout).Encode(l)
}

// call submits jobs from all callers, each of which waits for its answer, and returns how long each took.
func (c *rawCmd) call(ctx context.Context) ([]time.Duration, error) {
	client := gearman.NewClient(gearman.Options{Addr: c.Addr})
	defer client.Close(ctx)
	if err := client.WaitConnected(ctx); err != nil {
		return nil, err
	}
	task := gearman.Task{Function: function, Workload: []byte(workload(c.Size)), Background: c.Work == "background"}
	end := time.Now().Add(c.Time)
	var mu sync.Mutex
	var all []time.Duration
	var errs []error
	var callers sync.WaitGroup
	for range c.Callers {
		callers.Go(func() {
			took, err := callUntil(ctx, client, task, end)
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, took...), append(errs, err)
		})
	}
	callers.Wait()
	return all, errors.Join(errs...)
}

func callUntil(ctx context.Context, client *gearman.Client, task gearman.Task, end time.Time) (took []time.Duration, err error) {
	ended := make(chan gearman.Kind, 1)
	watch := func(u gearman.Update) {
		if u.Kind.Ends() {
			ended <- u.Kind
		}
	}
	if task.Background {
		watch = nil
	}
	for now := time.Now(); now.Before(end); {
		if _, err := client.Submit(ctx, task, watch); err != nil {
			return took, err
		}
		if !task.Background {
			if k := <-ended; k != gearman.Completed {
				return took, fmt.Errorf("a job ended as %v", k)
			}
		}
		then := time.Now()
		took = append(took, then.Sub(now))
		now = then
	}
	return took, nil
}

// pipeline submits background jobs as fast as one connection can, and returns how many.
func (c *rawCmd) pipeline() (n int, err error) {
	p, err := dialPeer(c.Addr)
	if err != nil {
		return 0, err
	}
	defer p.conn.Close()
	text := []byte(workload(c.Size))
	for end := time.Now().Add(c.Time); time.Now().Before(end); n += pipelined {
		if err := p.submit(pipelined, n, text); err != nil {
			return n, err
		}
	}
	return n, nil
}

// pipelined is how many requests a peer has under way.
const pipelined = 256

// A peer speaks to a job server packet by packet, with so little of its own that the job server is what is measured.
type peer struct {
	conn    net.Conn
	packets *wire.Reader
	out     []byte
}

func dialPeer(addr string) (*peer, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &peer{conn: conn, packets: wire.NewReader(bufio.NewReaderSize(conn, 64<<10), wire.Response, 0)}, nil
}

// flush sends what was appended to out, and reads n answers.
func (p *peer) flush(n int, read func(wire.Packet) error) error {
	_, err := p.conn.Write(p.out)
	p.out = p.out[:0]
	for ; n > 0 && err == nil; n-- {
		var packet wire.Packet
		if packet, err = p.packets.Next(); err == nil {
			err = read(packet)
		}
	}
	return err
}

// submit submits n background jobs, whose uniques are numbers from first on.
func (p *peer) submit(n, first int, text []byte) error {
	for done := 0; done < n; done += pipelined {
		batch := min(pipelined, n-done)
		for i := range batch {
			p.out = wire.Append(p.out, wire.Request, wire.SubmitJobBG, []byte(function), fmt.Append(nil, "unique-", first+done+i), text)
		}
		err := p.flush(batch, func(packet wire.Packet) error { return expect(packet, wire.JobCreated) })
		if err != nil {
			return err
		}
	}
	return nil
}

// complete takes n jobs and completes them.
func (p *peer) complete(n int) error {
	var handles [][]byte
	for done := 0; done < n; done += pipelined {
		batch := min(pipelined, n-done)
		for range batch {
			p.out = wire.Append(p.out, wire.Request, wire.GrabJob)
		}
		handles = handles[:0]
		err := p.flush(batch, func(packet wire.Packet) error {
			if err := expect(packet, wire.JobAssign); err != nil {
				return err
			}
			handles = append(handles, packet.Args[0])
			return nil
		})
		if err != nil {
			return err
		}
		for _, h := range handles { // they are sent with the next jobs that are asked for
			p.out = wire.Append(p.out, wire.Request, wire.WorkComplete, h, nil)
		}
	}
	p.out = wire.Append(p.out, wire.Request, wire.EchoReq, nil) // the answer says that all before it was done
	return p.flush(1, func(packet wire.Packet) error { return expect(packet, wire.EchoRes) })
}

func expect(packet wire.Packet, want wire.Type) error {
	if packet.Type != want {
		return fmt.Errorf("the job server sent %v in place of %v: %q", packet.Type, want, packet.Args)
	}
	return nil
}
