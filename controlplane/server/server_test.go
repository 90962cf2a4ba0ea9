package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// chain is a server with what a test needs around it.
type chain struct {
	*server.Server
	t    *testing.T
	addr string
	reg  *prometheus.Registry
}

func start(t *testing.T, change func(*server.Config)) chain {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.Warmup, cfg.RetryMin, cfg.RetryMax = 20*time.Millisecond, 10*time.Millisecond, 40*time.Millisecond
	if change != nil {
		change(&cfg)
	}
	reg := prometheus.NewRegistry()
	s := server.New(cfg, reg, slog.New(slog.DiscardHandler))
	lis, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, lis) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return chain{Server: s, t: t, addr: lis.Addr().String(), reg: reg}
}

// wait returns when ok holds of the first edge; it looks whenever something changed.
func (c chain) wait(what string, ok func(server.Edge) bool) server.Edge {
	c.t.Helper()
	deadline := time.After(time.Minute)
	for {
		edges := c.Edges()
		if len(edges) > 0 && ok(edges[0]) {
			return edges[0]
		}
		select {
		case <-c.Changed():
		case <-deadline:
			c.t.Fatalf("%s: not within 10s: %+v", what, edges)
		}
	}
}

func (c chain) inSync(snap *xds.Snapshot) server.Edge {
	c.t.Helper()
	return c.wait("in sync", func(e server.Edge) bool { return e.InSync && e.Version == snap.Version })
}

func snapshot(t *testing.T, change func(*plan.Plan)) *xds.Snapshot {
	t.Helper()
	p := plan.Plan{
		Edge:   plan.Edge{Listen: "127.0.0.1:8080", Observe: "127.0.0.1:4317"},
		Filter: "{}",
		Services: []plan.Service{{
			Name:   "core",
			Pools:  []plan.Pool{{Name: "baseline", Endpoints: []string{"127.0.0.1:9101"}}},
			Routes: []plan.Route{{Name: "all", Prefix: "/", Timeout: time.Second}},
		}},
	}
	if change != nil {
		change(&p)
	}
	s, err := xds.Build(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// withPool adds a pool and a group that is served by it.
func withPool(p *plan.Plan) {
	p.Services[0].Pools = append(p.Services[0].Pools, plan.Pool{Name: "isolated", Endpoints: []string{"127.0.0.1:9103"}})
	p.Moves = []plan.Move{{Group: "abcdef", Pool: "isolated"}}
}

func take(e *servertest.Edge, n int) []string {
	var out []string
	for range n {
		g := e.Next()
		line := g.Type.String()
		if g.Nacked {
			line += "!"
		}
		for _, name := range g.Updated {
			line += " +" + name
		}
		for _, name := range g.Removed {
			line += " -" + name
		}
		out = append(out, line)
	}
	return out
}

func expect(t *testing.T, e *servertest.Edge, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, take(e, len(want))); diff != "" {
		t.Fatalf("responses (-want +got):\n%s", diff)
	}
}

var first = []string{"cds +core.baseline +observe", "eds +core.baseline", "lds +edge", "ecds +jwt", "rds +edge", "ecds +jwt-require", "vhds +edge/none.invalid", "ecds +ratelimit", "ecds +traffic"}

// settled has an edge with base acknowledged and its responses taken.
func settled(t *testing.T, c chain, o servertest.Options, base *xds.Snapshot) *servertest.Edge {
	t.Helper()
	c.Set(base)
	e := servertest.Connect(t, c.addr, o)
	c.inSync(base)
	n := 0
	for _, rs := range base.Resources {
		n += len(rs)
	}
	for n > 0 {
		g := e.Next()
		n -= len(g.Updated)
	}
	return e
}

func TestFirstConfigurationComesInOrder(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	snap := snapshot(t, nil)
	c.Set(snap)
	e := servertest.Connect(t, c.addr, servertest.Options{})
	expect(t, e, first...)
	got := c.inSync(snap)
	for i := range xds.NumTypes {
		if got.Acked[xds.Type(i)] != snap.Version {
			t.Errorf("acked %s: %q", xds.Type(i), got.Acked[xds.Type(i)])
		}
	}
	if diff := cmp.Diff([]string{"cds synced", "eds synced", "lds synced", "ecds synced", "rds synced", "vhds synced"}, stands(got)); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
}

// stands is how an edge stands with each type, in words.
func stands(e server.Edge) []string {
	var out []string
	for _, ty := range e.Types {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", ty.Type, ty.State, ty.Reason)))
	}
	return out
}

// TestStatusSaysWhatWaitsForWhat holds an answer back.
func TestStatusSaysWhatWaitsForWhat(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, nil)
	e := settled(t, c, servertest.Options{}, base)
	before := c.inSync(base).Types
	answered := make(chan struct{})
	e.Answer(func(xds.Type, *discoveryv3.DeltaDiscoveryResponse) string { <-answered; return "" })
	next, asked := snapshot(t, withPool), time.Now()
	c.Set(next)
	stale := c.wait("stale", func(e server.Edge) bool { return !e.InSync })
	want := []string{
		"cds stale sent, and not answered yet", "eds stale the edge has not asked for all of it", "lds synced",
		"ecds synced", "rds stale what it refers to goes first", "vhds synced",
	}
	if diff := cmp.Diff(want, stands(stale)); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	close(answered)
	synced := c.inSync(next)
	for i, ty := range synced.Types {
		switch was := stale.Types[i]; {
		case ty.State != server.Synced:
			t.Errorf("in sync, and %+v", ty)
		case was.State == server.Synced && !ty.Since.Equal(before[i].Since):
			t.Errorf("%s did not change, and is synced since %s instead of %s", ty.Type, ty.Since, before[i].Since)
		case was.State == server.Stale && (was.Since.Before(asked) || ty.Since.Before(was.Since)):
			t.Errorf("%s is asked for at %s, stale since %s, synced since %s", ty.Type, asked, was.Since, ty.Since)
		}
	}
}

func TestEdgeWaitsForTheFirstSnapshot(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	e := servertest.Connect(t, c.addr, servertest.Options{})
	c.wait("connected", func(e server.Edge) bool { return e.Connected && !e.InSync })
	snap := snapshot(t, nil)
	c.Set(snap)
	expect(t, e, first...)
	c.inSync(snap)
}

// TestChangedClusterGetsItsEndpointsAgain: Envoy does not ask for them.
func TestChangedClusterGetsItsEndpointsAgain(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, withPool)
	e := settled(t, c, servertest.Options{}, base)
	changed := snapshot(t, func(p *plan.Plan) {
		withPool(p)
		p.Services[0].Pools[1].CircuitBreakers = &policy.CircuitBreakers{MaxRequests: 10}
	})
	c.Set(changed)
	expect(t, e, "cds +core.isolated", "eds +core.isolated")
	c.inSync(changed)
	c.Set(base)
	expect(t, e, "cds +core.isolated", "eds +core.isolated")
	c.inSync(base)
}

// TestMakeBeforeBreak adds a pool with a route to it and takes both away again.
func TestMakeBeforeBreak(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base, more := snapshot(t, nil), snapshot(t, withPool)
	e := settled(t, c, servertest.Options{}, base)

	c.Set(more)
	expect(t, e, "cds +core.isolated", "eds +core.isolated", "rds +edge")
	c.inSync(more)

	c.Set(base)
	expect(t, e, "rds +edge", "cds -core.isolated")
	c.inSync(base)
}

// hosted adds services s0 to s<n-1>, each with a host of its own.
func hosted(n int, path string) func(*plan.Plan) {
	return func(p *plan.Plan) {
		for i := range n {
			name := fmt.Sprintf("s%d", i)
			p.Services = append(p.Services, plan.Service{
				Name: name, Pools: []plan.Pool{{Name: "baseline", Endpoints: []string{"127.0.0.1:9104"}}},
				Rules: []plan.Rule{{Name: "all", Service: name, Match: []plan.Match{{Hosts: []string{name + ".test"}, Prefix: path}}}},
			})
		}
	}
}

// TestVirtualHostsComeLast: they refer to choosers, which come with the routes, and
// nobody may refer to what is taken away before they are gone.
func TestVirtualHostsComeLast(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base, more := snapshot(t, nil), snapshot(t, hosted(2, "/a"))
	e := settled(t, c, servertest.Options{}, base)
	c.Set(more)
	expect(t, e, "cds +s0.baseline +s1.baseline", "eds +s0.baseline +s1.baseline", "rds +edge", "vhds +edge/s0.test +edge/s1.test")
	c.inSync(more)

	other := snapshot(t, func(p *plan.Plan) {
		hosted(2, "/a")(p)
		p.Services[1].Rules[0].Timeout = time.Minute
	})
	c.Set(other)
	expect(t, e, "vhds +edge/s0.test") // and nothing else
	c.inSync(other)

	c.Set(base)
	expect(t, e, "rds +edge", "vhds -edge/s0.test -edge/s1.test", "cds -s0.baseline -s1.baseline")
	c.inSync(base)
}

// TestRefusedVirtualHostKeepsNoOtherBack: Envoy refuses all of a response.
func TestRefusedVirtualHostKeepsNoOtherBack(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, hosted(3, "/a"))
	e := settled(t, c, servertest.Options{}, base)
	e.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.GetResources() {
			if old, _ := base.Find(typ, res.GetName()); res.GetName() == "edge/s1.test" && res.GetVersion() != old.Version {
				return "virtual host edge/s1.test: no such thing"
			}
		}
		return ""
	})
	bad := snapshot(t, hosted(3, "/b"))
	c.Set(bad)
	expect(t, e, "vhds! +edge/s0.test +edge/s1.test +edge/s2.test", "vhds +edge/s0.test +edge/s1.test +edge/s2.test") // and undone
	got := c.wait("the others", func(e server.Edge) bool { return len(e.Nacks) > 0 && e.Nacks[0].Count > 1 })
	if n := got.Nacks[0]; n.Type != xds.VirtualHosts || n.Resource != "edge/s1.test" || got.InSync {
		t.Errorf("status: %+v", got)
	}
	if says := stands(got); says[len(says)-1] != "vhds nacked virtual host edge/s1.test: no such thing" {
		t.Errorf("types: %q", says)
	}
	for _, name := range []string{"edge/s0.test", "edge/s2.test"} {
		want, _ := bad.Find(xds.VirtualHosts, name)
		deadline := time.After(time.Minute)
		for e.Has()[xds.VirtualHosts][name] != want.Version {
			select {
			case <-e.Events:
			case <-deadline:
				t.Fatalf("%s is kept back", name)
			}
		}
	}
	right := snapshot(t, func(p *plan.Plan) {
		hosted(3, "/b")(p)
		p.Services[2].Rules = nil
	})
	e.Answer(nil)
	c.Set(right)
	c.inSync(right)
}

func TestReconnectBringsVirtualHosts(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, hosted(2, "/a"))
	e := settled(t, c, servertest.Options{}, base)
	has := e.Has()
	e.Close()
	<-e.Ended
	c.wait("gone", func(e server.Edge) bool { return !e.Connected })
	next := snapshot(t, hosted(1, "/a"))
	c.Set(next)
	again := servertest.Connect(t, c.addr, servertest.Options{Has: has})
	expect(t, again, "rds +edge", "vhds -edge/s1.test", "cds -s1.baseline")
	c.inSync(next)
	again.Subscribe(xds.VirtualHosts, "edge")
	expect(t, again, "vhds +edge/none.invalid +edge/s0.test")
	c.inSync(next)
}

func TestRoutesWaitForNewClustersToWarm(t *testing.T) {
	t.Parallel()
	c := start(t, func(cfg *server.Config) { cfg.Warmup = 150 * time.Millisecond })
	base, more := snapshot(t, nil), snapshot(t, withPool)
	e := settled(t, c, servertest.Options{}, base)
	c.Set(more)
	expect(t, e, "cds +core.isolated", "eds +core.isolated")
	acked := time.Now()
	expect(t, e, "rds +edge")
	if since := time.Since(acked); since < 100*time.Millisecond {
		t.Errorf("routes came %v after the cluster's endpoints, before it was warm", since)
	}

	// A move between pools that are warm waits for nothing.
	c.Set(snapshot(t, func(p *plan.Plan) {
		withPool(p)
		p.Moves = append(p.Moves, plan.Move{Group: "bbbbbb", Pool: "isolated"})
	}))
	expect(t, e, "rds +edge")
}

// TestRoutesWaitForAcknowledgedClusters holds back the answer to the clusters.
func TestRoutesWaitForAcknowledgedClusters(t *testing.T) {
	t.Parallel()
	c := start(t, func(cfg *server.Config) { cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour })
	base, more := snapshot(t, nil), snapshot(t, withPool)
	e := settled(t, c, servertest.Options{}, base)
	e.Answer(func(typ xds.Type, _ *discoveryv3.DeltaDiscoveryResponse) string {
		if typ == xds.Clusters {
			return "no"
		}
		return ""
	})
	c.Set(more)
	expect(t, e, "cds! +core.isolated", "cds! -core.isolated")
	// What comes next must be filter configuration, which waits for nobody: were
	// routes not held back, they would be there by now.
	c.Set(snapshot(t, func(p *plan.Plan) { withPool(p); p.Edge.JWKS = `{"keys":[]}` }))
	expect(t, e, "ecds +jwt")
	if st := c.Edges()[0]; st.InSync || st.Acked[xds.Routes] != "" {
		t.Errorf("status: %+v", st)
	}
}

func TestNackIsShownUndoneAndRetried(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base, more := snapshot(t, nil), snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = "other" })
	e := settled(t, c, servertest.Options{}, base)
	good := e.Has()

	rejected := 0
	e.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		if typ != xds.Routes || r.GetResources()[0].GetVersion() == good[xds.Routes]["edge"] {
			return ""
		}
		if rejected++; rejected > 2 {
			return ""
		}
		return "route edge: no such thing"
	})
	c.Set(more)
	// Rejected, back to what was good, offered again, twice; then taken.
	expect(t, e, "rds! +edge", "rds +edge", "rds! +edge", "rds +edge", "rds +edge")
	got := c.inSync(more)
	if len(got.Nacks) != 1 {
		t.Fatalf("nacks: %+v", got.Nacks)
	}
	n := got.Nacks[0]
	if n.Type != xds.Routes || n.Resource != "edge" || n.Reason != "route edge: no such thing" || n.Count != 2 || n.Version != more.Version {
		t.Errorf("nack: %+v", n)
	}
	if _, ok := got.Rejected(more.Version); !ok {
		t.Error("the version does not count as rejected")
	}
	want := "# HELP tracegate_xds_nacks_total Responses rejected by an edge.\n# TYPE tracegate_xds_nacks_total counter\n" +
		"tracegate_xds_nacks_total{edge=\"edge-1\",type=\"rds\"} 2\n"
	if err := testutil.GatherAndCompare(c.reg, strings.NewReader(want), "tracegate_xds_nacks_total"); err != nil {
		t.Error(err)
	}
}

func TestRightVersionAfterNackIsSentAtOnce(t *testing.T) {
	t.Parallel()
	c := start(t, func(cfg *server.Config) { cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour })
	base := snapshot(t, nil)
	e := settled(t, c, servertest.Options{}, base)
	bad := snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = "bad" })
	badRoutes, _ := bad.Find(xds.Routes, "edge")
	e.Answer(func(_ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.GetResources() {
			if res.GetVersion() == badRoutes.Version {
				return "bad"
			}
		}
		return ""
	})
	c.Set(bad)
	expect(t, e, "rds! +edge", "rds +edge")
	right := snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = "right" })
	c.Set(right)
	expect(t, e, "rds +edge")
	c.inSync(right)
}

// TestRejectedFilterIsNotOfferedAgain: Envoy would acknowledge the second offer
// without having loaded it.
func TestRejectedFilterIsNotOfferedAgain(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, nil)
	e := settled(t, c, servertest.Options{}, base)
	filter, _ := base.Find(xds.Extensions, xds.FilterName)
	e.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		if typ == xds.Extensions && r.GetSystemVersionInfo() != base.Version && r.GetResources()[0].GetVersion() != filter.Version {
			return "Unable to create Wasm plugin traffic"
		}
		return ""
	})
	withFilter := func(p *plan.Plan) {
		p.Edge.Wasm = plan.Wasm{Path: "/nowhere.wasm", SHA256: strings.Repeat("00", 32)}
	}
	c.Set(snapshot(t, withFilter))
	expect(t, e, "ecds! +traffic", "ecds +traffic") // and the one before again
	// A move is not held up by the filter, and what comes next is that move, not the
	// filter once more.
	c.Set(snapshot(t, func(p *plan.Plan) {
		withFilter(p)
		p.Services[0].Routes[0].Name = "moved"
	}))
	expect(t, e, "rds +edge")
	if st := c.Edges()[0]; st.InSync {
		t.Error("an edge without its filter counts as in sync")
	}
}

func TestReconnectSendsOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, nil)
	e := settled(t, c, servertest.Options{}, base)
	has := e.Has()
	e.Close()
	<-e.Ended
	gone := c.wait("gone", func(e server.Edge) bool { return !e.Connected })
	for _, ty := range gone.Types {
		if ty.State != server.Stale || ty.Reason != "not connected" || ty.Since.Before(gone.Since) {
			t.Errorf("an edge that has gone: %+v", ty)
		}
	}

	again := servertest.Connect(t, c.addr, servertest.Options{Has: has})
	c.wait("back", func(e server.Edge) bool { return e.Connected && e.InSync })
	if n := len(c.Edges()); n != 1 {
		t.Errorf("%d edges are known, want the one", n)
	}
	next := snapshot(t, func(p *plan.Plan) { p.Services[0].Routes[0].Name = "next" })
	c.Set(next)
	expect(t, again, "rds +edge") // the first response there is
	c.inSync(next)
}

// TestSubscribingAgainSendsAgain: the edge may have forgotten (xDS protocol).
func TestSubscribingAgainSendsAgain(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	base := snapshot(t, nil)
	e := settled(t, c, servertest.Options{}, base)
	e.Subscribe(xds.Endpoints, "core.baseline")
	expect(t, e, "eds +core.baseline")
	c.inSync(base)
}

func TestTwoEdgesGoAtTheirOwnPace(t *testing.T) {
	t.Parallel()
	c := start(t, func(cfg *server.Config) { cfg.RetryMin, cfg.RetryMax = time.Hour, time.Hour })
	base := snapshot(t, nil)
	c.Set(base)
	a := servertest.Connect(t, c.addr, servertest.Options{ID: "a"})
	b := servertest.Connect(t, c.addr, servertest.Options{ID: "b", Answer: func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		if typ == xds.Listeners && len(r.GetResources()) > 0 {
			return "address in use"
		}
		return ""
	}})
	expect(t, a, first...)
	expect(t, b, "cds +core.baseline +observe", "eds +core.baseline", "lds! +edge", "lds -edge")
	c.inSync(base)
	deadline := time.After(time.Minute)
	for {
		edges := c.Edges()
		if len(edges) == 2 && edges[0].InSync && !edges[1].InSync && len(edges[1].Nacks) == 1 {
			return
		}
		select {
		case <-c.Changed():
		case <-deadline:
			t.Fatalf("edges: %+v", edges)
		}
	}
}

// TestServing: which process of an edge serves is known once it has everything.
func TestServing(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	servertest.Connect(t, c.addr, servertest.Options{Generation: 10})
	servertest.Connect(t, c.addr, servertest.Options{ID: "edge-2"}) // does not say
	c.wait("connected", func(server.Edge) bool { return len(c.Edges()) == 2 })
	if got := c.Serving(); len(got) != 0 {
		t.Errorf("without a snapshot %v serve", got)
	}
	base := snapshot(t, nil)
	c.Set(base)
	serving := func(generation int64) func(server.Edge) bool {
		return func(server.Edge) bool { s := c.Serving(); return len(s) == 1 && s["edge-1"] == generation }
	}
	c.wait("the first serves", serving(10))
	next := servertest.Connect(t, c.addr, servertest.Options{Generation: 20})
	c.wait("the next serves", serving(20))
	next.Close()
	c.wait("the first is what is left", serving(10))
}

func TestStreamsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first *discoveryv3.DeltaDiscoveryRequest
		want  codes.Code
	}{
		"no node":       {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Clusters.URL()}, codes.InvalidArgument},
		"long node id":  {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Clusters.URL(), Node: &corev3.Node{Id: strings.Repeat("x", 65)}}, codes.InvalidArgument},
		"node id lines": {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Clusters.URL(), Node: &corev3.Node{Id: "a\nb"}}, codes.InvalidArgument},
		"unknown type":  {&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.service.load_stats.v3.LoadStatsResponse", Node: &corev3.Node{Id: "a"}}, codes.InvalidArgument},
		"no type":       {&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "a"}}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			stream := open(t, s.addr)
			if err := stream.Send(c.first); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != c.want {
				t.Errorf("stream ended with %v, want %v", err, c.want)
			}
		})
	}
}

func TestEdgesAreBounded(t *testing.T) {
	t.Parallel()
	c := start(t, func(cfg *server.Config) { cfg.MaxEdges = 1 })
	servertest.Connect(t, c.addr, servertest.Options{})
	c.wait("connected", func(e server.Edge) bool { return e.Connected })
	if _, err := open(t, c.addr).Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the second stream ended with %v", err)
	}
}

func open(t *testing.T, addr string) discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestConfigNamesTheKey(t *testing.T) {
	t.Parallel()
	if err := server.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for key, change := range map[string]func(*server.Config){
		"maxEdges":   func(c *server.Config) { c.MaxEdges = 0 },
		"maxClients": func(c *server.Config) { c.MaxClients = 0 },
		"warmup":     func(c *server.Config) { c.Warmup = -1 },
		"retryMin":   func(c *server.Config) { c.RetryMin = 0 },
		"retryMax":   func(c *server.Config) { c.RetryMax = time.Millisecond },
	} {
		c := server.DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
