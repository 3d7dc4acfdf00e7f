package gearman

// FunctionInfo is one function's line of the admin table "status", joined over job servers.
type FunctionInfo struct {
	Function string
	Queued   int // jobs waiting for a worker
	Running  int
	Workers  int            // connections that can do it
	Servers  []FunctionInfo // the same per job server; each with Server set, and no Servers of its own
	Server   string         // "" in the joined line
}

// WorkerInfo is one line of the admin table "workers" that can do any function.
type WorkerInfo struct {
	Server    string
	ID        string // what the worker calls itself; "" if it does not
	Address   string
	Functions []string
}

// ServerInfo is how the gateway sees one job server.
type ServerInfo struct {
	Server    string // host:port, as configured
	Connected bool
	Version   string // "" while not connected, or where the server does not say
	Pending   int    // requests on the wire that wait for their reply
	Error     string // why it is not connected
}
