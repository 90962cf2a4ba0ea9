package ctl

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

func TestRoutesInTheirOrder(t *testing.T) {
	t.Parallel()
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	got := routesOf(plan.Plan{Services: []plan.Service{
		{
			Name:   "core",
			Routes: []plan.Route{{Name: "all", Prefix: "/"}, {Name: "me", Path: "/v1/me"}},
			Rules: []plan.Rule{
				{
					Name: "pinned", Pool: "isolated", Until: until, Service: "orders",
					Match: []plan.Match{
						{Hosts: []string{"a.test"}, Prefix: "/a", Methods: []string{"GET"}},
						{Regex: "/b[0-9]", Headers: []policy.HeaderMatch{{Name: "x", Exact: "1", Not: true}, {Name: "y", Present: true}}, Query: []policy.QueryMatch{{Name: "q", Prefix: "z"}}, Cookies: []policy.CookieMatch{{Name: "c", Exact: "2"}}, Tenant: "acme", Cohort: "beta"},
					},
				},
				{Name: "split", Match: []plan.Match{{Path: "/s"}}, Canary: &policy.Canary{Cookie: "c", Pools: []policy.CanaryPool{{Pool: "canary", Percent: 0.5}}}},
			},
		},
		{Name: "orders", Routes: []plan.Route{{Name: "o", Prefix: "/o"}}, Rules: []plan.Rule{
			{Name: "moved", Match: []plan.Match{{}}, Redirect: &plan.Redirect{Status: 308}},
			{Name: "gone", Match: []plan.Match{{Prefix: "/"}}, DirectResponse: &policy.DirectResponse{Status: 410}},
		}},
	}})
	pinned := ctlapi.Route{Service: "core", Name: "pinned", Rule: true, To: "orders", By: ctlapi.ByRule, Pools: []ctlapi.Weight{{Pool: "isolated", Percent: 100}}, Until: until}
	a, b := pinned, pinned
	a.Hosts, a.Methods, a.Path = []string{"a.test"}, []string{"GET"}, "/a/*"
	b.Path, b.Conditions = "~/b[0-9]", []string{"not header x=1", "header y", "cookie c=2", "tenant acme", "cohort beta", "query q=z*"}
	want := []ctlapi.Route{
		a, b,
		{Service: "core", Name: "split", Rule: true, Path: "/s", By: ctlapi.ByUser, Pools: []ctlapi.Weight{{Pool: "canary", Percent: 0.5}, {Pool: "baseline", Percent: 99.5}}},
		{Service: "orders", Name: "moved", Rule: true, By: ctlapi.ByEdge, Answer: "redirect 308"},
		{Service: "orders", Name: "gone", Rule: true, Path: "/*", By: ctlapi.ByEdge, Answer: "410"},
		{Service: "core", Name: "all", Path: "/*", By: ctlapi.ByGroup},
		{Service: "core", Name: "me", Path: "/v1/me", By: ctlapi.ByGroup},
		{Service: "orders", Name: "o", Path: "/o/*", By: ctlapi.ByGroup},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if none := routesOf(plan.Plan{}); none == nil {
		t.Error("no routes are null in JSON")
	}
}
