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
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Static is a snapshot as one bootstrap, in JSON, that Envoy can check without a control
// plane (--mode validate). What comes by discovery stands where it would be used: routes
// and virtual hosts in the listener, endpoints in clusters, keys in their filter. The Wasm
// filter is left out: its module is no part of a plan.
func Static(s *Snapshot) ([]byte, error) {
	clusters, err := staticClusters(s)
	if err != nil {
		return nil, err
	}
	listener, err := staticListener(s)
	if err != nil {
		return nil, err
	}
	// As edge/bootstrap sets it.
	runtime, err := structpb.NewStruct(map[string]any{"re2.max_program_size.error_level": 200})
	if err != nil {
		return nil, fmt.Errorf("make runtime layer: %w", err)
	}
	return protojson.Marshal(&bootstrapv3.Bootstrap{
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Listeners: []*listenerv3.Listener{listener}, Clusters: clusters},
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
	}
	return clusters, nil
}

func staticListener(s *Snapshot) (*listenerv3.Listener, error) {
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
	if len(listeners) != 1 || len(routes) != 1 {
		return nil, fmt.Errorf("%d listeners and %d route configurations, not one of each", len(listeners), len(routes))
	}
	routes[0].VirtualHosts, routes[0].Vhds = append(routes[0].VirtualHosts, hosts...), nil
	var hcm hcmv3.HttpConnectionManager
	filter := listeners[0].GetFilterChains()[0].GetFilters()[0]
	if err := filter.GetTypedConfig().UnmarshalTo(&hcm); err != nil {
		return nil, fmt.Errorf("read connection manager: %w", err)
	}
	hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes[0]}
	if hcm.HttpFilters, err = staticFilters(s, hcm.GetHttpFilters()); err != nil {
		return nil, err
	}
	config, err := packed(&hcm)
	if err != nil {
		return nil, fmt.Errorf("marshal connection manager: %w", err)
	}
	filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: config}
	return listeners[0], nil
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
			if e.GetName() == f.GetName() && f.GetName() == JWTName {
				out = append(out, &hcmv3.HttpFilter{Name: f.GetName(), ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: e.GetTypedConfig()}})
			}
		}
	}
	return out, nil
}
