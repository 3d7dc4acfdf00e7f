package webhook

import "math/bits"

// numbers is a set of numbers from 1 to 2^48-1 that finds neighbours at a constant cost: bit n%64 of word n/64 says that n is in it, and
// the words that are not empty are numbers themselves, a level up.
type numbers struct {
	levels [8]map[int64]uint64
	len    int
}

// add adds n, which is not in the set.
func (s *numbers) add(n int64) {
	s.len++
	for i := range s.levels {
		if s.levels[i] == nil {
			s.levels[i] = map[int64]uint64{}
		}
		word := s.levels[i][n>>6]
		s.levels[i][n>>6] = word | 1<<(n&63)
		if word != 0 {
			return
		}
		n >>= 6
	}
}

// remove removes n, which is in the set.
func (s *numbers) remove(n int64) {
	s.len--
	for i := range s.levels {
		word := s.levels[i][n>>6] &^ (1 << (n & 63))
		if word != 0 {
			s.levels[i][n>>6] = word
			return
		}
		delete(s.levels[i], n>>6)
		n >>= 6
	}
}

// above returns the least number that is greater than n; 0: there is none.
func (s *numbers) above(n int64) int64 {
	for i := range s.levels {
		if word := s.levels[i][n>>6] &^ (2<<(n&63) - 1); word != 0 {
			n = n&^63 | int64(bits.TrailingZeros64(word))
			for ; i > 0; i-- {
				n = n<<6 | int64(bits.TrailingZeros64(s.levels[i-1][n]))
			}
			return n
		}
		n >>= 6
	}
	return 0
}

// below returns the greatest number that is less than n; 0: there is none.
func (s *numbers) below(n int64) int64 {
	for i := range s.levels {
		if word := s.levels[i][n>>6] & (1<<(n&63) - 1); word != 0 {
			n = n&^63 | int64(63-bits.LeadingZeros64(word))
			for ; i > 0; i-- {
				n = n<<6 | int64(63-bits.LeadingZeros64(s.levels[i-1][n]))
			}
			return n
		}
		n >>= 6
	}
	return 0
}
