// Package jobserver is a Gearman job server to embed: jobs in memory, and in a file while it is stopped; every packet that a client
// or worker of any language sends, and the admin text protocol on the same port.
//
// To its peers it looks like gearmand 1.1.20, save for what gearmand gets wrong:
//   - No job is lost by coalescing. A background submit makes a job outlive its clients whoever was first, and a queued job
//     that nobody waits for is gone at once, so nothing attaches to it.
//   - SUBMIT_JOB_EPOCH runs at its time, and a job that waits for its time holds up no other.
//   - CAN_DO_TIMEOUT is in milliseconds. A job over its time is taken from its worker and fails; it is not run again.
//   - Priorities hold across the functions of a worker; within one, the oldest job comes first whatever its function.
//   - "cancel job" ends running jobs too. A worker is never told ERROR for a job that was taken from it, nor for the WORK_FAIL
//     that Perl's workers send after WORK_EXCEPTION: it would end them.
//   - CANT_DO and RESET_ABILITIES leave a running job with its worker. gearmand gives it to another one, too.
//   - A second CAN_DO replaces the first; a status request of any length is answered; maxqueue may be set before the first job.
//
// SUBMIT_JOB_SCHED and the two SUBMIT_REDUCE_JOB are refused with ERROR INVALID_COMMAND.
//
// One mutex guards all jobs, functions and abilities, and no I/O happens under it: each connection has a goroutine that reads
// and acts, and one that writes what has gathered in its outbox.
package jobserver

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// A Server is a Gearman job server. Make one with New; its methods are safe for concurrent use.
type Server struct {
	opts      Options
	log       zerolog.Logger
	refusals  zerolog.Logger // of connections, thinned out
	prefix    string         // of handles: "H:<hostname>:"
	wakeGrace time.Duration
	listener  net.Listener
	stopped   chan struct{}
	running   sync.WaitGroup // accept, the alarm clock, and every connection

	mu        sync.Mutex
	stopping  bool
	conns     map[*conn]struct{}
	lastConn  uint64
	functions map[string]*function
	jobs      jobTable // by the number in the handle
	spare     []*job   // that have ended
	lastJob   uint64
	lastSeq   uint64 // of the queues' order
	keys      keyTable
	bytes     int64 // names and workloads of all jobs
	alarms    alarmClock
}

// New returns a Server that does nothing yet.
func New(o Options) *Server {
	o = o.withDefaults()
	return &Server{
		opts:      o,
		log:       o.Log,
		refusals:  o.Log.Sample(&zerolog.BurstSampler{Burst: 3, Period: time.Second}),
		prefix:    handlePrefix(),
		wakeGrace: wakeGrace,
		stopped:   make(chan struct{}),
		conns:     map[*conn]struct{}{},
		functions: map[string]*function{},
		jobs:      newJobTable(),
		keys:      newKeyTable(),
		alarms:    newAlarmClock(),
	}
}

// ErrQueue: the file of Options.Queue is there and cannot be read, or not be removed.
var ErrQueue = errors.New("queue of the job server")

// Start listens and returns; connections are served until Stop. An address that cannot be had is named in the error, which
// wraps the cause (syscall.EADDRINUSE for a taken port); else it is ErrQueue. A Server is started once.
func (s *Server) Start() error {
	listener, err := net.Listen("tcp", s.opts.Listen)
	if err != nil {
		return fmt.Errorf("job server on %s: %w", s.opts.Listen, err)
	}
	if err := s.load(); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrQueue, err), listener.Close())
	}
	s.listener = listener
	s.running.Go(s.accept)
	s.running.Go(s.watchClock)
	s.log.Info().Str("listen", s.Addr()).Msg("job server listens")
	return nil
}

// Addr returns the host:port that the server listens on, with the port that was found for 0. It is "" before Start.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Stop closes the listener and every connection and waits until all goroutines have ended. Jobs in the background are kept in
// Options.Queue, those that ran too; without it, or if that fails, all jobs are gone, and the log says how many.
// Peers see the end of the stream and no packets, as with gearmand. Calling it again does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	first := !s.stopping
	s.stopping = true
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()

	if first {
		close(s.stopped)
		if s.listener != nil {
			s.listener.Close()
		}
		for _, c := range open {
			c.close(errStopping)
		}
	}
	s.running.Wait()
	if first && s.listener != nil { // else Start has failed, and what was kept is still where it was
		s.keep()
	}
}

// accept takes connections until the listener is closed. It waits a little after an error such as having no file descriptors
// left, because Accept would fail again at once.
func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		if err == nil {
			s.running.Go(func() { s.serve(nc) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Error().Err(err).Msg("accept")
		select {
		case <-time.After(100 * time.Millisecond):
		case <-s.stopped:
			return
		}
	}
}

// serve sees one connection through: its jobs and abilities go when its reader ends, and what it is still owed is written
// out for a moment before it is closed.
func (s *Server) serve(nc net.Conn) {
	c := newConn(nc, s.opts.SendBuffer)
	if err := s.join(c); err != nil {
		nc.Close()
		s.refusals.Warn().Err(err).Str("remote", nc.RemoteAddr().String()).Msg("connection refused")
		return
	}
	go c.write()
	err := s.read(c)
	s.leave(c)
	c.out.end()
	nc.SetWriteDeadline(time.Now().Add(partingTime))
	<-c.written
	c.close(err)
	c.logEnd(s.log)
}

// partingTime is how long a peer that has stopped sending gets to read the rest of what it is owed.
const partingTime = 2 * time.Second

var (
	errStopping = errors.New("server is stopping")
	errCrowded  = errors.New("too many connections")
)

func (s *Server) join(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errStopping
	}
	if len(s.conns) >= s.opts.MaxConnections {
		return errCrowded
	}
	s.lastConn++
	c.number = s.lastConn
	c.wakeUp.ring = func() { s.overslept(c) }
	s.conns[c] = struct{}{}
	return nil
}

// leave takes a connection out of everything: what it was running is run again by others, what only it waited for is dropped.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.resetAbilities(c)
	s.abandonWatches(c) // before its jobs: the one it ran for itself is not to run again
	s.abandonJobs(c)
}
