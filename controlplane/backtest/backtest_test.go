package backtest_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/backtest"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// second is n requests of a group in one second, each about as long as took, of which some
// failed.
func second(r *rand.Rand, g group.Group, pool string, at time.Duration, n int, took time.Duration, errors uint64) sli.Second {
	s := sli.Second{
		Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: semconv.ServiceCore, Pool: pool,
		Start: start.Add(at), Requests: uint64(n), Errors: errors, Newest: start.Add(at + 900*time.Millisecond),
	}
	counts := map[int16]uint64{}
	for range n {
		counts[sli.BucketOf(time.Duration(float64(took)*(0.5+r.Float64())))]++
	}
	s.Latency = sli.NewHistogram(counts)
	return s
}

func setup(p decide.Policy) backtest.Setup {
	return backtest.Setup{Policy: p, Homes: map[group.Color]string{group.ColorOf("canary"): semconv.PoolCanary}, Isolatable: map[string]bool{semconv.ServiceCore: true}}
}

// play has two groups in baseline and one in canary, which takes a second from 20 s on, until
// it is over or, as moved says, isolated.
func play(p decide.Policy, moved time.Duration, until time.Duration) []decide.Decision {
	return playSlow(p, time.Second, moved, until)
}

// playSlow is play with another latency.
func playSlow(p decide.Policy, slow, moved, until time.Duration) []decide.Decision {
	r := rand.New(rand.NewPCG(1, 2))
	player := backtest.New(setup(p))
	sick := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	for at := time.Duration(0); at < until; at += time.Second {
		for _, tenant := range []string{"payment", "search"} {
			player.Add(second(r, group.Group{Env: "prod", Tenant: tenant}, semconv.PoolBaseline, at, 50, 30*time.Millisecond, 0))
		}
		pool, took := semconv.PoolCanary, 30*time.Millisecond
		switch {
		case at >= moved:
			pool = semconv.PoolIsolated
		case at >= 20*time.Second:
			took = slow
		}
		player.Add(second(r, sick, pool, at, 50, took, 0))
	}
	player.Until(start.Add(until))
	return player.Decided()
}

func TestFaultIsFound(t *testing.T) {
	t.Parallel()
	ds := play(decide.DefaultPolicy(), 24*time.Second, 30*time.Second)
	if len(ds) != 1 || ds[0].Action != decide.Isolate || ds[0].FromPool != semconv.PoolCanary {
		t.Fatalf("decisions: %+v", ds)
	}
	if after := ds[0].Time.Sub(start.Add(20 * time.Second)); after < time.Second || after > 3*time.Second {
		t.Errorf("isolated %s after the fault", after)
	}
	observing := decide.DefaultPolicy()
	observing.Mode = decide.ModeObserve
	if diff := cmp.Diff(ds, play(observing, 24*time.Second, 30*time.Second)); diff != "" {
		t.Errorf("a policy that observes (-act +observe):\n%s", diff)
	}
	lax := decide.DefaultPolicy()
	lax.MaxP95 = 5 * time.Second
	if ds := play(lax, 24*time.Second, 30*time.Second); len(ds) != 0 {
		t.Errorf("a lax policy decides %+v", ds)
	}
}

// TestQuickWindowIsWhole: what a second has is known to its end, so that a median that is
// slower counts in the quick window.
func TestQuickWindowIsWhole(t *testing.T) {
	t.Parallel()
	ds := playSlow(decide.DefaultPolicy(), 390*time.Millisecond, 24*time.Second, 30*time.Second)
	if len(ds) == 0 || ds[0].Action != decide.Isolate || ds[0].Evidence == nil || ds[0].Evidence.Test != "slower requests" {
		t.Fatalf("decisions: %+v", ds)
	}
	if after := ds[0].Time.Sub(start.Add(20 * time.Second)); after >= 2*time.Second {
		t.Errorf("isolated %s after the fault, want within the second after its first: %s", after, ds[0].Reason)
	}
}

func TestGroupIsReleasedAfterItsTime(t *testing.T) {
	t.Parallel()
	ds := play(decide.DefaultPolicy(), 22*time.Second, 80*time.Second)
	if len(ds) != 4 || ds[0].Action != decide.Isolate {
		t.Fatalf("decisions: %+v", ds)
	}
	for i, share := range []uint32{1, 10, 100} { // step by step
		if d := ds[i+1]; d.Action != decide.Release || d.Share != share {
			t.Errorf("step %d: %+v", i, d)
		}
	}
	if lasted := ds[1].Time.Sub(ds[0].Time); lasted < 30*time.Second || lasted > 31*time.Second {
		t.Errorf("isolated for %s", lasted)
	}
}

// TestGapsDecideNothing: an hour without requests, and what comes for a second that is
// over, leave nothing behind.
func TestGapsDecideNothing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	player := backtest.New(setup(decide.DefaultPolicy()))
	g := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	other := group.Group{Env: "prod", Tenant: "payment"}
	for _, at := range []time.Duration{0, time.Second, time.Hour, time.Hour + time.Second} {
		player.Add(second(r, other, semconv.PoolBaseline, at, 100, 20*time.Millisecond, 0))
		player.Add(second(r, g, semconv.PoolCanary, at, 100, 30*time.Millisecond, 0))
	}
	player.Add(second(r, g, semconv.PoolCanary, 0, 100, 5*time.Second, 100)) // too late: left out
	player.Until(start.Add(2 * time.Hour))
	if ds := player.Decided(); len(ds) != 0 {
		t.Errorf("decisions: %+v", ds)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	d := func(at int, action decide.Action, id group.ID, by string) decide.Decision {
		return decide.Decision{Time: start.Add(time.Duration(at) * time.Second), Action: action, Group: id, By: by}
	}
	policy := decide.ByPolicy
	would := []decide.Decision{d(10, decide.Isolate, "a", policy), d(40, decide.Release, "a", policy), d(60, decide.Isolate, "a", policy), d(70, decide.Hold, "b", policy)}
	was := []decide.Decision{d(2, decide.Isolate, "a", policy), d(11, decide.Isolate, "a", policy), d(12, decide.Isolate, "b", policy), d(45, decide.Release, "a", "operator:ann"), d(75, decide.Hold, "c", policy), d(90, decide.Isolate, "a", policy)}
	got := backtest.Compare(would, was, 10*time.Second)
	var rows []string
	for _, r := range got.Rows {
		rows = append(rows, string(r.Verdict)+" "+string(r.Decision().Action)+" "+string(r.Decision().Group)+" "+r.Time().Format("05"))
	}
	want := []string{"only was isolate a 02", "same isolate a 10", "only was isolate b 12", "only would be release a 40", "by hand release a 45", "only would be isolate a 00", "only was isolate a 30"}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if got.HoldsWould != 1 || got.HoldsWas != 1 || got.Counts[backtest.Same] != 1 || got.Counts[backtest.OnlyWas] != 3 || got.Counts[backtest.OnlyWould] != 2 || got.Counts[backtest.ByHand] != 1 {
		t.Errorf("%+v", got)
	}
	if r := backtest.Compare(nil, slices.Clone(was[:0]), 0); r.Rows == nil || len(r.Rows) != 0 {
		t.Errorf("nothing at all: %+v", r)
	}
}
