// Package controlplane joins the parts of the control plane: it watches policy
// and endpoints, measures groups, decides, programs the edges and publishes the
// placement.
//
// Run wires; loop.go owns all state in one goroutine. What is decided, planned and
// rendered is in the pure packages decide, policy, plan and xds; the rims are
// source, server, ctl and durable. main calls Run and brings the stores.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/source"
)

// Deps is what the control plane needs of others.
type Deps struct {
	Stats     StatsSource
	Decisions DecisionStore
	Causes    CauseSource          // nil: decisions are not explained by probes
	Why       WhySource            // nil: nor by traces
	Tracing   trace.TracerProvider // nil: no spans
	Registry  *prometheus.Registry

	// XDS and Control listen already; nil: Run listens on the addresses of Config.
	// Run closes them.
	XDS, Control net.Listener
}

// Run works until ctx is done. It then ends in order: no more decisions, answers
// that are under way, the last decisions to the store, streams of edges - which
// keep what they have.
func Run(ctx context.Context, cfg Config, deps Deps, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configure control plane: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create data folder: %w", err)
	}
	xdsListener, err := listen(deps.XDS, cfg.XDSAddress)
	if err != nil {
		return fmt.Errorf("listen for edges: %w", err)
	}
	defer xdsListener.Close()
	controlListener, err := listen(deps.Control, cfg.ControlAddress)
	if err != nil {
		return fmt.Errorf("listen for control API: %w", err)
	}
	defer controlListener.Close()

	revisions, damaged, err := history.Open(filepath.Join(cfg.Dir, "policies"))
	if err != nil {
		return err
	}
	for _, err := range damaged {
		log.Error("a revision of the policy is lost", "error", err)
	}

	var (
		m        = newMetrics(deps.Registry)
		edges    = server.New(cfg.Server, deps.Registry, log)
		board    = ctl.NewBoard()
		recorder = newRecorder(deps.Decisions, m, log)
		probes   = &causes{source: deps.Causes, log: log}
		traces   = newWhys(deps.Why, m, log)
		orders   = newOrders(cfg.Policy, revisions)
		policies = make(chan source.Update[policy.Policy])
		places   = make(chan source.Update[policy.Endpoints])
		measured = make(chan measurement)
		want     = make(chan windows, 1)
	)
	loop, err := newLoop(&loop{
		cfg: cfg, edges: edges, board: board, recorder: recorder, causes: probes, whys: traces, history: revisions,
		tracer: tracer(deps.Tracing), metrics: m, log: log,
	}, deps.Registry)
	if err != nil {
		return err
	}
	defer loop.close()
	api := &http.Server{
		Handler: ctl.New(ctl.Tokens{Operator: cfg.Token, Viewer: cfg.ViewerToken}, board, orders, revisions,
			promhttp.HandlerFor(deps.Registry, promhttp.HandlerOpts{}), log),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}

	// Edges are cut last: a restart of this process must not look to them like a
	// change, and they keep what they have.
	edgesCtx, cutEdges := context.WithCancel(context.WithoutCancel(ctx))
	defer cutEdges()
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		return source.File[policy.Policy]{Path: cfg.Policy, Parse: new(policy.Reader).Parse, MaxSize: policy.MaxSize}.Run(ctx, policies)
	})
	work.Go(func() error {
		return source.File[policy.Endpoints]{Path: cfg.Endpoints, Parse: policy.ParseEndpoints, MaxSize: policy.MaxSize}.Run(ctx, places)
	})
	work.Go(func() error { return measure(ctx, cfg, deps.Stats, want, measured) })
	work.Go(func() error { return recorder.run(ctx) })
	work.Go(func() error { return probes.run(ctx) })
	work.Go(func() error { return traces.run(ctx) })
	work.Go(func() error { return loop.notifier.Run(ctx) })
	work.Go(func() error { return serveAPI(ctx, api, controlListener) })
	work.Go(func() error {
		return loop.run(ctx, inputs{policies: policies, endpoints: places, measured: measured, orders: orders.requests, edges: edges.Changed(), want: want})
	})
	served := make(chan error, 1)
	go func() { served <- edges.Serve(edgesCtx, xdsListener) }()
	work.Go(func() error {
		select {
		case err := <-served:
			served <- nil
			return err
		case <-ctx.Done():
			return nil
		}
	})
	err = work.Wait()
	cutEdges()
	return errors.Join(err, <-served)
}

func tracer(p trace.TracerProvider) trace.Tracer {
	if p == nil {
		p = noop.NewTracerProvider()
	}
	return p.Tracer("github.com/tracegate/tracegate/controlplane")
}

func listen(given net.Listener, addr string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return net.Listen("tcp", addr)
}

// serveAPI ends watches with ctx and gives other answers a moment.
func serveAPI(ctx context.Context, s *http.Server, l net.Listener) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve control API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := s.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close() // a connection on which nothing was asked yet counts as busy
	}
	if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("stop control API: %w", err)
	}
	return nil
}
