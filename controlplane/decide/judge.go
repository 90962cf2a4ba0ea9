package decide

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// finding is what was found out about a group.
type finding struct {
	noData   bool
	stats    sli.Stats
	from     time.Time  // of the short window, whichever window stats are of
	baseline *sli.Stats // nil: nothing to compare with
	global   bool       // baseline breaks the same objective
	doubtful bool       // only latency is bad, and that by its median and not beyond doubt
	brief    bool       // only latency is bad, and that by its median, which one stall may explain
	chance   float64    // of what was found, where it was compared with something
	test     string     // see [Evidence]
	words    string
}

// evidence is nil where nothing was compared.
func (f finding) evidence() *Evidence {
	if f.test == "" {
		return nil
	}
	return &Evidence{Test: f.test, Chance: f.chance}
}

// judge compares a group with its baseline, service by service, and returns the
// first bad finding: over the quick window, unless one stall may be all of it; over the
// short one; or over the long one where the short one has too little to be sure, but breaks
// an objective too: what is over is not judged.
// Bad without a baseline, or with a bad one, is bad all the same: [evaluation.mayNot]
// says then why nothing moves.
func (e *evaluation) judge(id group.ID, g GroupState, pool string) (finding, bool) {
	out := finding{noData: true, chance: math.Inf(1)}
	suspect := func(f finding) { // what is not sure is returned as well
		if f.baseline != nil && !f.global && f.chance < out.chance {
			out = f
		}
	}
	since := g.Since
	if g.Share > 0 {
		since = g.Left // those who are home again were not before
	}
	for _, service := range e.services(id) {
		st, enough := e.measured(e.short[id], service, pool)
		if g.Share > 0 && st.Pool != pool {
			st, enough = sli.Stats{}, false
		}
		if enough {
			out.noData = false
		}
		if quick, enough := e.measured(e.quick[id], service, pool); enough && g.Share == 0 && e.breaks(quick, 1) && e.alone(id, quick) {
			f, bad := e.compare(id, g, quick, e.Quick, e.Short, e.Long)
			if f.from = quick.Window.From; bad && !f.brief {
				return f, true
			}
			suspect(f)
		}
		if !e.breaks(st, 1) && (g.Share == 0 || enough) {
			continue
		}
		if enough {
			f, bad := e.compare(id, g, st, e.Short, e.Long)
			if f.from = st.Window.From; bad {
				return f, true
			}
			suspect(f)
		}
		if e.Now.Sub(since) < e.LongWindow+time.Second {
			continue // it reaches back to another pool
		}
		long, enough := e.measured(e.longOf(id), service, pool)
		if !enough || g.Share > 0 && long.Pool != pool || !e.breaks(long, 1) {
			continue
		}
		out.noData = false
		f, bad := e.compare(id, g, long, e.Long)
		if f.from = st.Window.From; bad {
			return f, true
		}
		suspect(f)
	}
	return out, false
}

// compare says whether a group is bad by what it got in a window: it breaks an
// objective, it is worse than its baseline in the windows given by as much as the
// policy asks for, and it is not by chance.
func (e *evaluation) compare(id group.ID, g GroupState, st sli.Stats, windows ...[]sli.Stats) (finding, bool) {
	errors, slow, tail := st.ErrorRatio() > e.MaxErrorRatio, st.P95 > e.MaxP95, e.tail(st, 1)
	f := finding{stats: st, words: e.figures(st), chance: math.Inf(1)}
	alone := func() bool { // surely bad, whatever others have
		f.chance, f.test = e.chancesOf(errors, slow, tail, st, sli.Stats{}, sli.Stats{}).best()
		return e.sure(f.chance)
	}
	base, ref, against, ok := e.baselineOf(id, g, st, windows)
	if !ok {
		bad := alone()
		return f, bad
	}
	f.baseline = &base
	f.words += "; " + against + " has " + e.figures(base)
	if (!errors || base.ErrorRatio() > e.MaxErrorRatio) && (!slow || base.P95 > e.MaxP95) && (!tail || e.tail(base, 1)) {
		f.global = true
		bad := alone()
		return f, bad
	}
	c := e.chances(st, base, ref)
	f.chance, f.test = c.best()
	f.words += odds(f.chance)
	median := !e.sure(c.errors) && !e.sure(2*c.above) && !e.sure(c.tail)
	f.doubtful = median && c.slow() > e.Significance*e.Significance
	f.brief = median && (c.above > stallChance || e.Newest.Sub(st.Window.From) < e.QuickWindow)
	return f, e.sure(f.chance)
}

// alone says whether the rest of the service keeps the objectives in the quick window: when
// a fault is everyone's its first second looks like one group's, by chance.
func (e *evaluation) alone(id group.ID, st sli.Stats) bool {
	rest := merge(e.Quick, func(o sli.Stats) bool {
		return o.Group != id && o.Service == st.Service && o.Pool != semconv.PoolIsolated
	})
	return rest.Requests >= e.MinRequests && !e.breaks(rest, 1)
}

// worse says in what a group breaks an objective that others keep, and is worse than
// they are by as much as the policy asks for. P99 is an objective alone: it hangs on too few
// requests for a factor to say more.
func (e *evaluation) worse(st, others sli.Stats) (errors, slow, tail bool) {
	errors = st.ErrorRatio() > e.MaxErrorRatio && others.ErrorRatio() <= e.MaxErrorRatio &&
		st.ErrorRatio()-others.ErrorRatio() >= e.ErrorRatioDifference
	slow = st.P95 > e.MaxP95 && others.P95 <= e.MaxP95 && float64(st.P95) >= e.P95Factor*float64(others.P95)
	return errors, slow, e.tail(st, 1) && !e.tail(others, 1)
}

func (e *evaluation) sure(chance float64) bool { return chance <= e.Significance }

// odds says a chance in words.
func odds(chance float64) string {
	if chance < 1e-12 {
		return ", by chance less than once in 10^12"
	}
	return fmt.Sprintf(", by chance once in 10^%.0f", math.Floor(-math.Log10(chance)))
}

// longOf is what a group got in the long window.
func (e *evaluation) longOf(id group.ID) []sli.Stats {
	if e.long == nil {
		e.long = byGroup(e.Long)
	}
	return e.long[id]
}

func (e *evaluation) services(id group.ID) []string { return servicesOf(e.short[id]) }

// servicesOf are those that statistics are of, by name.
func servicesOf(stats ...[]sli.Stats) []string {
	var out []string
	for _, part := range stats {
		for _, st := range part {
			if st.Service != "" {
				out = append(out, st.Service)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// worst is what a group got of the first of its services that breaks fraction of an
// objective; else of the one that it asked most, of those that it asked enough to be judged
// where there are any.
func (e *evaluation) worst(services []string, fraction float64, got func(service string) (sli.Stats, bool)) (worst sli.Stats, ok bool) {
	for _, service := range services {
		st, enough := got(service)
		switch {
		case enough && e.breaks(st, fraction):
			return st, true
		case enough && !ok, enough == ok && st.Requests > worst.Requests:
			worst, ok = st, enough
		}
	}
	return worst, ok
}

// measured is what a group got, of its own statistics in a window: in its pool, or where that pool
// fell back to another, in the one that served most. Requests that no upstream
// answered count as the errors they were. ok is false below MinRequests. An empty
// service stands for the one with most requests.
func (e *evaluation) measured(own []sli.Stats, service, pool string) (sli.Stats, bool) {
	var best, lost sli.Stats
	for _, st := range own {
		switch {
		case service != "" && st.Service != service && st.Service != "":
		case st.Pool == "":
			requests, errors := lost.Requests+st.Requests, lost.Errors+st.Errors
			lost = st
			lost.Requests, lost.Errors = requests, errors
		case best.Group == "", st.Pool == pool && best.Pool != pool, (st.Pool == pool) == (best.Pool == pool) && st.Requests > best.Requests:
			best = st
		}
	}
	if best.Group == "" {
		best = lost
		if service != "" {
			best.Service = service
		}
	} else {
		best.Requests += lost.Requests
		best.Errors += lost.Errors
	}
	return best, best.Requests >= e.MinRequests
}

// baselineOf is what a group is compared with: the same tenant in the baseline
// pool, else the rest of the service in other pools, else the rest of it in the
// same pool; over the first of the windows that has enough. ref is the same over the
// long window: more requests, if not of the same seconds.
func (e *evaluation) baselineOf(id group.ID, g GroupState, st sli.Stats, windows [][]sli.Stats) (base, ref sli.Stats, words string, ok bool) {
	others := func(o sli.Stats) bool {
		return o.Group != id && o.Service == st.Service && o.Pool != "" && o.Pool != semconv.PoolIsolated
	}
	for _, c := range []struct {
		words string
		takes func(sli.Stats) bool
	}{
		{"tenant " + g.Tenant + " in " + semconv.PoolBaseline, func(o sli.Stats) bool {
			return others(o) && o.Tenant == g.Tenant && o.Pool == semconv.PoolBaseline && o.Pool != st.Pool
		}},
		{"the rest of " + st.Service + " in other pools", func(o sli.Stats) bool { return others(o) && o.Pool != st.Pool }},
		{"the rest of " + st.Service + " in pool " + st.Pool, func(o sli.Stats) bool { return others(o) && o.Pool == st.Pool }},
	} {
		for _, window := range windows {
			if m := merge(window, c.takes); m.Requests >= e.MinRequests {
				return m, merge(e.Long, c.takes), c.words, true
			}
		}
	}
	return sli.Stats{}, sli.Stats{}, "", false
}

// pooled is what others than the group got from a pool in a window.
func (e *evaluation) pooled(window []sli.Stats, id group.ID, service, pool string) (sli.Stats, bool) {
	m := merge(window, func(o sli.Stats) bool {
		return o.Group != id && o.Pool == pool && (service == "" || o.Service == service)
	})
	return m, m.Requests >= e.MinRequests
}

// merge adds up several groups. Percentiles cannot be added: it takes the median
// of theirs, weighted by requests, so that one sick group among many does not
// make the rest look sick.
func merge(in []sli.Stats, takes func(sli.Stats) bool) sli.Stats {
	var (
		out  sli.Stats
		took []sli.Stats
	)
	for _, st := range in {
		if !takes(st) || st.Requests == 0 {
			continue
		}
		took = append(took, st)
		out.Requests += st.Requests
		out.Errors += st.Errors
		if st.Newest.After(out.Newest) {
			out.Newest = st.Newest
		}
	}
	if len(took) == 0 {
		return out
	}
	if len(took) == 1 {
		return took[0]
	}
	out.Service, out.Window = took[0].Service, took[0].Window
	out.Pool, out.Tenant, out.Env = same(took, func(s sli.Stats) string { return s.Pool }), same(took, func(s sli.Stats) string { return s.Tenant }), same(took, func(s sli.Stats) string { return s.Env })
	out.P50 = weighted(took, out.Requests, func(s sli.Stats) time.Duration { return s.P50 })
	out.P95 = weighted(took, out.Requests, func(s sli.Stats) time.Duration { return s.P95 })
	out.P99 = weighted(took, out.Requests, func(s sli.Stats) time.Duration { return s.P99 })
	return out
}

// same is the value that all share, or nothing.
func same(in []sli.Stats, of func(sli.Stats) string) string {
	for _, st := range in[1:] {
		if of(st) != of(in[0]) {
			return ""
		}
	}
	return of(in[0])
}

func weighted(in []sli.Stats, total uint64, of func(sli.Stats) time.Duration) time.Duration {
	sorted := slices.SortedFunc(slices.Values(in), func(a, b sli.Stats) int { return int(of(a) - of(b)) })
	var seen uint64
	for _, st := range sorted {
		if seen += st.Requests; 2*seen >= total {
			return of(st)
		}
	}
	return 0
}

// breaks says whether st exceeds fraction of an objective.
func (e *evaluation) breaks(st sli.Stats, fraction float64) bool {
	return st.ErrorRatio() > e.MaxErrorRatio*fraction || float64(st.P95) > float64(e.MaxP95)*fraction || e.tail(st, fraction)
}

// tail says whether st exceeds fraction of the objective of P99, where there is one.
func (e *evaluation) tail(st sli.Stats, fraction float64) bool {
	return e.MaxP99 > 0 && float64(st.P99) > float64(e.MaxP99)*fraction
}

// figures says what was measured, and against which objective where one is broken.
func (e *evaluation) figures(st sli.Stats) string {
	var b strings.Builder
	fmt.Fprintf(&b, "P95 %s", round(st.P95))
	if st.P95 > e.MaxP95 {
		fmt.Fprintf(&b, " (objective %s)", e.MaxP95)
	}
	if e.MaxP99 > 0 {
		fmt.Fprintf(&b, ", P99 %s", round(st.P99))
	}
	if e.tail(st, 1) {
		fmt.Fprintf(&b, " (objective %s)", e.MaxP99)
	}
	fmt.Fprintf(&b, ", errors %.1f%%", 100*st.ErrorRatio())
	if st.ErrorRatio() > e.MaxErrorRatio {
		fmt.Fprintf(&b, " (objective %.1f%%)", 100*e.MaxErrorRatio)
	}
	fmt.Fprintf(&b, " of %d requests", st.Requests)
	if d := st.Window.To.Sub(st.Window.From); d > 0 {
		fmt.Fprintf(&b, " in %s", round(d))
	}
	return b.String()
}

func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	default:
		return d.Round(10 * time.Microsecond)
	}
}
