package server

import (
	"context"
	"errors"
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
	"github.com/tracegate/tracegate/controlplane/xds/parts"
)

// edge is one open stream. It stands on both sides of go-control-plane's delta
// server, which keeps subscriptions and nonces: as its callbacks it sees each
// request and response, as its cache it decides what is sent.
//
// The delta server's own caches would mark a response as delivered when it is
// sent, so a rejected one would never be offered again, and they send every type
// the moment it changes. Both are decided here, by what the edge acknowledged.
type edge struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	changed func() // tells the server that status has changed; must not block
	proven  string // the name in its certificate; empty: it has shown none

	identified func(id string) // tells the server who it is; calls update where there is a target

	mu      sync.Mutex
	id      string
	gen     int64 // tells processes apart that take over from each other; the later has the larger. 0: it has not said
	since   time.Time
	target  *xds.Snapshot // nil until there is one; set by the server alone, which may read it without mu
	has     have
	watches [xds.NumTypes]*watch
	nacks   []Nack
	timer   *time.Timer // fires advance when waiting alone opens a gate
	closed  bool
}

// watch is a request that waits for its response.
type watch struct {
	request *discoveryv3.DeltaDiscoveryRequest
	out     chan cache.DeltaResponse
}

func newEdge(cfg Config, m *metrics, log *slog.Logger, changed func()) *edge {
	e := &edge{cfg: cfg, log: log, metrics: m, changed: changed, identified: func(string) {}, since: time.Now()}
	for i := range e.has {
		e.has[i] = newTypeState()
	}
	return e
}

// update sets what the edge should have and sends what may go at once. changed are
// the names that differ from what it should have had.
func (e *edge) update(target *xds.Snapshot, changed [xds.NumTypes][]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := e.target == nil
	e.target = target
	for t, names := range changed {
		for _, name := range names {
			e.has.look(xds.Type(t), target, name)
		}
		if !first {
			continue
		}
		for name := range e.has[t].acked { // what it brought along
			e.has.look(xds.Type(t), target, name)
		}
	}
	e.advance()
}

// CreateDeltaWatch is called with every request, after OnStreamDeltaRequest has
// seen it. It never blocks: out has room for a response of each type.
func (e *edge) CreateDeltaWatch(req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return nil, status.Errorf(codes.InvalidArgument, "type %q is not served here", req.GetTypeUrl())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ts := &e.has[t]
	ts.wildcard = sub.IsWildcard()
	ts.names = maps.Clone(sub.SubscribedResources())
	w := &watch{request: req, out: out}
	e.watches[t] = w
	e.advance()
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.watches[t] == w {
			e.watches[t] = nil
		}
	}, nil
}

// advance sends, for each type with an open watch and nothing in flight, what may
// be sent now. It is the only place that sends. mu is held.
func (e *edge) advance() {
	if e.target == nil || e.closed {
		return
	}
	now, wait := time.Now(), time.Duration(0)
	for i := range e.watches {
		t := xds.Type(i)
		w, ts := e.watches[t], &e.has[t]
		if w == nil || ts.flight != nil {
			continue
		}
		updated, removed, again := e.has.next(t, e.target, now, e.cfg.Warmup)
		if again > 0 {
			wait = earlier(wait, again)
		}
		if len(updated)+len(removed) == 0 {
			continue
		}
		ts.flight = &flight{updated: updated, removed: removed}
		e.has.sent(t, e.target, updated)
		e.watches[t] = nil
		w.out <- response(w.request, t, e.target.Version, ts.flight)
		e.metrics.pushed.WithLabelValues(t.String()).Inc()
	}
	e.has.note(e.target, now)
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	if wait > 0 {
		e.timer = time.AfterFunc(wait, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.advance()
		})
	}
}

func response(req *discoveryv3.DeltaDiscoveryRequest, t xds.Type, version string, f *flight) cache.DeltaResponse {
	out := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl:           t.URL(),
		SystemVersionInfo: version,
		RemovedResources:  f.removed,
	}
	for _, r := range f.updated {
		out.Resources = append(out.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
	}
	// The version map is the delta server's idea of what is delivered. It is not
	// used here, but written to, so it must not be nil.
	return &cache.DeltaPassthroughResponse{DeltaRequest: req, DeltaDiscoveryResponse: out, NextVersionMap: map[string]string{}}
}

// OnStreamDeltaRequest reads an answer (ACK or NACK) and changes of subscription.
func (e *edge) OnStreamDeltaRequest(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return status.Errorf(codes.InvalidArgument, "type %q is not served here", req.GetTypeUrl())
	}
	if e.id == "" { // only here it is written
		if err := e.identify(req.GetNode()); err != nil {
			return err
		}
		e.identified(e.id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ts := &e.has[t]
	for name, version := range req.GetInitialResourceVersions() {
		ts.acked[name] = e.brought(t, name, version)
		e.has.look(t, e.target, name)
	}
	if f := ts.flight; f != nil && req.GetResponseNonce() != "" && req.GetResponseNonce() == f.nonce {
		ts.flight = nil
		if req.GetErrorDetail() == nil {
			e.ack(t, f)
		} else {
			e.nack(t, f, req.GetErrorDetail().GetMessage())
		}
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		e.has.forget(t, e.target, name)
	}
	// A name that is subscribed again is sent again: the edge may have forgotten it
	// (xDS protocol, "subscribing to resources"). The first request names what the
	// edge brought along in the same breath, so there it says nothing.
	if len(req.GetInitialResourceVersions()) == 0 {
		for _, name := range req.GetResourceNamesSubscribe() {
			e.has.forget(t, e.target, name)
		}
	}
	if e.target != nil {
		e.has.note(e.target, time.Now()) // who is told looks before anything is sent
	}
	e.changed()
	return nil
}

// brought is a resource of an earlier stream; its body is known where it is still
// the desired one.
func (e *edge) brought(t xds.Type, name, version string) xds.Resource {
	if e.target != nil {
		if r, ok := e.target.Find(t, name); ok && r.Version == version {
			return r
		}
	}
	return xds.Resource{Name: name, Version: version}
}

// maxID bounds the node id, which is a metric label and a line in status.
const maxID = 64

func nodeID(node *corev3.Node) (string, error) {
	id := node.GetId()
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return "", status.Errorf(codes.InvalidArgument, "node id %q is not 1 to %d printable characters", id, maxID)
	}
	return id, nil
}

func (e *edge) identify(node *corev3.Node) error {
	id, err := nodeID(node)
	if err != nil {
		return err
	}
	if e.proven != "" && id != e.proven {
		e.metrics.refused.WithLabelValues("identity").Inc()
		return status.Errorf(codes.PermissionDenied, "node id %q is not the name in the certificate, %q", id, e.proven)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.id = id
	e.gen = int64(node.GetMetadata().GetFields()[parts.GenerationKey].GetNumberValue())
	e.log = e.log.With("edge", id)
	e.log.Info("edge connected", "envoy", node.GetUserAgentBuildVersion().GetVersion().String())
	return nil
}

func (e *edge) ack(t xds.Type, f *flight) {
	ts := &e.has[t]
	for _, r := range f.updated {
		if _, had := ts.acked[r.Name]; !had {
			ts.changed = time.Now()
		}
		ts.acked[r.Name] = r
		e.has.look(t, e.target, r.Name)
		if o := (offer{name: r.Name}); ts.rejected[o].version == r.Version {
			delete(ts.rejected, o)
		}
	}
	for _, name := range f.removed {
		delete(ts.acked, name)
		e.has.look(t, e.target, name)
		delete(ts.rejected, offer{name: name, removal: true})
	}
	e.metrics.acks.WithLabelValues(e.id, t.String()).Inc()
}

const never = 100 * 365 * 24 * time.Hour

func (e *edge) nack(t xds.Type, f *flight, reason string) {
	ts, now := &e.has[t], time.Now()
	reject := func(o offer, version string) {
		rej := ts.rejected[o]
		if rej.version != version {
			rej = rejection{version: version}
		}
		rej.delay = min(max(2*rej.delay, e.cfg.RetryMin), e.cfg.RetryMax)
		if t == xds.Extensions {
			// Envoy 1.40 acknowledges the same filter configuration when it is offered
			// again, without having loaded it: a second offer would hide the fault.
			rej.delay = never
		}
		rej.retryAt = now.Add(rej.delay)
		if t == xds.VirtualHosts && len(f.updated)+len(f.removed) > 1 {
			rej.retryAt, rej.delay = now, 0 // each alone, to learn which it is
		}
		ts.rejected[o] = rej
	}
	for _, r := range f.updated {
		reject(offer{name: r.Name}, r.Version)
		if ts.acked[r.Name].Version != r.Version { // what failed was not a roll-back itself
			ts.restore[r.Name] = struct{}{}
		}
	}
	for _, name := range f.removed {
		reject(offer{name: name, removal: true}, "")
	}
	names := blamed(f, reason)
	n := Nack{Type: t, Names: names, Resource: clip(strings.Join(names, ", ")), Reason: clip(reason), Version: e.target.Version, Time: now, Count: 1}
	e.nacks = remember(e.nacks, n)
	e.metrics.nacks.WithLabelValues(e.id, t.String()).Inc()
	e.log.Warn("edge rejected configuration", "type", t.String(), "resource", n.Resource, "reason", n.Reason, "version", n.Version)
}

// blamed names the resources of a rejected response: those that Envoy's reason
// mentions, else all of them.
func blamed(f *flight, reason string) []string {
	all := slices.Clone(f.removed)
	for _, r := range f.updated {
		all = append(all, r.Name)
	}
	var named []string
	for _, name := range all {
		if strings.Contains(reason, name) {
			named = append(named, name)
		}
	}
	if len(named) > 0 {
		return named
	}
	return all
}

// OnStreamDeltaResponse learns the nonce that the delta server gave a response.
func (e *edge) OnStreamDeltaResponse(_ int64, req *discoveryv3.DeltaDiscoveryRequest, resp *discoveryv3.DeltaDiscoveryResponse) {
	t, ok := xds.TypeOf(req.GetTypeUrl())
	if !ok {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.has[t].flight; f != nil {
		f.nonce = resp.GetNonce()
	}
}

// OnDeltaStreamOpen has nothing to do: the edge exists.
func (e *edge) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed stops what waits.
func (e *edge) OnDeltaStreamClosed(int64, *corev3.Node) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.timer != nil {
		e.timer.Stop()
	}
}

// CreateWatch is for gRPC clients.
func (e *edge) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, errOtherProtocol
}

// Fetch is REST, which is not served.
func (e *edge) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, errOtherProtocol
}

var errOtherProtocol = errors.New("not served on this stream")
