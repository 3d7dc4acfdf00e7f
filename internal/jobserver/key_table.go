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
	return &t.shards[hash>>56], max(uint32(hash)%(1<<tagBits), 1)
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
	mask := uint32(len(s.slots) - 1)
	for i := tag & mask; s.slots[i] != 0; i = (i + 1) & mask {
		if s.slots[i].tag() != tag {
			continue
		}
		if j := jobs.get(s.slots[i].number()); j != nil && (f == nil || j.fn == f) && bytes.Equal(j.key, key) {
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
	if 4*(s.len+1) > 3*len(s.slots) {
		s.tidy(jobs)
	}
	s.insert(keySlot(j.number<<tagBits | uint64(tag)))
}

// A keyShard is a hash table with linear probing. What a submit looks at and what it then writes are in one line of the processor's
// cache. Being one of many, a shard is small, so that the submit that makes it tidy waits for little.
type keyShard struct {
	slots []keySlot // their number is a power of two, or 0
	len   int
}

// A keySlot is a job's number and the tag of its key; 0 where there is nothing.
type keySlot uint64

// tagBits leave 46 bits for a number, which do for two years of a million jobs a second, and are enough for 2^26 slots in all shards.
const tagBits = 18

func (s keySlot) number() uint64 { return uint64(s >> tagBits) }
func (s keySlot) tag() uint32    { return uint32(s) % (1 << tagBits) }

const minShard = 16

func (s *keyShard) insert(slot keySlot) {
	mask := uint32(len(s.slots) - 1)
	i := slot.tag() & mask
	for s.slots[i] != 0 {
		i = (i + 1) & mask
	}
	s.slots[i] = slot
	s.len++
}

// tidy drops jobs that have ended, and makes the shard as large as the rest needs: half full at most. Where jobs end in order, their
// numbers tell; it looks for the jobs only if that does not make room enough.
func (s *keyShard) tidy(jobs *jobTable) {
	old, ended := *s, jobs.passed
	kept := old.count(ended)
	if 2*kept > len(old.slots) {
		ended = func(number uint64) bool { return jobs.get(number) == nil }
		kept = old.count(ended)
	}
	size := minShard
	for size < 2*kept {
		size *= 2
	}
	*s = keyShard{slots: make([]keySlot, size)}
	for _, slot := range old.slots {
		if slot != 0 && !ended(slot.number()) {
			s.insert(slot)
		}
	}
}

// count returns how many jobs have not ended.
func (s *keyShard) count(ended func(number uint64) bool) int {
	n := 0
	for _, slot := range s.slots {
		if slot != 0 && !ended(slot.number()) {
			n++
		}
	}
	return n
}
