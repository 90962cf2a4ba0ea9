package server_test

import (
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// sotw is a client of the state-of-the-world protocol that a test speaks for.
type sotw struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func (c chain) sotw() sotw {
	c.t.Helper()
	conn, err := grpc.NewClient(c.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return sotw{c.t, stream}
}

// ask subscribes, which also acknowledges last where there is one, or refuses it.
func (s sotw) ask(t xds.Type, last *discoveryv3.DiscoveryResponse, refusal string, names ...string) {
	s.t.Helper()
	req := &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "orders-caller"}, TypeUrl: t.URL(), ResourceNames: names, ResponseNonce: last.GetNonce(), VersionInfo: last.GetVersionInfo()}
	if refusal != "" {
		req.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: refusal}
	}
	if err := s.stream.Send(req); err != nil {
		s.t.Fatal(err)
	}
}

// next is the next response, which must be of one type and have so many resources.
func (s sotw) next(t xds.Type, n int) *discoveryv3.DiscoveryResponse {
	s.t.Helper()
	r, err := s.stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	if r.GetTypeUrl() != t.URL() || len(r.GetResources()) != n {
		s.t.Fatalf("got %d of %s, want %d of %s", len(r.GetResources()), r.GetTypeUrl(), n, t.URL())
	}
	return r
}

func orders(t *testing.T, pools ...string) *xds.Snapshot {
	t.Helper()
	s := plan.Service{Name: "orders", Routes: []plan.Route{{Name: "all", Prefix: "/", Timeout: time.Second}}}
	for i, name := range pools {
		s.Pools = append(s.Pools, plan.Pool{Name: name, Protocol: policy.GRPC, Endpoints: []string{"127.0.0.1:" + []string{"9101", "9102", "9103"}[i]}})
	}
	snap, err := new(xds.Proxyless).Build(plan.Plan{Services: []plan.Service{s}})
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// TestClientMakesBeforeItBreaks follows a client through a pool that comes and goes.
func TestClientMakesBeforeItBreaks(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	s := c.sotw()
	s.ask(xds.Listeners, nil, "", "orders")
	c.SetClients(orders(t, "baseline", "canary")) // asked before there was anything
	lds := s.next(xds.Listeners, 1)
	s.ask(xds.Listeners, lds, "", "orders")
	s.ask(xds.Routes, nil, "", "orders")
	rds := s.next(xds.Routes, 1)
	s.ask(xds.Routes, rds, "", "orders")
	s.ask(xds.Clusters, nil, "", "orders.baseline", "orders.canary")
	cds := s.next(xds.Clusters, 2)
	s.ask(xds.Clusters, cds, "", "orders.baseline", "orders.canary")
	s.ask(xds.Endpoints, nil, "", "orders.baseline", "orders.canary")
	eds := s.next(xds.Endpoints, 2)
	s.ask(xds.Endpoints, eds, "", "orders.baseline", "orders.canary")

	c.SetClients(orders(t, "baseline")) // the cluster stays until no route needs it
	rds = s.next(xds.Routes, 1)
	s.ask(xds.Routes, rds, "", "orders")
	cds = s.next(xds.Clusters, 1)
	s.ask(xds.Clusters, cds, "", "orders.baseline")

	c.SetClients(orders(t, "baseline", "canary"))
	rds = s.next(xds.Routes, 1)
	s.ask(xds.Routes, rds, "no such thing as orders", "orders") // and is not sent it again
	s.ask(xds.Clusters, cds, "", "orders.baseline", "orders.canary")
	s.next(xds.Clusters, 2)
	clients := c.Clients()
	if len(clients) != 1 || clients[0].InSync || len(clients[0].Nacks) != 1 || clients[0].Nacks[0].Reason != "no such thing as orders" || !slices.Equal(clients[0].Services, []string{"orders"}) {
		t.Errorf("clients: %+v", clients)
	}
}

// TestClientBounds asks for what is not served.
func TestClientBounds(t *testing.T) {
	t.Parallel()
	c := start(t, func(c *server.Config) { c.MaxClients = 1 })
	c.SetClients(orders(t, "baseline"))
	s := c.sotw()
	s.ask(xds.Listeners, nil, "", "no-such-service")
	s.next(xds.Listeners, 0) // which says that there is none
	second := c.sotw()
	if _, err := second.stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many: %v", err)
	}
	if err := s.stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/none"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another type: %v", err)
	}
}
