package controlplane

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

// TestRealEnvoy programs a real Envoy from files: moves of a group, a pool that
// comes and goes, a restart of the control plane, under load that must see none of
// it. There is no filter here, so groups do not route: edge/e2e has that.
func TestRealEnvoy(t *testing.T) {
	envoytest.Binary(t)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(semconv.HeaderPool, semconv.PoolBaseline)
	}))
	t.Cleanup(up.Close)
	cfg := testConfig(t)
	cfg.AckTimeout = 5 * time.Second
	cfg.Edge.Listen = freeport.ForTest(t)
	upstream := strings.TrimPrefix(up.URL, "http://")
	write(t, cfg.Endpoints, strings.NewReplacer("127.0.0.1:9101", upstream, "127.0.0.1:9102", upstream, "127.0.0.1:9103", upstream).Replace(endpoints))
	w := newWorld()
	p := run(t, cfg, w)
	boot := bootstrap.DefaultConfig()
	boot.XDS = p.xds
	envoy := envoytest.StartADS(t, boot)
	envoy.WaitReady(t)
	before := p.status("programmed", acked)

	ctx, stop := context.WithCancel(t.Context())
	client := up.Client()
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cfg.Edge.Listen+"/v1/me", nil)
				resp, err := client.Do(req)
				if ctx.Err() != nil {
					return
				}
				asked.Add(1)
				if err != nil {
					failed.Add(1)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}

	var worst time.Duration
	for i := range 20 {
		order, move := ctlapi.Order{Reason: "try", By: "test"}, p.api.Isolate
		if i%2 == 1 {
			move = p.api.Release
		}
		eventually(t, "group is known", func() bool {
			_, err := move(t.Context(), sick.ID(), order)
			return err == nil
		}, func() any { return nil })
		p.status("moved", acked)
		ds, err := p.api.Decisions(t.Context(), 1)
		if err != nil || ds[0].Programmed.IsZero() {
			t.Fatalf("decision: %+v, %v", ds, err)
		}
		worst = max(worst, ds[0].Programmed.Sub(ds[0].Time))
	}
	t.Logf("20 moves, the slowest acknowledged after %v", worst)
	if worst > 5*time.Second { // a busy machine is no fault; the load lab holds the promise
		t.Errorf("a move took %v", worst)
	}
	if after := p.status("home", acked); after.Version != before.Version {
		t.Errorf("version %s after moving there and back, want %s", after.Version, before.Version)
	}

	// A regular policy change with a new pool: make before break on the real thing.
	write(t, cfg.Policy, strings.Replace(string(policy.Default), "{name: isolated}]", "{name: isolated}, {name: gold}]\n    ", 1))
	p.status("new pool", func(s ctlapi.Status) bool { return acked(s) && s.Version != before.Version })
	write(t, cfg.Policy, string(policy.Default))
	p.status("pool gone", func(s ctlapi.Status) bool { return acked(s) && s.Version == before.Version })

	// The control plane goes and comes back; Envoy has everything already.
	addr := p.xds
	p.stop()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p = runOn(t, cfg, w, l)
	p.status("back", func(s ctlapi.Status) bool { return acked(s) && s.Version == before.Version })

	stop()
	load.Wait()
	if failed.Load() > 0 || asked.Load() < 50 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
	t.Logf("%d requests, none failed", asked.Load())
}
