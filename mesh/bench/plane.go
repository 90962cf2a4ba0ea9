package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/metricsapi"
	"github.com/tracegate/tracegate/observability/sli"
)

// rates is where all parts take their statistics from: requests a second by service.
type rates struct {
	mu sync.Mutex
	by map[string]uint64
}

func (r *rates) set(service string, qps uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by[service] = qps
}

// GroupStats is as if requests came evenly.
func (r *rates) GroupStats(_ context.Context, w sli.Window, _ ...string) ([]sli.Stats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []sli.Stats
	for service, qps := range r.by {
		out = append(out, sli.Stats{
			Group: "aaaaaa", Env: "prod", Tenant: "public", Service: service, Pool: "baseline", Window: w,
			Requests: qps * uint64(w.To.Sub(w.From)/time.Millisecond) / 1000, P50: 10 * time.Millisecond, P95: 20 * time.Millisecond, Newest: time.Now(),
		})
	}
	return out, nil
}

// Watermark is never asked for: there is always traffic.
func (r *rates) Watermark(context.Context) (time.Time, error) { return time.Time{}, nil }

// SaveDecision is for the control plane, which decides nothing here.
func (r *rates) SaveDecision(context.Context, decide.Decision) error { return nil }

func (r *rates) poller(every time.Duration, measured chan<- struct{}, log *slog.Logger) *metricsapi.Poller {
	return &metricsapi.Poller{Stats: r, Every: every, Measured: measured, Log: log}
}

const benchPolicy = `
color: {env: prod, tenant: public}
services:
  - name: stock
    pools: [{name: baseline}]
    routes: [{name: /stock, prefix: /stock}]
  - name: ours
    pools: [{name: baseline}]
    routes: [{name: /, prefix: /}]
decide: {mode: observe}
`

// places is where a control plane takes endpoints from.
type places func(context.Context, chan<- source.Update[policy.Endpoints]) error

// plane is a control plane, and an Envoy that takes its configuration from it.
type plane struct {
	cfg   controlplane.Config
	deps  controlplane.Deps
	log   *slog.Logger
	edge  *envoy.Process
	admin string             // of edge
	stop  context.CancelFunc // of the control plane
	ended chan error
}

func startPlane(ctx context.Context, binary, dir, document string, from places, r *rates, log *slog.Logger) (*plane, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cfg := controlplane.DefaultConfig()
	cfg.Dir, cfg.Policy = filepath.Join(dir, "controlplane"), filepath.Join(dir, "policy.yaml")
	cfg.Endpoints, cfg.Certificates = filepath.Join(dir, "endpoints.yaml"), filepath.Join(dir, "certificates")
	cfg.Token = "of a bench on loopback only"
	if err := os.WriteFile(cfg.Policy, []byte(document), 0o600); err != nil {
		return nil, err
	}
	boot := bootstrap.DefaultConfig()
	boot.ID = "bench"
	for _, addr := range []*string{&cfg.XDSAddress, &cfg.ControlAddress, &boot.Admin, &cfg.Edge.Listen, &cfg.Edge.Observe} {
		free, err := freeport.On("127.0.0.1")
		if err != nil {
			return nil, err
		}
		*addr = free
	}
	boot.XDS = cfg.XDSAddress
	p := &plane{cfg: cfg, admin: boot.Admin, log: log, deps: controlplane.Deps{Stats: r, Decisions: r, Places: from}}
	p.start(ctx)
	b, err := bootstrap.Build(boot)
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	js, err := bootstrap.JSON(b)
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	if p.edge, err = envoy.Start(envoy.Options{Binary: binary, Bootstrap: js, Admin: boot.Admin, Dir: dir, Concurrency: 1, LogLevel: "error"}, log); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

// start starts the control plane, again too.
func (p *plane) start(ctx context.Context) {
	ctx, p.stop = context.WithCancel(ctx)
	p.ended = make(chan error, 1)
	p.deps.Registry = prometheus.NewRegistry()
	go func() {
		p.ended <- controlplane.Run(ctx, p.cfg, p.deps, p.log)
		close(p.ended) // who asks again gets nothing more
	}()
}

// end ends the control plane; Envoy goes on.
func (p *plane) end() error {
	p.stop()
	return <-p.ended
}

func (p *plane) close() error {
	p.edge.Kill()
	return p.end()
}

// members is how many endpoints Envoy has for a service: -1 where it has no such cluster.
func members(ctx context.Context, admin *envoy.Admin, service string) (int, error) {
	name := "cluster." + service + ".baseline.membership_total"
	stats, err := admin.Stats(ctx, "^"+regexp.QuoteMeta(name)+"$")
	if err != nil {
		return 0, fmt.Errorf("ask Envoy for its endpoints: %w", err)
	}
	n, ok := stats[name]
	if !ok {
		return -1, nil
	}
	return int(n), nil
}
