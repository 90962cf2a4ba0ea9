package placement_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/observability/semconv"
)

func TestPool(t *testing.T) {
	canary := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	beta := group.Group{Color: group.ColorOf("beta"), Env: "prod", Tenant: "payment"}
	plain := group.Group{Env: "prod", Tenant: "payment"}
	p := placement.Placement{
		Cohorts: map[string]string{canary.Color.String(): semconv.PoolCanary, beta.Color.String(): ""},
		Groups:  map[group.ID]string{},
	}
	moved := p
	moved.Groups = map[group.ID]string{canary.ID(): semconv.PoolIsolated, plain.ID(): semconv.PoolIsolated}

	tests := map[string]struct {
		p    placement.Placement
		g    group.Group
		want string
	}{
		"a cohort's pool":                     {p, canary, semconv.PoolCanary},
		"a cohort without a pool":             {p, beta, semconv.PoolBaseline},
		"no cohort":                           {p, plain, semconv.PoolBaseline},
		"a moved group before its cohort":     {moved, canary, semconv.PoolIsolated},
		"a moved group of the baseline color": {moved, plain, semconv.PoolIsolated},
		"another tenant of a moved cohort":    {moved, group.Group{Color: canary.Color, Env: "canary", Tenant: "search"}, semconv.PoolCanary},
		"the zero placement":                  {placement.Placement{}, canary, semconv.PoolBaseline},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.p.Pool(tt.g); got != tt.want {
				t.Errorf("pool = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSuperseded(t *testing.T) {
	p := placement.Placement{Edges: map[string]int64{"edge-1": 20, "eu/edge-2": 20}}
	for via, want := range map[string]bool{
		placement.Via("edge-1", 19): true, placement.Via("edge-1", 20): false, placement.Via("edge-1", 21): false,
		placement.Via("eu/edge-2", 3): true, placement.Via("edge-3", 1): false, "": false, "-": false, "edge-1": false, "edge-1/": false, "edge-1/x": false,
	} {
		if got := p.Superseded(via); got != want {
			t.Errorf("superseded(%q) = %t, want %t", via, got, want)
		}
	}
}

func TestPoolOfUsersWhoAreBack(t *testing.T) {
	t.Parallel()
	g := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	p := placement.Placement{
		Cohorts: map[string]string{g.Color.String(): semconv.PoolCanary},
		Groups:  map[group.ID]string{g.ID(): semconv.PoolIsolated}, Home: map[group.ID]uint32{g.ID(): 10},
	}
	back := 0
	for i := range 1000 {
		user := fmt.Sprint("user-", i)
		want := semconv.PoolIsolated
		if group.Place(g.ID(), user) < 10 {
			want = semconv.PoolCanary
			back++
		}
		if got := p.PoolOf(g, user); got != want {
			t.Fatalf("%s is in %s, want %s", user, got, want)
		}
	}
	if back < 60 || back > 140 {
		t.Errorf("%d of 1000 users are back, not about 100", back)
	}
	if got := p.PoolOf(g, ""); got != semconv.PoolIsolated {
		t.Errorf("an unknown user is in %s", got)
	}
}

func TestPlacementSurvivesJSON(t *testing.T) {
	want := placement.Placement{Version: 7, Cohorts: map[string]string{"0a0b0c0d": "canary"}, Groups: map[group.ID]string{"a1b2c3": "isolated"}, Home: map[group.ID]uint32{"a1b2c3": 10}}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got placement.Placement
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
