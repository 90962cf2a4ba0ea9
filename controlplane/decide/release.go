package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// away begins to try the group in its own pool again when its time is over, unless it is
// still bad where it is, or its own pool is bad for others, in any service that it was moved in.
func (e *evaluation) away(id group.ID, g GroupState) GroupState {
	if e.Now.Sub(g.Since) < g.IsolatedFor {
		return g
	}
	home, services := e.home(g.Color), e.moved(id)
	got := func(service string) (sli.Stats, bool) { return e.kept(id, g, service) }
	st, ok := e.worst(services, e.LeaveFraction, got)
	d := Decision{Service: st.Service, FromPool: g.Pool, ToPool: home, Stats: st}
	if ok && e.breaks(st, e.LeaveFraction) {
		return e.stay(id, g, d, notReleased, "it is still bad in its isolated pool: "+e.figures(st))
	}
	for _, service := range services {
		if others, found := e.pooled(e.Short, id, service, home); found && e.breaks(others, 1) {
			d.Service = service
			d.Stats, _ = got(service)
			return e.stay(id, g, d, notReleased, fmt.Sprintf("its own pool %s is bad for others: %s", home, e.figures(others)))
		}
	}
	reason := fmt.Sprintf("%s of isolation are over", g.IsolatedFor)
	if ok {
		reason += ", " + e.figures(st)
	}
	return e.step(id, g, d, reason)
}

const notReleased = "not released: "

// moved are the services that a group is isolated in, of those that it asked in the long
// window; a service without a name, which stands for all, where it asked none of them.
func (e *evaluation) moved(id group.ID) []string {
	out := slices.DeleteFunc(servicesOf(e.short[id], e.longOf(id)), func(service string) bool { return !e.Isolatable[service] })
	if len(out) == 0 {
		return []string{""}
	}
	return out
}

// kept is what a group got of a service where it is isolated: over the short window, or over
// the long one where that is not of what it got before.
func (e *evaluation) kept(id group.ID, g GroupState, service string) (sli.Stats, bool) {
	st, ok := e.measured(e.short[id], service, g.Pool)
	if ok {
		return st, ok
	}
	long, enough := e.measured(e.longOf(id), service, g.Pool)
	if long.Pool == g.Pool || e.Now.Sub(g.Since) >= e.LongWindow+time.Second {
		return long, enough
	}
	return st, ok
}

// returning looks at the part of a group that is home again. Bad, whoever's fault it is:
// all of it goes back. Well for a while: the next step. A part that makes too few requests to
// be judged is given the long window; one that makes none is not waited for.
func (e *evaluation) returning(id group.ID, g GroupState) GroupState {
	home := e.home(g.Color)
	f, bad := e.judge(id, g, home)
	part := func(service string) (sli.Stats, bool) { return e.part(id, g, service, home) }
	st, ok := e.worst(e.moved(id), 1, part)
	if bad {
		st, ok = part(f.stats.Service)
	}
	d := Decision{Service: st.Service, FromPool: g.Pool, ToPool: home, Stats: st}
	if bad || st.Service == f.stats.Service {
		d.Baseline = f.baseline
	}
	switch waited := e.Now.Sub(g.Since); {
	case bad && e.Mode != ModeAct:
		return e.stay(id, g, d, "released no further: ", fmt.Sprintf("the %d%% of its users who are home are badly off, and %s", g.Share, e.bound()))
	case bad:
		if g.Bad++; g.Bad == 1 {
			g.FirstBad = f.from
		}
		if g.Bad < e.BadEvaluations || f.doubtful && g.Bad < e.SlowEvaluations {
			return g
		}
		d.Action, d.FromPool, d.ToPool, d.Stats, d.Evidence = Isolate, home, g.Pool, f.stats, f.evidence()
		d.FirstBad, d.For, d.Room = g.FirstBad, min(2*g.IsolatedFor, e.IsolateForMax), e.room(id)
		d.Causes = e.Causes[Pool{f.stats.Service, home}]
		d.Reason = fmt.Sprintf("%s, of the %d%% of its users who were home again; isolated for %s", f.words, g.Share, d.For)
		return e.state.carried(g, e.decide(id, d))
	case !f.noData:
		g.Bad, g.FirstBad = 0, time.Time{}
		fallthrough
	default:
		switch {
		case waited < e.ReleaseStepFor, !ok && st.Requests > 0 && waited < e.LongWindow:
			return g
		case ok && e.breaks(st, 1):
			return e.stay(id, g, d, "released no further: ", fmt.Sprintf("the %d%% of its users who are home have %s", g.Share, e.figures(st)))
		}
	}
	reason := fmt.Sprintf("%d%% of its users are home since %s", g.Share, round(e.Now.Sub(g.Since)))
	switch {
	case ok:
		reason += " and have " + e.figures(st)
	case st.Requests > 0:
		reason += " and make too few requests to be judged"
	default:
		reason += " and none of them is there"
	}
	return e.step(id, g, d, reason)
}

// part is what those of a group got who are home again: over the short window, or over
// the long one where that does not reach back to before it had left.
func (e *evaluation) part(id group.ID, g GroupState, service, home string) (sli.Stats, bool) {
	st, ok := e.measured(e.short[id], service, home)
	if st.Pool != home {
		st, ok = sli.Stats{Service: service}, false
	}
	if !ok && e.Now.Sub(g.Left) >= e.LongWindow+time.Second {
		if long, enough := e.measured(e.longOf(id), service, home); long.Pool == home {
			return long, enough
		}
	}
	return st, ok
}

// silent says that the group made no request at all, and that none is missing: nobody is
// there to be protected. Requests of others do not say so, since another receiver may have
// the group's, and be unable to store them.
func (e *evaluation) silent(id group.ID) bool {
	return len(e.short[id])+len(e.longOf(id)) == 0 && e.Now.Sub(e.Watermark) <= e.StaleAfter
}

// stay says once why a group is where it is; of reasons that take turns, each once in a long
// window.
func (e *evaluation) stay(id group.ID, g GroupState, d Decision, not, why string) GroupState {
	if says, _, _ := strings.Cut(why, ":"); !heldFor(g.Held, why) && e.Now.Sub(g.Told[says]) >= e.LongWindow {
		g.Told = told(g.Told, says, e.Now, max(e.LongWindow, e.IsolateForMax))
		d.Action, d.FromPool, d.ToPool, d.Reason = Hold, g.Pool, g.Pool, not+why
		e.decide(id, d)
	}
	g.Held = why
	return g
}

// step lets the next share of a group go home; all of it after the last step, or where it is
// known that nobody is there.
func (e *evaluation) step(id group.ID, g GroupState, d Decision, reason string) GroupState {
	share := uint32(100)
	if e.silent(id) {
		reason += ", and it is quiet"
	} else if i := slices.IndexFunc(e.ReleaseSteps, func(s uint32) bool { return s > g.Share }); i >= 0 {
		share = e.ReleaseSteps[i]
	}
	d.Action, d.Share = Release, share
	d.Reason = fmt.Sprintf("%s: %d%% of its users go home", reason, share)
	if share == 100 {
		d.Reason = reason + ": all of it goes home"
	}
	e.decide(id, d)
	g.Since, g.By, g.Bad, g.FirstBad, g.Held, g.Share = e.Now, ByPolicy, 0, time.Time{}, "", share
	if share == 100 {
		g.Pool, g.Share, g.Left, g.Released = "", 0, time.Time{}, e.Now
	}
	return g
}
