// Package server gives each connected Envoy the snapshot it should have, over
// delta ADS, and knows what each of them has acknowledged. gRPC clients that balance for
// themselves get theirs, over state-of-the-world ADS, which is all that they speak; so the
// protocol tells who is who.
//
// It makes before it breaks: what routes refer to is acknowledged before the
// routes are sent, and removed after they are gone ([have.next]). A rejected
// response is undone, shown with Envoy's reason and offered again with back-off.
//
// It does not render resources (controlplane/xds) and does not choose what to go
// back to when a snapshot is rejected: controlplane, which calls Set, does that on
// [Server.Changed].
package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/mesh/identity"
)

// Server serves one snapshot to every edge, or to every edge but one that has another, and
// one to every gRPC client.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	cfg     Config
	log     *slog.Logger
	metrics *metrics
	changed chan struct{}

	mu     sync.Mutex
	target *xds.Snapshot
	staged *xds.Snapshot    // what one edge should have instead; nil: no edge
	first  string           // the id of that edge
	open   map[*edge]string // to the id; empty: it has not said who it is, and gets nothing
	gone   []Edge           // edges that went, newest last, one an id

	clientTarget *xds.Snapshot // nil until a client has come
	clients      map[*client]struct{}
}

// New returns a server without a snapshot; until it has one, edges wait.
func New(cfg Config, reg prometheus.Registerer, log *slog.Logger) *Server {
	return &Server{
		cfg:     cfg,
		log:     log,
		metrics: newMetrics(reg),
		changed: make(chan struct{}, 1),
		open:    map[*edge]string{},
		clients: map[*client]struct{}{},
	}
}

// Set makes snap what every edge should have, but for one that [Server.Stage] names. It
// does not wait.
func (s *Server) Set(snap *xds.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = snap
	s.retarget()
}

// Stage makes snap what the edge of the id should have instead of what all have, whether
// it is connected or not; nil ends that for whichever edge it was. It does not wait.
func (s *Server) Stage(snap *xds.Snapshot, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged, s.first = snap, id
	s.retarget()
}

func (s *Server) targetOf(id string) *xds.Snapshot {
	if s.staged != nil && id == s.first {
		return s.staged
	}
	return s.target
}

// retarget gives each edge what it should have. What differs is found once for all edges
// that go the same way. mu is held.
func (s *Server) retarget() {
	type way struct{ from, to *xds.Snapshot }
	ways := map[way][xds.NumTypes][]string{}
	for e, id := range s.open {
		w := way{e.target, s.targetOf(id)} // only this server changes it, with mu held
		if id == "" || w.from == w.to || w.to == nil {
			continue
		}
		changed, found := ways[w]
		if !found {
			changed = cmp.Or(w.from, new(xds.Snapshot)).Changes(w.to)
			ways[w] = changed
		}
		e.update(w.to, changed)
	}
	s.notify()
}

// identified gives an edge what one of its id should have.
func (s *Server) identified(e *edge, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[e] = id
	s.retarget()
}

// SetClients makes snap what gRPC clients should have. It does not wait.
func (s *Server) SetClients(snap *xds.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clientTarget != nil && s.clientTarget.Version == snap.Version {
		return
	}
	s.clientTarget = snap
	for c := range s.clients {
		c.update(snap)
	}
}

// HasClients says whether a gRPC client is connected: nobody else needs [Server.SetClients].
func (s *Server) HasClients() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients) > 0
}

// Changed has a value whenever [Server.Edges] or [Server.Clients] may have changed since it was last read.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default: // one is waiting already
	}
}

// Edges are the connected edges and those that went, sorted by id.
func (s *Server) Edges() []Edge {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.gone)
	for e := range s.open {
		st := e.status()
		if st.ID == "" {
			continue // has not said who it is
		}
		out = slices.DeleteFunc(out, func(g Edge) bool { return !g.Connected && g.ID == st.ID })
		out = append(out, st)
	}
	slices.SortStableFunc(out, func(a, b Edge) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Serving is, by id, the generation of the newest Envoy that has all it should have. Of
// edges that do not say theirs it has none.
func (s *Server) Serving() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for e := range s.open {
		if id, generation := e.serves(); generation > 0 {
			out[id] = max(out[id], generation)
		}
	}
	return out
}

// Serve answers on lis until ctx is done. Streams never end by themselves, so they
// are cut; edges keep what they have and connect again.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(4 << 20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if s.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.cfg.TLS)))
	}
	g := grpc.NewServer(options...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(lis); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve xds: %w", err)
	}
	return nil
}

// DeltaAggregatedResources is one edge's stream.
func (s *Server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	proven, err := s.proven(stream.Context())
	if err != nil {
		return err
	}
	e, err := s.join()
	if err != nil {
		return err
	}
	e.proven = proven
	defer s.leave(e)
	// One delta server a stream: its callbacks are then this edge's alone.
	return delta.NewServer(stream.Context(), e, e).DeltaStreamHandler(stream, resource.AnyType)
}

// StreamAggregatedResources is one gRPC client's stream.
func (s *Server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if _, _, err := s.peer(stream.Context()); err != nil {
		return err
	}
	c, err := s.joinClient()
	if err != nil {
		return err
	}
	defer s.leaveClient(c)
	return sotw.NewServer(stream.Context(), c, c, sotw.DeactivateLegacyWildcard()).StreamHandler(stream, resource.AnyType)
}

func (s *Server) joinClient() (*client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) >= s.cfg.MaxClients {
		s.metrics.refused.WithLabelValues("too_many").Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "%d clients are connected already", len(s.clients))
	}
	c := newClient(s.metrics, s.log, s.notify)
	c.target = s.clientTarget
	s.clients[c] = struct{}{}
	s.metrics.clients.Inc()
	s.notify()
	return c, nil
}

func (s *Server) leaveClient(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	s.metrics.clients.Dec()
	s.notify()
}

// proven is the name that an edge's certificate has; empty where streams are not
// encrypted.
func (s *Server) proven(ctx context.Context) (string, error) {
	part, name, err := s.peer(ctx)
	if err != nil || s.cfg.TLS == nil {
		return "", err
	}
	if part != identity.Edge || name == "" {
		return "", s.refuse(fmt.Sprintf("certificate is of %q, not of an edge", part))
	}
	return name, nil
}

// peer is who is at the other end, as its certificate says; nobody where streams are not
// encrypted.
func (s *Server) peer(ctx context.Context) (identity.Part, string, error) {
	if s.cfg.TLS == nil {
		return "", "", nil
	}
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", "", s.refuse("connection is not encrypted")
	}
	part, name, err := identity.Of(info.State)
	if err != nil {
		return "", "", s.refuse(err.Error())
	}
	return part, name, nil
}

func (s *Server) refuse(why string) error {
	s.metrics.refused.WithLabelValues("identity").Inc()
	s.log.Warn("a stream is refused", "reason", why)
	return status.Error(codes.PermissionDenied, why)
}

func (s *Server) join() (*edge, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.cfg.MaxEdges {
		s.metrics.refused.WithLabelValues("too_many").Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "%d edges are connected already", len(s.open))
	}
	e := newEdge(s.cfg, s.metrics, s.log, s.notify)
	e.identified = func(id string) { s.identified(e, id) }
	s.open[e] = ""
	s.metrics.edges.Inc()
	return e, nil
}

// maxGone bounds how many edges that went are remembered.
const maxGone = 64

func (s *Server) leave(e *edge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, e)
	s.metrics.edges.Dec()
	if st := e.status(); st.ID != "" {
		st = st.left(time.Now())
		s.gone = slices.DeleteFunc(s.gone, func(g Edge) bool { return g.ID == st.ID })
		s.gone = append(s.gone, st)
		if len(s.gone) > maxGone {
			s.metrics.forget(s.gone[0].ID)
			s.gone = slices.Delete(s.gone, 0, 1)
		}
		s.log.Info("edge disconnected", "edge", st.ID)
	}
	s.notify()
}
