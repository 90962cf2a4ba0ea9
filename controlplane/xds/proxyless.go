package xds

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// Proxyless renders plans for gRPC clients that balance for themselves (gRFC A27 and
// those that build on it): a call of xds:///SERVICE goes to the pool that the edge would
// have chosen. Each service whose baseline pool speaks gRPC has a listener and a route
// configuration under its own name, and clusters as edges have them.
//
// These clients know a part of what Envoy does, so a service's rules are taken as far as
// they go: those with a pool, a canary or neither, by path, method and header. Rules of a
// host, a cookie or a query are passed over, since a call has none of them, and so are rules that answer.
// A canary splits calls and not users, for there is no hash policy that it could use; for
// the same reason a group that is released in steps comes back with the last of them.
// Moved groups and cohorts are matched in the routes: there are no matcher trees.
//
// The alternative that lost gives them the edges' resources: a client refuses a whole
// cluster or load assignment for one field that it does not know.
//
// The zero value is ready; as [Builder] it keeps what it has made.
type Proxyless struct{ b Builder }

// Build renders p.
func (c *Proxyless) Build(p plan.Plan) (*Snapshot, error) { return c.b.assemble(p, c.b.proxyless) }

// proxylessSource is what the route configuration of a service is made from.
type proxylessSource struct {
	service string
	pools   []string // that speak gRPC
	rules   []plan.Rule
	places  places
}

func (b *Builder) proxyless(p plan.Plan) error {
	rules := map[string][]plan.Rule{}
	for _, s := range p.Services {
		for _, r := range s.Rules {
			rules[r.Service] = append(rules[r.Service], r)
		}
	}
	_, of := b.baseRoutes(p)
	for i, s := range p.Services {
		src := proxylessSource{service: s.Name, rules: rules[s.Name], places: of[i]}
		for _, pool := range s.Pools {
			if pool.Protocol == policy.GRPC {
				src.pools = append(src.pools, pool.Name)
			}
		}
		if !slices.Contains(src.pools, baseline) {
			continue
		}
		if err := b.proxylessService(s, src); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) proxylessService(s plan.Service, src proxylessSource) error {
	if err := b.put(Listeners, s.Name, s.Name, func() (validated, error) { return apiListener(s.Name) }); err != nil {
		return err
	}
	if err := b.put(Routes, s.Name, src, func() (validated, error) { return src.routes(), nil }); err != nil {
		return err
	}
	for _, pool := range s.Pools {
		if !slices.Contains(src.pools, pool.Name) {
			continue
		}
		name, bare := plan.ClusterName(s.Name, pool.Name), pool
		bare.Endpoints, bare.Backup, bare.Draining, bare.Zones = nil, nil, nil, nil
		if err := b.put(Clusters, name, bare, func() (validated, error) { return proxylessCluster(name, pool), nil }); err != nil {
			return err
		}
		from := byPriority(s, pool)
		if err := b.put(Endpoints, name, from, func() (validated, error) { return proxylessEndpoints(name, from) }); err != nil {
			return err
		}
	}
	return nil
}

func apiListener(service string) (*listenerv3.Listener, error) {
	manager, err := packed(&hcmv3.HttpConnectionManager{
		StatPrefix: service,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: service, ConfigSource: ads(),
		}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(&routerv3.Router{})},
		}},
	})
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{Name: service, ApiListener: &listenerv3.ApiListener{ApiListener: manager}}, nil
}

func (s proxylessSource) routes() *routev3.RouteConfiguration {
	host := &routev3.VirtualHost{Name: s.service, Domains: []string{"*"}}
	for _, r := range s.rules {
		if r.Answers() {
			continue
		}
		for _, m := range r.Match {
			if len(m.Hosts)+len(m.Cookies)+len(m.Query) > 0 || len(m.Methods) > 0 && !slices.Contains(m.Methods, "POST") {
				continue
			}
			m.Methods = nil // each call is a POST, and no client matches that
			host.Routes = append(host.Routes, s.rule(r, m)...)
		}
	}
	everything := plan.Match{Prefix: "/"}
	host.Routes = append(host.Routes, s.placed(&plan.Rule{Name: "service"}, everything)...)
	host.Routes = append(host.Routes, s.route(&plan.Rule{Name: "ready"}, everything, s.ready()))
	return &routev3.RouteConfiguration{Name: s.service, VirtualHosts: []*routev3.VirtualHost{host}}
}

func (s proxylessSource) rule(r plan.Rule, m plan.Match) []*routev3.Route {
	switch {
	case r.Pool != "" && slices.Contains(s.pools, r.Pool):
		return []*routev3.Route{s.route(&r, m, s.cluster(r.Pool))}
	case r.Canary == nil:
		return s.placed(&r, m)
	}
	routes := s.placed(&r, m)
	last := routes[len(routes)-1] // of those that are placed nowhere
	last.GetRoute().ClusterSpecifier = s.split(r.Canary)
	return routes
}

// placed are routes by group, then cohort, then to baseline.
func (s proxylessSource) placed(r *plan.Rule, m plan.Match) []*routev3.Route {
	var out []*routev3.Route
	add := func(pool string, when ...*routev3.HeaderMatcher) {
		if slices.Contains(s.pools, pool) {
			out = append(out, s.route(r, m, s.cluster(pool), when...))
		}
	}
	for _, mv := range s.places.moves {
		add(mv.Pool, isGroup(mv.Group))
	}
	for _, c := range s.places.cohorts {
		add(c.Pool, isColor(c.Color), isColored())
	}
	add(baseline)
	return out
}

func (s proxylessSource) route(r *plan.Rule, m plan.Match, a *routev3.RouteAction, when ...*routev3.HeaderMatcher) *routev3.Route {
	match := ruleMatch(m)
	if prefix := match.GetPathSeparatedPrefix(); prefix != "" {
		match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: regexp.QuoteMeta(prefix) + "(/.*)?"}}
	}
	match.Headers = append(match.Headers, when...)
	if r.GRPC && r.Timeout > 0 { // others have the default of requests that end
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{GrpcTimeoutHeaderMax: durationpb.New(r.Timeout)}
	}
	if r.Retries != nil {
		a.RetryPolicy = &routev3.RetryPolicy{RetryOn: strings.Join(r.Retries.On, ","), NumRetries: wrapperspb.UInt32(r.Retries.Attempts)}
	}
	return &routev3.Route{Name: r.Name, Match: match, Action: &routev3.Route_Route{Route: a}}
}

func (s proxylessSource) cluster(pool string) *routev3.RouteAction {
	return &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: plan.ClusterName(s.service, pool)}}
}

// ready is never reached and names every pool, so that a client is connected to each
// before something is sent there. grpc-go 1.85 fails calls that are made between a route
// to a cluster that is new to it and its balancer for that.
func (s proxylessSource) ready() *routev3.RouteAction {
	all := &routev3.WeightedCluster{}
	for _, pool := range s.pools {
		all.Clusters = append(all.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: plan.ClusterName(s.service, pool), Weight: wrapperspb.UInt32(1)})
	}
	return &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: all}}
}

func (s proxylessSource) split(c *policy.Canary) *routev3.RouteAction_WeightedClusters {
	out, rest := &routev3.WeightedCluster{}, uint32(policy.CanaryPlaces)
	add := func(pool string, share uint32) {
		if share > 0 {
			out.Clusters = append(out.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: plan.ClusterName(s.service, pool), Weight: wrapperspb.UInt32(share),
			})
		}
	}
	for i, share := range c.Shares() {
		if slices.Contains(s.pools, c.Pools[i].Pool) {
			add(c.Pools[i].Pool, share)
			rest -= share
		}
	}
	add(baseline, rest)
	return &routev3.RouteAction_WeightedClusters{WeightedClusters: out}
}

// proxylessCluster has what such clients know: how to find endpoints, which to choose,
// what to eject and how much may be open. Their credentials are their own.
func proxylessCluster(name string, pool plan.Pool) *clusterv3.Cluster {
	c := cluster(name)
	c.HealthChecks = []*corev3.HealthCheck{healthCheck(pool.Protocol)} // for settings
	c.OutlierDetection = outlierDetection()
	settings(c, pool)
	lb := lbPolicy(pool.LoadBalancing)
	if lb == clusterv3.Cluster_RANDOM || pool.LoadBalancing.Hashes() {
		lb = clusterv3.Cluster_ROUND_ROBIN // they know no other that is as even; what there is to hash by the edge knows
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		LbPolicy:             lb,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxRequests: c.CircuitBreakers.Thresholds[0].MaxRequests,
		}}},
		OutlierDetection: c.OutlierDetection,
	}
}

// proxylessEndpoints has what such clients insist on: localities with a name and a
// weight, priorities without a gap, and no address twice; nor one that drains, whose calls
// that are open they let end.
func proxylessEndpoints(name string, s endpointSource) (*endpointv3.ClusterLoadAssignment, error) {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	seen := map[string]bool{}
	priority := uint32(0)
	for _, t := range s.tiers {
		addrs := slices.DeleteFunc(slices.Clone(t.addrs), func(a string) bool { return seen[a] || slices.Contains(t.draining, a) })
		if len(addrs) == 0 {
			continue
		}
		for _, a := range addrs {
			seen[a] = true
		}
		ls, err := localities(tier{addrs: addrs, zones: t.zones}, priority, s.weights)
		if err != nil {
			return nil, err
		}
		for _, l := range ls {
			l.Locality = &corev3.Locality{Zone: cmp.Or(l.GetLocality().GetZone(), "default")}
			if l.LoadBalancingWeight == nil {
				l.LoadBalancingWeight = wrapperspb.UInt32(uint32(len(l.LbEndpoints)))
			}
		}
		out.Endpoints = append(out.Endpoints, ls...)
		priority++
	}
	return out, nil
}
