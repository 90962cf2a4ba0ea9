package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

const (
	token     = "a token of the control API"
	endpoints = "services: {core: {baseline: ['127.0.0.1:9101'], canary: ['127.0.0.1:9102'], isolated: ['127.0.0.1:9103']}}\n"
)

var (
	healthy = group.Group{Env: "prod", Tenant: "payment"}
	sick    = group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
)

// byHand is an operator's order about the sick group, whether it was seen or not.
var byHand = ctlapi.Order{Reason: "try", By: "ann", Identity: &ctlapi.Identity{Color: sick.Color.String(), Env: sick.Env, Tenant: sick.Tenant}}

// world is what the control plane measures and where it saves: a fake of both stores.
type world struct {
	mu      sync.Mutex
	p95     map[string]time.Duration // of the sick group, by pool
	down    error
	placed  string // pool that serves the sick group
	saved   map[string]decide.Decision
	causes  map[decide.Pool][]string
	why     []string
	change  chan struct{}
	errors  map[string]uint64 // of 100 requests at an edge, in windows that end after failing
	failing time.Time
	edges   func(sli.Window) []sli.EdgeStats // what was measured, where not nil
	full    map[string]float64               // CPU, by pool of core
	hops    []sli.Hop                        // of the sick group
	lost    error                            // of traces
	warmed  [][]decide.Load
}

func newWorld() *world {
	return &world{p95: map[string]time.Duration{}, placed: semconv.PoolCanary, saved: map[string]decide.Decision{}, change: make(chan struct{}, 1)}
}

func (w *world) set(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *world) GroupStats(_ context.Context, win sli.Window, _ ...string) ([]sli.Stats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return nil, w.down
	}
	of := func(g group.Group, pool string, p95 time.Duration) sli.Stats {
		p95 = max(p95, 10*time.Millisecond)
		return sli.Stats{
			Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: pool,
			Window: win, Requests: 100, P50: p95 / 2, P95: p95, P99: 2 * p95, Newest: win.To.Add(-100 * time.Millisecond),
		}
	}
	return []sli.Stats{of(healthy, semconv.PoolBaseline, 0), of(sick, w.placed, w.p95[w.placed])}, nil
}

func (w *world) EdgeStats(_ context.Context, win sli.Window) ([]sli.EdgeStats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return nil, w.down
	}
	if w.edges != nil {
		return w.edges(win), nil
	}
	var out []sli.EdgeStats
	for _, edge := range []string{"a", "b"} {
		st := sli.EdgeStats{Edge: edge, Service: "core", Route: "all", Requests: 100}
		if win.To.After(w.failing) {
			st.Errors = w.errors[edge]
		}
		out = append(out, st)
	}
	return out, nil
}

// Saturation is what core's pools say at this moment.
func (w *world) Saturation(_ context.Context, win sli.Window) (out []sli.Saturation, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for pool, cpu := range w.full {
		out = append(out, sli.Saturation{Service: "core", Pool: pool, Resource: sli.CPU, Mean: cpu, Highest: cpu, Instances: 1, Newest: win.To})
	}
	return out, w.down
}

// Path is the sick group's; no other has traces.
func (w *world) Path(_ context.Context, of group.ID) ([]sli.Hop, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if of != sick.ID() {
		return nil, nil
	}
	return w.hops, w.lost
}

func (w *world) Warm(_ context.Context, _ group.ID, room []decide.Load, _ time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warmed = append(w.warmed, room)
	return nil
}

// Watermark is never asked for: the world always has traffic.
func (w *world) Watermark(context.Context) (time.Time, error) { return time.Time{}, nil }

func (w *world) SaveDecision(_ context.Context, d decide.Decision) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return w.down
	}
	w.saved[d.ID] = d
	return nil
}

func (w *world) Causes(context.Context) (map[decide.Pool][]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.causes, nil
}

func (w *world) Why(_ context.Context, d decide.Decision, p decide.Policy) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.Group != sick.ID() || d.FirstBad.IsZero() || p.MaxP95 != 500*time.Millisecond {
		return nil, fmt.Errorf("asked why %+v, policy %+v", d, p)
	}
	return w.why, nil
}

// plane is a running control plane.
type plane struct {
	t       *testing.T
	cfg     Config
	world   *world
	api     *ctlapi.Client
	stop    func()
	xds     string
	control string
	places  chan placement.Placement
}

func testConfig(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Dir = filepath.Join(dir, "controlplane")
	cfg.Policy, cfg.Endpoints = filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "endpoints.yaml")
	cfg.Token = token
	cfg.Evaluate = 50 * time.Millisecond
	cfg.AckTimeout = 300 * time.Millisecond
	cfg.Server.Warmup = 10 * time.Millisecond
	cfg.Settings = filepath.Join(dir, "settings")
	write(t, cfg.Policy, string(policy.Default))
	write(t, cfg.Endpoints, endpoints)
	return cfg
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, cfg Config, w *world) *plane {
	t.Helper()
	return runOn(t, cfg, w, listener(t))
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func runOn(t *testing.T, cfg Config, w *world, xdsListener net.Listener) *plane {
	t.Helper()
	listeners := []net.Listener{xdsListener, listener(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, cfg, Deps{
			Causes: w, Why: w, Edges: w, Saturation: w, Path: w.Path, Warm: w, Settings: map[string]func([]byte) error{"core": checkKnobs},
			Stats: w, Decisions: w, Registry: prometheus.NewRegistry(), XDS: listeners[0], Control: listeners[1],
		}, slog.New(slog.DiscardHandler))
	}()
	p := &plane{t: t, cfg: cfg, world: w, xds: listeners[0].Addr().String(), control: listeners[1].Addr().String(), api: ctlapi.NewClient(listeners[1].Addr().String(), token), places: make(chan placement.Placement, 100)}
	p.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("run does not end")
		}
	})
	t.Cleanup(p.stop)
	go p.api.WatchPlacement(ctx, func(pl placement.Placement) { p.places <- pl })
	return p
}

// status polls until ok holds; it is the API's answer that is under test.
func (p *plane) status(what string, ok func(ctlapi.Status) bool) ctlapi.Status {
	p.t.Helper()
	var last ctlapi.Status
	eventually(p.t, what, func() bool {
		s, err := p.api.Status(p.t.Context())
		last = s
		return err == nil && ok(s)
	}, func() any { return last })
	return last
}

func eventually(t *testing.T, what string, ok func() bool, state func() any) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			b, _ := json.MarshalIndent(state(), "", " ")
			t.Fatalf("%s: not within a minute: %s", what, b)
		}
	}
}

func (p *plane) placed(what string, ok func(placement.Placement) bool) placement.Placement {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case pl := <-p.places:
			if ok(pl) {
				return pl
			}
		case <-deadline:
			p.t.Fatalf("placement: %s: not within a minute", what)
		}
	}
}

func acked(s ctlapi.Status) bool {
	return s.Version != "" && s.Version == s.LastGood && s.Programming == nil && len(s.Edges) > 0 && s.Edges[0].InSync
}

// TestCircle goes from statistics to routes and back: a group goes bad, is
// isolated at the edge, placement follows, the decision is saved with its time.
func TestCircle(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	write(t, cfg.Policy, strings.NewReplacer("isolateFor: 30s", "isolateFor: 3s", "releaseSteps: [1, 10]", "releaseSteps: [10]", "releaseStepFor: 5s", "releaseStepFor: 3s").Replace(string(policy.Default)))
	told := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		_ = json.NewDecoder(r.Body).Decode(&m)
		told <- m.Type + " " + string(m.Data.Decision.Group) + " " + strings.Join(m.Data.Decision.Causes, ", ")
	}))
	defer hook.Close()
	cfg.Notify = notify.Config{Hooks: []notify.Hook{{URL: hook.URL}}, Secret: secret.Text(webhook.NewSecret([32]byte{1})), Dir: cfg.Dir}
	w := newWorld()
	w.why = []string{"dependency db1 takes 1s"}
	p := run(t, cfg, w)
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", acked)
	p.placed("cohort at home", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolCanary })
	for len(edge.Events) > 0 {
		<-edge.Events
	}

	fault := time.Now()
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 800 * time.Millisecond })
	if g := edge.Next(); g.Type != xds.Routes {
		t.Errorf("a move sent %s", g.Type)
	}
	p.placed("isolated", func(pl placement.Placement) bool {
		return pl.Pool(sick) == semconv.PoolIsolated && pl.Pool(healthy) == semconv.PoolBaseline
	})
	t.Logf("fault to placement: %v", time.Since(fault)) // the load lab holds the promise itself
	w.set(func(w *world) { w.placed = semconv.PoolIsolated })
	after := p.status("acknowledged", func(s ctlapi.Status) bool { return acked(s) && s.Version != before.Version }) // it may come after the placement
	eventually(t, "decision saved", func() bool {
		return len(w.decisions(decide.Isolate)) == 1 && !w.decisions(decide.Isolate)[0].Programmed.IsZero()
	}, func() any { return w.saved })
	if got, want := <-told, "group.isolated "+string(sick.ID())+" "+w.why[0]; got != want {
		t.Errorf("webhook was told %q, want %q", got, want)
	}
	d := w.decisions(decide.Isolate)[0]
	if d.Version != after.Version || d.Programmed.Before(d.Time) || d.By != decide.ByPolicy || d.FromPool != "canary" || d.ToPool != "isolated" || d.Baseline == nil || d.FirstBad.IsZero() {
		t.Errorf("decision: %+v", d)
	}
	t.Logf("decision to acknowledgement: %v", d.Programmed.Sub(d.Time))

	groups, err := p.api.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if g.Group == sick.ID() && (g.State != ctlapi.StateIsolated || g.Pool != "isolated" || g.Home != "canary" || g.Cohort != "canary" || len(g.Stats) != 1) {
			t.Errorf("group: %+v", g)
		}
	}

	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 0 })
	p.placed("a tenth released", func(pl placement.Placement) bool {
		return pl.Pool(sick) == semconv.PoolIsolated && pl.Home[sick.ID()] == 10
	})
	p.placed("released", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolCanary })
	ds, err := p.api.Decisions(t.Context(), 10)
	if err != nil || len(ds) != 3 || ds[0].Action != decide.Release || ds[0].Share != 100 || ds[1].Share != 10 || ds[2].Action != decide.Isolate {
		t.Fatalf("decisions: %+v, %v", ds, err)
	}
	if o := ds[2].Outcome; o == nil || !o.Better || o.Stats.Pool != semconv.PoolIsolated {
		t.Errorf("outcome of the isolation: %+v", o)
	}
	if d := ds[2]; d.VersionBefore != before.Version || d.Thresholds == nil || d.Evidence == nil || d.Undo == "" {
		t.Errorf("record of the isolation: %+v", d)
	}
}

func (w *world) decisions(a decide.Action) []decide.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []decide.Decision
	for _, d := range w.saved {
		if d.Action == a {
			out = append(out, d)
		}
	}
	return out
}

// TestCausesThatComeLaterAreAdded: the decision was taken before anything explained it.
func TestCausesThatComeLaterAreAdded(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.p95[semconv.PoolCanary] = 800 * time.Millisecond
	p := run(t, testConfig(t), w)
	servertest.Connect(t, p.xds, servertest.Options{})
	eventually(t, "isolated and programmed", func() bool {
		ds := w.decisions(decide.Isolate)
		return len(ds) == 1 && !ds[0].Programmed.IsZero()
	}, func() any { return w.saved })
	if d := w.decisions(decide.Isolate)[0]; d.Causes != nil {
		t.Errorf("explained by nothing: %q", d.Causes)
	}
	w.set(func(w *world) {
		w.placed = semconv.PoolIsolated
		w.causes = map[decide.Pool][]string{{Service: "core", Name: "canary"}: {"connects take 1s"}, {Service: "core", Name: "isolated"}: {"not this"}}
	})
	eventually(t, "explained", func() bool {
		ds := w.decisions(decide.Isolate)
		return len(ds) == 1 && len(ds[0].Causes) == 1 && ds[0].Causes[0] == "connects take 1s" && !ds[0].Programmed.IsZero()
	}, func() any { return w.saved })
	if ds, err := p.api.Decisions(t.Context(), 1); err != nil || len(ds[0].Causes) != 1 {
		t.Errorf("shown: %+v, %v", ds, err)
	}
}

// TestTracesExplainAnIsolation: beside what the probes said, without what both said twice.
func TestTracesExplainAnIsolation(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.p95[semconv.PoolCanary] = 800 * time.Millisecond
	w.causes = map[decide.Pool][]string{{Service: "core", Name: "canary"}: {"connects take 1s"}}
	w.why = []string{"connects take 1s", "dependency db1 takes 1s"}
	p := run(t, testConfig(t), w)
	servertest.Connect(t, p.xds, servertest.Options{})
	eventually(t, "explained by both", func() bool {
		ds := w.decisions(decide.Isolate)
		return len(ds) == 1 && slices.Equal(ds[0].Causes, w.why) && !ds[0].Programmed.IsZero()
	}, func() any { return w.decisions(decide.Isolate) })
	if ds, err := p.api.Decisions(t.Context(), 1); err != nil || len(ds[0].Causes) != 2 {
		t.Errorf("shown: %+v, %v", ds, err)
	}
}

// TestWhysAreBounded: who asks never waits, and what is not asked is counted.
func TestWhysAreBounded(t *testing.T) {
	t.Parallel()
	m := newMetrics(prometheus.NewRegistry())
	w := newWhys(newWorld(), m, slog.New(slog.DiscardHandler))
	for range maxWhys + 3 {
		w.ask(decide.Decision{}, decide.Policy{})
	}
	if n := testutil.ToFloat64(m.whys.WithLabelValues("dropped_queue_full")); n != 3 || len(w.asked) != maxWhys {
		t.Errorf("%g dropped, %d wait", n, len(w.asked))
	}
	none := newWhys(nil, m, slog.New(slog.DiscardHandler))
	if none.ask(decide.Decision{}, decide.Policy{}); len(none.asked) != 0 {
		t.Error("asked without a source")
	}
}

// TestBrokenPolicyChangesNothing also covers endpoints that disappear.
func TestBrokenPolicyChangesNothing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", acked)
	for len(edge.Events) > 0 {
		<-edge.Events
	}
	for name, step := range map[string]func(){
		"unknown key": func() { write(t, cfg.Policy, string(policy.Default)+"\nfialure: open\n") },
		"empty":       func() { write(t, cfg.Policy, "") },
		"gone":        func() { os.Remove(cfg.Policy) },
	} {
		step()
		s := p.status(name, func(s ctlapi.Status) bool { return s.Sources["policy"].Error != "" })
		if s.Version != before.Version || !acked(s) {
			t.Errorf("%s: status: %+v", name, s)
		}
		write(t, cfg.Policy, string(policy.Default))
		p.status("well again", func(s ctlapi.Status) bool { return s.Sources["policy"].Error == "" })
	}
	write(t, cfg.Endpoints, "services: {}\n")
	s := p.status("no endpoints", func(s ctlapi.Status) bool {
		return strings.Contains(s.Sources["endpoints"].Error, "no endpoint at all")
	})
	if s.Version != before.Version {
		t.Errorf("status: %+v", s)
	}
	// Endpoints of services the policy does not know make no plan.
	write(t, cfg.Endpoints, "services: {other: {baseline: ['127.0.0.1:1']}}\n")
	s = p.status("no plan", func(s ctlapi.Status) bool {
		return strings.Contains(s.Sources["policy"].Error, "no endpoint in any baseline pool")
	})
	if s.Version != before.Version || len(edge.Events) != 0 {
		t.Errorf("status: %+v, %d responses", s, len(edge.Events))
	}
}

// TestRejectedPolicyGoesBack: an edge refuses what a policy makes; the last good
// policy is served again, decisions go on working, and a right policy recovers.
func TestRejectedPolicyGoesBack(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	w := newWorld()
	p := run(t, cfg, w)
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", acked)
	edge.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.GetResources() {
			if typ == xds.Routes && strings.Contains(string(res.GetResource().GetValue()), "poison") {
				return "route poison is not to be had"
			}
		}
		return ""
	})
	write(t, cfg.Policy, strings.Replace(string(policy.Default), "{name: /, prefix: /}", "{name: poison, prefix: /}", 1))
	s := p.status("rolled back", func(s ctlapi.Status) bool { return s.Rejected != nil && acked(s) })
	if s.Version != before.Version || s.Rejected.Nack.Reason != "route poison is not to be had" || s.Rejected.Nack.Type != "rds" || s.Rejected.Edge != "edge-1" {
		t.Errorf("status: %+v, rejected %+v", s, s.Rejected)
	}
	if len(s.Edges[0].Nacks) != 1 {
		t.Errorf("nacks: %+v", s.Edges[0].Nacks)
	}
	if !slices.ContainsFunc(s.Edges[0].Types, func(ty ctlapi.TypeState) bool {
		return ty.Type == "rds" && ty.State == ctlapi.TypeNacked && ty.Reason == "route poison is not to be had"
	}) {
		t.Errorf("the edge has taken what it was given instead, and nobody says that it refused: %+v", s.Edges[0].Types)
	}

	d, err := p.api.Isolate(t.Context(), sick.ID(), byHand)
	if err != nil {
		t.Fatal(err)
	}
	if d.By != "operator:ann" || d.Action != decide.Isolate || d.ID == "" {
		t.Errorf("decision: %+v", d)
	}
	p.placed("isolated by hand", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })

	pin := byHand
	pin.Pool, pin.ForMS = semconv.PoolBaseline, time.Hour.Milliseconds()
	if d, err = p.api.Pin(t.Context(), sick.ID(), pin); err != nil || d.Action != decide.Pin || d.FromPool != semconv.PoolIsolated || d.ToPool != semconv.PoolBaseline {
		t.Errorf("pin: %+v, %v", d, err)
	}
	p.placed("pinned", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolBaseline })
	pin.Pool = "nowhere"
	if _, err := p.api.Pin(t.Context(), sick.ID(), pin); err == nil || !strings.Contains(err.Error(), `no service has a pool "nowhere"`) {
		t.Errorf("a pin to nowhere: %v", err)
	}

	write(t, cfg.Policy, strings.Replace(string(policy.Default), "{name: /, prefix: /}", "{name: rest, prefix: /}", 1))
	s = p.status("recovered", func(s ctlapi.Status) bool { return s.Rejected == nil && acked(s) && s.Version != before.Version })
}

// TestRestart: what was acknowledged is served before any source is read, and
// moves of groups are kept.
func TestRestart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	w := newWorld()
	p := run(t, cfg, w)
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	p.status("programmed", acked)
	if _, err := p.api.Isolate(t.Context(), sick.ID(), byHand); err != nil {
		t.Fatal(err)
	}
	pl := p.placed("isolated", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })
	before := p.status("acknowledged", acked)
	has := edge.Has()
	p.stop()

	write(t, cfg.Policy, "broken: [")
	os.Remove(cfg.Endpoints)
	p = run(t, cfg, w)
	again := servertest.Connect(t, p.xds, servertest.Options{Has: has})
	s := p.status("served from disk", acked)
	if s.Version != before.Version {
		t.Errorf("version %s, want %s", s.Version, before.Version)
	}
	if len(again.Events) != 0 {
		t.Errorf("%d responses to an edge that has everything", len(again.Events))
	}
	if got := p.placed("kept", func(placement.Placement) bool { return true }); got.Version != pl.Version || got.Pool(sick) != semconv.PoolIsolated {
		t.Errorf("placement: %+v, want %+v", got, pl)
	}
	if ds, err := p.api.Decisions(t.Context(), 10); err != nil || len(ds) != 1 || ds[0].Programmed.IsZero() {
		t.Errorf("decisions: %+v, %v", ds, err)
	}
	// Orders are carried out on the documents of the last good configuration.
	if _, err := p.api.Release(t.Context(), sick.ID(), ctlapi.Order{Reason: "enough", By: "ann"}); err != nil {
		t.Fatal(err)
	}
	p.placed("released", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolCanary })

	// A fresh edge gets it all.
	p.stop()
	p = run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("fresh edge", acked)
}

// TestStoreDown: no automatic decisions, visible; decisions by hand work and are
// saved later; all heals by itself.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	w := newWorld()
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("fresh", func(s ctlapi.Status) bool { return acked(s) && !s.TelemetryStale })
	w.set(func(w *world) { w.down = errors.New("connection refused"); w.p95[semconv.PoolCanary] = time.Second })
	p.status("stale", func(s ctlapi.Status) bool {
		return s.TelemetryStale && strings.Contains(s.TelemetryReason, "connection refused")
	})
	if _, err := p.api.Isolate(t.Context(), healthy.ID(), ctlapi.Order{Reason: "try", By: "ann"}); err != nil {
		t.Fatal(err)
	}
	p.placed("by hand", func(pl placement.Placement) bool {
		return pl.Pool(healthy) == semconv.PoolIsolated && pl.Pool(sick) == semconv.PoolCanary
	})
	p.status("waits", func(s ctlapi.Status) bool { return s.Unsaved == 1 })
	if _, err := p.api.Release(t.Context(), healthy.ID(), ctlapi.Order{Reason: "back", By: "ann"}); err != nil {
		t.Fatal(err)
	}
	w.set(func(w *world) { w.down = nil })
	p.placed("healed", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })
	p.status("saved", func(s ctlapi.Status) bool { return !s.TelemetryStale && s.Unsaved == 0 })
	if n := len(w.decisions(decide.Isolate)); n != 2 {
		t.Errorf("%d isolations are saved, want 2", n)
	}
}

// TestSlowEdge: an edge that does not answer holds the placement back for a while,
// and only for a while.
func TestSlowEdge(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{ID: "quick"})
	p.status("programmed", acked)
	servertest.Connect(t, p.xds, servertest.Options{ID: "slow"})
	p.status("both", func(s ctlapi.Status) bool { return len(s.Edges) == 2 && s.Edges[1].InSync })
	servertest.Connect(t, p.xds, servertest.Options{ID: "stuck", Answer: func(xds.Type, *discoveryv3.DeltaDiscoveryResponse) string {
		<-t.Context().Done()
		return ""
	}})
	p.status("three", func(s ctlapi.Status) bool { return len(s.Edges) == 3 })
	asked := time.Now()
	if _, err := p.api.Isolate(t.Context(), sick.ID(), byHand); err != nil {
		t.Fatal(err)
	}
	p.placed("isolated", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })
	if took := time.Since(asked); took < cfg.AckTimeout {
		t.Errorf("the placement came after %v, before everyone had acknowledged", took)
	}
	s := p.status("late", func(s ctlapi.Status) bool { return s.Programming != nil && s.Programming.Late })
	if fmt.Sprint(s.Programming.Waiting) != "[stuck]" {
		t.Errorf("programming: %+v", s.Programming)
	}
}

func TestOrdersThatAreRefused(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	p.status("policy read", func(s ctlapi.Status) bool { return s.Version != "" })
	_, err := p.api.Isolate(t.Context(), "ffffff", ctlapi.Order{Reason: "x", By: "ann"})
	var refused *protocol.Error
	if !errors.As(err, &refused) || refused.Code != protocol.CodeNotFound {
		t.Errorf("unknown group: %v", err)
	}
	err = p.api.PutPolicy(t.Context(), []byte("services: []\n"), "ann", "")
	if !errors.As(err, &refused) || refused.Code != protocol.CodeInvalidArgument || refused.Field != "services" {
		t.Errorf("bad policy: %v", err)
	}
	if err := p.api.PutPolicy(t.Context(), []byte(strings.Replace(string(policy.Default), "mode: act ", "mode: observe ", 1)), "ann", "to look on"); err != nil {
		t.Fatal(err)
	}
	p.status("put", func(s ctlapi.Status) bool { return s.Mode == string(decide.ModeObserve) })
}

// TestNoDiskNoDecision: what cannot be kept does not take effect.
func TestNoDiskNoDecision(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		// Root may write anywhere; a folder in the place of the file stops it too.
		t.Log("running as root")
	}
	cfg := testConfig(t)
	w := newWorld()
	p := run(t, cfg, w)
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	before := p.status("programmed", func(s ctlapi.Status) bool { return acked(s) && !s.TelemetryStale })
	for len(edge.Events) > 0 {
		<-edge.Events
	}
	state := filepath.Join(cfg.Dir, stateFile)
	os.Remove(state)
	if err := os.MkdirAll(filepath.Join(state, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := p.api.Isolate(t.Context(), sick.ID(), byHand)
	var refused *protocol.Error
	if !errors.As(err, &refused) || refused.Code != protocol.CodeUnavailable {
		t.Fatalf("order: %v", err)
	}
	s := p.status("shown", func(s ctlapi.Status) bool { return s.NotDurable != "" })
	if s.Version != before.Version || len(edge.Events) != 0 {
		t.Errorf("it took effect: %+v", s)
	}
	os.RemoveAll(state)
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = time.Second })
	p.placed("healed", func(pl placement.Placement) bool { return pl.Pool(sick) == semconv.PoolIsolated })
	p.status("not shown any more", func(s ctlapi.Status) bool { return s.NotDurable == "" })
	p.stop()
	ds := journaled(t, filepath.Join(cfg.Dir, journalFile))
	if len(ds) == 0 || slices.ContainsFunc(ds, func(d decide.Decision) bool { return d.By != decide.ByPolicy }) {
		t.Errorf("the journal has what never took effect: %+v", ds)
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	os.Remove(cfg.Endpoints)
	addr := freeport.ForTest(t)
	cfg.ControlAddress, cfg.XDSAddress = addr, freeport.ForTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	w := newWorld()
	go func() {
		done <- Run(ctx, cfg, Deps{Stats: w, Decisions: w, Registry: prometheus.NewRegistry()}, slog.New(slog.DiscardHandler))
	}()
	client := &http.Client{Timeout: 5 * time.Second}
	get := func(path string) int {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	eventually(t, "healthy, not ready", func() bool { return get("/healthz") == 200 && get("/readyz") == 503 }, func() any { return nil })
	write(t, cfg.Endpoints, endpoints)
	eventually(t, "ready", func() bool { return get("/readyz") == 200 && get("/metrics") == 200 }, func() any { return nil })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestConfigNamesTheKey(t *testing.T) {
	t.Parallel()
	valid := DefaultConfig()
	valid.Token = token
	if err := valid.Validate(); err != nil {
		t.Error(err)
	}
	for key, change := range map[string]func(*Config){
		"dir":            func(c *Config) { c.Dir = "" },
		"policy":         func(c *Config) { c.Policy = "" },
		"endpoints":      func(c *Config) { c.Endpoints = "" },
		"xdsAddress":     func(c *Config) { c.XDSAddress = "0.0.0.0:18000" },
		"controlAddress": func(c *Config) { c.ControlAddress = "localhost" },
		"token":          func(c *Config) { c.Token = "short" },
		"evaluate":       func(c *Config) { c.Evaluate = 0 },
		"statsTimeout":   func(c *Config) { c.StatsTimeout = 0 },
		"ackTimeout":     func(c *Config) { c.AckTimeout = 0 },
		"edge listen":    func(c *Config) { c.Edge.Listen = "" },
		"edge wasm path": func(c *Config) { c.Edge.Wasm.Path = "folder/filter.wasm" },
		"server":         func(c *Config) { c.Server.MaxEdges = 0 },
	} {
		c := valid
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", valid, valid, valid.Token); strings.Contains(s, token) {
		t.Error("the token prints")
	}
}
