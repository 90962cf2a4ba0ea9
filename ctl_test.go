package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/observability/sli"
)

func TestStatusOfEdgesByType(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	var out strings.Builder
	printStatus(&out, ctlapi.Status{
		Version: "17", LastGood: "16", Mode: "act",
		Sources: map[string]ctlapi.Source{"policy": {File: "/a/file/with/a/rather/long/name/policy.yaml"}},
		Saturation: []sli.Saturation{
			{Service: "core", Pool: "baseline", Resource: sli.CPU, Mean: 0.931, Highest: 0.97, Instances: 3},
			{Service: "core", Pool: "isolated", Resource: "accepted", Mean: 0.1, Highest: 0.1, Instances: 1},
		},
		Edges: []ctlapi.Edge{
			{
				ID: "edge-1", Connected: true, Since: at,
				Types: []ctlapi.TypeState{
					{Type: "cds", State: ctlapi.TypeSynced, Since: at},
					{Type: "vhds", State: ctlapi.TypeNacked, Since: at.Add(time.Second), Reason: "no such cluster"},
				},
				Nacks: []ctlapi.Nack{{Type: "vhds", Resource: "edge/a.test", Reason: "no such cluster", Time: at.Add(time.Minute), Count: 3}},
			},
			{ID: "edge-2", Since: at, Types: []ctlapi.TypeState{{Type: "cds", State: ctlapi.TypeStale, Since: at, Reason: "not connected"}}},
		},
	})
	want := `pool core.baseline  CPU             93% used  the fullest of 3 instances 97%
pool core.isolated  queue accepted  10% used  the fullest of 1 instances 10%
edge edge-1, connected since 2026-01-02 03:04:05
  cds   SYNCED  since 2026-01-02 03:04:05
  vhds  NACKED  since 2026-01-02 03:04:06: no such cluster
  refused 3 times, last 2026-01-02 03:05:05: vhds edge/a.test: no such cluster
edge edge-2, not connected since 2026-01-02 03:04:05
  cds  STALE  since 2026-01-02 03:04:05: not connected
`
	_, edges, _ := strings.Cut(out.String(), "policy.yaml  in force\n")
	if diff := cmp.Diff(want, edges); diff != "" {
		t.Errorf("edges (-want +got):\n%s", diff)
	}
}

func TestRoutesAsATable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	printRouting(&out, []ctlapi.Route{
		{
			Service: "core", Name: "split", Rule: true, Hosts: []string{"a.test", "b.test"}, Methods: []string{"GET"}, Path: "/s/*", Conditions: []string{"header x=1", "query q"},
			To: "orders", By: ctlapi.ByUser, Pools: []ctlapi.Weight{{Pool: "canary", Percent: 0.5}, {Pool: "baseline", Percent: 99.5}},
		},
		{Service: "core", Name: "pin", Rule: true, By: ctlapi.ByRule, Pools: []ctlapi.Weight{{Pool: "isolated", Percent: 100}}, Until: time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)},
		{Service: "core", Name: "gone", Rule: true, Path: "/v0", By: ctlapi.ByEdge, Answer: "410"},
		{Service: "core", Name: "all", Path: "/*", By: ctlapi.ByGroup},
	})
	want := `SERVICE  RULE   HOST           METHOD  PATH  POOLS                                UNTIL                IF
core     split  a.test,b.test  GET     /s/*  orders: canary 0.5%, baseline 99.5%  -                    header x=1, query q
core     pin    *              *       *     isolated 100%                        2030-01-02 03:04:05  -
core     gone   *              *       /v0   answers 410                          -                    -
core     -      *              *       /*    by group                             -                    -
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
