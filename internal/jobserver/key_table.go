package jobserver

import (
	"bytes"
	"hash/maphash"
)

// A keyTable finds jobs by what they coalesce by. Jobs whose keys have the same hash hang on one another: most often those of
// several functions with one key.
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
func (t *keyTable) find(f *function, key []byte) *job {
	if !coalesces(key) {
		return nil
	}
	s, tag := t.place(key)
	i := s.find(tag)
	if i < 0 {
		return nil
	}
	for j := s.jobs[i]; j != nil; j = j.sibling {
		if (f == nil || j.fn == f) && bytes.Equal(j.key, key) {
			return j
		}
	}
	return nil
}

func (t *keyTable) add(j *job) {
	if !coalesces(j.key) {
		return
	}
	s, tag := t.place(j.key)
	if i := s.find(tag); i >= 0 {
		j.sibling = s.jobs[i]
		s.jobs[i] = j
		return
	}
	s.insert(tag, j)
}

// remove takes out a job that was added.
func (t *keyTable) remove(j *job) {
	if !coalesces(j.key) {
		return
	}
	s, tag := t.place(j.key)
	i := s.find(tag)
	first := s.jobs[i]
	switch {
	case first != j:
		for first.sibling != j {
			first = first.sibling
		}
		first.sibling = j.sibling
	case j.sibling != nil:
		s.jobs[i] = j.sibling
	default:
		s.remove(i)
	}
}

// A keyShard is a hash table with linear probing, in two arrays: of a million jobs, the tags stay in the processor's cache, and
// for most submits they are all that is looked at. A map looks at more memory for each key, and slower the more it has forgotten.
// Being one of many, a shard is small, so that the submit that makes it grow waits for some microseconds.
type keyShard struct {
	tags []uint32 // never 0 but where there is no job; the length of both arrays is a power of two, or 0
	jobs []*job
	len  int
}

const minShard = 16

// find returns the index of a tag, -1 if it is not there.
func (s *keyShard) find(tag uint32) int {
	mask := uint32(len(s.tags) - 1)
	if s.len == 0 {
		return -1
	}
	for i := tag & mask; s.tags[i] != 0; i = (i + 1) & mask {
		if s.tags[i] == tag {
			return int(i)
		}
	}
	return -1
}

// insert adds a tag that is not there.
func (s *keyShard) insert(tag uint32, j *job) {
	if 4*(s.len+1) > 3*len(s.tags) {
		s.grow()
	}
	mask := uint32(len(s.tags) - 1)
	i := tag & mask
	for s.tags[i] != 0 {
		i = (i + 1) & mask
	}
	s.tags[i], s.jobs[i] = tag, j
	s.len++
}

func (s *keyShard) grow() {
	old := *s
	n := max(2*len(old.tags), minShard)
	*s = keyShard{tags: make([]uint32, n), jobs: make([]*job, n)}
	for i, tag := range old.tags {
		if tag != 0 {
			s.insert(tag, old.jobs[i])
		}
	}
}

// remove empties an index, and moves into it what probing would not find behind an empty one. A shard that has grown and has
// nothing left is given back.
func (s *keyShard) remove(i int) {
	s.len--
	if s.len == 0 && len(s.tags) > minShard {
		*s = keyShard{}
		return
	}
	mask := uint32(len(s.tags) - 1)
	hole := uint32(i)
	for k := (hole + 1) & mask; s.tags[k] != 0; k = (k + 1) & mask {
		if (k-s.tags[k])&mask >= (k-hole)&mask { // it is at least as far from its own index as from the hole
			s.tags[hole], s.jobs[hole] = s.tags[k], s.jobs[k]
			hole = k
		}
	}
	s.tags[hole], s.jobs[hole] = 0, nil
}
