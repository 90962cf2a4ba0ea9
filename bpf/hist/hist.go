// Package hist is the histogram that the probes keep in the kernel: log-linear,
// eight buckets an octave, so that a bucket is at most an eighth of its lower bound
// wide. headers/probe.h has the same arithmetic; the tests hold the two together.
//
// It is pure: it adds, subtracts and reads histograms, and knows neither maps nor
// metrics. Plain log2 buckets lost: half of every value would be rounding. A
// t-digest lost: it cannot be kept exactly by several CPUs without a lock.
package hist

import (
	"math/bits"
	"time"
)

// The layout, as in headers/probe.h.
const (
	shift = 10 // the unit is 1024 ns
	sub   = 3  // 2^sub buckets an octave
	top   = 27 // the last octave begins at 2^top units
	// Slots is the number of buckets. The last one has no upper bound.
	Slots = (top-sub+1)<<sub + 1<<sub
)

// Histogram is the sum of what some CPUs have counted. The zero value is empty.
type Histogram struct {
	Sum  uint64 // ns
	Slot [Slots]uint64
}

// Index returns the bucket that d falls into.
func Index(d time.Duration) int {
	if d < 0 {
		return 0
	}
	v := uint64(d) >> shift
	if v>>(top+1) != 0 {
		return Slots - 1
	}
	if v < 1<<sub {
		return int(v)
	}
	e := bits.Len64(v) - 1
	return (e-sub+1)<<sub + int(v>>(e-sub))&(1<<sub-1)
}

// Bounds returns a bucket's lower bound, which belongs to it, and its upper bound,
// which does not.
func Bounds(i int) (from, to time.Duration) { return lower(i), lower(i + 1) }

func lower(i int) time.Duration {
	if i < 1<<sub {
		return time.Duration(i) << shift
	}
	e := i>>sub + sub - 1
	m := 1<<sub + i&(1<<sub-1)
	return time.Duration(m) << (e - sub + shift)
}

// Add adds o to h.
func (h *Histogram) Add(o *Histogram) {
	h.Sum += o.Sum
	for i, n := range o.Slot {
		h.Slot[i] += n
	}
}

// Since returns what h has and before had not. A counter that went back, as after a
// restart, counts from zero.
func (h *Histogram) Since(before *Histogram) Histogram {
	if before == nil {
		return *h
	}
	d := Histogram{Sum: h.Sum - before.Sum}
	for i := range h.Slot {
		if h.Slot[i] < before.Slot[i] {
			return *h
		}
		d.Slot[i] = h.Slot[i] - before.Slot[i]
	}
	return d
}

// Record counts one event. The probes count in the kernel; this is for what is
// measured elsewhere and for tests.
func (h *Histogram) Record(d time.Duration) { h.RecordN(d, 1) }

// RecordN counts n events that took d each.
func (h *Histogram) RecordN(d time.Duration, n uint64) {
	h.Slot[Index(d)] += n
	h.Sum += uint64(max(d, 0)) * n
}

// Count returns the number of events.
func (h *Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.Slot {
		n += c
	}
	return n
}

// Mean returns the mean of all events, 0 if there are none.
func (h *Histogram) Mean() time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	return time.Duration(h.Sum / n)
}

// Quantile returns the value below which the share q (0..1) of events lies: exact to
// the bucket, interpolated within it. It is 0 when there are no events, and the lower
// bound of the last bucket when it lies there.
func (h *Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank := min(max(q, 0), 1) * float64(n)
	var below uint64
	for i, c := range h.Slot {
		if c == 0 || float64(below+c) < rank {
			below += c
			continue
		}
		from, to := Bounds(i)
		if i == Slots-1 {
			return from
		}
		return from + time.Duration(float64(to-from)*(rank-float64(below))/float64(c))
	}
	return lower(Slots - 1)
}

// Cumulative returns the number of events below each octave's end, in seconds: what a
// Prometheus histogram takes. One bound an octave, from 1 microsecond to 4 minutes.
func (h *Histogram) Cumulative() map[float64]uint64 {
	out := make(map[float64]uint64, top)
	var n uint64
	next := 0
	for e := 0; e <= top; e++ {
		end := time.Duration(1) << (e + shift)
		for next < Slots && lower(next+1) <= end {
			n += h.Slot[next]
			next++
		}
		out[end.Seconds()] = n
	}
	return out
}
