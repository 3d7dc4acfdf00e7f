package jobserver

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The file Options.Queue has a line of JSON for each job in the background that was queued at Stop, oldest first, after one with a keptHead.
// It is there between Stop and the next Start alone, so that no job runs twice because a later life of the server ended without Stop.
type (
	keptHead struct {
		Last   uint64 `json:"last"`             // number of the newest job there was: no handle names two jobs
		Prefix []byte `json:"prefix,omitempty"` // of the handles: a container has another host name in each life
	}
	keptJob struct {
		Number   uint64    `json:"number"`
		Function []byte    `json:"function"` // this and the other bytes in base64
		Unique   []byte    `json:"unique,omitempty"`
		Workload []byte    `json:"workload,omitempty"`
		Priority uint8     `json:"priority"`
		Attempts uint32    `json:"attempts,omitempty"`
		Due      time.Time `json:"due,omitzero"` // when it waits for its time
	}
)

// keep saves what is queued when all connections are gone, or logs that it goes with the server.
func (s *Server) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.jobs.len // in the background: the others' clients are gone
	switch err := s.save(); {
	case err != nil:
		s.log.Error().Err(err).Int("jobs", n).Msg("jobs in the background that were still queued are lost: they cannot be kept")
	case n > 0 && s.opts.Queue == "":
		s.log.Warn().Int("jobs", n).Msg("jobs in the background that were still queued are lost: the embedded job server has them in memory alone")
	case n > 0:
		s.log.Info().Int("jobs", n).Msg("jobs in the background that were still queued are kept for the next start")
	}
}

// save writes the file, if there is to be one: whole, or not at all.
func (s *Server) save() error {
	if s.opts.Queue == "" {
		return nil
	}
	unfinished := s.opts.Queue + ".tmp"
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(s.write(f), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(unfinished))
	}
	if err := os.Rename(unfinished, s.opts.Queue); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.opts.Queue))
}

func (s *Server) write(f io.Writer) error {
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	if err := lines.Encode(keptHead{s.lastJob, []byte(s.prefix)}); err != nil {
		return err
	}
	for _, j := range slices.SortedFunc(s.jobs.all(), func(a, b *job) int { return cmp.Compare(a.number, b.number) }) {
		k := keptJob{
			Number: j.number, Function: []byte(j.fn.name), Unique: j.unique(), Workload: j.workload, Priority: j.priority, Attempts: j.attempts,
		}
		if j.alarm != nil {
			k.Due = j.alarm.at
		}
		if err := lines.Encode(k); err != nil {
			return err
		}
	}
	return w.Flush()
}

// syncDir makes a rename in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Kept reports whether a file of Options.Queue has jobs. One that is not there has none, nor has one that cannot be read.
func Kept(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := json.NewDecoder(f)
	return lines.Decode(new(keptHead)) == nil && lines.More()
}

// load takes up what an earlier life has kept, and removes the file.
func (s *Server) load() error {
	if s.opts.Queue == "" {
		return nil
	}
	f, err := os.Open(s.opts.Queue)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readKept(bufio.NewReader(f)); err != nil {
		return fmt.Errorf("%s: %w; without this file the job server starts, and the jobs in it are lost", s.opts.Queue, err)
	}
	if s.jobs.len > 0 {
		s.log.Info().Int("jobs", s.jobs.len).Msg("jobs in the background of before the start are queued again")
	}
	return os.Remove(s.opts.Queue)
}

func (s *Server) readKept(r io.Reader) error {
	lines := json.NewDecoder(r)
	var head keptHead
	if err := lines.Decode(&head); err != nil {
		return err
	}
	if len(head.Prefix) > 0 {
		s.prefix = string(head.Prefix)
	}
	for {
		var k keptJob
		switch err := lines.Decode(&k); {
		case errors.Is(err, io.EOF):
			s.lastJob = head.Last
			s.jobs.startAfter(head.Last)
			return nil
		case err != nil:
			return err
		case k.Number <= s.lastJob || k.Number > head.Last || k.Priority >= priorities:
			return fmt.Errorf("there is no such job: number %d of %d, priority %d", k.Number, head.Last, k.Priority)
		}
		if err := s.takeUp(k); err != nil {
			return err
		}
	}
}

// takeUp enters a job that was kept. Numbers come in their order.
func (s *Server) takeUp(k keptJob) error {
	f, refused := s.function(k.Function)
	if refused != nil {
		return errors.New(refused.text)
	}
	s.lastJob = k.Number - 1
	s.jobs.startAfter(s.lastJob)
	j := s.newJob(f, &task{key: coalescingKey(k.Unique, k.Workload), workload: k.Workload, priority: k.Priority})
	j.attempts, j.durable = k.Attempts, true
	s.addJob(j)
	var delay time.Duration
	if !k.Due.IsZero() {
		delay = time.Until(k.Due)
	}
	s.begin(j, delay)
	return nil
}
