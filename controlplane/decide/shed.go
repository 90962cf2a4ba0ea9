package decide

import (
	"fmt"
	"math"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// growth is a group's traffic of now, and of before that.
type growth struct {
	rate, before float64 // requests a second
	chance       float64 // of as many requests, had the rate not changed
}

// noisy says whether a group is what its pool suffers from, and what each edge should let
// through: the pool is bad for the others in it, the group asks for ShedFactor times what
// it did, surely, and the others do not; and it is more than half of what the pool has got
// besides. Where all of them ask for more, as when a pool wakes up, it is nobody's fault.
// It may go on with a fifth more than it had.
func (e *evaluation) noisy(id group.ID, g GroupState, f finding) (limit uint32, own growth, found bool) {
	if e.ShedFactor == 0 || g.Shed > 0 {
		return 0, own, false
	}
	home, service := e.home(g.Color), f.stats.Service
	if others, enough := e.pooled(e.Short, id, service, home); !enough || !e.breaks(others, 1) {
		return 0, own, false
	}
	own, enough := e.growthOf(func(st sli.Stats) bool { return st.Group == id && (st.Service == service || st.Service == "") })
	rest, known := e.growthOf(func(st sli.Stats) bool { return st.Group != id && st.Service == service && st.Pool == home })
	grown := func(g growth) bool { return g.rate >= e.ShedFactor*g.before }
	if !enough || !known || !grown(own) || grown(rest) || !e.sure(own.chance) || own.rate-own.before <= rest.rate-rest.before {
		return 0, own, false
	}
	return uint32(max(1, math.Ceil(1.2*own.before))), own, true
}

// growthOf compares the short window with what came before it in the long one. A binomial
// test: had the rate not changed, each request of the long window were in the short one by
// the share that it has of its time.
func (e *evaluation) growthOf(takes func(sli.Stats) bool) (growth, bool) {
	count := func(in []sli.Stats) (n uint64) {
		for _, st := range in {
			if takes(st) {
				n += st.Requests
			}
		}
		return n
	}
	now, all := count(e.Short), count(e.Long)
	short, long := covered(e.Short, e.ShortWindow), covered(e.Long, e.LongWindow)
	if all < now || e.LongWindow <= e.ShortWindow || long <= short {
		return growth{rate: float64(now) / short}, false // the long window was measured earlier
	}
	out := growth{rate: float64(now) / short, before: float64(all-now) / (long - short)}
	out.chance = atLeast(now, all, short/long)
	return out, all-now >= e.MinRequests
}

// covered is how many seconds statistics are of: they begin at a whole second, so it may be
// one more than was asked for, and end with the newest request of all that they count. What
// started later is still to come.
func covered(window []sli.Stats, asked time.Duration) float64 {
	for _, st := range window {
		asked = max(asked, min(st.Newest.Sub(st.Window.From), st.Window.To.Sub(st.Window.From)))
	}
	return asked.Seconds()
}

// limited lifts the limit when its time is over and the group asks for no more than it,
// and after IsolateForMax in any case: that is tried now and then.
func (e *evaluation) limited(id group.ID, g GroupState) GroupState {
	since := e.Now.Sub(g.ShedAt)
	if since < e.IsolateFor {
		return g
	}
	var asks uint64
	for _, st := range e.short[id] {
		asks += st.Requests
	}
	rate := float64(asks) / covered(e.Short, e.ShortWindow)
	if rate > float64(g.Shed) && since < e.IsolateForMax {
		return g
	}
	e.decide(id, e.lifting(g, fmt.Sprintf("%s are over, and it asks for %.0f requests a second", round(since), rate)))
	g.unlimited()
	return g
}

func (e *evaluation) lifting(g GroupState, reason string) Decision {
	pool := g.Pool
	if pool == "" {
		pool = e.home(g.Color)
	}
	return Decision{Action: Lift, FromPool: pool, ToPool: pool, Requests: g.Shed, Reason: reason}
}

// warm asks for room in the isolated pools of a group's whole path when it is probable,
// and not yet sure, that the group will be moved: three quarters of the way to
// Significance on a logarithmic scale. It moves nothing, so it may be wrong now and then.
func (e *evaluation) warm(id group.ID, g GroupState, f finding) GroupState {
	if e.Mode != ModeAct || f.chance > math.Pow(e.Significance, 0.75) || !g.Warmed.IsZero() && e.Now.Sub(g.Warmed) < e.IsolateFor {
		return g
	}
	d := Decision{
		Action: PreWarm, Service: f.stats.Service, FromPool: e.home(g.Color), ToPool: semconv.PoolIsolated,
		Stats: f.stats, Baseline: f.baseline, Evidence: f.evidence(), Room: e.room(id),
	}
	if e.mayNot(id, f, d) != "" || e.changed(id, g, f) {
		return g
	}
	d.Reason = f.words + e.saturatedToo(d) + "; that is not sure yet, but room is made for it"
	e.decide(id, d)
	g.Warmed = e.Now
	return g
}

// room is what the isolated pools of a group's path would get of it.
func (e *evaluation) room(id group.ID) []Load {
	var out []Load
	seconds := covered(e.Short, e.ShortWindow)
	for _, service := range e.services(id) {
		if !e.Isolatable[service] {
			continue
		}
		l := Load{Service: service, Pool: semconv.PoolIsolated}
		for _, st := range e.short[id] {
			if st.Service == service {
				l.Requests += float64(st.Requests) / seconds
			}
		}
		out = append(out, l)
	}
	return out
}
