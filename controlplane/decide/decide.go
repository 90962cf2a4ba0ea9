package decide

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// ByPolicy is who made a decision that no person made.
const ByPolicy = "policy"

// Input is what one evaluation looks at.
type Input struct {
	Now    time.Time
	Short  []sli.Stats // over Policy.ShortWindow
	Long   []sli.Stats // over Policy.LongWindow
	Newest time.Time   // start of the newest span of any group; zero: none was ever seen

	Homes       map[group.Color]string // pool of each cohort that has one; baseline is the rest's
	Isolatable  map[string]bool        // services that have a pool "isolated"
	Unavailable string                 // why there are no stats; empty: there are

	// Causes are sentences that may explain why a pool is bad, worst first. They explain
	// decisions and make none.
	Causes map[Pool][]string
}

// Pool is one pool of one service.
type Pool struct{ Service, Name string }

// Stale says why nothing can be decided on in, or nothing.
func (in Input) Stale(p Policy) string {
	switch age := in.Now.Sub(in.Newest); {
	case in.Unavailable != "":
		return in.Unavailable
	case in.Newest.IsZero():
		return "no telemetry yet"
	case age > p.StaleAfter:
		return fmt.Sprintf("newest telemetry is %s old, more than %s", round(age), p.StaleAfter)
	}
	return ""
}

// Decide evaluates every group once. It returns the decisions that are new, in
// the order of their groups, without IDs, and the state to evaluate with next
// time. Isolate and Release take effect in the returned state; a Hold says, once,
// why a bad group is not moved.
func Decide(p Policy, s State, in Input) ([]Decision, State) {
	e := evaluation{Policy: p, Input: in, short: byGroup(in.Short), state: s.clone()}
	e.expire()
	if in.Stale(p) == "" {
		e.meet()
		for _, id := range slices.Sorted(maps.Keys(e.state.Groups)) {
			e.group(id)
		}
	}
	e.state.prune(in.Now)
	return e.decisions, e.state
}

// evaluation is one run of Decide.
type evaluation struct {
	Policy
	Input
	short     map[group.ID][]sli.Stats // Short by group
	long      map[group.ID][]sli.Stats // Long by group, when it is first asked for
	state     State
	decisions []Decision
}

func byGroup(in []sli.Stats) map[group.ID][]sli.Stats {
	out := make(map[group.ID][]sli.Stats, len(in))
	for _, st := range in {
		out[st.Group] = append(out[st.Group], st)
	}
	return out
}

// expire ends what an operator asked for a stated time. It needs no telemetry.
func (e *evaluation) expire() {
	for _, id := range slices.Sorted(maps.Keys(e.state.Groups)) {
		g := e.state.Groups[id]
		if !g.Manual || g.Until.IsZero() || e.Now.Before(g.Until) {
			continue
		}
		g.Manual, g.Until = false, time.Time{}
		if g.Pool != "" {
			e.decide(id, Decision{Action: Release, FromPool: g.Pool, ToPool: e.home(g.Color), Reason: "the time that " + g.By + " asked for is over"})
			g.Pool, g.Since, g.By = "", e.Now, ByPolicy
		}
		e.state.Groups[id] = g
	}
}

// meet adds the groups that are new in the short window.
func (e *evaluation) meet() {
	for _, st := range e.Short {
		g, known := e.state.Groups[st.Group]
		if !known && len(e.state.Groups) >= maxGroups {
			continue
		}
		g.Color, g.Env, g.Tenant, g.Seen = st.Color, st.Env, st.Tenant, e.Now
		e.state.Groups[st.Group] = g
	}
}

func (e *evaluation) home(c group.Color) string {
	if pool := e.Homes[c]; pool != "" {
		return pool
	}
	return semconv.PoolBaseline
}

func (e *evaluation) group(id group.ID) {
	g := e.state.Groups[id]
	switch {
	case g.Manual || e.Now.Sub(g.Since) < e.Cooldown:
		g.Bad, g.FirstBad, g.Held = 0, time.Time{}, ""
	case g.Pool == "":
		g = e.atHome(id, g)
	default:
		g = e.away(id, g)
	}
	e.state.Groups[id] = g
}

// atHome isolates the group if it has been bad for long enough.
func (e *evaluation) atHome(id group.ID, g GroupState) GroupState {
	f, bad := e.judge(id, g, e.home(g.Color))
	switch {
	case f.noData:
		return g // neither bad nor good: the count stands
	case !bad:
		g.Bad, g.FirstBad, g.Held = 0, time.Time{}, ""
		return g
	}
	if g.Bad++; g.Bad == 1 {
		g.FirstBad = f.from
	}
	if g.Bad < e.BadEvaluations || f.doubtful && g.Bad < e.SlowEvaluations {
		return g
	}
	d := Decision{
		Service: f.stats.Service, FromPool: e.home(g.Color), ToPool: semconv.PoolIsolated,
		Stats: f.stats, Baseline: f.baseline, FirstBad: g.FirstBad,
	}
	d.Causes = e.Causes[Pool{d.Service, d.FromPool}]
	if why := e.mayNot(id, f, d); why != "" {
		// A group on the brink is bad now and well then: the reason is not said each time,
		// and people are not told again of what they know.
		again := e.LongWindow
		if why == onlyRecommends {
			d.Advice, again = Isolate, max(again, e.IsolateForMax)
		}
		if g.Said != why || e.Now.Sub(g.SaidAt) >= again {
			g.Said, g.SaidAt = why, e.Now
			d.Action, d.ToPool, d.Reason = Hold, d.FromPool, f.words+"; not moved: "+why
			e.decide(id, d)
		}
		g.Held = why
		return g
	}
	g.IsolatedFor = e.isolateFor(g)
	d.Action = Isolate
	d.Reason = fmt.Sprintf("%s; isolated for %s", f.words, g.IsolatedFor)
	e.decide(id, d)
	g.Pool, g.Since, g.By = semconv.PoolIsolated, e.Now, ByPolicy
	g.Bad, g.FirstBad, g.Held = 0, time.Time{}, ""
	return g
}

const onlyRecommends = "the policy only recommends it, a person decides"

// mayNot is why a bad group stays where it is, or nothing.
func (e *evaluation) mayNot(id group.ID, f finding, d Decision) string {
	switch {
	case f.baseline == nil:
		return "there is nothing to compare it with"
	case f.global:
		return "what it is compared with is bad in the same way, so the fault is not the group's"
	case d.FromPool == semconv.PoolBaseline && e.shared(id, f.stats):
		return "the rest of its pool is bad in the same way, so the fault is not the group's"
	case d.FromPool == semconv.PoolIsolated:
		return "its own pool is the isolated one"
	case !e.Isolatable[d.Service]:
		return fmt.Sprintf("service %s has no pool %q", d.Service, semconv.PoolIsolated)
	case e.state.isolated() >= e.MaxIsolated:
		return fmt.Sprintf("%d groups are isolated already, the most allowed", e.MaxIsolated)
	case e.Mode == ModeObserve:
		return "the policy only observes"
	case e.Mode == ModeRecommend:
		return onlyRecommends
	}
	return ""
}

// shared says whether a group is like the others in the baseline pool, or not surely
// worse. They are too many to be isolated, and moving one of them is no remedy; any
// other pool is there to be left.
func (e *evaluation) shared(id group.ID, st sli.Stats) bool {
	others, found := e.pooled(e.Short, id, st.Service, semconv.PoolBaseline)
	before, _ := e.pooled(e.Long, id, st.Service, semconv.PoolBaseline)
	return found && !e.sure(e.chances(st, others, before).any())
}

// isolateFor doubles the last isolation where the group relapsed within the time
// that it lasted.
func (e *evaluation) isolateFor(g GroupState) time.Duration {
	if g.Released.IsZero() || g.IsolatedFor == 0 || e.Now.Sub(g.Released) > g.IsolatedFor {
		return e.IsolateFor
	}
	return min(2*g.IsolatedFor, e.IsolateForMax)
}

// away tries the group in its own pool again when its time is over, unless it is
// still bad where it is, or its own pool is bad for others.
func (e *evaluation) away(id group.ID, g GroupState) GroupState {
	if e.Now.Sub(g.Since) < g.IsolatedFor {
		return g
	}
	home, why := e.home(g.Color), ""
	st, ok := e.measured(e.short[id], "", g.Pool)
	if !ok {
		st, ok = e.measured(e.longOf(id), "", g.Pool)
	}
	switch others, found := e.pooled(e.Short, id, st.Service, home); {
	case ok && e.breaks(st, e.LeaveFraction):
		why = "it is still bad in its isolated pool: " + e.figures(st)
	case found && e.breaks(others, 1):
		why = fmt.Sprintf("its own pool %s is bad for others: %s", home, e.figures(others))
	}
	d := Decision{Service: st.Service, FromPool: g.Pool, ToPool: home, Stats: st}
	if why != "" {
		if !heldFor(g.Held, why) {
			d.Action, d.ToPool, d.Reason = Hold, g.Pool, "not released: "+why
			e.decide(id, d)
		}
		g.Held = why
		return g
	}
	d.Action, d.Reason = Release, fmt.Sprintf("%s of isolation are over", g.IsolatedFor)
	if ok {
		d.Reason += ", " + e.figures(st)
	} else {
		d.Reason += ", and it is quiet"
	}
	e.decide(id, d)
	g.Pool, g.Since, g.By, g.Released, g.Held = "", e.Now, ByPolicy, e.Now, ""
	return g
}

// heldFor says whether both reasons are the same but for their figures.
func heldFor(a, b string) bool {
	const head = 20
	return len(a) >= head && len(b) >= head && a[:head] == b[:head]
}

func (e *evaluation) decide(id group.ID, d Decision) {
	g := e.state.Groups[id]
	d.Time, d.Group, d.Color, d.Env, d.Tenant, d.By = e.Now, id, g.Color, g.Env, g.Tenant, ByPolicy
	e.decisions = append(e.decisions, d)
}
