package console_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func stat(g group.Group, pool string, at time.Time, length time.Duration, requests, errors uint64, p95 time.Duration) sli.Stats {
	return sli.Stats{
		Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: pool, Window: sli.Window{From: at, To: at.Add(length)},
		Requests: requests, Errors: errors, P50: p95 / 2, P95: p95, P99: 2 * p95,
	}
}

func TestRowsJoinBothSources(t *testing.T) {
	groups := []ctlapi.Group{
		{Group: canary.ID(), Color: canary.Color, Cohort: "canary", Env: canary.Env, Tenant: canary.Tenant, Pool: "isolated", Home: "canary", State: ctlapi.StateIsolated, Since: noon, By: "policy"},
		{Group: pay.ID(), Env: pay.Env, Tenant: pay.Tenant, Pool: "baseline", Home: "baseline", State: ctlapi.StateHome},
	}
	stats := []sli.Stats{
		stat(canary, "canary", noon, 10*time.Second, 30, 30, 400*time.Millisecond),
		stat(canary, "isolated", noon, 10*time.Second, 70, 0, 20*time.Millisecond),
		stat(search, "", noon, 10*time.Second, 5, 5, time.Millisecond),
	}
	want := []console.Row{
		{
			Group: canary.ID(), Color: canary.Color.String(), Env: "canary", Tenant: "payment", Known: true, Cohort: "canary", Pool: "isolated", Home: "canary", State: "isolated", Since: noon, By: "policy",
			Measured: true, QPS: 10, Requests: 100, Errors: 30, P50: 200, P95: 400, P99: 800,
			Pools: []console.Share{{Pool: "isolated", Requests: 70}, {Pool: "canary", Requests: 30, Errors: 30}},
		},
		{Group: pay.ID(), Color: "00000000", Env: "prod", Tenant: "payment", Known: true, Pool: "baseline", Home: "baseline", State: "home", Pools: []console.Share{}},
		{Group: search.ID(), Color: "00000000", Env: "prod", Tenant: "search", Measured: true, QPS: .5, Requests: 5, Errors: 5, P50: .5, P95: 1, P99: 2, Pools: []console.Share{{Requests: 5, Errors: 5}}},
	}
	if diff := cmp.Diff(want, console.Rows(groups, stats)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	empty, err := json.Marshal(console.Rows(nil, nil))
	if err != nil || string(empty) != "[]" {
		t.Errorf("no rows are %s (error %v)", empty, err)
	}
}

func TestChart(t *testing.T) {
	step := 5 * time.Second
	stats := []sli.Stats{
		stat(pay, "baseline", noon.Add(-step), step, 99, 0, time.Second), // before
		stat(pay, "baseline", noon, step, 10, 1, 30*time.Millisecond),
		stat(pay, "isolated", noon, step, 5, 0, 40*time.Millisecond),
		stat(pay, "baseline", noon.Add(2*step), step, 20, 0, 10*time.Millisecond),
		stat(pay, "baseline", noon.Add(3*step), step, 99, 0, time.Second), // after
	}
	forty, ten := 40.0, 10.0
	want := console.Chart{
		From: noon, Step: 5, Points: 3,
		Groups: map[group.ID]*console.Lines{pay.ID(): {QPS: []float64{3, 0, 4}, Errors: []float64{.2, 0, 0}, P95: []*float64{&forty, nil, &ten}}},
	}
	if diff := cmp.Diff(want, console.NewChart(stats, noon, step, 3)); diff != "" {
		t.Errorf("chart (-want +got):\n%s", diff)
	}
}

func TestEntriesAreNewestFirst(t *testing.T) {
	baseline := stat(pay, "baseline", noon, 2*time.Second, 10, 0, time.Millisecond)
	got := console.Entries([]decide.Decision{
		{ID: "1", Time: noon, Action: decide.Hold},
		{ID: "2", Time: noon.Add(time.Second), Action: decide.Isolate, Stats: stat(canary, "canary", noon, 2*time.Second, 8, 4, time.Millisecond), Baseline: &baseline},
	})
	if len(got) != 2 || got[0].ID != "2" || got[1].ID != "1" {
		t.Fatalf("order: %+v", got)
	}
	want := &console.Figures{Pool: "canary", From: noon, To: noon.Add(2 * time.Second), Seconds: 2, Requests: 8, Errors: 4, QPS: 4, P50: .5, P95: 1, P99: 2}
	if diff := cmp.Diff(want, got[0].Stats); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
	if got[0].Baseline == nil || got[1].Stats != nil || got[1].Baseline != nil {
		t.Errorf("figures that are not there: %+v", got)
	}
}

// TestEntrySaysAllThresholds of a policy, and no quick window and P99 where it has none.
func TestEntrySaysAllThresholds(t *testing.T) {
	th := decide.Thresholds{
		MaxErrorRatio: 0.05, MaxP95: 500 * time.Millisecond, MaxP99: 2 * time.Second, ErrorRatioDifference: 0.02, P95Factor: 2, Significance: 1e-8,
		QuickWindow: time.Second, ShortWindow: 2 * time.Second, LongWindow: 30 * time.Second, MinRequests: 10,
	}
	limits := func() string { return console.Entries([]decide.Decision{{Thresholds: &th}})[0].Limits }
	if got, want := limits(), "errors 5%, P99 2s, P95 500ms, 2 times its baseline or 2% more errors, chance 1e-08, windows 1s, 2s and 30s, 10 requests"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	th.QuickWindow, th.MaxP99, th.PrewarmSaturation = 0, 0, 0.85
	if got, want := limits(), "errors 5%, P95 500ms, 2 times its baseline or 2% more errors, chance 1e-08, windows 2s and 30s, 10 requests, pools 85% full"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	full := decide.Decision{Saturation: []sli.Saturation{
		{Service: "core", Pool: "baseline", Resource: sli.CPU, Mean: 0.931, Highest: 0.97}, {Service: "core", Pool: "isolated", Resource: "accepted", Mean: 0.1, Highest: 0.1},
	}}
	if got, want := console.Entries([]decide.Decision{full})[0].Full, "core/baseline: 93% of cpu, its fullest instance 97%; core/isolated: 10% of accepted, its fullest instance 10%"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFlattenIsDepthFirst(t *testing.T) {
	span := func(id, parent string, at time.Duration) store.Span {
		return store.Span{SpanID: id, ParentSpanID: parent, Timestamp: noon.Add(at), Duration: time.Millisecond}
	}
	var got []string
	for _, s := range console.Flatten([]store.Span{span("a", "", 0), span("b", "a", 1), span("c", "a", 2), span("d", "b", 3*time.Millisecond), span("e", "gone", 4)}) {
		got = append(got, string(rune('0'+s.Depth))+s.SpanID)
		if s.SpanID == "d" && s.Start != 3 {
			t.Errorf("d starts at %v ms", s.Start)
		}
	}
	if diff := cmp.Diff([]string{"0a", "1b", "2d", "1c", "0e"}, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}
