package ledger

// Held is how many live jobs the gateway holds, and how many bytes of their workloads: those that are sync or tracked, and those in the
// background that are scheduled or have an idempotency key, until a job server has them. Of jobs of an earlier life of the gateway the bytes
// are not known.
type Held struct {
	Jobs  int
	Bytes int64
}

// holdings are what is held of each owner or function. A name that nothing is held of is not in it.
type holdings map[string]*Held

func (h holdings) add(name string, jobs int, bytes int64) {
	sum := h[name]
	if sum == nil {
		sum = new(Held)
		h[name] = sum
	}
	sum.Jobs += jobs
	sum.Bytes += bytes
	if sum.Jobs == 0 {
		delete(h, name)
	}
}

func (h holdings) of(name string) Held {
	if sum := h[name]; sum != nil {
		return *sum
	}
	return Held{}
}

// held reports whether the gateway itself holds the job.
func (j *job) held() bool { return j.durable || j.Mode != Background }

// hold counts a job in, with 1, or out, with -1.
func (x *index) hold(j *job, n int) {
	if j.held() {
		x.owned.add(j.Owner, n, int64(n)*j.size)
		x.called.add(j.Function, n, int64(n)*j.size)
	}
}

// roomFor reports why a job must not be held.
func (l *Ledger) roomFor(j *job) error {
	if l.o.Room == nil || !j.held() {
		return nil
	}
	return l.o.Room(j.Owner, j.Function, j.size, l.owned.of(j.Owner), l.called.of(j.Function))
}
