// Package bootstrap writes the little that an Envoy must know before it can ask:
// who it is, where its control plane is, and how much of the machine it may use.
//
// It is pure: configuration in, protobuf out. Everything that serves traffic comes
// from the control plane (controlplane/xds). Callers: edge, edge/envoytest.
package bootstrap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tracegate/tracegate/controlplane/xds/parts"
	"github.com/tracegate/tracegate/mesh/identity"
)

// XDSCluster is the cluster of the control plane's own stream.
const XDSCluster = "xds"

// MinHeapBytes is what Envoy needs to be there at all.
const MinHeapBytes = 64 << 20

// Config is what differs from one edge to the next.
type Config struct {
	// ID names this edge to the control plane; two edges must not share one.
	ID string `json:"id"`
	// Cluster is the group of edges that get the same configuration.
	Cluster string `json:"cluster"`
	// Zone is where this edge is, as in endpoints; empty: nowhere, and no instance is nearer
	// than another.
	Zone string `json:"zone,omitempty"`
	// Generation tells the processes of this edge apart that take over from each other:
	// a later one has a larger one. 0: not told.
	Generation int64 `json:"generation,omitempty"`
	// Admin is the address of Envoy's admin interface. It can stop Envoy and shows
	// its configuration, so it must be loopback.
	Admin string `json:"admin"`
	// XDS is the address of the control plane. It must be loopback too, but where both
	// prove who they are.
	XDS string `json:"xds"`
	// Identity is the identity folder (mesh/identity), absolute, with [IdentityFiles] in
	// it: this edge proves who it is, and ID must be the name in its certificate. Empty:
	// it does not.
	Identity string `json:"identity"`
	// MaxHeapBytes is the heap at which Envoy counts as full: at 95% it gives memory
	// back, at 98% it answers new requests with 503.
	MaxHeapBytes uint64 `json:"maxHeapBytes"`
	// MaxConnections bounds client connections over all listeners; further ones are
	// closed on accept.
	MaxConnections int64 `json:"maxConnections"`
	// Pools are the pool names that Envoy's own metrics carry as the tag traffic.pool,
	// because a cluster is named <service>.<pool>. Others stay part of the name.
	Pools []string `json:"pools"`
}

// DefaultConfig fits one edge on one machine.
func DefaultConfig() Config {
	return Config{
		ID: "edge-1", Cluster: "edge",
		Admin: "127.0.0.1:9901", XDS: "127.0.0.1:18000",
		MaxHeapBytes: 1 << 30, MaxConnections: 50_000,
		Pools: []string{"baseline", "canary", "isolated"},
	}
}

// zoneName is as in controlplane/policy.
var zoneName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

var poolName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// Validate names the key that is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{key}, args...)...))
	}
	if c.ID == "" {
		bad("id", "is empty")
	}
	if c.Cluster == "" {
		bad("cluster", "is empty")
	}
	for _, a := range []struct{ key, addr string }{{"admin", c.Admin}, {"xds", c.XDS}} {
		ap, err := netip.ParseAddrPort(a.addr)
		switch {
		case err != nil:
			bad(a.key, "%q is not an ip:port", a.addr)
		case ap.Port() == 0:
			bad(a.key, "%q has no port", a.addr)
		case !ap.Addr().IsLoopback() && (a.key == "admin" || c.Identity == ""):
			bad(a.key, "%s is not a loopback address", a.addr)
		}
	}
	if c.Identity != "" && !path.IsAbs(c.Identity) {
		bad("identity", "%q is not absolute: Envoy resolves it, not this process", c.Identity)
	}
	if c.MaxHeapBytes < MinHeapBytes {
		bad("maxHeapBytes", "%d is too little, Envoy itself needs some 64 MiB", c.MaxHeapBytes)
	}
	if c.MaxConnections < 1 {
		bad("maxConnections", "%d is not positive", c.MaxConnections)
	}
	if c.Zone != "" && !zoneName.MatchString(c.Zone) {
		bad("zone", "%q: want letters, digits and inner dashes, dots and underscores", c.Zone)
	}
	for _, p := range c.Pools {
		if !poolName.MatchString(p) {
			bad("pools", "%q: want lower-case letters, digits and dashes", p)
		}
	}
	return errors.Join(errs...)
}

// Build returns the bootstrap, or what [Config.Validate] has to say.
func Build(c Config) (*bootstrapv3.Bootstrap, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	stream, err := xdsCluster(netip.MustParseAddrPort(c.XDS), c.Identity)
	if err != nil {
		return nil, err
	}
	overload, err := overloadManager(c)
	if err != nil {
		return nil, err
	}
	runtime, err := structpb.NewStruct(map[string]any{
		// Regular expressions come from policies: bound what they may cost.
		"re2.max_program_size.error_level": 200,
	})
	if err != nil {
		return nil, err
	}
	b := &bootstrapv3.Bootstrap{
		Node: node(c),
		Admin: &bootstrapv3.Admin{
			Address: address(netip.MustParseAddrPort(c.Admin)),
			// A full edge must still be able to say so.
			IgnoreGlobalConnLimit: true,
		},
		DynamicResources: dynamicResources(),
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{stream}},
		OverloadManager:  overload,
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime},
		}}},
		StatsConfig: statsConfig(c.Pools),
	}
	if c.Zone != "" {
		inZone(b, c)
	}
	return b, nil
}

// localCluster is the cluster of edges that Envoy compares zones with. It is never called.
const localCluster = "edges"

// inZone says where the edge is, in the two places Envoy wants it: which instances are
// near is said by the node, and that there is an edge in its zone by a cluster of edges.
// That has only this one, since each prefers its own zone whatever the others do.
func inZone(b *bootstrapv3.Bootstrap, c Config) {
	here := &corev3.Locality{Zone: c.Zone}
	b.Node.Locality = here
	b.ClusterManager = &bootstrapv3.ClusterManager{LocalClusterName: localCluster}
	b.StaticResources.Clusters = append(b.StaticResources.Clusters, &clusterv3.Cluster{
		Name: localCluster, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, ConnectTimeout: durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: localCluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			Locality: here,
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: address(netip.MustParseAddrPort(c.Admin))},
			}}},
		}}},
	})
}

// dynamicResources asks for everything on one delta stream, which keeps the order
// the control plane needs to make before it breaks.
func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	ads := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		// 0: an edge without configuration stays not ready rather than empty.
		InitialFetchTimeout: durationpb.New(0),
	}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads,
		CdsConfig: ads,
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
					ClusterName: XDSCluster,
					// A restarted control plane is found again within two seconds.
					RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
						BaseInterval: durationpb.New(250 * time.Millisecond),
						MaxInterval:  durationpb.New(2 * time.Second),
					}},
				},
			}}},
		},
	}
}

func xdsCluster(addr netip.AddrPort, dir string) (*clusterv3.Cluster, error) {
	http2, err := anypb.New(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
						Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(5 * time.Second),
					}},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	var socket *corev3.TransportSocket
	if dir != "" {
		if socket, err = parts.TLS(dir, identity.ControlPlane); err != nil {
			return nil, err
		}
	}
	return &clusterv3.Cluster{
		TransportSocket:      socket,
		Name:                 XDSCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: XDSCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(addr)}},
			}}}},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
		},
	}, nil
}

// overloadManager follows Envoy's guide "configuring Envoy as an edge proxy".
func overloadManager(c Config) (*overloadv3.OverloadManager, error) {
	const heap, connections = "envoy.resource_monitors.fixed_heap", "envoy.resource_monitors.global_downstream_max_connections"
	var monitors []*overloadv3.ResourceMonitor
	for _, m := range []struct {
		name   string
		config proto.Message
	}{
		{heap, &heapv3.FixedHeapConfig{MaxHeapSizeBytes: c.MaxHeapBytes}},
		{connections, &downstreamv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: c.MaxConnections}},
	} {
		packed, err := anypb.New(m.config)
		if err != nil {
			return nil, fmt.Errorf("marshal %s: %w", m.name, err)
		}
		monitors = append(monitors, &overloadv3.ResourceMonitor{
			Name: m.name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: packed},
		})
	}
	action := func(name string, threshold float64) *overloadv3.OverloadAction {
		return &overloadv3.OverloadAction{Name: name, Triggers: []*overloadv3.Trigger{{
			Name: heap, TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: threshold}},
		}}}
	}
	return &overloadv3.OverloadManager{
		RefreshInterval:  durationpb.New(250 * time.Millisecond),
		ResourceMonitors: monitors,
		Actions: []*overloadv3.OverloadAction{
			action("envoy.overload_actions.shrink_heap", 0.95),
			action("envoy.overload_actions.stop_accepting_requests", 0.98),
		},
	}, nil
}

// statsConfig takes the pool out of the names of cluster metrics: Envoy's own tag
// for the cluster ends at the first dot, so that without this each pool would have
// metrics of its own name.
func statsConfig(pools []string) *metricsv3.StatsConfig {
	if len(pools) == 0 {
		return nil
	}
	return &metricsv3.StatsConfig{StatsTags: []*metricsv3.TagSpecifier{{
		TagName:  "traffic.pool",
		TagValue: &metricsv3.TagSpecifier_Regex{Regex: `^cluster\.[^.]+\.((` + strings.Join(pools, "|") + `)\.)`},
	}}}
}

func address(ap netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ap.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ap.Port())},
	}}}
}

// JSON returns the bootstrap as Envoy reads it from a .json file. Unlike protojson
// alone it is the same for the same message.
func JSON(b *bootstrapv3.Bootstrap) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("marshal bootstrap: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("indent bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func node(c Config) *corev3.Node {
	n := &corev3.Node{Id: c.ID, Cluster: c.Cluster}
	if c.Generation > 0 {
		n.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			parts.GenerationKey: structpb.NewNumberValue(float64(c.Generation)),
		}}
	}
	return n
}
