// Package servertest is an Envoy for tests: as much of one as speaks delta ADS. It
// subscribes as Envoy does - endpoints when it learns of a cluster, routes and
// filters when it learns of a listener, virtual hosts when it learns of routes - and tells the test each response it got.
package servertest

import (
	"context"
	"crypto/tls"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/controlplane/xds/parts"
)

// Got is one response.
type Got struct {
	Type    xds.Type
	Updated []string // names, sorted
	Removed []string
	Version string
	Nacked  bool
}

// Edge is a connected fake. Its zero Answer acknowledges everything.
type Edge struct {
	// Events has every response in the order it came, after it was answered.
	Events chan Got
	// Ended has the stream's error when it ended.
	Ended chan error

	t      testing.TB
	cancel context.CancelFunc
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

	mu     sync.Mutex
	answer func(xds.Type, *discoveryv3.DeltaDiscoveryResponse) string
	has    [xds.NumTypes]map[string]string
}

// Options of a connection; the zero value is an edge called "edge-1" that starts
// with nothing.
type Options struct {
	ID string
	// Generation is what it says of itself, where above 0.
	Generation int64
	// TLS is how it proves who it is; nil: it does not.
	TLS *tls.Config
	// Has is what the edge brings along from an earlier connection.
	Has [xds.NumTypes]map[string]string
	// Answer returns why a response is rejected, or nothing.
	Answer func(xds.Type, *discoveryv3.DeltaDiscoveryResponse) string
}

// Connect opens a stream and subscribes to clusters and listeners. The stream ends
// with the test.
func Connect(t testing.TB, addr string, o Options) *Edge {
	t.Helper()
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e := &Edge{Events: make(chan Got, 1000), Ended: make(chan error, 1), t: t, cancel: cancel, stream: stream, answer: o.Answer}
	brought := false
	for i := range e.has {
		e.has[i] = map[string]string{}
		maps.Copy(e.has[i], o.Has[i])
		brought = brought || len(o.Has[i]) > 0
	}
	if o.ID == "" {
		o.ID = "edge-1"
	}
	node := &corev3.Node{Id: o.ID}
	if o.Generation > 0 {
		node.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{parts.GenerationKey: structpb.NewNumberValue(float64(o.Generation))}}
	}
	e.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: xds.Clusters.URL(), InitialResourceVersions: e.has[xds.Clusters]})
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Listeners.URL(), InitialResourceVersions: e.has[xds.Listeners]})
	if brought {
		for _, typ := range []xds.Type{xds.Endpoints, xds.Secrets, xds.Extensions, xds.Routes, xds.VirtualHosts} {
			names := slices.Sorted(maps.Keys(e.has[typ]))
			if typ == xds.VirtualHosts {
				names = []string{xds.RoutesName}
			}
			e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL(), InitialResourceVersions: e.has[typ], ResourceNamesSubscribe: names})
		}
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
		conn.Close()
	})
	go func() {
		defer close(done)
		e.Ended <- e.receive()
	}()
	return e
}

// Close ends the stream, as a crash of Envoy would.
func (e *Edge) Close() { e.cancel() }

// Answer changes how responses are answered from now on.
func (e *Edge) Answer(answer func(xds.Type, *discoveryv3.DeltaDiscoveryResponse) string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = answer
}

// Has is what the edge has acknowledged: type -> name -> version.
func (e *Edge) Has() [xds.NumTypes]map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out [xds.NumTypes]map[string]string
	for i := range e.has {
		out[i] = maps.Clone(e.has[i])
	}
	return out
}

// Next waits for the next response.
func (e *Edge) Next() Got {
	e.t.Helper()
	select {
	case g := <-e.Events:
		return g
	case err := <-e.Ended:
		e.t.Fatalf("stream ended: %v", err)
	case <-time.After(10 * time.Second):
		e.t.Fatal("no response within 10s")
	}
	return Got{}
}

// Subscribe asks for names of a type by hand.
func (e *Edge) Subscribe(typ xds.Type, names ...string) {
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL(), ResourceNamesSubscribe: names})
}

func (e *Edge) send(r *discoveryv3.DeltaDiscoveryRequest) {
	// A stream that is gone shows in Ended.
	_ = e.stream.Send(r)
}

func (e *Edge) receive() error {
	for {
		resp, err := e.stream.Recv()
		if err != nil {
			return err
		}
		typ, ok := xds.TypeOf(resp.GetTypeUrl())
		if !ok {
			e.t.Errorf("response of type %q", resp.GetTypeUrl())
			continue
		}
		e.handle(typ, resp)
	}
}

func (e *Edge) handle(typ xds.Type, resp *discoveryv3.DeltaDiscoveryResponse) {
	g := Got{Type: typ, Removed: slices.Sorted(slices.Values(resp.GetRemovedResources())), Version: resp.GetSystemVersionInfo()}
	for _, r := range resp.GetResources() {
		g.Updated = append(g.Updated, r.GetName())
	}
	slices.Sort(g.Updated)
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL(), ResponseNonce: resp.GetNonce()}
	e.mu.Lock()
	reason := ""
	if e.answer != nil {
		reason = e.answer(typ, resp)
	}
	var follow []*discoveryv3.DeltaDiscoveryRequest
	if reason == "" {
		follow = e.take(typ, resp)
	} else {
		g.Nacked = true
		req.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: reason}
	}
	e.mu.Unlock()
	e.send(req)
	for _, r := range follow {
		e.send(r)
	}
	e.Events <- g
}

// take applies a response and returns the subscriptions that follow from it.
func (e *Edge) take(typ xds.Type, resp *discoveryv3.DeltaDiscoveryResponse) []*discoveryv3.DeltaDiscoveryRequest {
	var names, filters, secrets []string
	for _, r := range resp.GetResources() {
		_, had := e.has[typ][r.GetName()]
		e.has[typ][r.GetName()] = r.GetVersion()
		var c clusterv3.Cluster
		switch {
		case had:
		case typ == xds.Clusters && r.GetResource().UnmarshalTo(&c) == nil && c.GetEdsClusterConfig() != nil:
			names = append(names, r.GetName())
		case typ == xds.Listeners && r.GetName() == xds.ListenerName:
			filters = append(filters, xds.JWTName, xds.RequireName, xds.FilterName, xds.RateLimitName)
		case typ == xds.Listeners:
			filters, secrets = append(filters, xds.TLSHeadersName), append(secrets, shown(r)...)
		case typ == xds.Routes:
			return []*discoveryv3.DeltaDiscoveryRequest{{TypeUrl: xds.VirtualHosts.URL(), ResourceNamesSubscribe: []string{r.GetName()}}}
		}
	}
	out := e.forget(typ, resp.GetRemovedResources())
	subscribe := func(t xds.Type, names ...string) {
		if len(names) > 0 {
			out = append(out, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t.URL(), ResourceNamesSubscribe: names})
		}
	}
	subscribe(xds.Endpoints, names...)
	subscribe(xds.Secrets, secrets...)
	subscribe(xds.Extensions, filters...)
	if len(filters) > 0 {
		subscribe(xds.Routes, xds.RoutesName)
	}
	return out
}

// shown are the certificates of a listener: its filter chains are named after them.
func shown(r *discoveryv3.Resource) []string {
	var l listenerv3.Listener
	if r.GetResource().UnmarshalTo(&l) != nil {
		return nil
	}
	var out []string
	for _, c := range l.GetFilterChains() {
		out = append(out, c.GetName())
	}
	return out
}

func (e *Edge) forget(typ xds.Type, removed []string) []*discoveryv3.DeltaDiscoveryRequest {
	for _, name := range removed {
		delete(e.has[typ], name)
		delete(e.has[xds.Endpoints], name)
	}
	if typ != xds.Clusters || len(removed) == 0 {
		return nil
	}
	return []*discoveryv3.DeltaDiscoveryRequest{{TypeUrl: xds.Endpoints.URL(), ResourceNamesUnsubscribe: removed}}
}
