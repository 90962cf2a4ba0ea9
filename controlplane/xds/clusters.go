package xds

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds/parts"
	"github.com/tracegate/tracegate/mesh/identity"
)

const (
	connectTimeout = 5 * time.Second
	bufferLimit    = 32 << 10
	// HealthTimeout bounds how long a new cluster warms: until every endpoint has
	// been checked once.
	HealthTimeout  = time.Second
	healthInterval = 400 * time.Millisecond
	healthPath     = "/healthz"
)

// serviceMade are the clusters and endpoints of a service, and what they were made from.
type serviceMade struct {
	pools     []plan.Pool
	mirrored  []string // clusters
	resources []typed
	build     int
}

type typed struct {
	typ  Type
	made *made
}

// pools are one cluster for each service and pool, with its endpoints.
func (b *Builder) pools(p plan.Plan) error {
	if b.services == nil {
		b.services = map[string]*serviceMade{}
	}
	for _, s := range p.Services {
		mirrored := b.mirrored(s)
		m := b.services[s.Name]
		if m == nil || !samePools(m.pools, s.Pools) || !slices.Equal(m.mirrored, mirrored) {
			m = &serviceMade{pools: s.Pools, mirrored: mirrored}
			if err := b.servicePools(s, m); err != nil {
				return err
			}
			b.services[s.Name] = m
		} else {
			for _, r := range m.resources {
				b.use(r.typ, r.made)
			}
		}
		m.build = b.build
	}
	maps.DeleteFunc(b.services, func(_ string, m *serviceMade) bool { return m.build != b.build })
	return nil
}

func (b *Builder) mirrored(s plan.Service) []string {
	if len(b.rules.mirrors) == 0 {
		return nil
	}
	var out []string
	for _, pool := range s.Pools {
		if name := plan.ClusterName(s.Name, pool.Name); b.rules.mirrors[name] {
			out = append(out, name)
		}
	}
	return out
}

// samePools compares by address, which costs less where much is shared.
func samePools(a, b []plan.Pool) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !reflect.DeepEqual(&a[i], &b[i]) {
			return false
		}
	}
	return true
}

func (b *Builder) servicePools(s plan.Service, m *serviceMade) error {
	put := func(t Type, name string, from any, render func() (validated, error)) error {
		if err := b.put(t, name, from, render); err != nil {
			return err
		}
		m.resources = append(m.resources, typed{t, b.made[t][name]})
		return nil
	}
	cluster := func(name string, settings plan.Pool, e endpointSource) error {
		if err := put(Clusters, name, settings, func() (validated, error) { return poolCluster(name, settings) }); err != nil {
			return err
		}
		return put(Endpoints, name, e, func() (validated, error) { return loadAssignment(name, e) })
	}
	for _, pool := range s.Pools {
		name, settings := plan.ClusterName(s.Name, pool.Name), pool
		settings.Endpoints, settings.Backup, settings.Draining, settings.Zones = nil, nil, nil, nil
		if err := cluster(name, settings, byPriority(s, pool)); err != nil {
			return err
		}
		if !slices.Contains(m.mirrored, name) {
			continue
		}
		if err := cluster(mirrorName(name), settings, serving(pool)); err != nil {
			return err
		}
	}
	return nil
}

// mirrorName is the cluster of a pool that copies of requests go to. It does not fall
// back to baseline, where a copy would be a second request: without a healthy
// instance copies are dropped.
func mirrorName(cluster string) string { return cluster + ".mirror" }

func poolCluster(name string, pool plan.Pool) (*clusterv3.Cluster, error) {
	c := cluster(name)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}
	c.LbPolicy = lbPolicy(pool.LoadBalancing)
	c.HealthChecks = []*corev3.HealthCheck{healthCheck(pool.Protocol)}
	c.OutlierDetection = outlierDetection()
	settings(c, pool)
	// An endpoint that is taken out of EDS gets no new requests at once; streams
	// that are open on it, and on one that fails its checks, go on.
	c.IgnoreHealthOnHostRemoval = true
	c.TypedExtensionProtocolOptions = protocolOptions(pool)
	if err := upstreamTLS(c, pool); err != nil {
		return nil, err
	}
	return c, balance(c, pool)
}

func speaksHTTP2(pool plan.Pool) bool {
	return pool.Protocol == policy.HTTP2 || pool.Protocol == policy.GRPC
}

func protocolOptions(pool plan.Pool) map[string]*anypb.Any {
	if speaksHTTP2(pool) {
		return http2()
	}
	return httpOptions(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	})
}

// http2 finds a connection that leads nowhere within 35 s, also without requests.
func http2() map[string]*anypb.Any {
	return httpOptions(&httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
				Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(5 * time.Second),
			}},
		},
	})
}

// cluster holds what is the same for all. Circuit breakers are set because Envoy's
// defaults (1024, 3 retries) are "not considered safe" by its own edge guide; a
// WebSocket holds a connection and a request each.
func cluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                          name,
		ConnectTimeout:                durationpb.New(connectTimeout),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections:     wrapperspb.UInt32(20000),
			MaxPendingRequests: wrapperspb.UInt32(4096),
			MaxRequests:        wrapperspb.UInt32(20000),
			MaxRetries:         wrapperspb.UInt32(1024),
			TrackRemaining:     true,
		}}},
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{CloseConnectionsOnHostSetChange: false},
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveTime: wrapperspb.UInt32(30), KeepaliveInterval: wrapperspb.UInt32(5), KeepaliveProbes: wrapperspb.UInt32(3),
		}},
	}
}

// healthCheck finds a dead process within a second, also where nobody sends requests: the
// second of two refused connections comes after two intervals and their jitter, at most.
// (mesh/discovery counts on it.)
func healthCheck(p policy.Protocol) *corev3.HealthCheck {
	h := &corev3.HealthCheck{
		Timeout:               durationpb.New(HealthTimeout),
		Interval:              durationpb.New(healthInterval),
		NoTrafficInterval:     durationpb.New(healthInterval),
		UnhealthyThreshold:    wrapperspb.UInt32(2),
		HealthyThreshold:      wrapperspb.UInt32(1),
		IntervalJitterPercent: 10,
		HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Path: healthPath,
		}},
	}
	switch p {
	case policy.HTTP2:
		h.GetHttpHealthCheck().CodecClientType = typev3.CodecClientType_HTTP2
	case policy.GRPC:
		h.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{}}
	}
	return h
}

// outlierDetection ejects for a few seconds what cannot be reached. What answers
// with 5xx stays: moving a group for its errors is decided by controlplane/decide,
// and an ejected pool would push a sick group's traffic onto baseline.
func outlierDetection() *clusterv3.OutlierDetection {
	off := wrapperspb.UInt32(0)
	return &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors:         true,
		ConsecutiveLocalOriginFailure:          wrapperspb.UInt32(3),
		EnforcingConsecutiveLocalOriginFailure: wrapperspb.UInt32(100),
		EnforcingConsecutive_5Xx:               off,
		EnforcingConsecutiveGatewayFailure:     off,
		EnforcingSuccessRate:                   off,
		EnforcingLocalOriginSuccessRate:        off,
		Interval:                               durationpb.New(time.Second),
		BaseEjectionTime:                       durationpb.New(2 * time.Second),
		MaxEjectionTime:                        durationpb.New(10 * time.Second),
		MaxEjectionPercent:                     wrapperspb.UInt32(100),
	}
}

// overprovisioning makes one healthy endpoint enough for a priority to keep all of
// its traffic; Envoy's default (140) would spill a group onto baseline as soon as
// a third of its pool is down.
const overprovisioning = 100_000

// endpointSource is what a load assignment is made from: endpoints by priority, and the
// weights of zones, where they have any. Those of a priority serve where no earlier one
// has a healthy one.
type endpointSource struct {
	tiers   []tier
	weights map[string]uint32
}

// tier are endpoints of one priority, those of them that drain, and the zones of those that
// have one.
//
// One that drains stays in the assignment, as DRAINING: no edge sends it anything new, what
// is open on it goes on, and an edge's admin interface shows how much that is. (To leave it
// out, as gRPC clients get it, lost for that reason only. It counts as an unhealthy one, so
// where nothing else is healthy, not even baseline's, requests still go there.)
type tier struct {
	addrs, draining []string
	zones           map[string]string
}

// serving are a pool's own, and then those elsewhere, where there are any.
func serving(p plan.Pool) endpointSource {
	s := endpointSource{tiers: []tier{{addrs: p.Endpoints, draining: p.Draining, zones: p.Zones}}}
	if len(p.Backup) > 0 {
		s.tiers = append(s.tiers, tier{addrs: p.Backup, zones: p.Zones})
	}
	if p.Balances != nil {
		s.weights = p.Balances.Weights
	}
	return s
}

// byPriority is who serves a pool: its own, those elsewhere, and then baseline's.
func byPriority(s plan.Service, pool plan.Pool) endpointSource {
	out := serving(pool)
	if pool.Name == baseline {
		return out
	}
	base := []tier{{}}
	if i := slices.IndexFunc(s.Pools, func(p plan.Pool) bool { return p.Name == baseline }); i >= 0 {
		base = serving(s.Pools[i]).tiers
	}
	out.tiers = append(out.tiers, base...)
	return out
}

func loadAssignment(name string, s endpointSource) (*endpointv3.ClusterLoadAssignment, error) {
	out := &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Policy:      &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(overprovisioning)},
	}
	for priority, t := range s.tiers {
		l, err := localities(t, uint32(priority), s.weights)
		if err != nil {
			return nil, err
		}
		out.Endpoints = append(out.Endpoints, l...)
	}
	return out, nil
}

func endpoints(addrs []string, priority uint32) (*endpointv3.LocalityLbEndpoints, error) {
	out := &endpointv3.LocalityLbEndpoints{Priority: priority}
	for _, a := range addrs {
		addr, err := address(a)
		if err != nil {
			return nil, err
		}
		out.LbEndpoints = append(out.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr}},
		})
	}
	return out, nil
}

// observeSource is what the cluster of the OTLP receiver is made from.
type observeSource struct {
	addr, identity string
}

func observeCluster(s observeSource) (*clusterv3.Cluster, error) {
	e, err := endpoints([]string{s.addr}, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ObserveName, err)
	}
	c := grpcCluster(ObserveName, e)
	if s.identity != "" {
		if c.TransportSocket, err = parts.TLS(s.identity, identity.Observe); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// grpcCluster is one of a part of ours that edges call.
func grpcCluster(name string, e *endpointv3.LocalityLbEndpoints) *clusterv3.Cluster {
	c := cluster(name)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{e},
	}
	c.TypedExtensionProtocolOptions = http2()
	return c
}

func httpOptions(explicit *httpv3.HttpProtocolOptions_ExplicitHttpConfig) map[string]*anypb.Any {
	return map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": mustPack(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
		}),
	}
}

func address(s string) (*corev3.Address, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("parse address %q: %w", s, err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ap.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ap.Port())},
	}}}, nil
}

// ads is the one stream all resources come from. A zero InitialFetchTimeout would
// wait for ever; Envoy's 15 s default is kept except where a caller sets another.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}
