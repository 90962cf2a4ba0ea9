package decide

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// FuzzDecide plays random statistics over random time steps and holds what must
// be true whatever is measured.
func FuzzDecide(f *testing.F) {
	const seeds = 20
	for seed := range uint64(seeds) {
		f.Add(seed, uint8(seed%5))
	}
	f.Add(uint64(25), uint8(1)) // a pool that has emptied since it was measured
	seen, runs := map[Action]int{}, 0
	f.Cleanup(func() {
		for _, a := range []Action{Hold, PreWarm, Isolate, Release, Shed, Lift, RollBack} {
			if seen[a] == 0 && runs == seeds+1 { // not of one seed alone, nor in a worker
				f.Errorf("no seed leads to %s: %v", a, seen)
			}
		}
	})
	f.Fuzz(func(t *testing.T, seed uint64, mode uint8) {
		runs++
		rnd := rand.New(rand.NewPCG(seed, 7))
		p := DefaultPolicy()
		p.MaxIsolated = 1 + rnd.IntN(3)
		p.MinRequests = uint64(1 + rnd.IntN(50))
		p.BadEvaluations, p.SlowEvaluations = 1+rnd.IntN(4), 1+rnd.IntN(4)
		p.Mode = []Mode{ModeAct, ModeAct, ModeAct, ModeRecommend, ModeObserve}[mode%5]
		p.ReleaseSteps = [][]uint32{nil, {1, 10}, {50}}[rnd.IntN(3)]
		p.IsolateFor = p.Cooldown + time.Duration(rnd.Int64N(int64(20*time.Second)))
		p.Significance = []float64{1e-8, 1e-3, 1}[rnd.IntN(3)]
		p.ShedFactor = []float64{0, 1.5, 3}[rnd.IntN(3)]
		p.Groups = randomPolicies(rand.New(rand.NewPCG(seed, 8)))
		full := rand.New(rand.NewPCG(seed, 9))
		p.PrewarmSaturation = []float64{0, 0.5, 0.85}[full.IntN(3)]
		if errs := p.Validate(); len(errs) > 0 {
			t.Fatal(errs)
		}
		var (
			state  State
			now    = start
			change *Change
			moved  = map[group.ID]time.Time{}
		)
		for range 50 {
			now = now.Add(time.Duration(rnd.Int64N(int64(5 * time.Second))))
			if rnd.IntN(20) == 0 {
				state = randomOrder(rnd, state, now)
			}
			in := randomInput(rnd, now)
			in.Saturation = randomSaturation(full, now)
			if full.IntN(2) == 0 {
				in.Instances = map[string]string{"files": "core"}
			}
			if rnd.IntN(3) == 0 {
				change = randomChange(rnd, now)
			}
			in.Change = change
			before := state.clone()
			ds, next := Decide(p, state, in)
			if diff := cmp.Diff(before, state.clone()); diff != "" {
				t.Fatalf("the argument was changed:\n%s", diff)
			}
			for _, d := range ds {
				seen[d.Action]++
				check(t, p.For(d.Group), in, d, before, moved)
				if d.Action == RollBack && p.Mode != ModeAct {
					t.Fatalf("rolled back for all, in mode %s: %+v", p.Mode, d)
				}
			}
			if n := count(ds, RollBack); n > 1 || n == 1 && (!change.At.After(before.RolledBack) || next.RolledBack != now) {
				t.Fatalf("%d times rolled back at once, the last time %s, the change %s", n, before.RolledBack, change.At)
			}
			checkState(t, p, before, next, ds)
			checkPools(t, p, in, before, next, ds)
			if n := next.isolated(); n > p.MaxIsolated && n > before.isolated() {
				t.Fatalf("%d groups isolated, at most %d allowed", n, p.MaxIsolated)
			}
			state = next
		}
	})
}

func check(t *testing.T, p Policy, in Input, d Decision, before State, moved map[group.ID]time.Time) {
	t.Helper()
	was := before.Groups[d.Group]
	over := func(until time.Time) bool { return !until.IsZero() && !in.Now.Before(until) }
	timeIsOver := was.Manual && over(was.Until) || d.Action == Lift && was.ShedBy != "" && over(was.ShedUntil)
	forced, limited := was.Manual && !over(was.Until), was.ShedBy != "" && !over(was.ShedUntil)
	switch {
	case d.Reason == "" || d.By == "" || d.Time != in.Now || d.Group == "":
		t.Fatalf("decision is not complete: %+v", d)
	case (d.Action == Isolate || d.Action == Release || d.Action == PreWarm && !madeRoom(d)) && d.FromPool == d.ToPool:
		t.Fatalf("move to the same pool: %+v", d)
	case (d.Action == Shed || d.Action == Lift || d.Action == RollBack) && d.FromPool != d.ToPool:
		t.Fatalf("%s that moves: %+v", d.Action, d)
	case d.Action.Moves() && (d.Undo == "" || d.Thresholds == nil):
		t.Fatalf("not told how to undo it, or what it was held against: %+v", d)
	case p.Mode != ModeAct && (d.Action == Isolate || d.Action == Shed || d.Action == RollBack || d.Action == PreWarm):
		t.Fatalf("%s in mode %s: %+v", d.Action, p.Mode, d)
	case d.Advice != "" && (d.Action != Hold || p.Mode != ModeRecommend):
		t.Fatalf("advice in mode %s: %+v", p.Mode, d)
	case d.Action == Isolate && was.Share == 0 && (!in.Isolatable[d.Service] || d.Evidence == nil || d.Evidence.Chance > p.Significance):
		t.Fatalf("isolated without a pool, or without being sure: %+v", d)
	case d.Action == Isolate && was.Share == 0 && sickFor(p, in, d):
		t.Fatalf("moved to a pool that is bad for others: %+v", d)
	case d.Action == Release && (d.Share <= was.Share || d.Share > 100 || d.Share < 100 && !slices.Contains(p.ReleaseSteps, d.Share)):
		t.Fatalf("no step forward from %d%%: %+v", was.Share, d)
	case d.Action == Shed && (d.Requests == 0 || was.Shed > 0 || p.ShedFactor == 0 || was.Pool != "" || d.Evidence.Chance > p.Significance):
		t.Fatalf("limited without reason: %+v", d)
	case d.Action == Lift && was.Shed == 0:
		t.Fatalf("lifted what is not there: %+v", d)
	case d.Action == RollBack && (in.Change == nil || !in.Change.Services[d.Service] || in.Now.Sub(in.Change.At) > p.RollbackWithin || was.Pool != ""):
		t.Fatalf("rolled back what it cannot be: %+v", d)
	case d.Action == Hold && d.FromPool != d.ToPool:
		t.Fatalf("hold that moves: %+v", d)
	case in.Stale(p) != "" && !timeIsOver:
		t.Fatalf("decided on stale telemetry (%s): %+v", in.Stale(p), d)
	case forced && (d.Action != Lift || was.ShedBy == ""), limited && (d.Action == Lift || was.Pool == "" && d.Action != PreWarm):
		t.Fatalf("policy overrode an operator: %+v", d)
	case d.Action == Isolate && (d.Stats.Requests < p.MinRequests || d.Baseline != nil && d.Baseline.Requests < p.MinRequests):
		t.Fatalf("isolated on too little: %+v", d)
	case d.Action == Isolate && was.Share == 0 && d.Baseline == nil: // a part that is home goes back whoever's fault it is
		t.Fatalf("isolated without anything to compare with: %+v", d)
	}
	if d.Action != Isolate && d.Action != Release {
		return
	}
	if last, ok := moved[d.Group]; ok && in.Now.Sub(last) < p.Cooldown && !timeIsOver {
		t.Fatalf("moved twice within %s: %+v", in.Now.Sub(last), d)
	}
	moved[d.Group] = in.Now
}

// sickFor says whether others in the isolated pool break an objective.
func sickFor(p Policy, in Input, d Decision) bool {
	others := merge(in.Short, func(o sli.Stats) bool {
		return o.Group != d.Group && o.Service == d.Service && o.Pool == semconv.PoolIsolated
	})
	return others.Requests >= p.MinRequests && (others.ErrorRatio() > p.MaxErrorRatio || others.P95 > p.MaxP95)
}

// checkState holds the state to what was decided.
func checkState(t *testing.T, p Policy, before, next State, ds []Decision) {
	t.Helper()
	for id, g := range next.Groups {
		switch was := before.Groups[id]; {
		case g.Share > 0 && g.Pool == "" || g.Share >= 100:
			t.Fatalf("%s: %d%% of what is in pool %q is home", id, g.Share, g.Pool)
		case was.Manual && g.Manual && (was.Pool != g.Pool || was.Share != g.Share), was.ShedBy != "" && g.ShedBy != "" && was.Shed != g.Shed:
			t.Fatalf("%s: an operator's word was changed: %+v, %+v", id, was, g)
		case (g.ShedBy != "" || !g.ShedAt.IsZero()) && g.Shed == 0:
			t.Fatalf("%s: a limit of nothing: %+v", id, g)
		case (was.Pool != g.Pool || was.Shed != g.Shed || was.Share != g.Share) &&
			!slices.ContainsFunc(ds, func(d Decision) bool { return d.Group == id && d.Action.Moves() }):
			t.Fatalf("%s: changed without a decision: %+v, %+v", id, was, g)
		case g.Pool != "" && !g.Manual && was.Pool == "" && p.For(id).Mode != ModeAct:
			t.Fatalf("%s: moved in mode %s", id, p.For(id).Mode)
		}
	}
}

// madeRoom says that a decision is about a saturated pool.
func madeRoom(d Decision) bool { return d.Action == PreWarm && d.Evidence == nil && len(d.Room) == 1 }

// checkPools holds what is done for the sake of saturated pools to what is known of them.
func checkPools(t *testing.T, p Policy, in Input, before, next State, ds []Decision) {
	t.Helper()
	known := in.fullest(p)
	if p.PrewarmSaturation == 0 && slices.ContainsFunc(slices.Collect(maps.Values(next.Pools)), func(s PoolState) bool { return s.Saturated || s.Looks > 0 }) {
		t.Fatalf("pools are looked at against the policy: %+v", next.Pools)
	}
	for name, s := range next.Pools {
		i := slices.IndexFunc(slices.Collect(maps.Keys(known)), func(at Pool) bool { return at.String() == name })
		if s.Saturated && i < 0 && in.Stale(p) == "" {
			t.Fatalf("%s is saturated, and nobody says so: %+v", name, s)
		}
	}
	for _, d := range ds {
		isolated := in.pool(d.Service, semconv.PoolIsolated)
		_, measured := known[isolated]
		switch at := (Pool{d.Service, d.FromPool}); {
		case d.Action == Isolate && before.Groups[d.Group].Share == 0 && measured && next.Pools[isolated.String()].Saturated:
			t.Fatalf("moved to a pool that is saturated: %+v", d)
		case !madeRoom(d) || d.FromPool != d.ToPool:
		case known[at].Mean < p.PrewarmSaturation*p.LeaveFraction || len(d.Saturation) != 1 || d.Thresholds.PrewarmSaturation != p.PrewarmSaturation:
			t.Fatalf("room in a pool that is not known to be full: %+v", d)
		case in.Now.Sub(before.Pools[at.String()].Warmed) < p.IsolateFor || next.Pools[at.String()].Warmed != in.Now:
			t.Fatalf("room again after %s: %+v", in.Now.Sub(before.Pools[at.String()].Warmed), d)
		case d.Room[0].Requests < 0 || d.Room[0].Service != d.Service || d.Room[0].Pool != d.FromPool:
			t.Fatalf("room for what: %+v", d)
		}
	}
}

// randomSaturation is full for a while, now and then not known, and sometimes out of date.
func randomSaturation(rnd *rand.Rand, now time.Time) (out []sli.Saturation) {
	for _, service := range []string{"core", "files"} {
		for _, pool := range []string{"baseline", "canary", "isolated"} {
			for _, resource := range []string{sli.CPU, "accepted"} {
				if rnd.IntN(4) == 0 {
					continue
				}
				mean := 1.2 * math.Sqrt(rnd.Float64())
				out = append(out, sli.Saturation{
					Service: service, Pool: pool, Resource: resource, Mean: mean, Highest: mean, Instances: 1, Newest: now.Add(-time.Duration(rnd.Int64N(int64(6 * time.Second)))),
				})
			}
		}
	}
	return out
}

// randomPolicies are of some of the groups that there are.
func randomPolicies(rnd *rand.Rand) (out []GroupPolicy) {
	taken := map[group.ID]bool{}
	for i := range rnd.IntN(4) {
		g := randomGroup(rnd)
		if taken[g.ID()] {
			continue
		}
		taken[g.ID()] = true
		own := GroupPolicy{Name: string(rune('a' + i)), Mode: []Mode{"", ModeAct, ModeRecommend, ModeObserve}[rnd.IntN(4)]}
		if rnd.IntN(2) == 0 {
			own.ID = string(g.ID())
		} else {
			own.Color, own.Env, own.Tenant = g.Color.String(), g.Env, g.Tenant
		}
		if rnd.IntN(2) == 0 {
			ratio := rnd.Float64()
			own.MaxErrorRatio, own.MaxP95 = &ratio, time.Duration(1+rnd.Int64N(int64(2*time.Second)))
		}
		out = append(out, own)
	}
	return out
}

func count(ds []Decision, a Action) (n int) {
	for _, d := range ds {
		if d.Action == a {
			n++
		}
	}
	return n
}

func randomChange(rnd *rand.Rand, now time.Time) *Change {
	c := &Change{Revision: RevisionChange{From: 1, To: 2}, At: now.Add(-time.Duration(rnd.Int64N(int64(90 * time.Second)))), Services: map[string]bool{"core": rnd.IntN(2) == 0, "files": true}}
	for range 4 {
		g := randomGroup(rnd)
		c.Before = append(c.Before, sli.Stats{
			Group: g.ID(), Service: "core", Pool: []string{"baseline", "canary"}[rnd.IntN(2)], Requests: uint64(rnd.IntN(400)),
			P95: time.Duration(rnd.Int64N(int64(time.Second))),
		})
	}
	return c
}

// TestConfirm says what a person's word can do, and when it comes too late.
func TestConfirm(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	advice := Decision{ID: "1", Time: start, Action: Hold, Advice: Isolate, Group: g.ID(), Service: "core", FromPool: "baseline", ToPool: "baseline", Reason: "P95 1s" + notMoved + onlyRecommends, For: time.Minute}
	told := State{Groups: map[group.ID]GroupState{g.ID(): {Env: g.Env, Tenant: g.Tenant, Told: map[string]time.Time{advice.says(""): start}}}}
	change := func(f func(*GroupState)) State {
		s := told.clone()
		one := s.Groups[g.ID()]
		f(&one)
		s.Groups[g.ID()] = one
		return s
	}
	full := told.clone()
	for _, id := range []group.ID{"aaaaaa", "bbbbbb", "cccccc"} {
		full.Groups[id] = GroupState{Pool: semconv.PoolIsolated}
	}
	for name, tc := range map[string]struct {
		state  State
		advice Decision
		after  time.Duration
		want   error
	}{
		"in time":             {told, advice, time.Minute, nil},
		"other advice since":  {change(func(g *GroupState) { g.Told = map[string]time.Time{advice.says(""): start, "shed": start.Add(1)} }), advice, time.Minute, nil},
		"still recommended":   {change(func(g *GroupState) { g.Held = onlyRecommends }), advice, time.Minute, nil},
		"kept from it now":    {change(func(g *GroupState) { g.Held = "the isolated pool is bad" }), advice, time.Minute, ErrOutdated},
		"too late":            {told, advice, p.IsolateForMax + 1, ErrOutdated},
		"something was newer": {change(func(g *GroupState) { g.Told = map[string]time.Time{advice.says(""): start.Add(1)} }), advice, time.Minute, ErrOutdated},
		"pinned since":        {change(func(g *GroupState) { g.Manual = true }), advice, time.Minute, ErrOutdated},
		"moved since":         {change(func(g *GroupState) { g.Pool = semconv.PoolIsolated }), advice, time.Minute, ErrOutdated},
		"as many as allowed":  {full, advice, time.Minute, ErrTooMany},
		"no advice":           {told, Decision{Action: Hold, Group: g.ID(), Time: start}, time.Minute, ErrNoAdvice},
		"a move":              {told, Decision{Action: Isolate, Group: g.ID(), Time: start}, time.Minute, ErrNoAdvice},
	} {
		before := tc.state.clone()
		d, next, err := tc.state.Confirm(p, tc.advice, "operator:ann", "yes", start.Add(tc.after))
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
			continue
		}
		if diff := cmp.Diff(before.Groups, tc.state.Groups); diff != "" {
			t.Errorf("%s: the argument was changed:\n%s", name, diff)
		}
		moved := next.Groups[g.ID()].Pool == semconv.PoolIsolated && tc.state.Groups[g.ID()].Pool == ""
		if moved != (err == nil) {
			t.Errorf("%s: moved %v", name, moved)
		}
		if err == nil && (d.Action != Isolate || d.ToPool != semconv.PoolIsolated || d.Confirms != "1" || d.By != "operator:ann" || d.Advice != "" || d.Reason != "P95 1s; recommended, and confirmed: yes" || next.Groups[g.ID()].IsolatedFor != time.Minute || next.Groups[g.ID()].Manual) {
			t.Errorf("%s: %+v, %+v", name, d, next.Groups[g.ID()])
		}
	}
}

// TestHoldsAreSaidOnce, each of them, in whatever order they come.
func TestHoldsAreSaidOnce(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	isolate := Decision{Action: Isolate, FromPool: "baseline", ToPool: semconv.PoolIsolated}
	rollback := func(from int) Decision {
		return Decision{Action: RollBack, FromPool: "baseline", Revision: &RevisionChange{From: from, To: from - 1}}
	}
	type look struct {
		d   Decision
		why string
	}
	const full = "there are enough"
	for name, tc := range map[string]struct {
		looks []look // again and again
		times int
		every time.Duration
		want  []Action // what is recommended, empty where it is only said why not
	}{
		"the same":            {[]look{{isolate, full}}, 8, step, []Action{""}},
		"two in turn":         {[]look{{isolate, full}, {isolate, "it is everyone's"}}, 4, step, []Action{"", ""}},
		"advice and not":      {[]look{{isolate, onlyRecommends}, {isolate, full}}, 4, step, []Action{Isolate, ""}},
		"advice in turn":      {[]look{{isolate, onlyRecommends}, {rollback(2), onlyRecommends}}, 4, step, []Action{Isolate, RollBack}},
		"the next update":     {[]look{{rollback(2), onlyRecommends}, {rollback(3), onlyRecommends}}, 4, step, []Action{RollBack, RollBack}},
		"again after a while": {[]look{{isolate, full}, {isolate, onlyRecommends}}, 2, p.LongWindow, []Action{"", Isolate, ""}},
		"advice, much later":  {[]look{{isolate, onlyRecommends}}, 2, p.IsolateForMax, []Action{Isolate, Isolate}},
	} {
		e := evaluation{Policy: p, Input: Input{Now: start}, general: p}
		var is GroupState
		for range tc.times {
			for _, l := range tc.looks {
				was := maps.Clone(is.Told)
				next := e.hold(g.ID(), is, finding{words: "P95 1s"}, l.d, l.why)
				if diff := cmp.Diff(was, is.Told, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("%s: the argument was changed:\n%s", name, diff)
				}
				is = next
				e.Now = e.Now.Add(tc.every)
			}
		}
		var got []Action
		for _, d := range e.decisions {
			if got = append(got, d.Advice); d.Action != Hold {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestPinByHand goes where it is told to, and home at its end; at home it stays there.
func TestPinByHand(t *testing.T) {
	t.Parallel()
	g := group.Group{Env: "prod", Tenant: "a"}
	o := Order{Group: g, Home: "baseline", By: "operator:ann", Reason: "to look", For: time.Minute, Pool: "canary", Now: start}
	d, s := State{}.Pin(o)
	if d.Action != Pin || d.FromPool != "baseline" || d.ToPool != "canary" || d.For != time.Minute || d.Undo != "tracegate ctl release "+string(g.ID()) || s.Moves()[g.ID()] != "canary" {
		t.Fatalf("%+v, %+v", d, s)
	}
	in := Input{Homes: map[group.Color]string{}, Now: start.Add(59 * time.Second)}
	ds, s := Decide(DefaultPolicy(), s, in)
	if len(ds) != 0 || s.Moves()[g.ID()] != "canary" {
		t.Fatalf("before its end: %v, %+v", ds, s)
	}
	in.Now = start.Add(time.Minute)
	ds, s = Decide(DefaultPolicy(), s, in)
	if len(ds) != 1 || ds[0].Action != Release || ds[0].FromPool != "canary" || len(s.Moves()) != 0 {
		t.Fatalf("at its end: %v, %+v", ds, s)
	}
	o.Pool = o.Home
	d, s = s.Pin(o)
	if st := s.Groups[g.ID()]; d.ToPool != "baseline" || s.Moves()[g.ID()] != "baseline" || !st.Manual || !st.Until.Equal(start.Add(time.Minute)) {
		t.Fatalf("at home, which may become another: %+v, %+v", d, st)
	}
	in.Homes[g.Color] = "canary"
	ds, s = Decide(DefaultPolicy(), s, in)
	if len(ds) != 1 || ds[0].Action != Release || ds[0].FromPool != "baseline" || ds[0].ToPool != "canary" || len(s.Moves()) != 0 {
		t.Fatalf("at its end, with another home: %v, %+v", ds, s)
	}
}

// TestShedByHand is a limit with an end.
func TestShedByHand(t *testing.T) {
	t.Parallel()
	g := group.Group{Env: "prod", Tenant: "a"}
	d, s := State{}.Shed(Order{Group: g, Home: "baseline", By: "operator:ann", Reason: "too many", For: time.Minute, Requests: 7, Now: start})
	if d.Action != Shed || d.Requests != 7 || d.FromPool != "baseline" || d.ToPool != "baseline" || s.Sheds()[g.ID()] != 7 || d.Undo != "tracegate ctl lift "+string(g.ID()) {
		t.Fatalf("%+v, %+v", d, s)
	}
	ds, s := Decide(DefaultPolicy(), s, Input{Now: start.Add(59 * time.Second)})
	if len(ds) != 0 || s.Sheds()[g.ID()] != 7 {
		t.Fatalf("before its end: %v, %+v", ds, s)
	}
	ds, s = Decide(DefaultPolicy(), s, Input{Now: start.Add(time.Minute)})
	if len(ds) != 1 || ds[0].Action != Lift || len(s.Sheds()) != 0 {
		t.Fatalf("at its end: %v, %+v", ds, s)
	}
}

// TestShedByHandMovesNothing: where a group is, by whom and for how long, is as it was while
// an operator limits it, and after that.
func TestShedByHandMovesNothing(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	was := GroupState{Env: g.Env, Tenant: g.Tenant, Seen: start}
	for name, change := range map[string]func(*GroupState){
		"at home": func(*GroupState) {},
		"isolated by policy": func(g *GroupState) {
			g.Pool, g.Since, g.Left, g.By, g.IsolatedFor = semconv.PoolIsolated, start, start, ByPolicy, time.Hour
		},
		"a tenth home again": func(g *GroupState) {
			g.Pool, g.Since, g.Left, g.By, g.IsolatedFor, g.Share = semconv.PoolIsolated, start, start, ByPolicy, time.Hour, 10
		},
		"pinned for longer": func(g *GroupState) {
			g.Pool, g.Since, g.By, g.Manual, g.Until = "canary", start, "operator:bob", true, start.Add(time.Hour)
		},
		"isolated by hand without end": func(g *GroupState) {
			g.Pool, g.Since, g.By, g.Manual = semconv.PoolIsolated, start, "operator:bob", true
		},
	} {
		for _, during := range []time.Duration{0, time.Minute} {
			before := was
			change(&before)
			s := State{Groups: map[group.ID]GroupState{g.ID(): before}}
			d, s := s.Shed(Order{Group: g, Home: "baseline", By: "operator:ann", Reason: "too many", For: during, Requests: 7, Now: start})
			pool, isolated := "baseline", 0
			if before.Pool != "" {
				pool = before.Pool
			}
			if before.By == ByPolicy {
				isolated = 1
			}
			if d.FromPool != pool || d.ToPool != pool || s.Sheds()[g.ID()] != 7 || s.isolated() != isolated {
				t.Errorf("%s: %+v, %+v, %d are policy's", name, d, s, s.isolated())
			}
			ds, s := Decide(p, s, Input{Now: start.Add(time.Minute)}) // no telemetry: nothing else is decided
			want := before
			if during == 0 {
				want.Shed, want.ShedAt, want.ShedBy = 7, start, "operator:ann"
			} else if len(ds) != 1 || ds[0].Action != Lift {
				t.Errorf("%s, at its end: %+v", name, ds)
			}
			if diff := cmp.Diff(want, s.Groups[g.ID()]); diff != "" || during == 0 && len(ds) > 0 {
				t.Errorf("%s, for %s: %+v\n%s", name, during, ds, diff)
			}
		}
	}
}

// TestLiftByHand ends a limit of anybody's and says nothing of the place, but that policy
// leaves a group at home alone for a while.
func TestLiftByHand(t *testing.T) {
	t.Parallel()
	g := group.Group{Env: "prod", Tenant: "a"}
	away := GroupState{Env: g.Env, Tenant: g.Tenant, Seen: start, Pool: semconv.PoolIsolated, Since: start, Left: start, By: ByPolicy, IsolatedFor: time.Hour, Share: 10}
	home := GroupState{Env: g.Env, Tenant: g.Tenant, Seen: start}
	kept := home
	kept.Since, kept.By, kept.Manual, kept.Until = start, "operator:bob", true, start.Add(time.Hour)
	left := home
	left.Since, left.By, left.Manual, left.Until = start, "operator:ann", true, start.Add(ReleaseFor)
	for name, c := range map[string]struct {
		before, want GroupState
		pool         string
	}{
		"at home":                 {home, left, "baseline"},
		"on the way home":         {away, away, semconv.PoolIsolated},
		"kept at home for longer": {kept, kept, "baseline"},
	} {
		for _, by := range []string{"", "operator:bob"} {
			c.before.Shed, c.before.ShedAt, c.before.ShedBy = 7, start, by
			d, s := State{Groups: map[group.ID]GroupState{g.ID(): c.before}}.Lift(Order{Group: g, Home: "baseline", By: "operator:ann", Now: start})
			if d.Action != Lift || d.FromPool != c.pool || d.ToPool != c.pool || d.Requests != 7 || d.Undo != "tracegate ctl shed "+string(g.ID())+" --requests 7" {
				t.Errorf("%s, limited by %q: %+v", name, by, d)
			}
			if diff := cmp.Diff(c.want, s.Groups[g.ID()]); diff != "" {
				t.Errorf("%s, limited by %q:\n%s", name, by, diff)
			}
		}
	}
}

// TestPolicyLeavesALimitByHand, wherever the group is and goes, however little it asks for.
func TestPolicyLeavesALimitByHand(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	isolated := GroupState{Pool: semconv.PoolIsolated, Since: start, Left: start, By: ByPolicy, IsolatedFor: p.IsolateFor}
	returning := isolated
	returning.Share = 10
	for name, is := range map[string]GroupState{"at home": {}, "isolated": isolated, "returning": returning} {
		s := State{Groups: map[group.ID]GroupState{g.ID(): is}}
		_, s = s.Shed(Order{Group: g, Home: "baseline", By: "operator:ann", Requests: 7, Now: start})
		for now := start; now.Before(start.Add(2 * p.IsolateForMax)); now = now.Add(p.IsolateFor) {
			var ds []Decision
			ds, s = Decide(p, s, Input{Now: now, Newest: now, Watermark: now, Isolatable: map[string]bool{"core": true}})
			if count(ds, Lift) > 0 || s.Sheds()[g.ID()] != 7 {
				t.Fatalf("%s, %s later: %+v, %+v", name, now.Sub(start), ds, s)
			}
		}
		if s.Groups[g.ID()].Pool != "" {
			t.Errorf("%s: it is not released: %+v", name, s.Groups[g.ID()])
		}
	}
}

// TestWakingPool: all groups of a pool begin to ask for much more, one a little more than
// the others, and the pool is slow. Nobody is limited.
func TestWakingPool(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	in := Input{Now: start, Newest: start, Isolatable: map[string]bool{"core": true}}
	for i, tenant := range []string{"a", "b"} {
		g := group.Group{Env: "prod", Tenant: tenant}
		st := sli.Stats{Group: g.ID(), Tenant: tenant, Service: "core", Pool: "baseline", Requests: uint64(100 + 20*i), P50: 400 * time.Millisecond, P95: time.Second, P99: time.Second}
		long := st
		long.Requests += 15
		in.Short, in.Long = append(in.Short, st), append(in.Long, long)
	}
	var s State
	for range 20 {
		var ds []Decision
		ds, s = Decide(p, s, in)
		if n := count(ds, Shed); n > 0 {
			t.Fatalf("%d groups are limited: %+v", n, ds)
		}
		in.Now = in.Now.Add(step)
		in.Newest = in.Now
	}
	in.Long[0].Requests += 1500 // had a hundred requests in each two seconds all along
	s.Groups = nil
	ds, _ := Decide(p, s, in)
	if n := count(ds, Shed); n != 1 {
		t.Errorf("the one that asks for more is not limited: %+v", ds)
	}
}

// TestMeasure says what came of a decision.
func TestMeasure(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	d := Decision{Group: "aaaaaa", Service: "core", ToPool: "isolated"}
	for name, tc := range map[string]struct {
		stats  sli.Stats
		better bool
		nodata bool
	}{
		"well":    {sli.Stats{Group: "aaaaaa", Service: "core", Pool: "isolated", Requests: 100, P95: time.Millisecond}, true, false},
		"bad":     {sli.Stats{Group: "aaaaaa", Service: "core", Pool: "isolated", Requests: 100, P95: time.Second}, false, false},
		"no data": {sli.Stats{Group: "aaaaaa", Service: "core", Pool: "isolated", Requests: 1, P95: time.Second}, false, true},
	} {
		o := p.Measure(d, []sli.Stats{tc.stats, {Group: "bbbbbb", Service: "core", Pool: "isolated", Requests: 1000, P95: time.Hour}}, start)
		if o.Better != tc.better || (o.Stats == nil) != tc.nodata || o.Words == "" || o.Time != start {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestSilenceIsData has the last span go out of date, and the watermark not: an isolated
// group is released in time. Without the watermark there is no data, and it stays.
func TestSilenceIsData(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	isolated := State{Groups: map[group.ID]GroupState{g.ID(): {
		Env: g.Env, Tenant: g.Tenant, Pool: semconv.PoolIsolated, Since: start, By: ByPolicy, IsolatedFor: p.IsolateFor,
	}}}
	now := start.Add(p.IsolateFor + time.Second)
	for name, tc := range map[string]struct {
		newest, mark time.Time
		quiet        bool
		released     int
	}{
		"no data":                         {newest: start, mark: time.Time{}},
		"a watermark that is out of date": {newest: start, mark: now.Add(-p.StaleAfter - 1)},
		"no traffic":                      {newest: start, mark: now.Add(-p.StaleAfter), quiet: true, released: 1},
		"no traffic ever":                 {mark: now, quiet: true, released: 1},
	} {
		in := Input{Now: now, Newest: tc.newest, Watermark: tc.mark}
		ds, next := Decide(p, isolated, in)
		if in.Quiet(p) != tc.quiet || len(ds) != tc.released || len(next.Moves()) != 1-tc.released {
			t.Errorf("%s: quiet %v, decisions %v, moves %v", name, in.Quiet(p), ds, next.Moves())
		}
	}
}

func randomOrder(rnd *rand.Rand, s State, now time.Time) State {
	o := Order{Group: randomGroup(rnd), Home: semconv.PoolBaseline, By: "operator:x", Now: now, For: time.Duration(rnd.Int64N(int64(time.Minute)))}
	o.Requests = 1 + rnd.Uint32N(50)
	order := []func(Order) (Decision, State){s.Isolate, s.Release, s.Shed}[rnd.IntN(3)]
	_, next := order(o)
	return next
}

func randomGroup(rnd *rand.Rand) group.Group {
	return group.Group{Color: group.Color(rnd.IntN(2)), Env: "prod", Tenant: string(rune('a' + rnd.IntN(4)))}
}

func randomInput(rnd *rand.Rand, now time.Time) Input {
	in := Input{Now: now, Newest: now.Add(-time.Duration(rnd.Int64N(int64(6 * time.Second)))), Isolatable: map[string]bool{"core": true}}
	if rnd.IntN(10) == 0 {
		in.Unavailable = "down"
	}
	if rnd.IntN(2) == 0 {
		in.Homes = map[group.Color]string{1: "canary"}
	}
	for range rnd.IntN(12) {
		g := randomGroup(rnd)
		st := sli.Stats{
			Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant,
			Service: []string{"core", "files", ""}[rnd.IntN(3)], Pool: []string{"baseline", "canary", "isolated", ""}[rnd.IntN(4)],
			Requests: uint64(rnd.IntN(200)), P95: time.Duration(rnd.Int64N(int64(2 * time.Second))),
			Window: sli.Window{From: now.Add(-2 * time.Second), To: now},
		}
		if st.Requests > 0 {
			st.Errors = uint64(rnd.Int64N(int64(st.Requests) + 1))
		}
		long := st
		long.Requests += uint64(rnd.IntN(3) * rnd.IntN(1000))
		in.Short, in.Long = append(in.Short, st), append(in.Long, long)
		if quick := st; rnd.IntN(2) == 0 {
			quick.Requests, quick.Errors = st.Requests/2, st.Errors/2
			in.Quick = append(in.Quick, quick)
		}
	}
	return in
}

func TestDecideIsDeterministic(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		in := randomInput(rand.New(rand.NewPCG(seed, 0)), start)
		p := DefaultPolicy()
		p.BadEvaluations, p.SlowEvaluations, p.MinRequests = 1, 1, 1
		a, as := Decide(p, State{}, in)
		b, bs := Decide(p, State{}, in)
		if diff := cmp.Diff(a, b) + cmp.Diff(as, bs); diff != "" {
			t.Fatalf("seed %d:\n%s", seed, diff)
		}
	}
}

func TestMergeTakesTheWeightedMedian(t *testing.T) {
	t.Parallel()
	in := []sli.Stats{
		{Requests: 10, P95: 9 * time.Second, Errors: 10},
		{Requests: 100, P95: 20 * time.Millisecond},
		{Requests: 50, P95: 30 * time.Millisecond},
		{Requests: 0, P95: time.Hour},
	}
	got := merge(in, func(sli.Stats) bool { return true })
	if got.Requests != 160 || got.Errors != 10 || got.P95 != 20*time.Millisecond {
		t.Errorf("merged: %d requests, %d errors, P95 %v", got.Requests, got.Errors, got.P95)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	if errs := DefaultPolicy().Validate(); len(errs) > 0 {
		t.Errorf("defaults: %v", errs)
	}
	id := group.Group{Env: "prod", Tenant: "shop"}.ID()
	shop := GroupPolicy{Name: "shop", Env: "prod", Tenant: "shop"}
	for field, change := range map[string]func(*Policy){
		"mode":                 func(p *Policy) { p.Mode = "maybe" },
		"maxErrorRatio":        func(p *Policy) { p.MaxErrorRatio = math.NaN() },
		"maxP95":               func(p *Policy) { p.MaxP95 = 0 },
		"maxP99":               func(p *Policy) { p.MaxP99 = -1 },
		"errorRatioDifference": func(p *Policy) { p.ErrorRatioDifference = -0.1 },
		"p95Factor":            func(p *Policy) { p.P95Factor = math.NaN() },
		"significance":         func(p *Policy) { p.Significance = 0 },
		"quickWindow":          func(p *Policy) { p.QuickWindow = p.ShortWindow + 1 },
		"shortWindow":          func(p *Policy) { p.ShortWindow = 10 * time.Millisecond },
		"longWindow":           func(p *Policy) { p.LongWindow = time.Second },
		"minRequests":          func(p *Policy) { p.MinRequests = 0 },
		"staleAfter":           func(p *Policy) { p.StaleAfter = 0 },
		"badEvaluations":       func(p *Policy) { p.BadEvaluations = 0 },
		"slowEvaluations":      func(p *Policy) { p.SlowEvaluations = 0 },
		"leaveFraction":        func(p *Policy) { p.LeaveFraction = 0 },
		"releaseSteps":         func(p *Policy) { p.ReleaseSteps = []uint32{10, 1} },
		"releaseStepFor":       func(p *Policy) { p.ReleaseStepFor = time.Second },
		"shedFactor":           func(p *Policy) { p.ShedFactor = 1 },
		"rollbackWithin":       func(p *Policy) { p.RollbackWithin = time.Second },
		"prewarmSaturation":    func(p *Policy) { p.PrewarmSaturation = math.NaN() },
		"cooldown":             func(p *Policy) { p.Cooldown = time.Second },
		"isolateFor":           func(p *Policy) { p.IsolateFor = time.Second },
		"isolateForMax":        func(p *Policy) { p.IsolateForMax = time.Second },
		"maxIsolated":          func(p *Policy) { p.MaxIsolated = 0 },
		"groups":               func(p *Policy) { p.Groups = make([]GroupPolicy, maxGroupPolicies+1) },
		"groups[0].name":       func(p *Policy) { p.Groups = []GroupPolicy{{ID: "0a1b2c"}} },
		"groups[1].name":       func(p *Policy) { p.Groups = []GroupPolicy{{Name: "a", ID: string(id)}, shop} },
		"groups[0].id":         func(p *Policy) { p.Groups = []GroupPolicy{{Name: "a", ID: "0A1B2C"}} },
		"groups[0].env":        func(p *Policy) { p.Groups = []GroupPolicy{{Name: "a", Tenant: "shop"}} },
		"groups[0].tenant":     func(p *Policy) { p.Groups = []GroupPolicy{{Name: "a", Env: "prod"}} },
		"groups[0].color":      func(p *Policy) { p.Groups = []GroupPolicy{{Name: "a", Env: "prod", Tenant: "shop", Color: "red"}} },
		"groups[0].mode": func(p *Policy) {
			p.Groups = []GroupPolicy{{Name: "a", Env: "prod", Tenant: "shop", Mode: "Act"}}
		},
		"groups[0].maxErrorRatio": func(p *Policy) {
			nan := math.NaN()
			p.Groups = []GroupPolicy{{Name: "a", Env: "prod", Tenant: "shop", MaxErrorRatio: &nan}}
		},
		"groups[0].maxP95": func(p *Policy) {
			p.Groups = []GroupPolicy{{Name: "a", Env: "prod", Tenant: "shop", MaxP95: -1}}
		},
		"groups[0].maxP99": func(p *Policy) {
			p.Groups = []GroupPolicy{{Name: "a", Env: "prod", Tenant: "shop", MaxP99: -1}}
		},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			p := DefaultPolicy()
			change(&p)
			errs := p.Validate()
			if len(errs) == 0 || errs[0].Field != field {
				t.Errorf("errors: %v", errs)
			}
		})
	}
}

func TestManyGroupsAreBounded(t *testing.T) {
	t.Parallel()
	in := Input{Now: start, Newest: start}
	for i := range maxGroups + 50 {
		g := group.Group{Env: "prod", Tenant: string(rune('a'+i%26)) + time.Duration(i).String()}
		in.Short = append(in.Short, sli.Stats{Group: g.ID() + group.ID(g.Tenant), Tenant: g.Tenant, Requests: 1})
	}
	_, s := Decide(DefaultPolicy(), State{}, in)
	if len(s.Groups) != maxGroups {
		t.Errorf("%d groups are remembered, want %d", len(s.Groups), maxGroups)
	}
	in.Now, in.Short = start.Add(forget+time.Second), nil
	if _, s = Decide(DefaultPolicy(), s, in); len(s.Groups) != 0 {
		t.Errorf("%d quiet groups are remembered", len(s.Groups))
	}
}

func BenchmarkDecide(b *testing.B) {
	var in Input
	in.Now, in.Newest, in.Isolatable = start, start, map[string]bool{"core": true}
	for i := range 300 {
		g := group.Group{Env: "prod", Tenant: time.Duration(i).String()}
		in.Short = append(in.Short, sli.Stats{Group: g.ID(), Tenant: g.Tenant, Service: "core", Pool: "baseline", Requests: 100, P95: time.Millisecond})
	}
	in.Long = in.Short
	var s State
	b.ReportAllocs()
	for b.Loop() {
		_, s = Decide(DefaultPolicy(), s, in)
	}
}
