package decide

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// TestLook has one pool measured once a second: from the third measurement above the
// threshold on it is saturated, until one is below LeaveFraction of it.
func TestLook(t *testing.T) {
	t.Parallel()
	p := DefaultPolicy() // 0.85, and 0.68 to leave
	for name, tc := range map[string]struct {
		means string // each a measurement, in percent; "-" nobody says anything, "=" nothing new
		want  string // S where it is saturated after it
	}{
		"three in a row":            {"90 90 90", "..S"},
		"two are not enough":        {"90 90 70 90 90", "....."},
		"stays between":             {"90 90 90 84 70 69", "..SSSS"},
		"leaves below":              {"90 90 90 67 90 90 90", "..S...S"},
		"exactly the threshold":     {"85 85 85", "..S"},
		"more than full":            {"130 130 130", "..S"},
		"the same is not another":   {"90 = = = 90 = 90", "......S"},
		"no signal is not zero":     {"90 90 90 -", "..S."},
		"no signal begins anew":     {"90 90 - 90 90 90", ".....S"},
		"never above the threshold": {"84 84 84 84", "...."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s State
			var last sli.Saturation
			got := ""
			for i, mean := range strings.Fields(tc.means) {
				now := start.Add(time.Duration(i) * time.Second / 2)
				in := Input{Now: now, Newest: now}
				switch mean {
				case "-":
				case "=":
					in.Saturation = []sli.Saturation{last}
				default:
					last = sli.Saturation{Service: "core", Pool: "baseline", Resource: sli.CPU, Mean: percent(t, mean), Newest: now}
					in.Saturation = []sli.Saturation{last}
				}
				var ds []Decision
				if ds, s = Decide(p, s, in); len(ds) > 0 {
					t.Fatalf("room for a pool that nobody asks: %+v", ds)
				}
				if s.Pools["core.baseline"].Saturated {
					got += "S"
				} else {
					got += "."
				}
			}
			if got != tc.want {
				t.Errorf("saturated %s, want %s", got, tc.want)
			}
		})
	}
}

func percent(t *testing.T, s string) float64 {
	t.Helper()
	d, err := time.ParseDuration(s + "ms")
	if err != nil {
		t.Fatal(err)
	}
	return float64(d.Milliseconds()) / 100
}

// TestRoomOfASaturatedPool: for whom it is asked, how much, and what the record says.
func TestRoomOfASaturatedPool(t *testing.T) {
	t.Parallel()
	small, large := group.Group{Env: "prod", Tenant: "a"}, group.Group{Env: "prod", Tenant: "b"}
	asks := func(g group.Group, pool string, n uint64) sli.Stats {
		return sli.Stats{Group: g.ID(), Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: pool, Requests: n, P50: time.Millisecond, P95: 2 * time.Millisecond, P99: 3 * time.Millisecond}
	}
	for name, tc := range map[string]struct {
		change func(p *Policy, s *State, in *Input)
		of     group.ID // empty: none is made
		room   float64
	}{
		"of who asks for most":       {func(*Policy, *State, *Input) {}, large.ID(), 100*0.92/0.68 - 100},
		"an operator has the larger": {func(_ *Policy, s *State, _ *Input) { s.Groups[large.ID()] = GroupState{Manual: true} }, small.ID(), 100*0.92/0.68 - 100},
		"the larger is only observed": {func(p *Policy, _ *State, _ *Input) {
			p.Groups = []GroupPolicy{{Name: "b", ID: string(large.ID()), Mode: ModeObserve}}
		}, small.ID(), 100*0.92/0.68 - 100},
		"the policy only recommends": {func(p *Policy, _ *State, _ *Input) { p.Mode = ModeRecommend }, "", 0},
		"it is off":                  {func(p *Policy, _ *State, _ *Input) { p.PrewarmSaturation = 0 }, "", 0},
		"of another pool":            {func(_ *Policy, _ *State, in *Input) { in.Saturation[0].Pool = "canary" }, "", 0},
		"out of date": {func(p *Policy, _ *State, in *Input) {
			in.Saturation[0].Newest = in.Now.Add(-p.StaleAfter - 1)
		}, "", 0},
		"another service's requests go to the same instances": {func(_ *Policy, _ *State, in *Input) {
			in.Instances, in.Short[1].Service = map[string]string{"core-grpc": "core"}, "core-grpc"
		}, large.ID(), 100*0.92/0.68 - 100},
		"another service's instances are its own": {func(_ *Policy, _ *State, in *Input) { in.Short[1].Service = "core-grpc" }, small.ID(), 30*0.92/0.68 - 30},
		"the fuller queue": {func(_ *Policy, _ *State, in *Input) {
			in.Saturation = append(in.Saturation, sli.Saturation{Service: "core", Pool: "baseline", Resource: "accepted", Mean: 1.36, Highest: 1.36, Instances: 1, Newest: in.Now})
		}, large.ID(), 100},
		"made lately": {func(_ *Policy, s *State, in *Input) {
			s.Pools["core.baseline"] = PoolState{Looks: 2, Warmed: in.Now.Add(-29 * time.Second)}
		}, "", 0},
		"made a while ago": {func(_ *Policy, s *State, in *Input) {
			s.Pools["core.baseline"] = PoolState{Looks: 2, Warmed: in.Now.Add(-30 * time.Second)}
		}, large.ID(), 100*0.92/0.68 - 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := DefaultPolicy()
			s := State{Groups: map[group.ID]GroupState{}, Pools: map[string]PoolState{"core.baseline": {Looks: 2}}}
			in := Input{
				Now: start, Newest: start, Short: []sli.Stats{asks(small, "baseline", 60), asks(large, "baseline", 140)},
				Saturation: []sli.Saturation{{Service: "core", Pool: "baseline", Resource: sli.CPU, Mean: 0.92, Highest: 0.97, Instances: 3, Newest: start}},
			}
			in.Long = in.Short
			tc.change(&p, &s, &in)
			ds, next := Decide(p, s, in)
			if tc.of == "" {
				if len(ds) != 0 {
					t.Errorf("decided: %+v", ds)
				}
				return
			}
			if len(ds) != 1 {
				t.Fatalf("decided: %+v", ds)
			}
			d := ds[0]
			if d.Action != PreWarm || d.Group != tc.of || d.FromPool != "baseline" || d.ToPool != "baseline" || len(d.Room) != 1 || d.Room[0].Requests < tc.room-0.01 || d.Room[0].Requests > tc.room+0.01 {
				t.Errorf("decision: %+v, want room for %v", d, tc.room)
			}
			if len(d.Saturation) != 1 || d.Thresholds.PrewarmSaturation != 0.85 || !strings.Contains(d.Reason, "pool baseline of core is saturated: ") || next.Pools["core.baseline"].Warmed != start {
				t.Errorf("record: %+v, %+v", d, next.Pools)
			}
		})
	}
}

// TestAlong: what is on a group's path gets room too.
func TestAlong(t *testing.T) {
	t.Parallel()
	core := []Load{{"core", semconv.PoolIsolated, 50}}
	away := Decision{Action: PreWarm, Service: "core", FromPool: "baseline", ToPool: semconv.PoolIsolated, Room: core}
	full := Decision{Action: PreWarm, Service: "core", FromPool: "baseline", ToPool: "baseline", Room: []Load{{"core", "baseline", 50}}}
	hop := func(service, pool string, each float64) sli.Hop {
		return sli.Hop{Service: service, Pool: pool, PerRequest: each}
	}
	hops := []sli.Hop{hop("cart", "canary", 3), hop("core", "baseline", 1), hop("cart", "baseline", 1), hop("mail", "baseline", 0.5)}
	var many []sli.Hop
	for i := range 2 * maxRoom {
		many = append(many, sli.Hop{Service: string(rune('A' + i)), Pool: "baseline", PerRequest: 1})
	}
	isolatable := map[string]bool{"core": true, "cart": true}
	for name, tc := range map[string]struct {
		d    Decision
		hops []sli.Hop
		want []Load
	}{
		"without traces":        {away, nil, core},
		"to the isolated pools": {away, hops, []Load{core[0], {"cart", semconv.PoolIsolated, 200}}},
		"behind a full pool":    {full, hops, []Load{full.Room[0], {"cart", "canary", 150}, {"cart", "baseline", 50}, {"mail", "baseline", 25}}},
		"nothing is asked for":  {Decision{Action: Hold}, hops, nil},
		"many services":         {full, many, nil},
	} {
		before := len(tc.d.Room)
		got := Along(tc.d, tc.hops, isolatable)
		if name == "many services" {
			if len(got) != maxRoom {
				t.Errorf("%s: %d pools", name, len(got))
			}
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || len(tc.d.Room) != before {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
