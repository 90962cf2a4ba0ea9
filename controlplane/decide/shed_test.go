package decide

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// counted is a window as the store counts it: of whole seconds, and without what is still on
// its way.
func counted(st sli.Stats, now time.Time, back time.Duration, rate func(time.Time) float64) sli.Stats {
	const lag = 250 * time.Millisecond
	st.Window.From, st.Newest = now.Add(-back).Truncate(time.Second), now.Add(-lag)
	st.Window.To = now.Add(time.Second - 1).Truncate(time.Second)
	n := 0.0
	for at := st.Window.From; at.Before(st.Newest); at = at.Add(10 * time.Millisecond) {
		n += rate(at) / 100
	}
	st.Requests = uint64(math.Round(n))
	return st
}

// TestGrowthIsTheSameInEveryPhase: windows begin at whole seconds, so they are of up to one
// second more than they are called. Whatever the phase, a group has grown as much as it has.
func TestGrowthIsTheSameInEveryPhase(t *testing.T) {
	t.Parallel()
	const before = 500.0 // requests a second
	for _, tc := range []struct {
		factor     float64 // that it asks for
		shedFactor float64
		grown      bool
	}{
		{1, 1.5, false},
		{1.2, 1.5, false},
		{1.8, 1.5, true},
		{2.5, 3, false},
		{3.6, 3, true},
	} {
		for phase := time.Duration(0); phase < time.Second; phase += 50 * time.Millisecond {
			p, now := DefaultPolicy(), start.Add(phase)
			since := now.Add(-p.ShortWindow).Truncate(time.Second)
			rate := func(at time.Time) float64 {
				if at.Before(since) {
					return before
				}
				return before * tc.factor
			}
			e := evaluation{Policy: p, Input: Input{
				Now: now, Short: []sli.Stats{counted(sli.Stats{}, now, p.ShortWindow, rate)}, Long: []sli.Stats{counted(sli.Stats{}, now, p.LongWindow, rate)},
			}}
			g, known := e.growthOf(func(sli.Stats) bool { return true })
			if !known || g.rate >= tc.shedFactor*g.before != tc.grown || tc.grown && !e.sure(g.chance) || tc.factor == 1 && e.sure(g.chance) {
				t.Errorf("%.1f times as many in phase %s: found %.2f times, by a chance of %g", tc.factor, phase, g.rate/g.before, g.chance)
			}
		}
	}
}

// TestRoomIsTheSameInEveryPhase: so is the room that is made for a group, and in a pool.
func TestRoomIsTheSameInEveryPhase(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	g := group.Group{Env: "prod", Tenant: "a"}
	for phase := 250 * time.Millisecond; phase < time.Second; phase += 50 * time.Millisecond {
		now := start.Add(phase)
		st := counted(got(g, "core", semconv.PoolBaseline, 0, 0), now, p.ShortWindow, func(time.Time) float64 { return 100 })
		in := Input{
			Now: now, Newest: now, Short: []sli.Stats{st}, Long: []sli.Stats{st}, Isolatable: map[string]bool{"core": true},
			Saturation: []sli.Saturation{{Service: "core", Pool: semconv.PoolBaseline, Resource: sli.CPU, Mean: 1.36, Newest: now}},
		}
		e := evaluation{Policy: p, Input: in, short: byGroup(in.Short)}
		if room := e.room(g.ID()); len(room) != 1 || math.Abs(room[0].Requests-100) > 1 {
			t.Errorf("phase %s: room for 100 requests a second: %+v", phase, room)
		}
		ds, _ := Decide(p, State{Groups: map[group.ID]GroupState{}, Pools: map[string]PoolState{"core.baseline": {Looks: 2}}}, in)
		if len(ds) != 1 || len(ds[0].Room) != 1 || math.Abs(ds[0].Room[0].Requests-100) > 1 {
			t.Errorf("phase %s: room for as much again: %+v", phase, ds)
		}
	}
}

// TestLimitEndsWhereverTheGroupIs: it is for its time, and for IsolateForMax at most, also of
// a group that was isolated, or is going home, meanwhile.
func TestLimitEndsWhereverTheGroupIs(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy()
	p.IsolateFor, p.IsolateForMax = 10*time.Second, 40*time.Second
	g := group.Group{Env: "prod", Tenant: "a"}
	for where, state := range map[string]GroupState{
		"at home":    {},
		"isolated":   {Pool: semconv.PoolIsolated, IsolatedFor: time.Hour},
		"going home": {Pool: semconv.PoolIsolated, IsolatedFor: time.Hour, Share: 10},
	} {
		for asks, want := range map[uint64]time.Duration{20: p.IsolateFor, 200: p.IsolateForMax} {
			t.Run(fmt.Sprintf("%s, asks for %d", where, asks), func(t *testing.T) {
				t.Parallel()
				state.Env, state.Tenant, state.By, state.Since, state.Left = g.Env, g.Tenant, ByPolicy, start, start
				state.Shed, state.ShedAt = 50, start
				p := p
				p.ReleaseSteps, p.ReleaseStepFor = []uint32{10}, time.Hour
				s := State{Groups: map[group.ID]GroupState{g.ID(): state}}
				pool := state.Pool
				if pool == "" {
					pool = semconv.PoolBaseline
				}
				st := []sli.Stats{got(g, "core", pool, asks, 0)} // in two seconds
				for now := start; now.Before(start.Add(time.Minute)); now = now.Add(step) {
					var ds []Decision
					ds, s = Decide(p, s, Input{Now: now, Newest: now, Short: st, Long: st, Isolatable: map[string]bool{"core": true}})
					if len(ds) == 0 {
						continue
					}
					if d := ds[0]; d.Action != Lift || d.FromPool != pool || now.Sub(start) != want || len(s.Sheds()) != 0 || s.Groups[g.ID()].Pool != state.Pool {
						t.Errorf("after %s, want %s: %+v", now.Sub(start), want, ds)
					}
					return
				}
				t.Errorf("it is never lifted: %+v", s.Groups[g.ID()])
			})
		}
	}
}
