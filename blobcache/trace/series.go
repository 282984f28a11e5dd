package trace

import "time"

const (
	// buckets of a Series. A fill of any length is seen in 32 to 64 steps.
	buckets = 64
	// firstWidth is the width of a bucket to begin with: a fill of half a second
	// is seen as it is.
	firstWidth = 10 * time.Millisecond
)

// Series counts something over time, in buckets whose width doubles whenever
// they are full. The zero value is empty, and so is nil.
type Series struct {
	width time.Duration // of a bucket; 0 is firstWidth
	used  int           // buckets
	sums  [buckets]int64
}

// Width returns that of a bucket.
func (s *Series) Width() time.Duration {
	if s.width == 0 {
		return firstWidth
	}
	return s.width
}

// Sums returns the buckets from the first one on.
func (s *Series) Sums() []int64 {
	if s == nil {
		return nil
	}
	return s.sums[:s.used]
}

// Total returns the sum of all.
func (s *Series) Total() (sum int64) {
	for _, n := range s.Sums() {
		sum += n
	}
	return sum
}

// Reset empties it. It touches no more memory than was used: where bytes go out, the
// rest of it is in no cache of the processor.
func (s *Series) Reset() {
	clear(s.sums[:s.used])
	s.width, s.used = 0, 0
}

// Add counts n at a time since the start, which is not negative.
func (s *Series) Add(at time.Duration, n int64) { s.sums[s.slot(max(0, at))] += n }

// slot returns the bucket of a time, and makes room for it.
func (s *Series) slot(at time.Duration) int {
	for at >= buckets*s.Width() {
		for i := range buckets / 2 {
			s.sums[i] = s.sums[2*i] + s.sums[2*i+1]
		}
		clear(s.sums[buckets/2:])
		s.width, s.used = 2*s.Width(), (s.used+1)/2
	}
	i := int(at / s.Width())
	s.used = max(s.used, i+1)
	return i
}

// AddSpan counts the nanoseconds of a span of time.
func (s *Series) AddSpan(from, to time.Duration) {
	if to <= from {
		return
	}
	last := s.slot(to - 1)
	for i := s.slot(from); i <= last; i++ {
		begin := time.Duration(i) * s.Width()
		s.sums[i] += int64(min(to, begin+s.Width()) - max(from, begin))
	}
}

// Between returns what was counted in a span of time, as if the things of each
// bucket were spread over it evenly.
func (s *Series) Between(from, to time.Duration) float64 {
	if s == nil {
		return 0
	}
	sum, w := 0.0, s.Width()
	for i := int(max(0, from) / w); i < s.used && time.Duration(i)*w < to; i++ {
		begin := time.Duration(i) * w
		part := min(to, begin+w) - max(from, begin)
		sum += float64(s.sums[i]) * float64(part) / float64(w)
	}
	return sum
}
