package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/observability/semconv"
)

// TestEdgeIsBounded: the limits of an edge are the configuration's, and by default those that
// edge/bootstrap has.
func TestEdgeIsBounded(t *testing.T) {
	cfg := defaultConfig()
	if got, want := edgeConfig(cfg).Bootstrap, bootstrap.DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("by default %+v, want %+v", got, want)
	}
	cfg.Edge.MaxHeapBytes, cfg.Edge.MaxConnections = 1<<28, 7
	if got := edgeConfig(cfg).Bootstrap; got.MaxHeapBytes != 1<<28 || got.MaxConnections != 7 {
		t.Errorf("%d bytes, %d connections", got.MaxHeapBytes, got.MaxConnections)
	}
}

// TestEdgeOnAnotherMachine: an edge has its identity, some addresses and a data folder of
// its own, and nothing of the control plane's. It colors requests by the filter that it
// carries, and goes on with that where the control plane names one that it does not have.
func TestEdgeOnAnotherMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the filter twice and starts Envoy")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	cfg := defaultConfig()
	cfg.Data, cfg.Identity = t.TempDir(), t.TempDir()
	cfg.ControlPlane.XDS, cfg.Observe.OTLP = freeport.ForTest(t), freeport.ForTest(t)
	cfg.Edge.ID, cfg.Edge.Envoy, cfg.Edge.Concurrency, cfg.Edge.Drain = "edge-7", envoytest.Binary(t), 1, 0
	cfg.Edge.Listen, cfg.Edge.Admin = freeport.ForTest(t), freeport.ForTest(t)
	if err := makeIdentities(cfg, time.Now()); err != nil {
		t.Fatal(err)
	}
	filter, err := filterModule(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	own, err := identityOf(cfg, identity.ControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	secured := server.DefaultConfig()
	secured.TLS = own.Server(true)
	control := server.New(secured, prometheus.NewRegistry(), log)
	listener, err := net.Listen("tcp", cfg.ControlPlane.XDS)
	if err != nil {
		t.Fatal(err)
	}
	runtest.Background(t, func(ctx context.Context) error { return control.Serve(ctx, listener) })
	give := func(w plan.Wasm) string {
		t.Helper()
		snap := echoes(t, cfg, w)
		control.Set(snap)
		return snap.Version
	}
	until := func(what string, ok func(server.Edge) bool) {
		t.Helper()
		deadline := time.After(4 * time.Minute)
		for {
			edges := control.Edges()
			if len(edges) == 1 && edges[0].ID == "edge-7" && ok(edges[0]) {
				return
			}
			select {
			case <-control.Changed():
			case <-deadline:
				t.Fatalf("waited in vain: %s: %+v", what, edges)
			}
		}
	}

	if err := os.RemoveAll(filepath.Join(cfg.Data, "edge")); err != nil { // as it is not there
		t.Fatal(err)
	}
	version := give(filter)
	elsewhere := cfg
	elsewhere.Data = filepath.Join(t.TempDir(), "data")
	runtest.Background(t, func(ctx context.Context) error { return runEdge(ctx, elsewhere, log) })
	until("the edge with the filter", func(e server.Edge) bool { return e.InSync && e.Version == version })
	waitUntil(t, "the edge to listen", func() bool { return envoy.NewAdmin(cfg.Edge.Admin).Ready(t.Context()) == nil })
	colored := func(when string) {
		t.Helper()
		for env, white := range map[string]bool{"prod": true, "canary": false} {
			trace, group := seen(t, cfg.Edge.Listen, env)
			if len(trace) != 55 || strings.HasPrefix(trace, "00-00000000") != white || group == "" {
				t.Errorf("%s: %s has traceparent %q and group %q", when, env, trace, group)
			}
		}
	}
	colored("its own filter")

	version = give(plan.Wasm{Path: "filter-of-another-version.wasm", SHA256: strings.Repeat("ab", 32)})
	until("the refusal of a filter that the edge does not have", func(e server.Edge) bool {
		nack, ok := e.Rejected(version)
		return ok && nack.Resource == xds.FilterName && strings.Contains(nack.Reason, "filter-of-another-version.wasm")
	})
	colored("another version")
}

// echoes is a configuration of edges whose requests come back as instances saw them.
func echoes(t *testing.T, cfg Config, filter plan.Wasm) *xds.Snapshot {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Traceparent", semconv.HeaderGroup} {
			w.Header().Set("Seen-"+name, r.Header.Get(name))
		}
	}))
	t.Cleanup(upstream.Close)
	p, err := policy.Parse(policy.Default)
	if err != nil {
		t.Fatal(err)
	}
	to := []string{upstream.Listener.Addr().String()}
	edge := cfg.planEdge()
	edge.Wasm = filter
	pl, err := plan.Build(p, policy.Endpoints{Services: map[string]map[string][]string{"core": {"baseline": to}}}, plan.Groups{}, edge)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := xds.Build(pl)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// seen is what an instance saw of a request for an environment.
func seen(t *testing.T, addr, env string) (trace, group string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Env", env)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	return res.Header.Get("Seen-Traceparent"), res.Header.Get("Seen-" + semconv.HeaderGroup)
}
