package xds

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/controlplane/plan"
)

// Names that the edge's resources refer to each other by.
const (
	ListenerName = "edge"
	RoutesName   = "edge"
	FilterName   = "traffic" // the Wasm filter, its ECDS resource and its root id
	ObserveName  = "observe" // cluster of the OTLP receiver
)

// resources are the messages before they are marshaled; golden tests print them.
type resources struct {
	listeners  []*listenerv3.Listener
	routes     []*routev3.RouteConfiguration
	clusters   []*clusterv3.Cluster
	endpoints  []*endpointv3.ClusterLoadAssignment
	extensions []*corev3.TypedExtensionConfig
}

// Build renders p. An error says which resource breaks a rule of Envoy's own
// validation, so it is found here and not as a NACK.
func Build(p plan.Plan) (*Snapshot, error) {
	r, err := render(p)
	if err != nil {
		return nil, err
	}
	var out [NumTypes][]Resource
	if err := pack(&out, Listeners, r.listeners, (*listenerv3.Listener).GetName); err != nil {
		return nil, err
	}
	if err := pack(&out, Routes, r.routes, (*routev3.RouteConfiguration).GetName); err != nil {
		return nil, err
	}
	if err := pack(&out, Clusters, r.clusters, (*clusterv3.Cluster).GetName); err != nil {
		return nil, err
	}
	if err := pack(&out, Endpoints, r.endpoints, (*endpointv3.ClusterLoadAssignment).GetClusterName); err != nil {
		return nil, err
	}
	if err := pack(&out, Extensions, r.extensions, (*corev3.TypedExtensionConfig).GetName); err != nil {
		return nil, err
	}
	return NewSnapshot(out), nil
}

func render(p plan.Plan) (resources, error) {
	var r resources
	l, err := listener(p)
	if err != nil {
		return r, fmt.Errorf("render listener: %w", err)
	}
	r.listeners = []*listenerv3.Listener{l}
	rc, err := routes(p)
	if err != nil {
		return r, fmt.Errorf("render routes: %w", err)
	}
	r.routes = []*routev3.RouteConfiguration{rc}
	if r.clusters, r.endpoints, err = clusters(p); err != nil {
		return r, fmt.Errorf("render clusters: %w", err)
	}
	if r.extensions, err = extensions(p); err != nil {
		return r, fmt.Errorf("render filter: %w", err)
	}
	return r, nil
}

// validated is what protoc-gen-validate generates for every Envoy message.
type validated interface {
	proto.Message
	ValidateAll() error
}

func pack[M validated](out *[NumTypes][]Resource, t Type, messages []M, name func(M) string) error {
	for _, m := range messages {
		if err := m.ValidateAll(); err != nil {
			return fmt.Errorf("validate %s %q: %w", t, name(m), err)
		}
		r, err := NewResource(name(m), m)
		if err != nil {
			return err
		}
		out[t] = append(out[t], r)
	}
	return nil
}
