package controlplane

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/trial"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// Trials: where they are switched on, a policy that is new goes to one edge first
// (controlplane/trial says to which, and when it has been good enough). Beside the plan of
// all edges there is then one of the edge on trial: the same endpoints, certificates and
// moves of groups, another policy. Each time one is made so is the other; a move is in
// force when all have acknowledged it, each in its plan.
//
// Placement, decisions, gRPC clients and ctl explain go by the policy that all have. What
// is saved as the last good configuration is that of all as well: a control plane that
// ends midway begins with it, at every edge, reads the same document, and tries it again
// from the start.
//
// One policy is on trial at a time. Another one that comes meanwhile waits, and of several
// the newest goes next: were the trial to begin anew each time, a policy that changes
// every minute would never be in force. What needs no trial (the policy that all have, one
// that was in force once) ends it and is in force at once.

// onTrial is a policy that one edge has.
type onTrial struct {
	trial.Trial          // Edge is empty until one is there
	wish        wish     // its policy counts
	to          wish     // what the others have; its policy counts
	renderer    renderer // of its plans
	snapshot    *xds.Snapshot
	versions    map[string]bool // of snapshots that the edge was given
	found       trial.Finding
}

// has says whether an edge is the one on trial and should have what was staged last.
func (t *onTrial) has(e server.Edge) bool {
	return t != nil && t.snapshot != nil && t.Edge == e.ID && t.snapshot.Version == e.Version
}

// backTo changes what the others have.
func (t *onTrial) backTo(w wish) {
	if t != nil {
		t.to.policy, t.to.rawPolicy = w.policy, w.rawPolicy
	}
}

// window is what is to be measured.
func (t *onTrial) window(c trial.Config) trialWindow {
	if t == nil || t.Acked.IsZero() {
		return trialWindow{}
	}
	return trialWindow{before: t.Since.Add(-c.Watch), until: t.Since, since: t.Acked}
}

// nextLook is when the trial needs one; zero: when something happens.
func (t *onTrial) nextLook(c trial.Config, now time.Time) time.Time {
	if t == nil || t.Edge == "" {
		return time.Time{}
	}
	for _, at := range []time.Time{t.Due(c), t.Due(c).Add(c.Answer)} {
		if at.After(now) {
			return at
		}
	}
	return now.Add(time.Second)
}

// startTrial begins one where the policy that is due needs it, and ends one whose policy
// is not wanted any more.
func (l *loop) startTrial(now time.Time) {
	w, t := l.due(), l.trial
	switch {
	case t == nil && l.good != nil:
		to := l.good.wish
		if l.pending != nil {
			to = l.pending.wish
		}
		l.beginTrial(w, to)
	case t == nil, bytes.Equal(w.rawPolicy, t.wish.rawPolicy), l.mustTry(w, t.to):
	default:
		l.log.Info("a trial ends, another policy is wanted", "edge", t.Edge, "after", now.Sub(t.Since).Round(time.Millisecond))
		l.trialOver(t, "ended")
	}
}

func (l *loop) beginTrial(w, to wish) {
	if l.mustTry(w, to) {
		l.trial = &onTrial{wish: w, to: to, renderer: l.renderer.another(), versions: map[string]bool{}}
	}
}

// mustTry says whether a policy has to be tried before it takes the place of another.
func (l *loop) mustTry(w, to wish) bool {
	back := l.undone.raw != nil && bytes.Equal(w.rawPolicy, l.undone.to.rawPolicy)
	return l.cfg.Trial.Watch > 0 && w.policy != nil && to.policy != nil && !bytes.Equal(w.rawPolicy, to.rawPolicy) &&
		!back && !bytes.Equal(w.rawPolicy, l.passed) && !l.history.Proven(w.rawPolicy)
}

// trialOver forgets a trial; all edges are told that services of it are gone, where they are.
func (l *loop) trialOver(t *onTrial, result string) {
	l.trial = nil
	l.renderer.served(t.renderer.services)
	l.metrics.trials.WithLabelValues(result).Inc()
}

// stage gives the edge on trial a plan of its policy, or what all have where there is none.
func (l *loop) stage(now time.Time) {
	t := l.trial
	if t == nil {
		l.edges.Stage(nil, "")
		return
	}
	pol, end := l.withoutHeld(*t.wish.policy).At(now)
	_, snapshot, err := t.renderer.render(pol, *l.effective().endpoints, l.placed(), l.edge())
	if err != nil {
		l.noPlan(err)
		return
	}
	if !end.IsZero() && (l.pinEnd.IsZero() || end.Before(l.pinEnd)) {
		l.pinEnd = end
	}
	t.snapshot = l.withoutRefused(snapshot)
	if t.Edge != "" {
		l.give(t)
	}
}

func (l *loop) give(t *onTrial) {
	t.versions[t.snapshot.Version] = true
	l.edges.Stage(t.snapshot, t.Edge)
}

// try looks at the trial.
func (l *loop) try(now time.Time) {
	t := l.trial
	switch {
	case t == nil || t.snapshot == nil:
		return
	case t.Edge == "" && l.unchanged(t):
		l.pass(t, "nothing changes at the edge", now)
		return
	case t.Edge == "":
		l.takeEdge(t, now)
		return
	}
	if m := l.last.trial; m.of != (trialWindow{}) && m.of == t.window(l.cfg.Trial) {
		if t.found = trial.Judge(t.to.policy.Decide, t.Edge, m.since, m.before); m.err != nil {
			t.found.Words = "statistics are not to be had: " + m.err.Error()
		}
	}
	next, verdict, why := t.Next(l.cfg.Trial, now, l.edgeOf(t), t.found)
	t.Trial = next
	switch verdict {
	case trial.Passed:
		l.pass(t, why, now)
	case trial.Failed:
		l.fail(t, why, now)
	}
}

// unchanged says whether edges have what the policy says already.
func (l *loop) unchanged(t *onTrial) bool {
	given := l.good
	if l.pending != nil {
		given = l.pending
	}
	return given.snapshot.Version == t.snapshot.Version
}

// takeEdge chooses the edge of a trial and gives it the policy, where one is connected.
func (l *loop) takeEdge(t *onTrial, now time.Time) {
	var known []trial.Edge
	for _, e := range l.edges.Edges() {
		known = append(known, trial.Edge{ID: e.ID, Connected: e.Connected, InSync: e.InSync})
	}
	id, ok := l.cfg.Trial.Choose(known)
	if !ok {
		return
	}
	t.Edge, t.Since = id, now
	t.found.Words = "nothing was measured"
	// What is written first is known to a control plane that is started after a crash.
	l.remember(l.history.OnTrial(t.wish.rawPolicy, "edge "+id+" has it alone"))
	l.give(t)
	l.log.Info("a policy is tried", "revision", l.history.Number(t.wish.rawPolicy), "edge", id, "for", l.cfg.Trial.Watch)
}

// edgeOf is what is known of a trial's edge. While one of its processes takes over from
// another there are two of them.
func (l *loop) edgeOf(t *onTrial) trial.Edge {
	out := trial.Edge{ID: t.Edge}
	for _, e := range l.edges.Edges() {
		if e.ID != t.Edge {
			continue
		}
		out.Connected = out.Connected || e.Connected
		out.InSync = out.InSync || e.Connected && e.InSync && t.has(e)
		for _, n := range e.Nacks {
			if t.versions[n.Version] && !n.Time.Before(t.Since) && !sought(n) {
				r := l.rejected(&programming{wish: wish{policy: t.wish.policy, rawPolicy: t.wish.rawPolicy, rawEndpoints: l.wanted.rawEndpoints}}, e.ID, n, "")
				out.Refused = why(r)
				l.rejection = &r
			}
		}
	}
	return out
}

// pass gives the policy to all edges.
func (l *loop) pass(t *onTrial, why string, now time.Time) {
	l.log.Info("a policy goes to all edges", "revision", l.history.Number(t.wish.rawPolicy), "reason", why)
	l.passed = t.wish.rawPolicy
	l.forget()
	l.trialOver(t, "passed")
	if w := l.due(); !bytes.Equal(w.rawPolicy, t.wish.rawPolicy) {
		l.beginTrial(w, t.wish) // it has waited
	}
	l.program(now, nil)
}

// fail decides that the policy is taken back.
func (l *loop) fail(t *onTrial, why string, now time.Time) {
	r := decide.RevisionChange{From: l.history.Number(t.wish.rawPolicy), To: l.history.Number(t.to.rawPolicy)}
	d, next := l.state.TakeBack(r, fmt.Sprintf("%s; revision %d goes on everywhere", why, r.To), now)
	if l.carryOut([]decide.Decision{d}, next) != nil { // the edge is helped all the same
		l.takeBackTrial(d)
		l.program(now, nil)
	}
}

// takeBackTrial says whether the decision was about the policy on trial, which then is over.
func (l *loop) takeBackTrial(d decide.Decision) bool {
	t := l.trial
	if t == nil || d.Revision.From != l.history.Number(t.wish.rawPolicy) {
		return false
	}
	wanted := bytes.Equal(l.due().rawPolicy, t.wish.rawPolicy)
	l.remember(l.history.RolledBack(t.wish.rawPolicy, d.Revision.To, d.Reason))
	if wanted {
		l.undo(t.wish.rawPolicy, t.to, d)
	}
	l.trialOver(t, "failed")
	if !wanted {
		l.beginTrial(l.due(), t.to) // it has waited
	}
	l.log.Error("a policy is taken back from the edge that had it first", "edge", t.Edge, "revision", d.Revision.From, "in force", d.Revision.To, "reason", d.Reason)
	return true
}

// servedOnTrial notes the services of a policy that was on trial when the last run ended:
// its edge may have them.
func (l *loop) servedOnTrial() {
	document, ok := l.history.Trial()
	if !ok {
		return
	}
	if p, err := policy.Parse(document); err == nil {
		l.renderer.served(serviceNames(p))
	}
}

// showTrial is the trial for status.
func (l *loop) showTrial() *ctlapi.Trial {
	t := l.trial
	if t == nil {
		return nil
	}
	out := &ctlapi.Trial{Revision: l.history.Number(t.wish.rawPolicy), Edge: t.Edge, Since: t.Since, Measured: t.found.Words}
	if w := l.due(); !bytes.Equal(w.rawPolicy, t.wish.rawPolicy) {
		out.Next = l.history.Number(w.rawPolicy)
	}
	if !t.Acked.IsZero() {
		out.Until = t.Due(l.cfg.Trial)
	}
	return out
}
