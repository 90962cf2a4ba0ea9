package decide

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Order is what an operator asks for.
type Order struct {
	Group    group.Group
	Home     string // the group's own pool
	By       string
	Reason   string
	For      time.Duration // zero: until the operator's next word
	Requests uint32        // of Shed: that each edge lets through in a second
	Pool     string        // of Pin: where to
	Now      time.Time
}

// ReleaseFor is how long a group that an operator released is left alone where
// they did not say.
const ReleaseFor = time.Minute

// Isolate carries out an operator's order, whatever policy thinks of it, and keeps
// policy from undoing it.
func (s State) Isolate(o Order) (Decision, State) {
	return s.order(o, Decision{Action: Isolate, ToPool: semconv.PoolIsolated}, semconv.PoolIsolated)
}

// Pin has a group served by the pool that the order names, whatever policy thinks of it. It
// stays there where the pool is its home now and another becomes that.
func (s State) Pin(o Order) (Decision, State) {
	return s.order(o, Decision{Action: Pin, ToPool: o.Pool}, o.Pool)
}

// Release sends a group home, whoever moved it, and ends its limit.
func (s State) Release(o Order) (Decision, State) {
	if o.For == 0 {
		o.For = ReleaseFor
	}
	return s.order(o, Decision{Action: Release, ToPool: o.Home, Share: 100}, "")
}

// Shed limits a group where it is, and changes nothing else: who moved it, and until when,
// stays as it was. At home policy leaves it there until the limit ends.
func (s State) Shed(o Order) (Decision, State) {
	return s.limit(o, Decision{Action: Shed, Requests: o.Requests}, func(g *GroupState) {
		g.Shed, g.ShedAt, g.ShedBy, g.ShedUntil = o.Requests, o.Now, o.By, until(o)
	})
}

// Lift ends a group's limit, whoever's it is, and leaves the group where it is. At home policy
// leaves it alone for a while, as after Release, or for as long as an operator has said.
func (s State) Lift(o Order) (Decision, State) {
	was := s.Groups[o.Group.ID()]
	spared := was.Pool == "" && !was.Manual
	if spared {
		o.For = cmp.Or(o.For, ReleaseFor)
	}
	return s.limit(o, Decision{Action: Lift, Requests: was.Shed}, func(g *GroupState) {
		g.unlimited()
		if spared {
			g.Since, g.By, g.Manual, g.Until = o.Now, o.By, true, until(o)
		}
	})
}

// limit carries out an order about a group's limit, which says nothing of its place.
func (s State) limit(o Order, d Decision, change func(*GroupState)) (Decision, State) {
	out, id := s.clone(), o.Group.ID()
	g := out.Groups[id]
	d.FromPool = cmp.Or(g.Pool, o.Home)
	d.ToPool = d.FromPool
	g.Color, g.Env, g.Tenant = o.Group.Color, o.Group.Env, o.Group.Tenant
	change(&g)
	out.Groups[id] = g
	return o.decided(d), out
}

func (s State) order(o Order, d Decision, pool string) (Decision, State) {
	out, id := s.clone(), o.Group.ID()
	g := out.Groups[id]
	d.FromPool = cmp.Or(g.Pool, o.Home)
	out.Groups[id] = GroupState{
		Color: o.Group.Color, Env: o.Group.Env, Tenant: o.Group.Tenant,
		Pool: pool, Since: o.Now, By: o.By, Manual: true, Until: until(o), Seen: g.Seen,
	}
	return o.decided(d), out
}

// decided is a decision with what all orders have.
func (o Order) decided(d Decision) Decision {
	d.Time, d.Group, d.Color, d.Env, d.Tenant = o.Now, o.Group.ID(), o.Group.Color, o.Group.Env, o.Group.Tenant
	d.Reason, d.By, d.For = o.Reason, o.By, o.For
	d.Undo = d.undo()
	return d
}

func until(o Order) time.Time {
	if o.For == 0 {
		return time.Time{}
	}
	return o.Now.Add(o.For)
}

// Why a recommendation cannot be confirmed.
var (
	ErrNoAdvice = errors.New("the decision recommends nothing")
	ErrOutdated = errors.New("the recommendation is out of date")
	ErrTooMany  = errors.New("as many groups are isolated or limited as the policy allows")
)

// TakeBack is that an update is taken back because it was bad at the edge that had it first.
func (s State) TakeBack(r RevisionChange, reason string, now time.Time) (Decision, State) {
	next := s.clone()
	next.RolledBack = now
	d := Decision{Action: RollBack, Revision: &r, Reason: reason, By: ByPolicy, Time: now}
	d.Undo = d.undo()
	return d, next
}

// Confirm carries out what a Hold recommended, as the policy would have done by itself: it
// is for the same time, and what follows is the policy's again. It must be the newest of
// its kind about the group, and not older than IsolateForMax, nor may the group have been
// moved since, or anything else keep it from being moved now.
func (s State) Confirm(p Policy, advice Decision, by, reason string, now time.Time) (Decision, State, error) {
	g := s.Groups[advice.Group]
	limited := advice.Advice == Isolate || advice.Advice == Shed
	switch {
	case advice.Action != Hold || advice.Advice == "":
		return Decision{}, s, ErrNoAdvice
	case now.Sub(advice.Time) > p.IsolateForMax, !g.Told[advice.says("")].Equal(advice.Time),
		g.Pool != "" || g.Manual || g.Shed > 0, g.Held != "" && g.Held != onlyRecommends:
		return Decision{}, s, ErrOutdated
	case limited && s.isolated() >= p.MaxIsolated:
		return Decision{}, s, ErrTooMany
	}
	out, d := s.clone(), advice
	d.ID, d.Action, d.Advice, d.Confirms, d.Time, d.By = "", advice.Advice, "", advice.ID, now, by
	found, _, _ := strings.Cut(advice.Reason, notMoved)
	d.Reason = fmt.Sprintf("%s; recommended, and confirmed: %s", found, reason)
	if d.Action == Isolate {
		d.ToPool = semconv.PoolIsolated
	}
	d.Undo = d.undo()
	out.Groups[advice.Group] = out.carried(g, d)
	return d, out, nil
}
