// Package server gives each connected Envoy the snapshot it should have, over
// delta ADS, and knows what each of them has acknowledged.
//
// It makes before it breaks: what routes refer to is acknowledged before the
// routes are sent, and removed after they are gone ([have.next]). A rejected
// response is undone, shown with Envoy's reason and offered again with back-off.
//
// It does not render resources (controlplane/xds) and does not choose what to go
// back to when a snapshot is rejected: controlplane, which calls Set, does that on
// [Server.Changed]. It has no authentication yet: it must listen on loopback.
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
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// Server serves one snapshot to every edge.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	cfg     Config
	log     *slog.Logger
	metrics *metrics
	changed chan struct{}

	mu     sync.Mutex
	target *xds.Snapshot
	open   map[*edge]struct{}
	gone   []Edge // edges that went, newest last, one an id
}

// New returns a server without a snapshot; until it has one, edges wait.
func New(cfg Config, reg prometheus.Registerer, log *slog.Logger) *Server {
	return &Server{
		cfg:     cfg,
		log:     log,
		metrics: newMetrics(reg),
		changed: make(chan struct{}, 1),
		open:    map[*edge]struct{}{},
	}
}

// Set makes snap what every edge should have. It does not wait.
func (s *Server) Set(snap *xds.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := cmp.Or(s.target, new(xds.Snapshot)).Changes(snap) // for all edges at once
	s.target = snap
	for e := range s.open {
		e.update(snap, changed)
	}
	s.notify()
}

// Changed has a value whenever [Server.Edges] may have changed since it was last read.
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

// Serve answers on lis until ctx is done. Streams never end by themselves, so they
// are cut; edges keep what they have and connect again.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(4<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
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
	e, err := s.join()
	if err != nil {
		return err
	}
	defer s.leave(e)
	// One delta server a stream: its callbacks are then this edge's alone.
	return delta.NewServer(stream.Context(), e, e).DeltaStreamHandler(stream, resource.AnyType)
}

// StreamAggregatedResources is state of the world, which is not served.
func (s *Server) StreamAggregatedResources(discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	s.metrics.refused.WithLabelValues("state_of_the_world").Inc()
	return status.Error(codes.Unimplemented, errDeltaOnly.Error())
}

func (s *Server) join() (*edge, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.cfg.MaxEdges {
		s.metrics.refused.WithLabelValues("too_many").Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "%d edges are connected already", len(s.open))
	}
	e := newEdge(s.cfg, s.metrics, s.log, s.notify)
	if s.target != nil {
		e.update(s.target, new(xds.Snapshot).Changes(s.target))
	}
	s.open[e] = struct{}{}
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
		st.Connected, st.Since = false, time.Now()
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
