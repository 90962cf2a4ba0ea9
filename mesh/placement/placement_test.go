package placement_test

import (
	"encoding/json"
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

func TestPlacementSurvivesJSON(t *testing.T) {
	want := placement.Placement{Version: 7, Cohorts: map[string]string{"0a0b0c0d": "canary"}, Groups: map[group.ID]string{"a1b2c3": "isolated"}}
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
