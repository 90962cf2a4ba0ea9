package console_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/console"
	"github.com/tracegate/tracegate/observability/ingest"
	"github.com/tracegate/tracegate/observability/ingest/otlp"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

const password = "hN3-example-password"

// fakes stand for the store, the control plane and the ingest.
type fakes struct {
	mu       sync.Mutex
	statsErr error
	ctlErr   error
	refuse   error
	skew     time.Duration // of the console's clock
	empty    bool          // nothing is measured
	boost    float64       // multiplies the measured requests
	groups   []ctlapi.Group
	decided  []decide.Decision
	status   ctlapi.Status
	orders   []string
	asked    int // questions for GroupStats
	traces   []store.Span
	queries  []store.TraceQuery
	calls    []store.Call

	callsLeftOut uint64
	lost         uint64 // records that ClickHouse refused

	hang chan struct{} // GroupStats waits for it

	report     console.KernelReport
	probesErr  error
	probesHang chan struct{} // Probes waits for it
	probed     int           // questions for Probes

	pieces    []sli.Window  // of the past that were asked for
	known     time.Duration // how long the past is
	slowSince time.Time     // canary is, in minutes

	old []decide.Decision // that only the store has
}

// probes is an answer of package bpf at /v1/probes.
//
//go:embed testdata/probes.json
var probes []byte

func kernelReport() console.KernelReport {
	var r console.KernelReport
	if err := json.Unmarshal(probes, &r); err != nil {
		panic(err) // the file is part of the test
	}
	return r
}

var (
	search = group.Group{Env: "prod", Tenant: "search"}
	canary = group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "payment"}
	pay    = group.Group{Env: "prod", Tenant: "payment"}
)

func newFakes() *fakes {
	now := time.Now()
	home := func(g group.Group, cohort, pool string) ctlapi.Group {
		return ctlapi.Group{Group: g.ID(), Color: g.Color, Cohort: cohort, Env: g.Env, Tenant: g.Tenant, Pool: pool, Home: pool, State: ctlapi.StateHome}
	}
	f := &fakes{
		boost:  1,
		known:  30 * 24 * time.Hour,
		calls:  exampleCalls(),
		report: kernelReport(),
		groups: []ctlapi.Group{home(search, "", "baseline"), home(canary, "canary", "canary"), home(pay, "", "baseline")},
		status: ctlapi.Status{
			Version: "17", LastGood: "17", Mode: "act",
			Edges: []ctlapi.Edge{{
				ID: "edge-1", Connected: true, InSync: true, Since: now.Add(-3 * time.Hour),
				Acked: map[string]string{
					"type.googleapis.com/envoy.config.listener.v3.Listener": "3", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": "17",
					"type.googleapis.com/envoy.config.cluster.v3.Cluster": "4", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment": "9",
					"type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig": "6",
				},
			}},
			Sources: map[string]ctlapi.Source{"policy": {File: "/data/policy.yaml", Loaded: now.Add(-3 * time.Hour)}, "endpoints": {File: "/data/endpoints.yaml", Loaded: now.Add(-3 * time.Hour)}},
		},
	}
	for i := range f.report.Alerts {
		f.report.Alerts[i].Since = now.Add(-72 * time.Second)
	}
	f.decided = []decide.Decision{f.decision("01-isolate", decide.Isolate, now.Add(-4*time.Minute), "canary", "isolated"), f.decision("02-release", decide.Release, now.Add(-2*time.Minute), "isolated", "canary")}
	f.traces = exampleTrace(now.Add(-20 * time.Second))
	return f
}

func (f *fakes) decision(id string, action decide.Action, at time.Time, from, to string) decide.Decision {
	d := decide.Decision{
		ID: id, Time: at, Action: action, Group: canary.ID(), Color: canary.Color, Env: canary.Env, Tenant: canary.Tenant, Service: "core",
		FromPool: from, ToPool: to, By: "policy", Programmed: at.Add(112 * time.Millisecond), Version: "16",
		Stats: sli.Stats{
			Group: canary.ID(), Service: "core", Pool: from, Window: sli.Window{From: at.Add(-2 * time.Second), To: at},
			Requests: 96, Errors: 31, P50: 18 * time.Millisecond, P95: 412 * time.Millisecond, P99: 630 * time.Millisecond,
		},
		Reason: "errors 32.3% of 96 requests in 2 s, objective 1%, baseline 0% of 240",
	}
	if action == decide.Release {
		d.Reason = "errors 0% of 110 requests in 30 s since 60 s, objective 1%"
		d.Stats.Errors, d.Stats.P95 = 0, 41*time.Millisecond
		return d
	}
	d.Causes = []string{"connects to kafka (127.0.0.1:9092) take 410ms (P95 of 37, threshold 200ms)", "preempted threads wait for a CPU for 23ms (P95 of 2104, threshold 10ms)"}
	d.FirstBad = at.Add(-1400 * time.Millisecond)
	d.Baseline = &sli.Stats{Pool: "baseline", Window: d.Stats.Window, Requests: 240, P50: 15 * time.Millisecond, P95: 39 * time.Millisecond, P99: 52 * time.Millisecond}
	return d
}

func exampleTrace(at time.Time) []store.Span {
	id := canary.Color.String() + "5b8aa5a2d2c872e8321cf37308"
	id = id[:32]
	span := func(n, parent int, service, name, kind string, start, took time.Duration, status string) store.Span {
		s := store.Span{
			Timestamp: at.Add(start), TraceID: id, SpanID: fmt.Sprintf("%016x", n), Service: service, Name: name, Kind: kind, Duration: took, Status: status,
			Attributes: map[string]string{"traffic.group": string(canary.ID())}, Traffic: store.Traffic{Group: canary.ID(), Color: canary.Color, Env: canary.Env, Tenant: canary.Tenant, Pool: "canary"},
		}
		if parent > 0 {
			s.ParentSpanID = fmt.Sprintf("%016x", parent)
		}
		return s
	}
	entry := span(1, 0, "edge", "POST", "Server", 0, 48*time.Millisecond, "Error")
	entry.Attributes["http.response.status_code"] = "503"
	entry.Attributes["url.path"] = "/v1/conversations/c1/messages"
	entry.Traffic.Route, entry.Traffic.Entry, entry.Traffic.Service = "core", true, "core"
	return []store.Span{
		entry,
		span(2, 1, "core", "POST /v1/conversations/{conversation}/messages", "Server", 2*time.Millisecond, 44*time.Millisecond, "Error"),
		span(3, 2, "core", "send messages", "Producer", 9*time.Millisecond, 6*time.Millisecond, "Ok"),
		span(4, 3, "core", "process messages", "Consumer", 21*time.Millisecond, 18*time.Millisecond, "Ok"),
	}
}

func (f *fakes) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// measure makes up stats of a window that wander with time, the same for the same second.
func (f *fakes) measure(g group.Group, pool string, w sli.Window) sli.Stats {
	h := fnv.New32()
	fmt.Fprint(h, g.ID(), w.From.Unix())
	wobble := 0.85 + 0.3*float64(h.Sum32()%1000)/1000
	base := map[string]float64{"search": 84, "payment": 31}[g.Tenant] * (1 + 0.3*math.Sin(float64(w.From.Unix())/40))
	n := uint64(base * wobble * w.To.Sub(w.From).Seconds() * f.boost)
	s := sli.Stats{
		Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Pool: pool, Window: w, Requests: n,
		P50: 15 * time.Millisecond, P95: time.Duration(38*wobble) * time.Millisecond, P99: 61 * time.Millisecond,
	}
	if g == canary && time.Since(w.From) > 4*time.Minute && time.Since(w.From) < 270*time.Second {
		s.Errors, s.P95 = n/3, 410*time.Millisecond
	}
	return s
}

func (f *fakes) GroupStats(ctx context.Context, w sli.Window, _ ...string) ([]sli.Stats, error) {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.statsErr != nil {
		return nil, f.statsErr
	}
	if f.empty {
		return nil, nil
	}
	return []sli.Stats{f.measure(search, "baseline", w), f.measure(canary, f.groups[1].Pool, w), f.measure(pay, "baseline", w)}, nil
}

func (f *fakes) GroupSeries(_ context.Context, w sli.Window, step time.Duration, only ...group.ID) ([]sli.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.statsErr != nil {
		return nil, f.statsErr
	}
	if len(only) > 0 {
		return f.minutes(w, only), nil
	}
	var out []sli.Stats
	for at := w.From; !f.empty && at.Before(w.To); at = at.Add(step) {
		for _, g := range []group.Group{search, canary, pay} {
			out = append(out, f.measure(g, "baseline", sli.Window{From: at, To: at.Add(step)}))
		}
	}
	return out, nil
}

// minutes are days without surprises, but that canary is slow since slowSince.
func (f *fakes) minutes(w sli.Window, only []group.ID) (out []sli.Stats) {
	f.pieces = append(f.pieces, w)
	for at := w.From; at.Before(w.To); at = at.Add(time.Minute) {
		if time.Since(at) > f.known {
			continue
		}
		for _, g := range []group.Group{search, canary, pay} {
			s := sli.Stats{Group: g.ID(), Color: g.Color, Env: g.Env, Tenant: g.Tenant, Service: "core", Window: sli.Window{From: at, To: at.Add(time.Minute)}, Requests: 1800, P95: 38 * time.Millisecond}
			if g == canary && !f.slowSince.IsZero() && !at.Before(f.slowSince) {
				s.P95 = 412 * time.Millisecond
			}
			if slices.Contains(only, s.Group) {
				out = append(out, s)
			}
		}
	}
	return out
}

func (f *fakes) Calls(context.Context, sli.Window) ([]store.Call, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.empty {
		return nil, 0, f.statsErr
	}
	return f.calls, f.callsLeftOut, f.statsErr
}

func (f *fakes) Traces(_ context.Context, q store.TraceQuery) ([]store.Span, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	if f.statsErr != nil {
		return nil, f.statsErr
	}
	if q.Group != canary.ID() {
		return nil, nil
	}
	return f.traces[:1], nil
}

func (f *fakes) Trace(_ context.Context, id string) ([]store.Span, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.statsErr != nil {
		return nil, f.statsErr
	}
	if id != f.traces[0].TraceID {
		return nil, nil
	}
	return f.traces, nil
}

func (f *fakes) Status(context.Context) (ctlapi.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, f.ctlErr
}

func (f *fakes) Groups(context.Context) ([]ctlapi.Group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]ctlapi.Group{}, f.groups...), f.ctlErr
}

// controlled is the control plane's side of fakes, whose Decisions differ from the
// store's.
type controlled struct{ *fakes }

func (c controlled) Decisions(context.Context, int) ([]decide.Decision, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]decide.Decision{}, c.decided...), c.ctlErr
}

func (f *fakes) Decisions(context.Context, int) ([]decide.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := append([]decide.Decision{}, f.decided...)
	for i := range kept {
		kept[i].Reason += " (as stored)"
	}
	return kept, f.statsErr
}

func (f *fakes) DecisionsIn(_ context.Context, w sli.Window, limit int, only ...group.ID) ([]decide.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []decide.Decision
	for _, d := range slices.Concat(f.old, f.decided) {
		if !d.Time.Before(w.From) && d.Time.Before(w.To) && (len(only) == 0 || slices.Contains(only, d.Group)) && len(out) < limit {
			out = append(out, d)
		}
	}
	return out, f.statsErr
}

func (f *fakes) Isolate(_ context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error) {
	return f.order("isolate", decide.Isolate, id, o, "isolated", ctlapi.StateForced)
}

func (f *fakes) Confirm(_ context.Context, id string, o ctlapi.Order) (decide.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return decide.Decision{}, f.refuse
	}
	f.orders = append(f.orders, fmt.Sprintf("confirm %s by %s: %s", id, o.By, o.Reason))
	d := f.decision("99-confirmed", decide.Isolate, time.Now(), "canary", "isolated")
	d.By, d.Confirms = "operator:"+o.By, id
	f.decided = append(f.decided, d)
	return d, nil
}

func (f *fakes) Shed(_ context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error) {
	f.do(func() { f.groups[1].Limit = o.Requests })
	return f.order(fmt.Sprintf("limit to %d", o.Requests), decide.Shed, id, o, "canary", ctlapi.StatePinned)
}

func (f *fakes) Policy(context.Context) (ctlapi.Document, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ctlapi.Document{Revision: &ctlapi.Revision{Number: 4, By: "file"}, Document: policyInForce}, f.ctlErr
}

const policyInForce = "mode: act\nobjectives:\n  p95: 200ms\n"

func (f *fakes) CheckPolicy(_ context.Context, document []byte) (ctlapi.Check, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.Contains(string(document), "p59") {
		return ctlapi.Check{Problems: []policy.Problem{{Path: "objectives.p59", Line: 3, Message: "unknown key, did you mean p95"}}}, f.ctlErr
	}
	return ctlapi.Check{Changes: []ctlapi.Change{{Type: "rds", Name: "edge", What: "changed"}, {Type: "cds", Name: "core/blue", What: "added"}}}, f.ctlErr
}

func (f *fakes) Revisions(context.Context) ([]ctlapi.Revision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Now().Add(-time.Hour)
	return []ctlapi.Revision{
		{Number: 5, Time: at, By: "operator:ada", Reason: "quicker", State: ctlapi.RevisionRolledBack, Why: "errors 50% of 80 requests in canary+payment", BackTo: 4},
		{Number: 4, Time: at.Add(-time.Hour), By: "file", State: ctlapi.RevisionInForce},
	}, f.ctlErr
}

func (f *fakes) Revision(_ context.Context, number int) (ctlapi.Document, error) {
	if number != 5 {
		return ctlapi.Document{}, &protocol.Error{Code: protocol.CodeNotFound, Field: "revision", Message: "there is no such revision"}
	}
	return ctlapi.Document{Document: strings.Replace(policyInForce, "200ms", "100ms", 1)}, nil
}

func (f *fakes) Release(_ context.Context, id group.ID, o ctlapi.Order) (decide.Decision, error) {
	return f.order("release", decide.Release, id, o, "canary", ctlapi.StatePinned)
}

func (f *fakes) order(verb string, action decide.Action, id group.ID, o ctlapi.Order, pool, state string) (decide.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return decide.Decision{}, f.refuse
	}
	for i := range f.groups {
		if f.groups[i].Group != id {
			continue
		}
		f.orders = append(f.orders, fmt.Sprintf("%s %s by %s for %d: %s", verb, id, o.By, o.ForMS, o.Reason))
		d := decide.Decision{ID: fmt.Sprintf("9%d", len(f.orders)), Time: time.Now(), Action: action, Group: id, Env: f.groups[i].Env, Tenant: f.groups[i].Tenant, FromPool: f.groups[i].Pool, ToPool: pool, By: "operator:" + o.By, Reason: o.Reason}
		f.groups[i].Pool, f.groups[i].State, f.groups[i].Since, f.groups[i].By = pool, state, time.Now(), d.By
		f.decided = append(f.decided, d)
		return d, nil
	}
	return decide.Decision{}, &protocol.Error{Code: protocol.CodeNotFound, Message: "no such group"}
}

// Probes gives the report as if it had been read now.
func (f *fakes) Probes(ctx context.Context) (console.KernelReport, error) {
	f.mu.Lock()
	hang := f.probesHang
	f.probed++
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return console.KernelReport{}, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.report
	r.At, r.Probes, r.Latencies = time.Now(), slices.Clone(r.Probes), slices.Clone(r.Latencies) // tests change theirs
	return r, f.probesErr
}

func (f *fakes) Account() ingest.Account {
	f.mu.Lock()
	defer f.mu.Unlock()
	flow := ingest.Flow{Received: 1_284_402 + f.lost, Stored: 1_284_031, Spooled: 0, Pending: 371, Dropped: map[otlp.Reason]uint64{ingest.Rejected: f.lost}}
	return ingest.Account{Flow: flow, Tables: map[otlp.Table]ingest.Flow{otlp.Traces: flow, otlp.Logs: {}}}
}

func (f *fakes) Tables(context.Context) ([]store.Table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []store.Table{
		{Name: "otel_traces", Rows: 1_284_031, Bytes: 66_769_612, Quota: 64_000_000, Parts: 7, Days: 3, Oldest: time.Now().Add(-31 * time.Hour)},
		{Name: "traffic_group", Rows: 70_112, Bytes: 2_004_118, Parts: 5, Days: 90, Oldest: time.Now().Add(-20 * 24 * time.Hour)},
		{Name: "schema_migrations", Rows: 8, Bytes: 812, Parts: 1},
	}, f.statsErr
}

func (f *fakes) Disk(context.Context) (store.Disk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return store.Disk{Free: 41_200_000_000, Total: 120_000_000_000}, f.statsErr
}

var errAway = errors.New("dial tcp 127.0.0.1:8123: connect: connection refused")

// served is a console that runs, and its fakes.
type served struct {
	*fakes
	url      string
	registry *prometheus.Registry
	cfg      console.Config
	stop     func() // ends Run
}

func serve(t *testing.T, change func(*console.Config)) *served {
	t.Helper()
	return serveDeps(t, change, nil)
}

// serveDeps is serve for a console that lacks some of its parts.
func serveDeps(t *testing.T, change func(*console.Config), remove func(*console.Deps)) *served {
	t.Helper()
	cfg := console.DefaultConfig()
	cfg.PasswordFile = filepath.Join(t.TempDir(), "console.password")
	if err := os.WriteFile(cfg.PasswordFile, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Poll = 100 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	f, registry := newFakes(), prometheus.NewRegistry()
	deps := console.Deps{
		Stats: f, Records: f, Control: controlled{f}, Operator: f, Policies: f, Ingest: f, Probes: f, Registerer: registry,
		Now: func() time.Time {
			f.mu.Lock()
			defer f.mu.Unlock()
			return time.Now().Add(f.skew)
		},
	}
	if remove != nil {
		remove(&deps)
	}
	c, err := console.New(cfg, deps, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	server := httptest.NewServer(c.Handler())
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		server.CloseClientConnections()
		server.Close()
	})
	return &served{fakes: f, url: server.URL, registry: registry, cfg: cfg, stop: stop}
}
