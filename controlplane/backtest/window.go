package backtest

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// window adds up the last seconds. What leaves it is subtracted, which histograms allow.
type window struct {
	seconds [][]sli.Second // a ring
	next    int
	sums    map[key]*sum
}

type key struct {
	group         group.ID
	service, pool string
}

// buckets is how many a histogram can have: [sli.BucketOf] of the longest duration is 2015.
const buckets = 2016

// sum is what one key has in the window. Counts are dense: they are changed every second.
type sum struct {
	of      sli.Stats // without quantiles
	latency [buckets]uint64
	low     int // no bucket below it, or from high on, was ever used
	high    int
}

// newWindow has no length where the policy has no such window: nothing is ever in it.
func newWindow(length time.Duration) window {
	return window{seconds: make([][]sli.Second, int(math.Ceil(length.Seconds()))), sums: map[key]*sum{}}
}

func (w *window) push(second []sli.Second) {
	if len(w.seconds) == 0 {
		return
	}
	for _, s := range w.seconds[w.next] {
		w.take(s)
	}
	for _, s := range second {
		w.put(s)
	}
	w.seconds[w.next] = second
	w.next = (w.next + 1) % len(w.seconds)
}

func (w *window) put(s sli.Second) {
	k := key{s.Group, s.Service, s.Pool}
	t := w.sums[k]
	if t == nil {
		t = &sum{of: sli.Stats{Group: s.Group, Color: s.Color, Env: s.Env, Tenant: s.Tenant, Service: s.Service, Pool: s.Pool}, low: buckets}
		w.sums[k] = t
	}
	t.of.Requests, t.of.Errors = t.of.Requests+s.Requests, t.of.Errors+s.Errors
	if s.Newest.After(t.of.Newest) {
		t.of.Newest = s.Newest
	}
	for i, at := range s.Latency.Index {
		b := bucket(at)
		t.latency[b] += s.Latency.Count[i]
		t.low, t.high = min(t.low, b), max(t.high, b+1)
	}
}

func (w *window) take(s sli.Second) {
	k := key{s.Group, s.Service, s.Pool}
	t := w.sums[k]
	if t.of.Requests -= s.Requests; t.of.Requests == 0 {
		delete(w.sums, k)
		return
	}
	t.of.Errors -= s.Errors
	for i, at := range s.Latency.Index {
		t.latency[bucket(at)] -= s.Latency.Count[i]
	}
}

// bucket is an index that is sure to be within the counts; one nanosecond has the bucket -1.
func bucket(i int16) int { return min(max(int(i), 0), buckets-1) }

// stats are those of the window that ends at now, sorted as the store does.
func (w *window) stats(now time.Time) []sli.Stats {
	out := make([]sli.Stats, 0, len(w.sums))
	for _, t := range w.sums {
		size := max(0, t.high-t.low)
		st, h := t.of, sli.Histogram{Index: make([]int16, 0, size), Count: make([]uint64, 0, size)}
		for i := t.low; i < t.high; i++ {
			if n := t.latency[i]; n > 0 {
				h.Index, h.Count = append(h.Index, int16(i)), append(h.Count, n)
			}
		}
		st.Window = sli.Window{From: now.Add(-time.Duration(len(w.seconds)) * time.Second), To: now}
		st.P50, st.P95, st.P99 = h.Quantile(0.5), h.Quantile(0.95), h.Quantile(0.99)
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b sli.Stats) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool))
	})
	return out
}
