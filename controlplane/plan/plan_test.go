package plan

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
)

var edge = Edge{Listen: "127.0.0.1:8080", Observe: "127.0.0.1:4317"}

func inputs(t *testing.T) (policy.Policy, policy.Endpoints) {
	t.Helper()
	p, err := policy.Parse(policy.Default)
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.ParseEndpoints([]byte("services: {core: {baseline: ['127.0.0.1:2', '127.0.0.1:1'], canary: ['127.0.0.1:3']}, unknown: {baseline: ['127.0.0.1:4']}}"))
	if err != nil {
		t.Fatal(err)
	}
	return p, e
}

func TestBuild(t *testing.T) {
	t.Parallel()
	p, e := inputs(t)
	got, err := Build(p, e, Groups{
		Pools: map[group.ID]string{"bbbbbb": "isolated", "aaaaaa": "isolated", "cccccc": "gone", "no id!": "isolated"},
		Home:  map[group.ID]uint32{"bbbbbb": 10}, Sheds: map[group.ID]uint32{"dddddd": 7, "eeeeee": 0},
	}, edge)
	if err != nil {
		t.Fatal(err)
	}
	wantPools := []Pool{{Name: "baseline", Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2"}}, {Name: "canary", Endpoints: []string{"127.0.0.1:3"}}, {Name: "isolated"}}
	if diff := cmp.Diff(wantPools, got.Services[1].Pools); diff != "" {
		t.Errorf("pools (-want +got):\n%s", diff)
	}
	for i := range wantPools { // the same instances, by another protocol
		wantPools[i].Protocol = policy.GRPC
	}
	if diff := cmp.Diff(wantPools, got.Services[0].Pools); diff != "" {
		t.Errorf("pools for gRPC (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Move{{"aaaaaa", "isolated", 0}, {"bbbbbb", "isolated", 10}}, got.Moves); diff != "" {
		t.Errorf("moves (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Shed{{"dddddd", 7}}, got.Sheds); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	again, err := Build(p, e, got.Groups(), edge)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("a plan of what a plan was built of (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Cohort{{"canary", group.ColorOf("canary"), "canary"}}, got.Cohorts); diff != "" {
		t.Errorf("cohorts (-want +got):\n%s", diff)
	}
	if !strings.Contains(got.Filter, `"cohorts"`) || !strings.Contains(got.Filter, `"releasing":["bbbbbb"]`) || got.FailClosed {
		t.Errorf("filter %q, fail closed %v", got.Filter, got.FailClosed)
	}
}

// TestPlacementAgrees: what core is told is what the routes do.
func TestPlacementAgrees(t *testing.T) {
	t.Parallel()
	p, e := inputs(t)
	moved := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	pl, err := Build(p, e, Groups{Pools: map[group.ID]string{moved.ID(): "isolated"}}, edge)
	if err != nil {
		t.Fatal(err)
	}
	got := pl.Placement(7)
	for _, c := range []struct {
		g    group.Group
		want string
	}{
		{moved, "isolated"},
		{group.Group{Color: moved.Color, Env: "canary", Tenant: "search"}, "canary"},
		{group.Group{Env: "prod", Tenant: "search"}, "baseline"},
		{group.Group{Color: 42, Env: "prod", Tenant: "search"}, "baseline"},
	} {
		if pool := got.Pool(c.g); pool != c.want {
			t.Errorf("%+v is placed in %s, want %s", c.g, pool, c.want)
		}
	}
	if got.Version != 7 {
		t.Errorf("version %d", got.Version)
	}
}

func TestNothingNeverReplacesSomething(t *testing.T) {
	t.Parallel()
	p, e := inputs(t)
	for name, e := range map[string]policy.Endpoints{
		"no endpoints":       {},
		"of another service": {Services: map[string]map[string][]string{"other": {"baseline": {"127.0.0.1:1"}}}},
		"none in a baseline": {Services: map[string]map[string][]string{"core": {"canary": {"127.0.0.1:1"}}}},
		"an empty baseline":  {Services: map[string]map[string][]string{"core": {"baseline": {}}}},
	} {
		if _, err := Build(p, e, Groups{}, edge); !errors.Is(err, ErrNothingToServe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]Edge{
		"edge listen":      {Observe: edge.Observe, Listen: "nowhere"},
		"edge observe":     {Listen: edge.Listen, Observe: "127.0.0.1:0"},
		"edge jwks":        {Listen: edge.Listen, Observe: edge.Observe, JWKS: "{"},
		"edge wasm path":   {Listen: edge.Listen, Observe: edge.Observe, Wasm: Wasm{Path: "edge/filter.wasm"}},
		"edge wasm sha256": {Listen: edge.Listen, Observe: edge.Observe, Wasm: Wasm{Path: "/filter.wasm", SHA256: "abc"}},
	} {
		if _, err := Build(p, e, Groups{}, bad); err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
