package controlplane

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/sli"
)

// Updates that are taken back. decide says when: a policy made a group bad. The document
// stays where the operator wrote it, and the one before is in force in its place, as if
// edges had refused it; history says so, so that a restart does not try it again. What
// ends it is another document, or an operator who brings the same one once more.
//
// (To write the earlier document over the operator's lost: the file may be somebody
// else's, a repository's or etcd's, who would write it again.)

// update is the last policy that edges were given, and what was before.
type update struct {
	raw    []byte
	before wish
	change decide.Change
}

// undone is a policy that was taken back, and what is in force in its place; raw is nil
// where none was.
type undone struct {
	raw []byte
	to  wish
	why ctlapi.RolledBack
}

// noteUpdate remembers that edges get another policy, or are back at the last good one.
func (l *loop) noteUpdate(w wish, long []sli.Stats, now time.Time) {
	switch {
	case l.good == nil || !l.good.wish.complete() || w.policy == nil:
	case l.undone.raw != nil && bytes.Equal(l.undone.to.rawPolicy, w.rawPolicy):
		l.updated = nil // back to what was good is no update
	case l.updated != nil && bytes.Equal(l.updated.raw, w.rawPolicy):
	case bytes.Equal(l.good.wish.rawPolicy, w.rawPolicy):
		l.updated = nil // edges refused the last one, or it was taken back
	default:
		l.updated = &update{raw: w.rawPolicy, before: l.good.wish, change: decide.Change{
			Revision: decide.RevisionChange{From: l.history.Number(l.good.wish.rawPolicy), To: l.history.Number(w.rawPolicy)},
			At:       now, Services: w.policy.Touched(l.good.wish.policy), Before: long,
		}}
	}
}

// updates are the policy's last and those of settings.
func (l *loop) updates() []*decide.Change {
	out := l.live.updates()
	if l.updated != nil {
		out = append(out, &l.updated.change)
	}
	return out
}

// lastChange is what decide knows of updates: the newest; nil: there was none.
func (l *loop) lastChange() *decide.Change {
	var newest *decide.Change
	for _, c := range l.updates() {
		if newest == nil || c.At.After(newest.At) {
			newest = c
		}
	}
	return newest
}

// current says whether a revision is the last update.
func (l *loop) current(r decide.RevisionChange) bool {
	if r.Settings != "" {
		return l.live.current(r)
	}
	return l.updated != nil && l.updated.change.Revision.To == r.From
}

// takeBack puts the document before into force.
func (l *loop) takeBack(d decide.Decision) {
	if d.Revision == nil {
		return
	}
	if d.Revision.Settings != "" {
		l.live.takeBack(d, l.last.long, time.Now())
		return
	}
	u := l.updated
	if l.takeBackTrial(d) {
		return
	}
	if u == nil || u.change.Revision.To != d.Revision.From {
		return // another document came meanwhile
	}
	l.undo(u.raw, u.before, d)
	l.trial.backTo(u.before)
	l.remember(l.history.RolledBack(u.raw, d.Revision.To, d.Reason))
	l.updated = nil
	l.log.Error("an update of the policy is taken back", "revision", d.Revision.From, "in force", d.Revision.To, "reason", d.Reason)
}

// undo has another policy in force in place of a document, until another one is wanted.
func (l *loop) undo(raw []byte, to wish, d decide.Decision) {
	l.undone = undone{raw: raw, to: to, why: ctlapi.RolledBack{From: d.Revision.From, To: d.Revision.To, Time: d.Time, Why: d.Reason}}
	l.metrics.rolledBack.Set(1)
}

// again says whether a document is one that was taken back, and stays so. After a restart
// what is in force in its place is read from the history.
func (l *loop) again(raw []byte) bool {
	if bytes.Equal(l.undone.raw, raw) {
		return true
	}
	r, ok := l.history.WasRolledBack(raw)
	if !ok {
		return false
	}
	document, err := l.history.Document(r.BackTo)
	if err != nil {
		l.log.Error("a policy that was taken back is in force again, the one before it is not kept", "revision", r.Number, "error", err)
		return false
	}
	before, err := policy.Parse(document)
	if err != nil {
		l.log.Error("a policy that was taken back is in force again, the one before it cannot be used any more", "revision", r.Number, "error", err)
		return false
	}
	l.undone = undone{raw: raw, to: wish{policy: &before, rawPolicy: document}, why: ctlapi.RolledBack{From: r.Number, To: r.BackTo, Time: r.Since, Why: r.Why}}
	l.metrics.rolledBack.Set(1)
	return true
}

// reapply is an operator's word that a document is wanted although it was taken back.
func (l *loop) reapply(document []byte) {
	if l.undone.raw == nil || !bytes.Equal(l.undone.raw, document) {
		return
	}
	l.forget()
	now := time.Now()
	l.remember(l.history.Add(document, now))
	l.log.Warn("a policy that was taken back is tried again", "revision", l.history.Number(document))
	l.program(now, nil)
}

// forget ends the time of what was taken back.
func (l *loop) forget() {
	l.undone = undone{}
	l.metrics.rolledBack.Set(0)
}

// settleAfter is how long spans of requests that began after a decision take to be counted.
const settleAfter = time.Second

// measureLimit bounds the wait for enough requests to measure a decision by.
const measureLimit = 30 * time.Second

// maxUnmeasured bounds the decisions that wait to be measured.
const maxUnmeasured = 256

// measureOutcomes says what came of decisions that took effect a while ago.
func (l *loop) measureOutcomes(p decide.Policy, short []sli.Stats, now time.Time) {
	waiting := l.unmeasured[:0]
	for _, d := range l.unmeasured {
		since := now.Sub(d.Programmed)
		if since < p.ShortWindow+settleAfter {
			waiting = append(waiting, d)
			continue
		}
		o := p.Measure(d, short, now)
		if o.Stats == nil && since < measureLimit {
			waiting = append(waiting, d)
			continue
		}
		l.supplement(d.ID, func(d *decide.Decision) { d.Outcome = &o })
	}
	l.unmeasured = waiting
}

func outdated(what string) error { return fmt.Errorf("%w: %s", decide.ErrOutdated, what) }
