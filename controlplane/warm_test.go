package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// TestSaturatedPoolIsWarmed goes from what instances say of themselves to room: in the pool
// that is full, and behind it in those that the group with most of its requests reaches.
func TestSaturatedPoolIsWarmed(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.full = map[string]float64{semconv.PoolBaseline: 0.2, semconv.PoolCanary: 0.93}
	w.hops = []sli.Hop{{Service: "files", Pool: semconv.PoolBaseline, PerRequest: 2}, {Service: "core", Pool: semconv.PoolCanary, PerRequest: 1}}
	p := run(t, testConfig(t), w)
	servertest.Connect(t, p.xds, servertest.Options{})
	eventually(t, "room is made and recorded", func() bool {
		ds := w.decisions(decide.PreWarm)
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(ds) == 1 && len(ds[0].Room) == 2 && len(w.warmed) == 1
	}, func() any { return w.saved })
	d := w.decisions(decide.PreWarm)[0]
	if d.Group != sick.ID() || d.FromPool != semconv.PoolCanary || d.ToPool != semconv.PoolCanary || !strings.Contains(d.Reason, "pool canary of core is saturated: 93% of CPU") {
		t.Errorf("decision: %+v", d)
	}
	if s := d.Saturation; len(s) != 1 || s[0].Mean != 0.93 || d.Thresholds.PrewarmSaturation != 0.85 {
		t.Errorf("record: %+v, %+v", s, d.Thresholds)
	}
	own, behind := d.Room[0], d.Room[1]
	if own.Service != "core" || own.Pool != semconv.PoolCanary || own.Requests <= 0 || behind.Service != "files" || behind.Pool != semconv.PoolBaseline || behind.Requests != 2*own.Requests {
		t.Errorf("room: %+v", d.Room)
	}
	if w.set(func(*world) {}); !slices.Equal(w.warmed[0], d.Room) {
		t.Errorf("asked for %+v, recorded %+v", w.warmed[0], d.Room)
	}
	p.status("pools are shown", func(s ctlapi.Status) bool { return len(s.Saturation) == 2 })
	if got := p.metric(`tracegate_pool_saturation_ratio{pool="canary",resource="cpu",service="core"}`); got != "0.93" {
		t.Errorf("metric: %q", got)
	}
	w.set(func(w *world) { w.full = nil })
	p.status("nobody says anything", func(s ctlapi.Status) bool { return len(s.Saturation) == 0 })
	if got := p.metric(`tracegate_pool_saturation_ratio{pool="canary",resource="cpu",service="core"}`); got != "" {
		t.Errorf("metric of a pool that says nothing: %q", got)
	}
}

// metric is one of the control plane's own, or empty.
func (p *plane) metric(series string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.control+"/metrics", http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text := new(strings.Builder)
	if err := resp.Write(text); err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestWholePathIsWarmed: a group whose requests go from the edge to core and from there to
// files finds room in the isolated pools of both, and the record of its isolation says so.
func TestWholePathIsWarmed(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	files := `  - name: files
    pools: [{name: baseline}, {name: isolated}]
    routes: [{prefix: /files/}]
`
	write(t, cfg.Policy, strings.Replace(string(policy.Default), "services:\n", "services:\n"+files, 1))
	write(t, cfg.Endpoints, strings.TrimSuffix(endpoints, "}\n")+", files: {baseline: ['127.0.0.1:9104'], isolated: ['127.0.0.1:9105']}}\n")
	w := newWorld()
	w.p95[semconv.PoolCanary] = 800 * time.Millisecond
	w.hops = []sli.Hop{
		{Service: "files", Pool: semconv.PoolBaseline, PerRequest: 0.5}, {Service: "core", Pool: semconv.PoolCanary, PerRequest: 1},
		{Service: "mail", Pool: semconv.PoolBaseline, PerRequest: 1}, // has no isolated pool
	}
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	eventually(t, "isolated, programmed and recorded with its path", func() bool {
		ds := w.decisions(decide.Isolate)
		return len(ds) == 1 && !ds[0].Programmed.IsZero() && len(ds[0].Room) == 2
	}, func() any { return w.saved })
	d := w.decisions(decide.Isolate)[0]
	core, second := d.Room[0], d.Room[1]
	if core.Service != "core" || second.Service != "files" || second.Pool != semconv.PoolIsolated || second.Requests != core.Requests/2 {
		t.Errorf("room: %+v", d.Room)
	}
	eventually(t, "both are warmed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.warmed, func(room []decide.Load) bool { return slices.Equal(room, d.Room) })
	}, func() any { return w.warmed })
}

// TestPathsAreKept: they are asked for once in a while, and the last answer counts where
// traces are not to be had.
func TestPathsAreKept(t *testing.T) {
	t.Parallel()
	world := newWorld()
	world.hops = []sli.Hop{{Service: "files", Pool: "baseline", PerRequest: 1}}
	m := newMetrics(prometheus.NewRegistry())
	asked := 0
	w := newWarms(nil, func(ctx context.Context, of group.ID) ([]sli.Hop, error) {
		asked++
		return world.Path(ctx, of)
	}, m, slog.New(slog.DiscardHandler))
	now := time.Now()
	if got := w.hops(t.Context(), sick.ID(), now); len(got) != 1 || asked != 1 {
		t.Errorf("%v, asked %d times", got, asked)
	}
	if got := w.hops(t.Context(), sick.ID(), now.Add(pathEvery-1)); len(got) != 1 || asked != 1 {
		t.Errorf("soon after: %v, asked %d times", got, asked)
	}
	world.lost = errors.New("away")
	if got := w.hops(t.Context(), sick.ID(), now.Add(pathEvery)); len(got) != 1 || asked != 2 {
		t.Errorf("without traces: %v, asked %d times", got, asked)
	}
	if got := w.hops(t.Context(), healthy.ID(), now); len(got) != 0 {
		t.Errorf("a group without traces: %v", got)
	}
	for i := range 2 * maxPaths {
		w.hops(t.Context(), group.Group{Env: "prod", Tenant: time.Duration(i).String()}.ID(), now)
	}
	if len(w.paths) > maxPaths {
		t.Errorf("%d paths are kept", len(w.paths))
	}
	if n := testutil.ToFloat64(m.paths.WithLabelValues("failed")); n != 1 {
		t.Errorf("%g failures counted", n)
	}
}

// TestWarmsAreBounded: who asks never waits, and what is not asked for is counted.
func TestWarmsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMetrics(prometheus.NewRegistry())
	w := newWarms(newWorld(), nil, m, slog.New(slog.DiscardHandler))
	room := []decide.Load{{Service: "core", Pool: "isolated", Requests: 1}}
	for range maxWarms + 3 {
		w.ask(decide.Decision{Room: room}, nil)
	}
	if n := testutil.ToFloat64(m.warms.WithLabelValues("dropped_queue_full")); n != 3 || len(w.asked) != maxWarms {
		t.Errorf("%g dropped, %d wait", n, len(w.asked))
	}
	if none := newWarms(nil, nil, m, slog.New(slog.DiscardHandler)); true {
		if none.ask(decide.Decision{Room: room}, nil); len(none.asked) != 0 {
			t.Error("asked without anybody who makes room")
		}
	}
}
