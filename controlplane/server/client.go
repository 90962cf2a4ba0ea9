package server

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// client is one open stream of the state-of-the-world protocol, which gRPC clients
// without a proxy speak. As [edge], it stands on both sides of go-control-plane's
// server, here the state-of-the-world one: it sees requests and responses as its
// callbacks and decides as its cache what is sent.
//
// A response of clusters or listeners is all that the client asked for, so that what is
// missing is gone; of the other types it is what has changed. Make before break: listeners
// and routes wait until clusters and endpoints are acknowledged, and a cluster that target
// has no more stays until routes are. A refused response is not sent again until it would
// be another one, and holds up no other type.
//
// The plan never waits for clients: they come and go as processes do.
type client struct {
	metrics *metrics
	log     *slog.Logger
	changed func()

	mu     sync.Mutex
	id     string
	since  time.Time
	target *xds.Snapshot
	types  [xds.NumTypes]clientType
	nacks  []Nack
	closed bool
}

// clientType is what a client has of one type.
type clientType struct {
	asked    bool
	wildcard bool
	names    map[string]struct{}
	acked    map[string]xds.Resource
	flight   *clientFlight
	refused  string // version of the response
	request  *discoveryv3.DiscoveryRequest
	out      chan cache.Response // of request; nil: none waits
	answered bool                // at least once
}

type clientFlight struct {
	nonce, version string
	resources      []xds.Resource
}

func newClient(m *metrics, log *slog.Logger, changed func()) *client {
	return &client{metrics: m, log: log, changed: changed, since: time.Now()}
}

// update sets what the client should have and sends what may go at once.
func (c *client) update(target *xds.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = target
	c.advance()
}

// CreateWatch is called with every request that is not stale, after OnStreamRequest. It
// never blocks: out has room for a response.
func (c *client) CreateWatch(req *cache.Request, sub cache.Subscription, out chan cache.Response) (func(), error) {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "type %q is not served here", req.GetTypeUrl())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ct := &c.types[t]
	if ct.flight != nil && ct.flight.nonce == "" {
		ct.flight = nil // the stream took this request first and forgets what was to answer the one before
	}
	ct.asked, ct.wildcard, ct.names = true, sub.IsWildcard(), maps.Clone(sub.SubscribedResources())
	maps.DeleteFunc(ct.acked, func(name string, _ xds.Resource) bool { return !ct.wants(name) }) // asked again, it is sent again
	ct.request, ct.out = req, out
	c.advance()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if ct.out == out {
			ct.out = nil
		}
	}, nil
}

func (t *clientType) wants(name string) bool {
	_, named := t.names[name]
	return t.wildcard || named
}

// whole are types whose responses have everything that was asked for.
func whole(t xds.Type) bool { return t == xds.Clusters || t == xds.Listeners }

// want is what the client should have of what it asks for, and the version of that.
func (c *client) want(t xds.Type) ([]xds.Resource, string) {
	var rs []xds.Resource
	ct := &c.types[t]
	for _, r := range c.target.Resources[t] {
		if ct.wants(r.Name) {
			rs = append(rs, r)
		}
	}
	if t == xds.Clusters && (!c.at(xds.Routes) || !c.at(xds.Listeners)) {
		for name, r := range ct.acked {
			if _, ok := c.target.Find(t, name); !ok {
				rs = append(rs, r)
			}
		}
		slices.SortFunc(rs, func(a, b xds.Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	return rs, xds.VersionOfAll(rs)
}

// missing are those of rs that the client does not have.
func (t *clientType) missing(rs []xds.Resource) []xds.Resource {
	var out []xds.Resource
	for _, r := range rs {
		if t.acked[r.Name].Version != r.Version {
			out = append(out, r)
		}
	}
	return out
}

// due says what is to be sent of a type, and whether anything is.
func (c *client) due(t xds.Type) (rs []xds.Resource, version string, due bool) {
	ct := &c.types[t]
	if !ct.asked {
		return nil, "", false
	}
	rs, version = c.want(t)
	missing := ct.missing(rs)
	gone := whole(t) && len(ct.acked) > len(rs)-len(missing)
	unknown := whole(t) && !ct.answered // there may be nothing of the name, which must be said
	if len(missing) == 0 && !gone && !unknown || ct.refused == version {
		return nil, version, false
	}
	if !whole(t) {
		rs = missing
	}
	return rs, version, true
}

// at says whether the client has all of a type that it can have.
func (c *client) at(t xds.Type) bool {
	ct := &c.types[t]
	if ct.flight != nil {
		return false
	}
	if t == xds.Clusters { // those that are to go hold up nothing
		for _, r := range c.target.Resources[t] {
			if ct.wants(r.Name) && ct.acked[r.Name].Version != r.Version && ct.refused == "" {
				return false
			}
		}
		return true
	}
	_, _, due := c.due(t)
	return !due
}

// advance sends what may be sent. It is the only place that does. mu is held.
func (c *client) advance() {
	if c.target == nil || c.closed {
		return
	}
	for i := range c.types {
		t, ct := xds.Type(i), &c.types[i]
		if ct.out == nil || ct.flight != nil {
			continue
		}
		if (t == xds.Listeners || t == xds.Routes) && (!c.at(xds.Clusters) || !c.at(xds.Endpoints)) {
			continue
		}
		rs, version, due := c.due(t)
		if !due {
			continue
		}
		out := &discoveryv3.DiscoveryResponse{TypeUrl: t.URL(), VersionInfo: version}
		returned := map[string]string{}
		for _, r := range rs {
			out.Resources = append(out.Resources, r.Body)
			returned[r.Name] = r.Version
		}
		ct.flight = &clientFlight{version: version, resources: rs}
		ct.out <- &cache.PassthroughResponse{Request: ct.request, DiscoveryResponse: out, ReturnedResources: returned}
		ct.out = nil
		c.metrics.pushed.WithLabelValues(t.String()).Inc()
	}
}

// OnStreamRequest reads who it is and how it takes what it was sent.
func (c *client) OnStreamRequest(_ int64, req *discoveryv3.DiscoveryRequest) error {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return status.Errorf(codes.InvalidArgument, "type %q is not served here", req.GetTypeUrl())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == "" {
		id, err := nodeID(req.GetNode())
		if err != nil {
			return err
		}
		c.id, c.log = id, c.log.With("client", id)
		c.log.Info("gRPC client connected", "agent", req.GetNode().GetUserAgentName(), "version", req.GetNode().GetUserAgentVersion())
	}
	ct := &c.types[t]
	f := ct.flight
	if f == nil || f.nonce == "" || f.nonce != req.GetResponseNonce() {
		return nil
	}
	ct.flight = nil
	if detail := req.GetErrorDetail(); detail != nil {
		c.nack(t, f, detail.GetMessage())
	} else {
		ct.ack(t, f)
	}
	c.changed()
	return nil
}

func (t *clientType) ack(typ xds.Type, f *clientFlight) {
	if t.acked == nil || whole(typ) {
		t.acked = map[string]xds.Resource{}
	}
	for _, r := range f.resources {
		t.acked[r.Name] = r
	}
	t.refused = ""
}

func (c *client) nack(t xds.Type, f *clientFlight, reason string) {
	c.types[t].refused = f.version
	names := blamed(&flight{updated: f.resources}, reason)
	n := Nack{Type: t, Names: names, Resource: clip(strings.Join(names, ", ")), Reason: clip(reason), Version: c.target.Version, Time: time.Now(), Count: 1}
	c.nacks = remember(c.nacks, n)
	c.metrics.clientNacks.WithLabelValues(t.String()).Inc()
	c.log.Warn("gRPC client rejected configuration", "type", t.String(), "resource", n.Resource, "reason", n.Reason)
}

// OnStreamResponse learns the nonce of a response.
func (c *client) OnStreamResponse(_ context.Context, _ int64, req *discoveryv3.DiscoveryRequest, resp *discoveryv3.DiscoveryResponse) {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.types[t].flight; f != nil {
		f.nonce = resp.GetNonce()
		c.types[t].answered = true
	}
}

// OnStreamOpen has nothing to do: the client exists.
func (c *client) OnStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamClosed stops what waits.
func (c *client) OnStreamClosed(int64, *corev3.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// CreateDeltaWatch is for edges.
func (c *client) CreateDeltaWatch(*cache.DeltaRequest, cache.Subscription, chan cache.DeltaResponse) (func(), error) {
	return nil, errOtherProtocol
}

func (c *client) status() Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Client{ID: c.id, Since: c.since, Nacks: c.nacks, InSync: c.target != nil}
	for i := range c.types {
		out.InSync = out.InSync && c.at(xds.Type(i)) && c.types[i].refused == ""
		if xds.Type(i) == xds.Listeners {
			out.Services = slices.Sorted(maps.Keys(c.types[i].names))
		}
	}
	return out
}

// Clients are the gRPC clients that are connected, sorted by id; several may share one.
func (s *Server) Clients() []Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Client
	for c := range s.clients {
		if st := c.status(); st.ID != "" {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b Client) int { return cmp.Or(strings.Compare(a.ID, b.ID), a.Since.Compare(b.Since)) })
	return out
}
