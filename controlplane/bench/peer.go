package main

import (
	"context"
	"fmt"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// peer is go-control-plane's snapshot cache.
type peer struct {
	listen    string
	endpoints policy.Endpoints
	cache     cache.SnapshotCache
	server    serverv3.Server
	version   int
}

// oneForAll gives all edges the same snapshot.
type oneForAll struct{}

func (oneForAll) ID(*corev3.Node) string { return "edge" }

func newPeer(ctx context.Context, c planeConfig) *peer {
	p := &peer{listen: c.listen, endpoints: endpoints(c.services, c.upstreams), cache: cache.NewSnapshotCache(true, oneForAll{}, nil)}
	p.server = serverv3.NewServer(ctx, p.cache, nil)
	return p
}

func (p *peer) serve(_ context.Context, lis net.Listener) error {
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, p.server)
	return g.Serve(lis)
}

var peerTypes = map[xds.Type]resource.Type{
	xds.Clusters: resource.ClusterType, xds.Endpoints: resource.EndpointType, xds.Listeners: resource.ListenerType,
	xds.Extensions: resource.ExtensionConfigType, xds.Routes: resource.RouteType,
}

// apply renders all of the plan, with all virtual hosts in the route configuration,
// and feeds the cache.
func (p *peer) apply(pol policy.Policy, rendered func()) error {
	pl, err := makePlan(pol, p.endpoints, p.listen)
	if err != nil {
		return err
	}
	messages, err := xds.Messages(pl)
	if err != nil {
		return err
	}
	routes, ok := messages[xds.Routes][0].(*routev3.RouteConfiguration)
	if !ok {
		return fmt.Errorf("routes are a %T", messages[xds.Routes][0])
	}
	routes.Vhds = nil
	for _, m := range messages[xds.VirtualHosts] {
		h, _ := m.(*routev3.VirtualHost)
		routes.VirtualHosts = append(routes.VirtualHosts, h)
	}
	resources := map[resource.Type][]types.Resource{}
	for t, into := range peerTypes {
		for _, m := range messages[t] {
			resources[into] = append(resources[into], m)
		}
	}
	rendered()
	p.version++
	snap, err := cache.NewSnapshot(fmt.Sprint(p.version), resources)
	if err != nil {
		return err
	}
	return p.cache.SetSnapshot(context.Background(), "edge", snap)
}
