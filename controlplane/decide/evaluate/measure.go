package evaluate

import (
	"math"
	"time"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// A digest's buckets are 2% wide, from half a millisecond on, as wide as those of the
// store's histograms.
const (
	buckets     = 620
	bucketWidth = 0.02
)

var lowest = math.Log(0.0005)

func bucketOf(latency float64) uint16 {
	return uint16(max(0, min(buckets-1, int((math.Log(latency)-lowest)/bucketWidth))))
}

func bucketValue(b int) time.Duration {
	return seconds(math.Exp(lowest + (float64(b)+0.5)*bucketWidth))
}

// counts are what was counted of a group by its requests' start, in a window.
type counts struct {
	requests, errors, lost int
	slow                   int // above the objective
	digest                 [buckets]uint16
	top                    int // no bucket above it was ever used
}

// sample is a request as it is counted.
type sample struct {
	bucket             uint16
	failed, lost, slow bool
}

// arrived is a request that can be counted from a tick on.
type arrived struct {
	group, second int
	start         float64
	sample
}

func (c *counts) add(s sample, by int) {
	if s.lost {
		c.lost += by
		return
	}
	c.requests += by
	if s.failed {
		c.errors += by
	}
	if s.slow {
		c.slow += by
	}
	c.digest[s.bucket] += uint16(by)
	c.top = max(c.top, int(s.bucket))
}

// quantile is the smallest bucket that has q of the requests at or below it: exact but
// for the bucket's width.
func (c *counts) quantile(q float64) time.Duration {
	if c.requests == 0 {
		return 0
	}
	above := c.requests - rank(c.requests, q) // requests that are beyond it
	b := c.top
	for ; b > 0; b-- {
		if above -= int(c.digest[b]); above < 0 {
			break
		}
	}
	return bucketValue(b)
}

// rank is which of n requests, fastest first, stands for a quantile.
func rank(n int, q float64) int { return max(1, int(math.Ceil(q*float64(n)-1e-9))) }

// window is a sliding one, of the seconds [from, ...): the store's grain is the second.
type window struct {
	length time.Duration
	from   int
	groups []counts
}

// board is what the store would answer at a moment.
type board struct {
	groups    []Group
	objective int // first bucket that is above it
	// quick, short and long are windows of the policy; quick may have no length.
	quick, short, long window
	// seconds[g][s%len] has what was counted of group g in second s.
	seconds [][][]sample
	newest  float64 // start of the newest request that can be counted; negative: none
	// totals[g] has one element a whole second: what had arrived by then, as counters
	// that are scraped have it.
	totals [][]total
	now    []total
}

// total counts what has arrived since the start.
type total struct {
	requests, errors, slow int32
	bad                    int32 // failed or slow
}

func newBoard(groups []Group, objective, quick, short, long time.Duration) *board {
	b := &board{
		groups: groups, objective: buckets, newest: -1,
		quick: window{length: quick, groups: make([]counts, len(groups))},
		short: window{length: short, groups: make([]counts, len(groups))},
		long:  window{length: long, groups: make([]counts, len(groups))},
		now:   make([]total, len(groups)), totals: make([][]total, len(groups)),
	}
	for i := range buckets {
		if bucketValue(i) > objective {
			b.objective = i
			break
		}
	}
	for range groups {
		b.seconds = append(b.seconds, make([][]sample, int(long/time.Second)+4))
	}
	return b
}

// add counts a request that has become visible.
func (b *board) add(a *arrived) {
	b.newest = max(b.newest, a.start)
	n := &b.now[a.group]
	n.requests++
	if a.failed {
		n.errors++
	}
	if a.slow {
		n.slow++
	}
	if a.failed || a.slow {
		n.bad++
	}
	if a.second < b.long.from {
		return
	}
	slots := b.seconds[a.group]
	slots[a.second%len(slots)] = append(slots[a.second%len(slots)], a.sample)
	b.long.groups[a.group].add(a.sample, 1)
	if a.second >= b.quick.from {
		b.quick.groups[a.group].add(a.sample, 1)
	}
	if a.second >= b.short.from {
		b.short.groups[a.group].add(a.sample, 1)
	}
}

// advance moves the windows to a time, as the store widens them: to whole seconds.
func (b *board) advance(now time.Duration) {
	for _, w := range []*window{&b.quick, &b.short, &b.long} {
		from := int(max(0, now-w.length) / time.Second)
		for ; w.from < from; w.from++ {
			for g := range b.groups {
				slots := b.seconds[g]
				slot := slots[w.from%len(slots)]
				for _, s := range slot {
					w.groups[g].add(s, -1)
				}
				if w == &b.long {
					slots[w.from%len(slots)] = slot[:0]
				}
			}
		}
	}
}

// scrape keeps the counters of a whole second.
func (b *board) scrape(now time.Duration) {
	if now%time.Second != 0 {
		return
	}
	for g := range b.groups {
		b.totals[g] = append(b.totals[g], b.now[g])
	}
}

// stats is what the store answers for a window at a time.
func (b *board) stats(w *window, now time.Duration, start time.Time) []sli.Stats {
	to := (now + time.Second - 1).Truncate(time.Second)
	span := sli.Window{From: start.Add(time.Duration(w.from) * time.Second), To: start.Add(to)}
	var out []sli.Stats
	for i := range b.groups {
		g, c := &b.groups[i], &w.groups[i]
		st := sli.Stats{
			Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: semconv.ServiceCore, Pool: g.Pool,
			Window: span, Newest: start.Add(seconds(b.newest)),
		}
		if c.requests > 0 {
			st.Requests, st.Errors = uint64(c.requests), uint64(c.errors)
			st.P50, st.P95, st.P99 = c.quantile(0.5), c.quantile(0.95), c.quantile(0.99)
			out = append(out, st)
		}
		if c.lost > 0 {
			st.Pool, st.Requests, st.Errors = "", uint64(c.lost), uint64(c.lost)
			st.P50, st.P95, st.P99 = time.Millisecond, time.Millisecond, time.Millisecond
			out = append(out, st)
		}
	}
	return out
}
