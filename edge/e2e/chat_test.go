package e2e

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/edge"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/observability/semconv"
)

// chatStack is the real control plane, real core processes of the baseline pool and a real
// Envoy, on embedded engines.
type chatStack struct {
	api     *ctlapi.Client
	url     string // of the edge
	admin   *envoy.Admin
	upgrade chan struct{} // of Envoy
	cores   []coreProcess
}

type coreProcess struct {
	listen  string
	metrics *prometheus.Registry
}

func newChatStack(t *testing.T, cores int) *chatStack {
	t.Helper()
	binary := envoytest.Binary(t)
	const token = "a token of the control API"
	kafka, redis := make(chan string, 1), make(chan string, 1)
	runtest.Background(t, func(ctx context.Context) error {
		return queueembedded.Run(ctx, queueembedded.Config{Listen: "127.0.0.1:0"}, func(a string) { kafka <- a }, slog.New(slog.DiscardHandler))
	})
	runtest.Background(t, func(ctx context.Context) error {
		return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: "127.0.0.1:0", Password: token}, func(a string) { redis <- a })
	})

	plane := controlplane.DefaultConfig()
	dir := t.TempDir()
	plane.Dir, plane.Policy, plane.Endpoints = filepath.Join(dir, "controlplane"), filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "endpoints.yaml")
	plane.XDSAddress, plane.ControlAddress, plane.Token = freeport.ForTest(t), freeport.ForTest(t), token
	plane.Edge.Listen, plane.Edge.Observe = freeport.ForTest(t), freeport.ForTest(t)
	s := &chatStack{api: ctlapi.NewClient(plane.ControlAddress, token), url: "http://" + plane.Edge.Listen, upgrade: make(chan struct{})}

	cfg := core.DefaultConfig()
	cfg.Pool, cfg.Listen, cfg.Admin, cfg.Token = semconv.PoolBaseline, "127.0.0.1:0", "127.0.0.1:0", token
	cfg.Account.BcryptCost = 4
	cfg.Store.URL = "sqlite:" + filepath.Join(dir, "core.db")
	cfg.Queue.Brokers, cfg.Fanout.Addrs, cfg.Fanout.Password = []string{<-kafka}, []string{<-redis}, token
	cfg.LameDuck, cfg.DrainSpread, cfg.DrainGrace = 0, 0, 100*time.Millisecond
	_, key, _ := ed25519.GenerateKey(nil)
	var listen []string
	for i := range cores {
		cfg.Node = fmt.Sprintf("baseline-%d", i+1)
		p, ready := coreProcess{metrics: prometheus.NewRegistry()}, make(chan string, 1)
		runtest.Background(t, func(ctx context.Context) error {
			return core.Run(ctx, cfg, core.Deps{
				Key: key, Registry: p.metrics, Tracing: sdktrace.NewTracerProvider(), Placements: s.api,
				Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
				Ready:      func(listen, _ string) { ready <- listen },
			}, slog.New(slog.DiscardHandler))
		})
		p.listen = <-ready
		s.cores, listen = append(s.cores, p), append(listen, "'"+p.listen+"'")
	}
	for path, content := range map[string]string{plane.Policy: string(policy.Default), plane.Endpoints: fmt.Sprintf("services: {core: {baseline: [%s]}}\n", strings.Join(listen, ", "))} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runtest.Background(t, func(ctx context.Context) error {
		return controlplane.Run(ctx, plane, controlplane.Deps{Stats: noTraffic{}, Decisions: noTraffic{}, Registry: prometheus.NewRegistry()}, slog.New(slog.DiscardHandler))
	})

	e := edge.DefaultConfig()
	e.Envoy, e.Dir, e.Concurrency, e.Drain = binary, filepath.Join(dir, "edge"), 1, 20*time.Second
	e.Bootstrap.XDS, e.Bootstrap.Admin, e.Listen = plane.XDSAddress, freeport.ForTest(t), []string{plane.Edge.Listen}
	e.Upgrade = s.upgrade
	runtest.Background(t, func(ctx context.Context) error {
		return edge.Run(ctx, e, slog.New(slog.NewTextHandler(t.Output(), nil)))
	})
	s.admin = envoy.NewAdmin(e.Bootstrap.Admin)
	waitFor(t, "the first envoy", func() bool {
		resp, err := http.Get(s.url + "/v1/sessions")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusNotFound
	})
	return s
}

// metric is the sum of a metric's values where a label has a value; any label where none is
// named.
func (p coreProcess) metric(t *testing.T, name, label string) (sum float64) {
	t.Helper()
	families, err := p.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || label != "" && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() != label) {
				continue
			}
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}
