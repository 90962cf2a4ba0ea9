package decide

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// got is what a group gets of a service in each window.
func got(g group.Group, service, pool string, requests, errors uint64) sli.Stats {
	return sli.Stats{
		Group: g.ID(), Env: g.Env, Tenant: g.Tenant, Service: service, Pool: pool, Requests: requests, Errors: errors,
		P50: 5 * time.Millisecond, P95: 20 * time.Millisecond, P99: 30 * time.Millisecond,
	}
}

// TestReleaseLooksAtEachService: a group that asks two services goes home where it is well
// in both of them, and the record is of the one that is not.
func TestReleaseLooksAtEachService(t *testing.T) {
	t.Parallel()
	const baseline, isolated = semconv.PoolBaseline, semconv.PoolIsolated
	g, other := group.Group{Env: "prod", Tenant: "a"}, group.Group{Env: "prod", Tenant: "b"}
	away := GroupState{Pool: isolated}
	part := GroupState{Pool: isolated, Share: 10}
	for name, tc := range map[string]struct {
		state     GroupState
		stats     []sli.Stats
		unmovable string // service without an isolated pool
		action    Action
		service   string
		reason    string
	}{
		"well in both": {
			state:  away,
			stats:  []sli.Stats{got(g, "core", isolated, 12, 0), got(g, "orders", isolated, 1000, 0)},
			action: Release, service: "orders", reason: "of 1000 requests",
		},
		"bad in the second": {
			state:  away,
			stats:  []sli.Stats{got(g, "core", isolated, 12, 0), got(g, "orders", isolated, 1000, 300)},
			action: Hold, service: "orders", reason: "still bad in its isolated pool",
		},
		"bad in the first": {
			state:  away,
			stats:  []sli.Stats{got(g, "core", isolated, 12, 6), got(g, "orders", isolated, 1000, 0)},
			action: Hold, service: "core", reason: "still bad in its isolated pool",
		},
		"the second answers nothing": {
			state:  away,
			stats:  []sli.Stats{got(g, "core", isolated, 12, 0), got(g, "orders", "", 1000, 1000)},
			action: Hold, service: "orders", reason: "still bad in its isolated pool",
		},
		"at home it is bad for others in the second": {
			state:  away,
			stats:  []sli.Stats{got(g, "core", isolated, 100, 0), got(g, "orders", isolated, 50, 0), got(other, "core", baseline, 100, 0), got(other, "orders", baseline, 100, 30)},
			action: Hold, service: "orders", reason: "its own pool baseline is bad for others",
		},
		"bad in one that it was not moved in": {
			state:     away,
			stats:     []sli.Stats{got(g, "core", baseline, 1000, 300), got(g, "orders", isolated, 100, 0)},
			unmovable: "core",
			action:    Release, service: "orders", reason: "of 100 requests",
		},
		"it asks only one that it was not moved in": {
			state:     away,
			stats:     []sli.Stats{got(g, "core", baseline, 1000, 0)},
			unmovable: "core",
			action:    Release, service: "core", reason: "go home",
		},
		"the part is well in both": {
			state:  part,
			stats:  []sli.Stats{got(g, "core", baseline, 12, 0), got(g, "orders", baseline, 100, 0)},
			action: Release, service: "orders", reason: "of 100 requests",
		},
		"the part is bad in the second, by chance": {
			state:  part,
			stats:  []sli.Stats{got(g, "core", baseline, 100, 0), got(g, "orders", baseline, 20, 2)},
			action: Hold, service: "orders", reason: "released no further",
		},
		"the part is surely bad in the second": {
			state:  part,
			stats:  []sli.Stats{got(g, "core", baseline, 200, 0), got(g, "orders", baseline, 50, 40), got(other, "orders", baseline, 100, 0)},
			action: Isolate, service: "orders", reason: "who were home again",
		},
		"the part is bad in one that it was not moved in": {
			state:     part,
			stats:     []sli.Stats{got(g, "core", baseline, 20, 2), got(g, "orders", isolated, 90, 0), got(g, "orders", baseline, 12, 0)},
			unmovable: "core",
			action:    Release, service: "orders", reason: "of 12 requests",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := DefaultPolicy()
			tc.state.Env, tc.state.Tenant, tc.state.By, tc.state.IsolatedFor = g.Env, g.Tenant, ByPolicy, p.IsolateFor
			tc.state.Since, tc.state.Left = start, start
			now := start.Add(2 * p.LongWindow)
			in := Input{Now: now, Newest: now, Short: tc.stats, Long: tc.stats, Isolatable: map[string]bool{"core": true, "orders": true}}
			delete(in.Isolatable, tc.unmovable)
			ds, _ := Decide(p, State{Groups: map[group.ID]GroupState{g.ID(): tc.state}}, in)
			ds = slices.DeleteFunc(ds, func(d Decision) bool { return d.Group != g.ID() })
			if len(ds) != 1 || ds[0].Action != tc.action || ds[0].Service != tc.service || !strings.Contains(ds[0].Reason, tc.reason) {
				t.Fatalf("decided: %+v, want to %s because of %s: %q", ds, tc.action, tc.service, tc.reason)
			}
			if d := ds[0]; d.Action == Isolate && (d.Baseline == nil || d.Baseline.Service != tc.service || d.Stats.Service != tc.service) {
				t.Errorf("compared %+v with %+v", d.Stats, d.Baseline)
			}
		})
	}
}

// TestReasonsInTurnAreSaidOnceEach: a group that stays where it is, now for one reason and now
// for another.
func TestReasonsInTurnAreSaidOnceEach(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g, other := group.Group{Env: "prod", Tenant: "a"}, group.Group{Env: "prod", Tenant: "b"}
	s := State{Groups: map[group.ID]GroupState{g.ID(): {
		Env: g.Env, Tenant: g.Tenant, Pool: semconv.PoolIsolated, By: ByPolicy, Since: start, Left: start, IsolatedFor: p.IsolateFor,
	}}}
	bad := []sli.Stats{got(g, "core", semconv.PoolIsolated, 100, 50)}
	crowded := []sli.Stats{got(g, "core", semconv.PoolIsolated, 100, 0), got(other, "core", semconv.PoolBaseline, 100, 50)}
	var said []Decision
	first := start.Add(2 * p.LongWindow)
	for now := first; now.Before(first.Add(p.LongWindow)); now = now.Add(step) {
		stats := bad
		if now.Sub(first)/step%2 == 1 {
			stats = crowded
		}
		var ds []Decision
		ds, s = Decide(p, s, Input{Now: now, Newest: now, Short: stats, Long: stats, Isolatable: map[string]bool{"core": true}})
		said = append(said, slices.DeleteFunc(ds, func(d Decision) bool { return d.Group != g.ID() })...)
	}
	if len(said) != 2 || said[0].Action != Hold || said[1].Action != Hold || said[0].Reason == said[1].Reason {
		t.Errorf("%d holds in a long window: %+v", len(said), said)
	}
}

// TestWhatWasBeforeHoldsNobody: a service that the group has not asked since it was isolated
// says nothing about its isolated pool.
func TestWhatWasBeforeHoldsNobody(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	p.IsolateFor = 5 * time.Second
	g := group.Group{Env: "prod", Tenant: "a"}
	well := got(g, "core", semconv.PoolIsolated, 100, 0)
	now := start.Add(p.IsolateFor)
	s := State{Groups: map[group.ID]GroupState{g.ID(): {Env: g.Env, Tenant: g.Tenant, Pool: semconv.PoolIsolated, Since: start, Left: start, By: ByPolicy, IsolatedFor: p.IsolateFor}}}
	ds, _ := Decide(p, s, Input{
		Now: now, Newest: now, Short: []sli.Stats{well}, Long: []sli.Stats{well, got(g, "orders", semconv.PoolBaseline, 1000, 300)},
		Isolatable: map[string]bool{"core": true, "orders": true},
	})
	if len(ds) != 1 || ds[0].Action != Release || ds[0].Service != "core" {
		t.Errorf("decided: %+v", ds)
	}
}

// TestMeasureAnOrder: an operator's order names no service, so it helped where the group is
// well in all that it asks.
func TestMeasureAnOrder(t *testing.T) {
	t.Parallel()
	const isolated = semconv.PoolIsolated
	g := group.Group{Env: "prod", Tenant: "a"}
	for name, tc := range map[string]struct {
		stats  []sli.Stats
		of     string // service; empty: too few requests
		better bool
	}{
		"well in all":                 {[]sli.Stats{got(g, "core", isolated, 12, 0), got(g, "orders", isolated, 1000, 0)}, "orders", true},
		"bad in the second":           {[]sli.Stats{got(g, "core", isolated, 12, 0), got(g, "orders", isolated, 1000, 300)}, "orders", false},
		"too few in one":              {[]sli.Stats{got(g, "core", isolated, 12, 0), got(g, "orders", isolated, 2, 2)}, "core", true},
		"nothing answers":             {[]sli.Stats{got(g, "", "", 100, 100)}, "", false},
		"too few in all":              {[]sli.Stats{got(g, "core", isolated, 1, 0), got(g, "orders", isolated, 2, 0)}, "", false},
		"what it got before is there": {[]sli.Stats{got(g, "core", isolated, 12, 0), got(g, "core", semconv.PoolBaseline, 1000, 300)}, "core", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := DefaultPolicy().Measure(Decision{Action: Isolate, Group: g.ID(), ToPool: isolated}, tc.stats, start)
			var of string
			if o.Stats != nil {
				of = o.Stats.Service
			}
			if of != tc.of || o.Better != tc.better {
				t.Errorf("of %q, better %t: %s", of, o.Better, o.Words)
			}
		})
	}
}

// TestMeasuredOfNoService is what served most, in the pool that is asked for, in any order.
func TestMeasuredOfNoService(t *testing.T) {
	t.Parallel()
	e := evaluation{Policy: DefaultPolicy()}
	g := group.Group{Env: "prod", Tenant: "a"}
	core, orders, home := got(g, "core", "isolated", 12, 0), got(g, "orders", "isolated", 1000, 300), got(g, "orders", "baseline", 5000, 0)
	for _, own := range [][]sli.Stats{{core, orders, home}, {home, core, orders}, {orders, home, core}} {
		st, ok := e.measured(own, "", "isolated")
		if diff := cmp.Diff(orders, st); diff != "" || !ok {
			t.Errorf("measured, %t (-want +got):\n%s", ok, diff)
		}
	}
}

// TestSilenceIsVouchedFor: a group of which nothing is heard goes home step by step, unless
// a watermark says that nothing is missing.
func TestSilenceIsVouchedFor(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	for name, tc := range map[string]struct {
		mark time.Duration // age of the watermark; 0: there is none
		want []uint32      // shares that are home
	}{
		"a watermark":                     {p.StaleAfter, []uint32{100}},
		"a watermark that is out of date": {p.StaleAfter + 1, []uint32{1, 10, 100}},
		"none":                            {0, []uint32{1, 10, 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := State{Groups: map[group.ID]GroupState{g.ID(): {Env: g.Env, Tenant: g.Tenant, Pool: semconv.PoolIsolated, Since: start, By: ByPolicy, IsolatedFor: p.IsolateFor}}}
			var shares []uint32
			for now := start; now.Before(start.Add(time.Minute)); now = now.Add(step) {
				in := Input{Now: now, Newest: now} // others make requests
				if tc.mark > 0 {
					in.Watermark = now.Add(-tc.mark)
				}
				var ds []Decision
				ds, s = Decide(p, s, in)
				for _, d := range ds {
					shares = append(shares, d.Share)
				}
			}
			if diff := cmp.Diff(tc.want, shares); diff != "" {
				t.Errorf("home (-want +got):\n%s", diff)
			}
		})
	}
}
