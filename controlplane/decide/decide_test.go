package decide

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// FuzzDecide plays random statistics over random time steps and holds what must
// be true whatever is measured.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed%5 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, observe bool) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		p := DefaultPolicy()
		p.MaxIsolated = 1 + rnd.IntN(3)
		p.MinRequests = uint64(1 + rnd.IntN(50))
		p.BadEvaluations, p.SlowEvaluations = 1+rnd.IntN(4), 1+rnd.IntN(4)
		if observe {
			p.Mode = ModeObserve
		}
		var (
			state State
			now   = start
			moved = map[group.ID]time.Time{}
		)
		for range 50 {
			now = now.Add(time.Duration(rnd.Int64N(int64(5 * time.Second))))
			if rnd.IntN(20) == 0 {
				state = randomOrder(rnd, state, now)
			}
			in := randomInput(rnd, now)
			before := state.clone()
			ds, next := Decide(p, state, in)
			if diff := cmp.Diff(before.Groups, state.clone().Groups); diff != "" {
				t.Fatalf("the argument was changed:\n%s", diff)
			}
			for _, d := range ds {
				check(t, p, in, d, before, moved)
			}
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
	timeIsOver := was.Manual && !was.Until.IsZero() && !in.Now.Before(was.Until)
	switch {
	case d.Reason == "" || d.By == "" || d.Time != in.Now || d.Group == "":
		t.Fatalf("decision is not complete: %+v", d)
	case d.Action != Hold && d.FromPool == d.ToPool:
		t.Fatalf("move to the same pool: %+v", d)
	case d.Action == Hold && d.FromPool != d.ToPool:
		t.Fatalf("hold that moves: %+v", d)
	case in.Stale(p) != "" && !timeIsOver:
		t.Fatalf("decided on stale telemetry (%s): %+v", in.Stale(p), d)
	case was.Manual && !timeIsOver:
		t.Fatalf("policy overrode an operator: %+v", d)
	case d.Action == Isolate && (d.Baseline == nil || d.Baseline.Requests < p.MinRequests || d.Stats.Requests < p.MinRequests):
		t.Fatalf("isolated on too little: %+v", d)
	case d.Action == Isolate && p.Mode == ModeObserve:
		t.Fatalf("moved while observing: %+v", d)
	}
	if d.Action == Hold {
		return
	}
	if last, ok := moved[d.Group]; ok && in.Now.Sub(last) < p.Cooldown && !timeIsOver {
		t.Fatalf("moved twice within %s: %+v", in.Now.Sub(last), d)
	}
	moved[d.Group] = in.Now
}

func randomOrder(rnd *rand.Rand, s State, now time.Time) State {
	o := Order{Group: randomGroup(rnd), Home: semconv.PoolBaseline, By: "operator:x", Now: now, For: time.Duration(rnd.Int64N(int64(time.Minute)))}
	order := s.Isolate
	if rnd.IntN(2) == 0 {
		order = s.Release
	}
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
		in.Short, in.Long = append(in.Short, st), append(in.Long, st)
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
	for field, change := range map[string]func(*Policy){
		"mode":                 func(p *Policy) { p.Mode = "maybe" },
		"maxErrorRatio":        func(p *Policy) { p.MaxErrorRatio = math.NaN() },
		"maxP95":               func(p *Policy) { p.MaxP95 = 0 },
		"errorRatioDifference": func(p *Policy) { p.ErrorRatioDifference = -0.1 },
		"p95Factor":            func(p *Policy) { p.P95Factor = math.NaN() },
		"significance":         func(p *Policy) { p.Significance = 0 },
		"shortWindow":          func(p *Policy) { p.ShortWindow = 10 * time.Millisecond },
		"longWindow":           func(p *Policy) { p.LongWindow = time.Second },
		"minRequests":          func(p *Policy) { p.MinRequests = 0 },
		"staleAfter":           func(p *Policy) { p.StaleAfter = 0 },
		"badEvaluations":       func(p *Policy) { p.BadEvaluations = 0 },
		"slowEvaluations":      func(p *Policy) { p.SlowEvaluations = 0 },
		"leaveFraction":        func(p *Policy) { p.LeaveFraction = 0 },
		"cooldown":             func(p *Policy) { p.Cooldown = time.Second },
		"isolateFor":           func(p *Policy) { p.IsolateFor = time.Second },
		"isolateForMax":        func(p *Policy) { p.IsolateForMax = time.Second },
		"maxIsolated":          func(p *Policy) { p.MaxIsolated = 0 },
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
