package decide

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tracegate/tracegate/observability/sli"
)

// saturatedLooks is how many measurements in a row find a pool above the threshold before
// it counts as saturated: a second of garbage collection or start is not it.
const saturatedLooks = 3

// String is "<service>.<pool>", as clusters are named.
func (p Pool) String() string { return p.Service + "." + p.Name }

// fullest is the resource that each pool has least left of, where it is known and fresh.
func (in Input) fullest(p Policy) map[Pool]sli.Saturation {
	out := map[Pool]sli.Saturation{}
	for _, s := range in.Saturation {
		at := Pool{s.Service, s.Pool}
		if last, found := out[at]; in.Now.Sub(s.Newest) <= p.StaleAfter && (!found || s.Mean > last.Mean) {
			out[at] = s
		}
	}
	return out
}

// pool is where a service's requests are served: other services may share its instances,
// which say by one name how full they are.
func (in Input) pool(service, name string) Pool {
	return Pool{cmp.Or(in.Instances[service], service), name}
}

// saturate looks at each pool once for each measurement, and makes room in those that are
// saturated, again for as long as they are. A pool that nobody says anything of is not
// saturated, and not well either: it is forgotten, but for when room was made in it.
func (e *evaluation) saturate() {
	pools := map[string]PoolState{}
	for _, at := range slices.SortedFunc(maps.Keys(e.fullest), func(a, b Pool) int { return cmp.Compare(a.String(), b.String()) }) {
		if e.PrewarmSaturation == 0 {
			break
		}
		now, s := e.fullest[at], e.state.Pools[at.String()]
		if now.Newest.After(s.Measured) {
			s = s.look(now, e.Policy)
		}
		if s.Saturated && (s.Warmed.IsZero() || e.Now.Sub(s.Warmed) >= e.IsolateFor) && e.makeRoom(at, now) {
			s.Warmed = e.Now
		}
		if s.Looks > 0 || s.Saturated || e.recent(s) {
			pools[at.String()] = s
		}
	}
	for name, s := range e.state.Pools {
		if _, known := pools[name]; !known && e.recent(s) {
			pools[name] = PoolState{Warmed: s.Warmed}
		}
	}
	if len(pools) == 0 {
		pools = nil
	}
	e.state.Pools = pools
}

// recent says that room was made so lately that it is not asked for again.
func (e *evaluation) recent(s PoolState) bool {
	return !s.Warmed.IsZero() && e.Now.Sub(s.Warmed) < e.IsolateFor
}

// look is the state after one more measurement: enough of them above the threshold make a
// pool saturated, and it is so until it is below LeaveFraction of it.
func (s PoolState) look(now sli.Saturation, p Policy) PoolState {
	s.Measured = now.Newest
	switch {
	case now.Mean >= p.PrewarmSaturation:
		s.Looks = min(s.Looks+1, saturatedLooks)
		s.Saturated = s.Saturated || s.Looks == saturatedLooks
	case now.Mean < p.PrewarmSaturation*p.LeaveFraction:
		s.Looks, s.Saturated = 0, false
	default:
		s.Looks = 0
	}
	return s
}

// saturated says whether a pool is.
func (e *evaluation) saturated(at Pool) bool {
	_, known := e.fullest[at]
	return known && e.state.Pools[at.String()].Saturated
}

// makeRoom asks for so much more in a saturated pool that it would be at LeaveFraction of
// the threshold with what it is asked for now. The record is of the group that asks for
// most of it, of those that the policy may act on.
func (e *evaluation) makeRoom(at Pool, now sli.Saturation) bool {
	var all uint64
	var most sli.Stats
	for _, st := range e.Short {
		if e.pool(st.Service, st.Pool) != at {
			continue
		}
		all += st.Requests
		if g, known := e.state.Groups[st.Group]; known && !g.Manual && e.of(st.Group).Mode == ModeAct && st.Requests > most.Requests {
			most = st
		}
	}
	goal, gets := e.PrewarmSaturation*e.LeaveFraction, float64(all)/covered(e.Short, e.ShortWindow)
	more := gets * (now.Mean/goal - 1)
	if most.Requests == 0 || more < 0 { // it is emptier already, and another measurement will say so
		return false
	}
	e.decide(most.Group, Decision{
		Action: PreWarm, Service: at.Service, FromPool: at.Name, ToPool: at.Name, Stats: most,
		Room:   []Load{{Service: at.Service, Pool: at.Name, Requests: more}},
		Reason: fmt.Sprintf("%s; room is made for %.0f requests a second besides the %.0f that it gets", e.fullness(now), more, gets),
	})
	return true
}

// fullness says how full a pool is, and from where on that is too full.
func (e *evaluation) fullness(s sli.Saturation) string {
	what := "queue " + s.Resource
	if s.Resource == sli.CPU {
		what = "CPU"
	}
	words := fmt.Sprintf("pool %s of %s is saturated: %.0f%% of %s", s.Pool, s.Service, 100*s.Mean, what)
	if s.Instances > 1 {
		words += fmt.Sprintf(", the fullest of %d instances %.0f%%", s.Instances, 100*s.Highest)
	}
	return words + fmt.Sprintf(" (too full from %.0f%% on)", 100*e.PrewarmSaturation)
}

// saturatedToo says of a bad group that its pool, or the one it would go to, is saturated,
// which may be why, or why it would not help.
func (e *evaluation) saturatedToo(d Decision) (words string) {
	for _, at := range e.poolsOf(d) {
		if e.saturated(at) {
			words += "; " + e.fullness(e.fullest[at])
		}
	}
	return words
}

// saturationOf is what is known of the pools of a decision.
func (e *evaluation) saturationOf(d Decision) (out []sli.Saturation) {
	for _, at := range e.poolsOf(d) {
		if s, known := e.fullest[at]; known {
			out = append(out, s)
		}
	}
	return out
}

func (in Input) poolsOf(d Decision) []Pool {
	from, to := in.pool(d.Service, d.FromPool), in.pool(d.Service, d.ToPool)
	if from == to {
		return []Pool{from}
	}
	return []Pool{from, to}
}

// maxRoom bounds the pools that one decision makes room in.
const maxRoom = 32

// Along adds to the room of a decision what the services that its group reaches will get:
// a group that goes to the isolated pool does so in each of them that has one, and what a
// saturated pool gets room for is passed on to the pools behind it. Hops are the group's,
// the most asked first; without any, room stays as it is: in the services that requests
// come in at.
func Along(d Decision, hops []sli.Hop, isolatable map[string]bool) []Load {
	var entries float64 // a second
	has := map[Pool]bool{}
	for _, l := range d.Room {
		entries += l.Requests
		has[Pool{l.Service, l.Pool}] = true
	}
	more := map[Pool]float64{} // by requests of each that comes in
	var order []Pool
	for _, h := range hops {
		at := Pool{h.Service, h.Pool}
		if d.FromPool != d.ToPool {
			at.Name = d.ToPool
			if !isolatable[h.Service] {
				continue // it is served where it was
			}
		}
		if _, known := more[at]; !known {
			order = append(order, at)
		}
		more[at] += h.PerRequest
	}
	out := slices.Clone(d.Room)
	for _, at := range order {
		if requests := entries * more[at]; requests > 0 && !has[at] && len(out) < maxRoom {
			out = append(out, Load{Service: at.Service, Pool: at.Name, Requests: requests})
		}
	}
	return out
}
