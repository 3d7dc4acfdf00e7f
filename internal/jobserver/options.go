package jobserver

import (
	"cmp"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/gearman/wire"
)

// Options say where a Server listens and how much it holds. The zero value works.
type Options struct {
	// Listen is host:port; port 0 takes a free one. "" means 127.0.0.1:4730, Gearman's port on the loopback interface.
	Listen string
	// Queue is a file for jobs in the background that are queued at Stop; Start takes them up again. "" means that they are lost.
	Queue string
	// MaxBody is the largest body of a packet, in bytes. A bigger one is answered with ERROR and the connection closed.
	// 0 means wire.DefaultMaxBody.
	MaxBody int
	// MaxConnections is how many connections are served at a time; further ones are closed at once. 0 means 4096.
	MaxConnections int
	// MaxJobs is how many jobs are held, waiting or running. Beyond, a submit is refused: the queue is full. 0 means 2 million.
	MaxJobs int
	// MaxBytes is how many bytes the names and workloads of all jobs may have together. Beyond, a submit is refused: the
	// queue is full. 0 means 1 GiB.
	MaxBytes int64
	// MaxFunctions is how many functions are known at a time. At the bound those without jobs, workers and limits are
	// forgotten; when there are none, a new one is refused. 0 means 10,000.
	MaxFunctions int
	// JobAttempts is how many runs of a job may end with the death of its worker before the job fails. 0 means no limit.
	JobAttempts int
	// SendBuffer bounds the bytes that wait for a connection's peer to read them. A connection that owes more than this when
	// another packet comes is closed, so the most it can hold is SendBuffer and one packet. 0 means twice MaxBody.
	SendBuffer int
	// Version is what the admin command "version" answers. "" means "embedded".
	Version string
	// Log is told of refused and broken connections. The zero Logger is silent.
	Log zerolog.Logger
}

// withDefaults returns o with every zero replaced by what it stands for.
func (o Options) withDefaults() Options {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:4730")
	o.MaxBody = cmp.Or(o.MaxBody, wire.DefaultMaxBody)
	o.MaxConnections = cmp.Or(o.MaxConnections, 4096)
	o.MaxJobs = cmp.Or(o.MaxJobs, 2_000_000)
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<30)
	o.MaxFunctions = cmp.Or(o.MaxFunctions, 10_000)
	o.SendBuffer = cmp.Or(o.SendBuffer, 2*o.MaxBody)
	o.Version = cmp.Or(o.Version, "embedded")
	return o
}
