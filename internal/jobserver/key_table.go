package jobserver

import (
	"bytes"
	"hash/maphash"
)

// A keyTable finds jobs by what they coalesce by. It keeps the numbers of jobs, and those of jobs that have ended until it needs
// their room: to look for each as it ends would cost as much as to complete it.
type keyTable struct {
	seed   maphash.Seed
	shards [256]keyShard // by the highest bits of the hash
}

func newKeyTable() keyTable { return keyTable{seed: maphash.MakeSeed()} }

// place returns where a key belongs: its shard, and its tag there.
func (t *keyTable) place(key []byte) (*keyShard, uint32) {
	hash := maphash.Bytes(t.seed, key)
	return &t.shards[hash>>56], max(uint32(hash), 1)
}

// find returns the job of a function, or with nil of any function, that has the key. It returns nil if there is none, as there
// never is for a key that is not one to coalesce by.
func (t *keyTable) find(jobs *jobTable, f *function, key []byte) *job {
	if !coalesces(key) {
		return nil
	}
	s, tag := t.place(key)
	if s.len == 0 {
		return nil
	}
	mask := uint32(len(s.tags) - 1)
	for i := tag & mask; s.tags[i] != 0; i = (i + 1) & mask {
		if s.tags[i] != tag {
			continue
		}
		if j := jobs.get(s.numbers[i]); j != nil && (f == nil || j.fn == f) && bytes.Equal(j.key, key) {
			return j
		}
	}
	return nil
}

// add takes a job that is in jobs.
func (t *keyTable) add(j *job, jobs *jobTable) {
	if !coalesces(j.key) {
		return
	}
	s, tag := t.place(j.key)
	if 4*(s.len+1) > 3*len(s.tags) {
		s.tidy(jobs)
	}
	s.insert(tag, j.number)
}

// A keyShard is a hash table with linear probing, in two arrays: the tags are so small that those of many jobs stay in the
// processor's cache, and for most submits they are all that is looked at. Being one of many, a shard is small, so that the submit
// that makes it tidy waits for little.
type keyShard struct {
	tags    []uint32 // 0 where there is nothing; the length of both arrays is a power of two, or 0
	numbers []uint64
	len     int
}

const minShard = 16

func (s *keyShard) insert(tag uint32, number uint64) {
	mask := uint32(len(s.tags) - 1)
	i := tag & mask
	for s.tags[i] != 0 {
		i = (i + 1) & mask
	}
	s.tags[i], s.numbers[i] = tag, number
	s.len++
}

// tidy drops jobs that have ended, and makes the shard as large as the rest needs: half full at most. Where jobs end in order, their
// numbers tell; it looks for the jobs only if that does not make room enough.
func (s *keyShard) tidy(jobs *jobTable) {
	old, ended := *s, jobs.passed
	kept := old.count(ended)
	if 2*kept > len(old.tags) {
		ended = func(number uint64) bool { return jobs.get(number) == nil }
		kept = old.count(ended)
	}
	size := minShard
	for size < 2*kept {
		size *= 2
	}
	*s = keyShard{tags: make([]uint32, size), numbers: make([]uint64, size)}
	for i, tag := range old.tags {
		if tag != 0 && !ended(old.numbers[i]) {
			s.insert(tag, old.numbers[i])
		}
	}
}

// count returns how many jobs have not ended.
func (s *keyShard) count(ended func(number uint64) bool) int {
	n := 0
	for i, tag := range s.tags {
		if tag != 0 && !ended(s.numbers[i]) {
			n++
		}
	}
	return n
}
