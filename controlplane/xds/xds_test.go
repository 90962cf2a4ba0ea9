package xds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	specifierv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/router/cluster_specifiers/matcher/v3"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
)

// consistent is what every rendered plan must hold: what it refers to exists.
func consistent(r resources) error {
	clusters := map[string]bool{}
	for _, c := range r.clusters {
		if clusters[c.GetName()] {
			return fmt.Errorf("cluster %q twice", c.GetName())
		}
		clusters[c.GetName()] = true
	}
	assignments := map[string]*endpointv3.ClusterLoadAssignment{}
	for _, e := range r.endpoints {
		assignments[e.GetClusterName()] = e
		if !clusters[e.GetClusterName()] {
			return fmt.Errorf("endpoints of unknown cluster %q", e.GetClusterName())
		}
	}
	for _, c := range r.clusters {
		if c.GetLoadAssignment() == nil && assignments[c.GetName()] == nil {
			return fmt.Errorf("cluster %q has no endpoints", c.GetName())
		}
	}
	for _, rc := range r.routes {
		plugins := map[string]bool{}
		for _, p := range rc.GetClusterSpecifierPlugins() {
			plugins[p.GetExtension().GetName()] = true
			var m specifierv3.MatcherClusterSpecifier
			if err := p.GetExtension().GetTypedConfig().UnmarshalTo(&m); err != nil {
				return err
			}
			for _, name := range chosen(m.GetClusterMatcher()) {
				if !clusters[name] {
					return fmt.Errorf("chooser %q of unknown cluster %q", p.GetExtension().GetName(), name)
				}
			}
		}
		for _, route := range slices.Concat(routesOf(rc.GetVirtualHosts()), routesOf(r.hosts)) {
			a, ok := route.GetAction().(*routev3.Route_Route)
			if !ok {
				continue
			}
			if plugin := a.Route.GetClusterSpecifierPlugin(); plugin != "" && !plugins[plugin] {
				return fmt.Errorf("route %q to unknown plugin %q", route.GetName(), plugin)
			}
			for _, name := range targets(a.Route) {
				if !clusters[name] {
					return fmt.Errorf("route %q to unknown cluster %q", route.GetName(), name)
				}
			}
		}
	}
	names := map[string]bool{}
	for _, e := range r.extensions {
		names[e.GetName()] = true
	}
	for _, f := range (entrance{}).httpFilters() {
		if f.GetConfigDiscovery() != nil && !names[f.GetName()] {
			return fmt.Errorf("filter %q has no configuration", f.GetName())
		}
	}
	return nil
}

func routesOf(hosts []*routev3.VirtualHost) []*routev3.Route {
	var out []*routev3.Route
	for _, h := range hosts {
		out = append(out, h.GetRoutes()...)
	}
	return out
}

// chosen are the clusters that a chooser can choose.
func chosen(m *xdsmatcherv3.Matcher) []string {
	var out []string
	on := func(o *xdsmatcherv3.Matcher_OnMatch) {
		var a specifierv3.ClusterAction
		if o.GetAction().GetTypedConfig().UnmarshalTo(&a) == nil {
			out = append(out, a.GetCluster())
		} else {
			out = append(out, chosen(o.GetMatcher())...)
		}
	}
	for _, o := range m.GetMatcherTree().GetExactMatchMap().GetMap() {
		on(o)
	}
	for _, f := range m.GetMatcherList().GetMatchers() {
		on(f.GetOnMatch())
	}
	on(m.GetOnNoMatch())
	return out
}

// targets are the clusters that a route names itself.
func targets(a *routev3.RouteAction) []string {
	var out []string
	if name := a.GetCluster(); name != "" || a.GetClusterSpecifier() == nil {
		out = append(out, name)
	}
	for _, w := range a.GetWeightedClusters().GetClusters() {
		out = append(out, w.GetName())
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		out = append(out, m.GetCluster())
	}
	return out
}

func randomPlan(rnd *rand.Rand) plan.Plan {
	word := func() string { return string(rune('a'+rnd.IntN(26))) + fmt.Sprint(rnd.IntN(100)) }
	addr := func() string { return fmt.Sprintf("127.0.0.%d:%d", 1+rnd.IntN(250), 1+rnd.IntN(65535)) }
	p := plan.Plan{
		Edge:       plan.Edge{Listen: addr(), Observe: addr()},
		FailClosed: rnd.IntN(2) == 0,
		Filter:     word(),
	}
	if rnd.IntN(2) == 0 {
		p.Edge.Wasm = plan.Wasm{Path: "/" + word(), SHA256: strings.Repeat("0f", 32)}
		p.Edge.JWKS = `{"keys":[]}`
	}
	for i := range 1 + rnd.IntN(4) {
		s := plan.Service{Name: fmt.Sprintf("s%d", i), Pools: []plan.Pool{{Name: "baseline"}}}
		for j := range rnd.IntN(4) {
			s.Pools = append(s.Pools, plan.Pool{Name: fmt.Sprintf("p%d", j)})
		}
		for j := range s.Pools {
			for range rnd.IntN(4) {
				s.Pools[j].Endpoints = append(s.Pools[j].Endpoints, addr())
			}
		}
		for range 1 + rnd.IntN(3) {
			s.Routes = append(s.Routes, plan.Route{Name: word(), Prefix: "/" + word(), WebSocket: rnd.IntN(2) == 0, Timeout: time.Duration(rnd.Int64N(int64(time.Hour)))})
		}
		for j := range rnd.IntN(4) {
			s.Rules = append(s.Rules, randomRule(rnd, fmt.Sprint(j), s))
		}
		p.Services = append(p.Services, s)
	}
	for range rnd.IntN(4) {
		p.Cohorts = append(p.Cohorts, plan.Cohort{Name: word(), Color: group.Color(rnd.Uint32()), Pool: fmt.Sprintf("p%d", rnd.IntN(5))})
	}
	for range rnd.IntN(5) {
		p.Moves = append(p.Moves, plan.Move{Group: group.ID(fmt.Sprintf("%06x", rnd.IntN(1<<24))), Pool: fmt.Sprintf("p%d", rnd.IntN(5))})
	}
	return p
}

func randomRule(rnd *rand.Rand, name string, s plan.Service) plan.Rule {
	some := func() bool { return rnd.IntN(3) == 0 }
	pool := func() string { return s.Pools[rnd.IntN(len(s.Pools))].Name }
	r := plan.Rule{
		Name: name, Service: s.Name, Timeout: time.Second, WebSocket: some(),
		Match: []plan.Match{{Prefix: "/" + name}, {Hosts: []string{randomHost(rnd), randomHost(rnd)}, Methods: []string{"GET", "PUT"}}},
	}
	if some() {
		r.Match = append(r.Match, plan.Match{Hosts: []string{randomHost(rnd)}, Prefix: "/"})
	}
	if some() {
		r.Pool = pool()
	} else if some() {
		r.Canary = &policy.Canary{Cookie: "user", Pools: []policy.CanaryPool{{Pool: pool(), Percent: rnd.Float64() * 100}}}
	}
	if some() {
		r.Mirror = &policy.Mirror{Pool: pool(), Percent: rnd.Float64() * 100}
	}
	if some() {
		r.CORS = &policy.CORS{Origins: []string{"*"}}
	}
	if some() {
		r.MaxRequestBytes = 1 + rnd.Uint32N(1<<20)
	}
	if some() {
		r.Rewrite = &policy.Rewrite{Host: "c.test"}
	}
	return r
}

func randomHost(rnd *rand.Rand) string {
	return []string{"a.test", "*.b.test", "c.b.test", "*.c.b.test", "d.c.b.test", "*.test"}[rnd.IntN(6)]
}

// FuzzBuild renders plans of random shape with some of the fuzzer's text in them:
// never a panic, never something Envoy's validation refuses, always consistent,
// always the same bytes.
func FuzzBuild(f *testing.F) {
	f.Add(uint64(1), "all", "/v1", "127.0.0.1:1", `{"keys":[]}`)
	f.Add(uint64(2), "", "/", "[::1]:65535", "")
	f.Add(uint64(3), "\x00\n%REQ(x)%", "/é?#%2f", "x", "{")
	f.Fuzz(func(t *testing.T, seed uint64, name, prefix, endpoint, jwks string) {
		p := randomPlan(rand.New(rand.NewPCG(seed, 0)))
		p.Services[0].Routes[0].Name = name
		p.Services[0].Routes[0].Prefix = prefix
		p.Services[0].Pools[0].Endpoints = append(p.Services[0].Pools[0].Endpoints, endpoint)
		p.Services[0].Rules = append(p.Services[0].Rules, plan.Rule{
			Name: name, Service: p.Services[0].Name,
			Match:          []plan.Match{{Regex: prefix, Hosts: []string{name}, Headers: []policy.HeaderMatch{{Name: jwks, Exact: name}}}},
			RequestHeaders: &plan.HeaderChanges{Set: map[string]string{jwks: name}},
			Rewrite:        &policy.Rewrite{Path: prefix, Host: name},
		})
		p.Edge.JWKS = jwks
		a, err := Build(p)
		if err != nil {
			return
		}
		r, err := render(p)
		if err != nil {
			t.Fatalf("built and not rendered: %v", err)
		}
		if err := consistent(r); err != nil {
			t.Error(err)
		}
		b, err := Build(p)
		if err != nil || a.Version != b.Version {
			t.Errorf("versions %q and %q of the same plan, %v", a.Version, b.Version, err)
		}
	})
}

func TestRandomPlansAreConsistent(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		p := randomPlan(rand.New(rand.NewPCG(seed, 1)))
		if _, err := Build(p); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		r, err := render(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := consistent(r); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestMoveChangesRoutesOnly holds the promise that moving a group never touches a
// listener, so no WebSocket drains.
func TestMoveChangesRoutesOnly(t *testing.T) {
	t.Parallel()
	p := readPlan(t, "testdata/circle/plan.yaml")
	before, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	p.Moves = append(p.Moves, plan.Move{Group: "abcdef", Pool: "isolated"})
	after, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	if before.Version == after.Version {
		t.Error("a move changed nothing")
	}
	r, err := render(p)
	if err != nil {
		t.Fatal(err)
	}
	was, err := render(readPlan(t, "testdata/circle/plan.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(was.routes[0].VirtualHosts, r.routes[0].VirtualHosts, protocmp.Transform()); diff != "" {
		t.Errorf("a move changed a route, not only the table (-before +after):\n%s", diff)
	}
	for i := range before.Resources {
		typ := Type(i)
		changed := false
		for _, r := range before.Resources[typ] {
			if got, ok := after.Find(typ, r.Name); !ok || got.Version != r.Version {
				changed = true
			}
		}
		if want := typ == Routes; changed != want {
			t.Errorf("%s changed: %v, want %v", typ, changed, want)
		}
	}
}

// TestRulesChangeRoutesOnly holds the same for rules, and that a move under rules
// still changes routes only. A mirror has a cluster of its own, a host that a rule
// names a virtual host.
func TestRulesChangeRoutesOnly(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"testdata/rules/plan.yaml", "testdata/canary/plan.yaml"} {
		p := readPlan(t, file)
		with, err := Build(p)
		if err != nil {
			t.Fatal(err)
		}
		moved := p
		moved.Moves = nil
		bare := p
		bare.Services = slices.Clone(p.Services)
		for i := range bare.Services {
			bare.Services[i].Rules = nil
		}
		for what, other := range map[string]plan.Plan{"moves": moved, "rules": bare} {
			without, err := Build(other)
			if err != nil {
				t.Fatal(err)
			}
			for i := range with.Resources {
				same := slices.EqualFunc(with.Resources[i], without.Resources[i], func(a, b Resource) bool {
					return a.Name == b.Name && bytes.Equal(a.Body.GetValue(), b.Body.GetValue())
				})
				mirror := what == "rules" && file == "testdata/rules/plan.yaml" && (Type(i) == Clusters || Type(i) == Endpoints)
				hosts := what == "rules" && file == "testdata/rules/plan.yaml" && Type(i) == VirtualHosts
				if want := Type(i) != Routes && !mirror && !hosts; same != want {
					t.Errorf("%s: without %s the bytes of %s are the same: %v, want %v", file, what, Type(i), same, want)
				}
			}
		}
	}
}

// TestListenerStaysTheSame covers everything that changes in operation.
func TestListenerStaysTheSame(t *testing.T) {
	t.Parallel()
	base := readPlan(t, "testdata/circle/plan.yaml")
	want, err := Build(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*plan.Plan){
		"policy of the filter": func(p *plan.Plan) { p.Filter = `{"env":"other"}` },
		"keys":                 func(p *plan.Plan) { p.Edge.JWKS = `{"keys":[]}` },
		"module":               func(p *plan.Plan) { p.Edge.Wasm.SHA256 = strings.Repeat("ff", 32) },
		"failure":              func(p *plan.Plan) { p.FailClosed = true },
		"cohort":               func(p *plan.Plan) { p.Cohorts = nil },
		"endpoints":            func(p *plan.Plan) { p.Services[0].Pools[0].Endpoints = []string{"127.0.0.1:1"} },
		"pools":                func(p *plan.Plan) { p.Services[0].Pools = p.Services[0].Pools[:1] },
		"routes":               func(p *plan.Plan) { p.Services[0].Routes = p.Services[0].Routes[1:] },
		"rules of each kind":   func(p *plan.Plan) { p.Services = readPlan(t, "testdata/rules/plan.yaml").Services },
		"a canary":             func(p *plan.Plan) { p.Services = readPlan(t, "testdata/canary/plan.yaml").Services },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := readPlan(t, "testdata/circle/plan.yaml")
			change(&p)
			got, err := Build(p)
			if err != nil {
				t.Fatal(err)
			}
			if got.Version == want.Version {
				t.Error("the change changed nothing")
			}
			if got.Resources[Listeners][0].Version != want.Resources[Listeners][0].Version {
				t.Error("the listener changed, its WebSockets would drain")
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*plan.Plan){
		"an endpoint that is none": func(p *plan.Plan) { p.Services[0].Pools[0].Endpoints = []string{"localhost:1"} },
		"a listener without port":  func(p *plan.Plan) { p.Edge.Listen = "127.0.0.1" },
		"a receiver without port":  func(p *plan.Plan) { p.Edge.Observe = "" },
		"a rule of no service": func(p *plan.Plan) {
			p.Services[0].Rules = []plan.Rule{{Name: "x", Service: "other", Match: []plan.Match{{Prefix: "/"}}}}
		},
		"too much for each host": func(p *plan.Plan) {
			for i := range 400 {
				p.Services[0].Rules = append(p.Services[0].Rules, plan.Rule{Name: fmt.Sprint(i), Service: p.Services[0].Name, Match: []plan.Match{{Path: "/x"}, {Path: "/y", Hosts: []string{fmt.Sprintf("h%d.test", i)}}}})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := readPlan(t, "testdata/circle/plan.yaml")
			change(&p)
			if _, err := Build(p); err == nil {
				t.Error("built")
			}
		})
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	for i := range NumTypes {
		typ := Type(i)
		if got, ok := TypeOf(typ.URL()); !ok || got != typ {
			t.Errorf("TypeOf(%q) is %v, %v", typ.URL(), got, ok)
		}
	}
	if _, ok := TypeOf("type.googleapis.com/" + string((&corev3.Node{}).ProtoReflect().Descriptor().FullName())); ok {
		t.Error("a node is served")
	}
}

// BenchmarkBuildRules renders as many rules as a policy may have.
func BenchmarkBuildRules(b *testing.B) {
	p := plan.Plan{Edge: plan.Edge{Listen: "127.0.0.1:1", Observe: "127.0.0.1:2"}}
	s := plan.Service{Name: "core", Pools: []plan.Pool{{Name: "baseline", Endpoints: []string{"127.0.0.1:3"}}, {Name: "isolated"}}}
	s.Routes = []plan.Route{{Name: "all", Prefix: "/", Timeout: time.Second}}
	for i := range 10_000 {
		s.Rules = append(s.Rules, plan.Rule{Name: fmt.Sprint(i), Service: "core", Timeout: time.Second, Match: []plan.Match{{Prefix: fmt.Sprintf("/p%d", i)}}})
	}
	p.Services = []plan.Service{s}
	for i := range 1000 {
		p.Moves = append(p.Moves, plan.Move{Group: group.ID(fmt.Sprintf("%06x", i)), Pool: "isolated"})
	}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		out, err := Build(p)
		if err != nil {
			b.Fatal(err)
		}
		size = len(out.Resources[Routes][0].Body.GetValue())
	}
	b.ReportMetric(float64(size)/10_000, "B/rule")
}

func BenchmarkBuild(b *testing.B) {
	p := plan.Plan{Edge: plan.Edge{Listen: "127.0.0.1:1", Observe: "127.0.0.1:2"}}
	s := plan.Service{Name: "core", Pools: []plan.Pool{{Name: "baseline", Endpoints: []string{"127.0.0.1:3"}}, {Name: "isolated"}}}
	s.Routes = []plan.Route{{Name: "all", Prefix: "/", Timeout: time.Second}}
	p.Services = []plan.Service{s}
	for i := range 1000 {
		p.Moves = append(p.Moves, plan.Move{Group: group.ID(fmt.Sprintf("%06x", i)), Pool: "isolated"})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(p); err != nil {
			b.Fatal(err)
		}
	}
}
