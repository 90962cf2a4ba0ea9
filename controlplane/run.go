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
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/audit"
	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// Deps is what the control plane needs of others.
type Deps struct {
	Stats StatsSource
	// Saturation is nil where nobody says how full pools are: that is not judged then.
	Saturation SaturationSource
	Edges      EdgeSource // nil: of a policy on trial only what its edge acknowledges counts
	Decisions  DecisionStore
	Causes     CauseSource // nil: decisions are not explained by probes
	Why        WhySource   // nil: nor by traces
	Warm       Warmer      // nil: room is recorded and not asked for
	Path       Path        // nil: room is made in the services that a group's requests come in at
	// Settings check the settings documents of services, by their names. Those of others must
	// be YAML.
	Settings map[string]func(document []byte) error
	Tracing  trace.TracerProvider // nil: no spans
	Registry *prometheus.Registry

	// Places sends endpoints; nil: the file of Config does. Overlay takes policies of the
	// file and sends them on with what else belongs into them, and is told what became of
	// the newest; nil: nothing does.
	Places  func(context.Context, chan<- source.Update[policy.Endpoints]) error
	Overlay func(ctx context.Context, in <-chan source.Update[policy.Policy], out chan<- source.Update[policy.Policy], fates <-chan source.Fate) error

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
	if cfg.Identity != nil {
		cfg.Server.TLS = cfg.Identity.Server(true)
		if !loopback(controlListener.Addr()) { // people and parts have tokens
			controlListener = tls.NewListener(controlListener, cfg.Identity.Server(false))
		}
	}

	revisions, damaged, err := history.Open(filepath.Join(cfg.Dir, "policies"))
	if err != nil {
		return err
	}
	for _, err := range damaged {
		log.Error("a revision of the policy is lost", "error", err)
	}

	past, err := openHistories(filepath.Join(cfg.Dir, "settings"), log)
	if err != nil {
		return err
	}
	kept, err := newPolicies(cfg, log)
	if err != nil {
		return err
	}
	defer kept.end()
	record, torn, err := audit.Open(filepath.Join(cfg.Dir, auditFile), deps.Registry)
	if err != nil {
		return err
	}
	defer func() {
		if err := record.Close(); err != nil {
			log.Warn("close audit log", "error", err)
		}
	}()
	if torn > 0 {
		log.Warn("audit log has torn lines", "lines", torn)
	}

	var (
		m        = newMetrics(deps.Registry)
		edges    = server.New(cfg.Server, deps.Registry, log)
		board    = ctl.NewBoard()
		recorder = newRecorder(deps.Decisions, m, log)
		probes   = &causes{source: deps.Causes, log: log}
		traces   = newWhys(deps.Why, m, log)
		room     = newWarms(deps.Warm, deps.Path, m, log)
		services = newServices(past, deps.Settings, kept.place, m, log)
		seats    = newRoster(time.Now)
		orders   = newOrders(kept, revisions, services)
		found    = make(chan source.Documents)
		policies = make(chan source.Update[policy.Policy])
		read     = policies // from the file or etcd
		places   = make(chan source.Update[policy.Endpoints])
		folder   = source.Certificates{Dir: cfg.Certificates}
		renewed  = make(chan []source.CertificateUpdate)
		seen     = new(source.CertificatesSeen)
		measured = make(chan measurement)
		want     = make(chan windows, 1)
		shown    = make(chan source.KeyUpdate)
		wantKeys = make(chan []source.KeySet, 1)
		named    = newTokens(cfg.Tokens)
		holders  = make(chan source.Update[[]access.Token])
	)
	certs := newCertificates(cfg.Certificates, m, log)
	certs.read(folder.Read(seen)) // before the first plan
	loop, err := newLoop(&loop{
		live: services, roster: seats,
		certs: certs, keys: newKeys(m, log), tokens: named, cfg: cfg, edges: edges, board: board, recorder: recorder, causes: probes, whys: traces, warms: room, history: revisions,
		tracer: tracer(deps.Tracing), metrics: m, log: log,
	}, deps.Registry)
	if err != nil {
		return err
	}
	defer loop.close()
	tokens := ctl.Tokens{Operator: cfg.Token, Viewer: cfg.ViewerToken, Named: named.now}
	if cfg.UpdateSecret != "" {
		if tokens.Updates, err = webhook.NewVerifier(cfg.UpdateSecret); err != nil {
			return fmt.Errorf("configure signed updates: %w", err)
		}
	}
	api := &http.Server{
		Handler: ctl.New(tokens, ctl.Deps{
			Board: board, Orders: orders, Drains: orders, History: revisions, Settings: ctlSettings{past, seats}, Audit: record,
			Metrics: promhttp.HandlerFor(deps.Registry, promhttp.HandlerOpts{}), Unauthenticated: m.unauthenticated,
		}, log),
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
	if deps.Overlay != nil {
		read, loop.fates = make(chan source.Update[policy.Policy]), make(chan source.Fate, 1)
		work.Go(func() error { return deps.Overlay(ctx, read, policies, loop.fates) })
	}
	work.Go(func() error { return kept.run(ctx, read) })
	work.Go(func() error { return kept.runSettings(ctx, found) })
	work.Go(func() error {
		if deps.Places != nil {
			return deps.Places(ctx, places)
		}
		return source.Discovery{
			File: source.File[policy.Endpoints]{Path: cfg.Endpoints, Parse: policy.ParseEndpoints, MaxSize: policy.MaxSize},
			DNS:  &source.DNS{Resolver: net.DefaultResolver, Refresh: cfg.DNSRefresh, Timeout: cfg.DNSTimeout, Log: log},
		}.Run(ctx, places)
	})
	work.Go(func() error { return folder.Run(ctx, seen, renewed) })
	work.Go(func() error { return source.JWKS{}.Run(ctx, wantKeys, shown) })
	work.Go(func() error { return named.run(ctx, holders) })
	work.Go(func() error { return measure(ctx, cfg, deps, m, want, measured) })
	work.Go(func() error { return recorder.run(ctx) })
	work.Go(func() error { return probes.run(ctx) })
	work.Go(func() error { return traces.run(ctx) })
	work.Go(func() error { return room.run(ctx) })
	work.Go(func() error { return loop.notifier.Run(ctx) })
	work.Go(func() error { return serveAPI(ctx, api, controlListener) })
	work.Go(func() error {
		return loop.run(ctx, inputs{policies: policies, settings: found, endpoints: places, certs: renewed, keys: shown, wantKeys: wantKeys, tokens: holders, measured: measured, orders: orders.requests, drains: orders.drains, reapplied: orders.reapplied, edges: edges.Changed(), want: want})
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

// ctlSettings is what the API needs of settings.
type ctlSettings struct {
	*histories
	*roster
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

func loopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().IsLoopback()
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
