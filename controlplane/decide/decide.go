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
	Quick  []sli.Stats // over Policy.QuickWindow; none where it is 0
	Short  []sli.Stats // over Policy.ShortWindow
	Long   []sli.Stats // over Policy.LongWindow
	Newest time.Time   // start of the newest span of any group; zero: none was ever seen
	// Watermark is until when all that was received is in the statistics; zero: not known.
	// It tells that there is no traffic from that there is no data.
	Watermark time.Time

	// Saturation is how full pools are, by resource, as far as it is known; what is not here
	// is not known, which is not the same as empty.
	Saturation []sli.Saturation

	Homes       map[group.Color]string // pool of each cohort that has one; baseline is the rest's
	Isolatable  map[string]bool        // services that have a pool "isolated"
	Instances   map[string]string      // of which other service a service's instances are; none: its own
	Unavailable string                 // why there are no stats; empty: there are

	// Causes are sentences that may explain why a pool is bad, worst first. They explain
	// decisions and make none.
	Causes map[Pool][]string

	// Change is the last update of the configuration; nil: none is known.
	Change *Change
}

// Change is an update of the configuration that came into force.
type Change struct {
	Revision RevisionChange
	At       time.Time       // every edge had it
	Services map[string]bool // whose requests it can touch
	Before   []sli.Stats     // over the long window before At
}

// Pool is one pool of one service.
type Pool struct{ Service, Name string }

// Stale says why there is no data to decide on, or nothing. Silence is data where the
// watermark vouches for it: an isolated group that has become quiet is released in time.
func (in Input) Stale(p Policy) string {
	switch age := min(in.Now.Sub(in.Newest), in.Now.Sub(in.Watermark)); {
	case in.Unavailable != "":
		return in.Unavailable
	case in.Newest.IsZero() && in.Watermark.IsZero():
		return "no telemetry yet"
	case age > p.StaleAfter:
		return fmt.Sprintf("newest telemetry is %s old, more than %s", round(age), p.StaleAfter)
	}
	return ""
}

// Quiet says that there is data, and no traffic in it.
func (in Input) Quiet(p Policy) bool {
	return in.Stale(p) == "" && in.Now.Sub(in.Newest) > p.StaleAfter
}

// Decide evaluates every group once. It returns the decisions that are new, in
// the order of their groups, without IDs, and the state to evaluate with next
// time. Isolate and Release take effect in the returned state; a Hold says, once,
// why a bad group is not moved.
func Decide(p Policy, s State, in Input) ([]Decision, State) {
	e := evaluation{Policy: p, Input: in, general: p, special: p.special(), quick: byGroup(in.Quick), short: byGroup(in.Short), fullest: in.fullest(p), state: s.clone()}
	e.expire()
	if in.Stale(p) == "" {
		e.meet()
		e.saturate()
		for _, id := range slices.Sorted(maps.Keys(e.state.Groups)) {
			e.group(id)
		}
	}
	e.state.prune(in.Now)
	return e.decisions, e.state
}

// evaluation is one run of Decide.
type evaluation struct {
	Policy // of the group that is looked at
	Input
	general   Policy                   // of those that have none of their own
	special   map[group.ID]Policy      // of those that have
	quick     map[group.ID][]sli.Stats // Quick by group
	short     map[group.ID][]sli.Stats // Short by group
	long      map[group.ID][]sli.Stats // Long by group, when it is first asked for
	fullest   map[Pool]sli.Saturation  // of the resources of each pool that is known
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
	over := func(until time.Time) bool { return !until.IsZero() && !e.Now.Before(until) }
	for _, id := range slices.Sorted(maps.Keys(e.state.Groups)) {
		g := e.state.Groups[id]
		if g.ShedBy != "" && over(g.ShedUntil) {
			e.decide(id, e.lifting(g, "the time that "+g.ShedBy+" asked for is over"))
			g.unlimited()
		}
		if g.Manual && over(g.Until) {
			g.Manual, g.Until = false, time.Time{}
			if g.Pool != "" {
				e.decide(id, Decision{Action: Release, FromPool: g.Pool, ToPool: e.home(g.Color), Share: 100, Reason: "the time that " + g.By + " asked for is over"})
				g.Pool, g.Since, g.By, g.Share, g.Left = "", e.Now, ByPolicy, 0, time.Time{}
			}
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

// of is the policy as it holds for a group.
func (e *evaluation) of(id group.ID) Policy {
	if own, found := e.special[id]; found {
		return own
	}
	return e.general
}

func (e *evaluation) home(c group.Color) string {
	if pool := e.Homes[c]; pool != "" {
		return pool
	}
	return semconv.PoolBaseline
}

func (e *evaluation) group(id group.ID) {
	g := e.state.Groups[id]
	e.Policy = e.of(id)
	limitedByHand := g.ShedBy != ""
	paused := g.Manual || g.Pool == "" && limitedByHand || e.Now.Sub(g.Since) < e.Cooldown || e.justRolledBack()
	if g.Shed > 0 && !limitedByHand && !paused {
		g = e.limited(id, g)
	}
	switch {
	case paused:
		g.Bad, g.FirstBad, g.Held = 0, time.Time{}, ""
	case g.Pool != "" && g.Share > 0:
		g = e.returning(id, g)
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
		return e.warm(id, g, f)
	}
	if g.Bad++; g.Bad == 1 {
		g.FirstBad = f.from
	}
	if g.Bad < e.BadEvaluations || f.doubtful && g.Bad < e.SlowEvaluations {
		return e.warm(id, g, f)
	}
	d := Decision{
		Service: f.stats.Service, FromPool: e.home(g.Color), ToPool: semconv.PoolIsolated,
		Stats: f.stats, Baseline: f.baseline, FirstBad: g.FirstBad, Evidence: f.evidence(),
	}
	d.Causes = e.Causes[Pool{d.Service, d.FromPool}]
	f.words += e.saturatedToo(d)
	d, why := e.remedy(id, g, f, d)
	if why != "" {
		return e.hold(id, g, f, d, why)
	}
	return e.state.carried(g, e.decide(id, d))
}

// remedy is the first that helps: taking an update back that did it, moving the group, or
// limiting it where it is what others suffer from. Why is what keeps it from being done.
func (e *evaluation) remedy(id group.ID, g GroupState, f finding, d Decision) (_ Decision, why string) {
	if e.changed(id, g, f) && (e.general.Mode == ModeAct || e.Mode != ModeAct) { // it concerns all: where this group alone may be acted on, it is moved
		d.Action, d.ToPool, d.Revision = RollBack, d.FromPool, &RevisionChange{From: e.Change.Revision.To, To: e.Change.Revision.From, Settings: e.Change.Revision.Settings}
		d.Reason = fmt.Sprintf("%s; it was well until %s revision %d came into force %s ago, so %s in force again", f.words, d.Revision.What(), d.Revision.From, round(e.Now.Sub(e.Change.At)), d.Revision.back())
		return d, e.bound()
	}
	why = e.mayNot(id, f, d)
	if why == "" || why == onlyRecommends {
		d.Action, d.For, d.Room = Isolate, e.isolateFor(g), e.room(id)
		d.Reason = fmt.Sprintf("%s; isolated for %s", f.words, d.For)
		return d, why
	}
	if limit, grown, found := e.noisy(id, g, f); found {
		d.Action, d.ToPool, d.Requests, d.For = Shed, d.FromPool, limit, e.IsolateFor
		d.Evidence = &Evidence{Test: "requests", Chance: grown.chance}
		d.Reason = fmt.Sprintf("%s; the rest of its pool is bad as well, and it asks for %.0f requests a second instead of %.0f%s: each edge lets %d pass, for %s",
			f.words, grown.rate, grown.before, odds(grown.chance), limit, d.For)
		return d, e.full(e.bound())
	}
	return d, why
}

// bound is what the mode keeps from being done.
func (e *evaluation) bound() string {
	switch e.Mode {
	case ModeObserve:
		return onlyObserves
	case ModeRecommend:
		return onlyRecommends
	}
	return ""
}

// full is why, or that there are enough groups away.
func (e *evaluation) full(why string) string {
	if why == "" && e.state.isolated() >= e.MaxIsolated {
		return fmt.Sprintf("%d groups are isolated or limited already, the most allowed", e.MaxIsolated)
	}
	return why
}

// hold says why a bad group is left as it is. A group on the brink is bad now and well
// then, and for another reason each time: none is said each time, and people are not told
// again of what they know.
func (e *evaluation) hold(id group.ID, g GroupState, f finding, d Decision, why string) GroupState {
	again := e.LongWindow
	if why == onlyRecommends {
		d.Advice, again = d.Action, max(again, e.IsolateForMax)
	}
	if says := d.says(why); e.Now.Sub(g.Told[says]) >= again {
		g.Told = told(g.Told, says, e.Now, max(e.LongWindow, e.IsolateForMax))
		d.Action, d.ToPool, d.Reason = Hold, d.FromPool, f.words+notMoved+why
		e.decide(id, d)
	}
	g.Held = why
	return g
}

// says is what a hold says, without figures: what it recommends, or why nothing is done.
func (d Decision) says(why string) string {
	switch {
	case d.Advice == "":
		return why
	case d.Revision != nil:
		return fmt.Sprintf("%s %s %d", d.Advice, d.Revision.What(), d.Revision.From)
	}
	return string(d.Advice)
}

// told is was and one more, without what was said too long ago to count.
func told(was map[string]time.Time, says string, now time.Time, counts time.Duration) map[string]time.Time {
	out := map[string]time.Time{says: now}
	for s, at := range was {
		if s != says && now.Sub(at) < counts {
			out[s] = at
		}
	}
	return out
}

// carried is the state of a group after a decision about it.
func (s *State) carried(g GroupState, d Decision) GroupState {
	g.Bad, g.FirstBad, g.Held = 0, time.Time{}, ""
	switch d.Action {
	case Isolate:
		g.Pool, g.Since, g.By, g.Left, g.Share, g.IsolatedFor = semconv.PoolIsolated, d.Time, d.By, d.Time, 0, d.For
	case Shed:
		g.Shed, g.ShedAt = d.Requests, d.Time
	case RollBack:
		s.RolledBack = d.Time
	}
	return g
}

const notMoved = "; not moved: "

const onlyObserves = "the policy only observes"

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
	case e.sick(id, d.Service):
		return fmt.Sprintf("pool %q is bad for those that are in it", semconv.PoolIsolated)
	case e.saturated(e.pool(d.Service, semconv.PoolIsolated)):
		return fmt.Sprintf("pool %q is saturated itself", semconv.PoolIsolated)
	}
	return e.full(e.bound())
}

// sick says whether the isolated pool is bad for others: moving a group there would take
// it from its last healthy pool.
func (e *evaluation) sick(id group.ID, service string) bool {
	others, found := e.pooled(e.Short, id, service, semconv.PoolIsolated)
	return found && e.breaks(others, 1)
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

// heldFor says whether both reasons are the same but for their figures.
func heldFor(a, b string) bool {
	const head = 20
	return len(a) >= head && len(b) >= head && a[:head] == b[:head]
}

// decide adds a decision, with what all of them have.
func (e *evaluation) decide(id group.ID, d Decision) Decision {
	g := e.state.Groups[id]
	d.Time, d.Group, d.Color, d.Env, d.Tenant, d.By = e.Now, id, g.Color, g.Env, g.Tenant, ByPolicy
	d.Thresholds, d.Undo = e.of(id).thresholds(), d.undo()
	d.Saturation = e.saturationOf(d)
	e.decisions = append(e.decisions, d)
	return d
}
