package sli

import (
	"maps"
	"math"
	"slices"
	"time"
)

// HistogramScale is OpenTelemetry's scale of every [Histogram]: 32 buckets an octave.
const HistogramScale = 5

const perOctave = 1 << HistogramScale

// Histogram counts durations by bucket of an exponential histogram (OpenTelemetry's data
// model, scale 5): bucket i is above 2^(i/32) ns and up to 2^((i+1)/32) ns, so it is 2.2%
// wide. Histograms add up exactly, in any order.
type Histogram struct {
	Index []int16 // of buckets that have something, rising
	Count []uint64
}

// NewHistogram makes one of counts by bucket.
func NewHistogram(counts map[int16]uint64) Histogram {
	h := Histogram{Index: slices.Sorted(maps.Keys(counts)), Count: make([]uint64, 0, len(counts))}
	for _, i := range h.Index {
		h.Count = append(h.Count, counts[i])
	}
	return h
}

// BucketOf is the bucket that counts d; what is below a nanosecond counts as one.
func BucketOf(d time.Duration) int16 {
	return int16(math.Ceil(math.Log2(float64(max(d, 1)))*perOctave) - 1)
}

// BucketBound is the upper bound of bucket i, which is the lower one of the next.
func BucketBound(i int16) float64 { return math.Exp2(float64(i+1) / perOctave) }

// Total is how many durations were counted.
func (h Histogram) Total() uint64 {
	var n uint64
	for _, c := range h.Count {
		n += c
	}
	return n
}

// Sum is about how long all took together: each counts as the middle of its bucket.
func (h Histogram) Sum() time.Duration {
	var sum float64
	for i, c := range h.Count {
		sum += float64(c) * math.Exp2((float64(h.Index[i])+0.5)/perOctave)
	}
	return time.Duration(min(sum, math.MaxInt64-1024))
}

// Quantile is the q-quantile of what was counted, interpolated within its bucket: it lies
// in the bucket of the duration at position q*(n-1), rounded, of all n in order. Zero where
// nothing was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	total := h.Total()
	if total == 0 {
		return 0
	}
	rank := q*float64(total-1) + 0.5
	var below float64
	for i, c := range h.Count {
		if rank <= below+float64(c) {
			return time.Duration(math.Exp2((float64(h.Index[i]) + (rank-below)/float64(c)) / perOctave))
		}
		below += float64(c)
	}
	return 0
}

// HistogramSum adds up histograms. Its zero value is empty.
type HistogramSum struct {
	first  int // bucket of count[0]
	counts []uint64
}

// Add adds h, of which nothing is kept.
func (s *HistogramSum) Add(h Histogram) {
	if len(h.Index) == 0 {
		return
	}
	low, high := int(h.Index[0]), int(h.Index[len(h.Index)-1])
	if len(s.counts) == 0 {
		s.first = low
	}
	if before := s.first - low; before > 0 {
		s.first, s.counts = low, append(make([]uint64, before, before+len(s.counts)), s.counts...)
	}
	if more := high - s.first + 1 - len(s.counts); more > 0 {
		s.counts = append(s.counts, make([]uint64, more)...)
	}
	for i, c := range h.Count {
		s.counts[int(h.Index[i])-s.first] += c
	}
}

// Histogram is the sum so far.
func (s *HistogramSum) Histogram() Histogram {
	var h Histogram
	for i, c := range s.counts {
		if c > 0 {
			h.Index, h.Count = append(h.Index, int16(s.first+i)), append(h.Count, c)
		}
	}
	return h
}
