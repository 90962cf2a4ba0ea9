package xds

import (
	"fmt"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Static is a snapshot as one bootstrap, in JSON, that Envoy can check without a control
// plane (--mode validate). What comes by discovery stands where it would be used: routes
// and virtual hosts in the listeners, endpoints in clusters, keys in their filter,
// certificates beside them. The Wasm filter is left out: its module is no part of a plan.
func Static(s *Snapshot) ([]byte, error) {
	clusters, err := staticClusters(s)
	if err != nil {
		return nil, err
	}
	listeners, err := staticListeners(s)
	if err != nil {
		return nil, err
	}
	secrets, err := unpacked(s, Secrets, func() *tlsv3.Secret { return new(tlsv3.Secret) })
	if err != nil {
		return nil, err
	}
	// As edge/bootstrap sets it.
	runtime, err := structpb.NewStruct(map[string]any{"re2.max_program_size.error_level": 200})
	if err != nil {
		return nil, fmt.Errorf("make runtime layer: %w", err)
	}
	return protojson.Marshal(&bootstrapv3.Bootstrap{
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Listeners: listeners, Clusters: clusters, Secrets: secrets},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime},
		}}},
	})
}

// unpacked are the messages of a type.
func unpacked[M proto.Message](s *Snapshot, t Type, empty func() M) ([]M, error) {
	var out []M
	for _, r := range s.Resources[t] {
		m := empty()
		if err := r.Body.UnmarshalTo(m); err != nil {
			return nil, fmt.Errorf("read %s %s: %w", t, r.Name, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func staticClusters(s *Snapshot) ([]*clusterv3.Cluster, error) {
	clusters, err := unpacked(s, Clusters, func() *clusterv3.Cluster { return new(clusterv3.Cluster) })
	if err != nil {
		return nil, err
	}
	endpoints, err := unpacked(s, Endpoints, func() *endpointv3.ClusterLoadAssignment { return new(endpointv3.ClusterLoadAssignment) })
	if err != nil {
		return nil, err
	}
	of := map[string]*endpointv3.ClusterLoadAssignment{}
	for _, e := range endpoints {
		of[e.GetClusterName()] = e
	}
	for _, c := range clusters {
		if e := of[c.GetName()]; e != nil && c.GetLoadAssignment() == nil {
			c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
			c.EdsClusterConfig, c.LoadAssignment = nil, e
		}
		if err := staticSocket(c.GetTransportSocket()); err != nil {
			return nil, fmt.Errorf("cluster %s: %w", c.GetName(), err)
		}
	}
	return clusters, nil
}

func staticListeners(s *Snapshot) ([]*listenerv3.Listener, error) {
	listeners, err := unpacked(s, Listeners, func() *listenerv3.Listener { return new(listenerv3.Listener) })
	if err != nil {
		return nil, err
	}
	routes, err := unpacked(s, Routes, func() *routev3.RouteConfiguration { return new(routev3.RouteConfiguration) })
	if err != nil {
		return nil, err
	}
	hosts, err := unpacked(s, VirtualHosts, func() *routev3.VirtualHost { return new(routev3.VirtualHost) })
	if err != nil {
		return nil, err
	}
	if len(routes) != 1 {
		return nil, fmt.Errorf("%d route configurations, not one", len(routes))
	}
	routes[0].VirtualHosts, routes[0].Vhds = append(routes[0].VirtualHosts, hosts...), nil
	for _, l := range listeners {
		for _, c := range l.GetFilterChains() {
			if err := staticChain(s, c, routes[0]); err != nil {
				return nil, fmt.Errorf("listener %s: %w", l.GetName(), err)
			}
		}
	}
	return listeners, nil
}

func staticChain(s *Snapshot, c *listenerv3.FilterChain, routes *routev3.RouteConfiguration) error {
	var hcm hcmv3.HttpConnectionManager
	filter := proto.CloneOf(c.GetFilters()[0]) // chains share it
	if err := filter.GetTypedConfig().UnmarshalTo(&hcm); err != nil {
		return fmt.Errorf("read connection manager: %w", err)
	}
	if hcm.GetRds() != nil {
		hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
	}
	var err error
	if hcm.HttpFilters, err = staticFilters(s, hcm.GetHttpFilters()); err != nil {
		return err
	}
	config, err := packed(&hcm)
	if err != nil {
		return fmt.Errorf("marshal connection manager: %w", err)
	}
	filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: config}
	c.Filters = []*listenerv3.Filter{filter}
	return staticSocket(c.GetTransportSocket())
}

// staticSocket makes a socket look for its certificates in the bootstrap.
func staticSocket(socket *corev3.TransportSocket) error {
	if socket == nil {
		return nil
	}
	m, err := socket.GetTypedConfig().UnmarshalNew()
	if err != nil {
		return fmt.Errorf("read transport socket: %w", err)
	}
	var common *tlsv3.CommonTlsContext
	switch c := m.(type) {
	case *tlsv3.DownstreamTlsContext:
		common = c.GetCommonTlsContext()
	case *quicv3.QuicDownstreamTransport:
		common = c.GetDownstreamTlsContext().GetCommonTlsContext()
	case *tlsv3.UpstreamTlsContext:
		common = c.GetCommonTlsContext()
	}
	for _, secret := range common.GetTlsCertificateSdsSecretConfigs() {
		secret.SdsConfig = nil
	}
	if v := common.GetCombinedValidationContext(); v != nil {
		v.GetValidationContextSdsSecretConfig().SdsConfig = nil
	}
	config, err := packed(m)
	if err != nil {
		return fmt.Errorf("marshal transport socket: %w", err)
	}
	socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: config}
	return nil
}

func staticFilters(s *Snapshot, in []*hcmv3.HttpFilter) ([]*hcmv3.HttpFilter, error) {
	extensions, err := unpacked(s, Extensions, func() *corev3.TypedExtensionConfig { return new(corev3.TypedExtensionConfig) })
	if err != nil {
		return nil, err
	}
	var out []*hcmv3.HttpFilter
	for _, f := range in {
		if f.GetConfigDiscovery() == nil {
			out = append(out, f)
			continue
		}
		for _, e := range extensions {
			if e.GetName() == f.GetName() && f.GetName() != FilterName {
				out = append(out, &hcmv3.HttpFilter{Name: f.GetName(), ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: e.GetTypedConfig()}})
			}
		}
	}
	return out, nil
}
