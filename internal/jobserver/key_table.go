package jobserver

import (
	"bytes"
	"hash/maphash"
)

// A keyTable finds jobs by what they coalesce by. It holds a hash of each key, and jobs whose hashes are the same hang on one
// another: most often jobs of several functions with one key.
type keyTable struct {
	seed maphash.Seed
	jobs map[uint64]*job
}

func newKeyTable() keyTable { return keyTable{maphash.MakeSeed(), map[uint64]*job{}} }

// find returns the job of a function, or with nil of any function, that has the key. It returns nil if there is none, as there
// never is for a key that is not one to coalesce by.
func (t *keyTable) find(f *function, key []byte) *job {
	if !coalesces(key) {
		return nil
	}
	for j := t.jobs[maphash.Bytes(t.seed, key)]; j != nil; j = j.sibling {
		if (f == nil || j.fn == f) && bytes.Equal(j.key, key) {
			return j
		}
	}
	return nil
}

func (t *keyTable) add(j *job) {
	if coalesces(j.key) {
		hash := maphash.Bytes(t.seed, j.key)
		j.sibling = t.jobs[hash]
		t.jobs[hash] = j
	}
}

// remove takes out a job that was added.
func (t *keyTable) remove(j *job) {
	if !coalesces(j.key) {
		return
	}
	hash := maphash.Bytes(t.seed, j.key)
	first := t.jobs[hash]
	switch {
	case first != j:
		for first.sibling != j {
			first = first.sibling
		}
		first.sibling = j.sibling
	case j.sibling != nil:
		t.jobs[hash] = j.sibling
	default:
		delete(t.jobs, hash)
	}
}
