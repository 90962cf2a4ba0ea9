package e2e

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/core/protocol"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/edge"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// noTraffic is a store that knows of no traffic.
type noTraffic struct{}

func (noTraffic) GroupStats(context.Context, sli.Window, ...string) ([]sli.Stats, error) {
	return nil, nil
}
func (noTraffic) Watermark(context.Context) (time.Time, error)        { return time.Time{}, nil }
func (noTraffic) SaveDecision(context.Context, decide.Decision) error { return nil }

// TestHandover upgrades Envoy under people who chat over WebSockets, with the real control
// plane and the real core: core learns from the control plane which Envoy serves and asks
// the sockets of the one before to come back, before that ends. Nothing is missed or comes
// twice, no socket is cut, and no request fails.
func TestHandover(t *testing.T) {
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
	api := ctlapi.NewClient(plane.ControlAddress, token)

	cfg := core.DefaultConfig()
	cfg.Pool, cfg.Node, cfg.Listen, cfg.Admin, cfg.Token = semconv.PoolBaseline, "baseline-1", "127.0.0.1:0", "127.0.0.1:0", token
	cfg.Account.BcryptCost = 4
	cfg.Store.URL = "sqlite:" + filepath.Join(dir, "core.db")
	cfg.Queue.Brokers, cfg.Fanout.Addrs, cfg.Fanout.Password = []string{<-kafka}, []string{<-redis}, token
	cfg.LameDuck, cfg.DrainSpread, cfg.DrainGrace = 0, 0, 100*time.Millisecond
	_, key, _ := ed25519.GenerateKey(nil)
	ready := make(chan string, 1)
	runtest.Background(t, func(ctx context.Context) error {
		return core.Run(ctx, cfg, core.Deps{
			Key: key, Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(), Placements: api,
			Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
			Ready:      func(listen, _ string) { ready <- listen },
		}, slog.New(slog.DiscardHandler))
	})
	for path, content := range map[string]string{plane.Policy: string(policy.Default), plane.Endpoints: fmt.Sprintf("services: {core: {baseline: ['%s']}}\n", <-ready)} {
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
	upgrade := make(chan struct{})
	e.Upgrade = upgrade
	runtest.Background(t, func(ctx context.Context) error {
		return edge.Run(ctx, e, slog.New(slog.NewTextHandler(t.Output(), nil)))
	})
	admin := envoy.NewAdmin(e.Bootstrap.Admin)
	url := "http://" + plane.Edge.Listen
	waitFor(t, "the first envoy", func() bool {
		resp, err := http.Get(url + "/v1/sessions")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusNotFound
	})

	crowd := newChatters(t, url, 8)
	asked := pressREST(t, url)
	for n := range uint64(2) {
		before := crowd.moved.Load()
		crowd.chat(t, 10)
		upgrade <- struct{}{}
		waitFor(t, "the next envoy, and every socket on it", func() bool {
			stats, err := admin.Stats(t.Context(), "^(server.hot_restart_epoch|server.parent_connections)$")
			return err == nil && stats["server.hot_restart_epoch"] == n+1 && crowd.moved.Load() >= before+int64(len(crowd.sessions))
		})
		crowd.chat(t, 10)
		waitFor(t, "the end of the one before", func() bool {
			stats, err := admin.Stats(t.Context(), "^server.live$")
			return err == nil && stats["server.live"] == 1 && !crowd.behind()
		})
	}
	crowd.check(t)
	if total, failed := asked(); failed != 0 || total < 50 {
		t.Errorf("%d of %d requests failed", failed, total)
	}
}

// pressREST asks by connections of its own; what it returns stops it and counts.
func pressREST(t *testing.T, url string) func() (total, failed int64) {
	var total, failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/sessions", nil)
				resp, err := http.DefaultClient.Do(req)
				if ctx.Err() != nil {
					return
				}
				total.Add(1)
				if err != nil {
					failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusUnauthorized { // of core: nobody is logged in here
					failed.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) { stop(); wg.Wait(); return total.Load(), failed.Load() }
}

// chatters are pairs of people; each member of a pair hears what the other says.
type chatters struct {
	sessions []*client.Session
	talks    []string // conversation of each session
	sent     []atomic.Int64
	heard    []atomic.Int64
	wrong    []atomic.Int64 // not the next one of the conversation
	last     []int64
	moved    atomic.Int64
	lost     atomic.Int64
}

func newChatters(t *testing.T, url string, n int) *chatters {
	t.Helper()
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Host = url, "payment.localhost"
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	g := &chatters{sent: make([]atomic.Int64, n), heard: make([]atomic.Int64, n), wrong: make([]atomic.Int64, n), last: make([]int64, n)}
	users := make([]*client.User, n)
	for i := range n {
		name := fmt.Sprintf("person%d", i)
		if _, _, err := c.Register(t.Context(), name, "correct horse"); err != nil {
			t.Fatal(err)
		}
		if users[i], _, err = c.Login(t.Context(), name, "correct horse"); err != nil {
			t.Fatal(err)
		}
	}
	for i, u := range users {
		talk, _, err := u.Open(t.Context(), fmt.Sprintf("person%d", i^1))
		if err != nil {
			t.Fatal(err)
		}
		g.talks = append(g.talks, talk.ID)
		s := u.Session(client.SessionConfig{
			Positions: map[string]int64{talk.ID: 0},
			OnMessage: func(m protocol.Message) {
				if m.Seq != g.last[i]+1 {
					g.wrong[i].Add(1)
				}
				g.last[i] = m.Seq
				g.heard[i].Add(1)
			},
			OnEvent: func(e client.Event) {
				switch e.Kind {
				case client.Moved:
					g.moved.Add(1)
				case client.Lost:
					g.lost.Add(1)
				}
			},
		})
		g.sessions = append(g.sessions, s)
		runtest.Background(t, func(ctx context.Context) error { _ = s.Run(ctx); return nil })
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// chat has everyone say n things.
func (g *chatters) chat(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, s := range g.sessions {
		wg.Go(func() {
			for range n {
				id := g.sent[i].Add(1)
				if _, _, err := s.Send(t.Context(), protocol.Send{Conversation: g.talks[i], ClientID: fmt.Sprintf("%d-%d", i, id), Text: "hello"}); err != nil {
					t.Errorf("person %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// behind says whether someone has not heard everything of a conversation yet.
func (g *chatters) behind() bool {
	for i := range g.sessions {
		if g.heard[i].Load() < g.sent[i].Load()+g.sent[i^1].Load() {
			return true
		}
	}
	return false
}

func (g *chatters) check(t *testing.T) {
	t.Helper()
	for i := range g.sessions {
		if want := g.sent[i].Load() + g.sent[i^1].Load(); g.heard[i].Load() != want || g.wrong[i].Load() != 0 {
			t.Errorf("person %d heard %d of %d, %d out of order", i, g.heard[i].Load(), want, g.wrong[i].Load())
		}
	}
	if g.lost.Load() != 0 {
		t.Errorf("%d sockets were cut, want each to move by itself", g.lost.Load())
	}
}
