package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/edge/child"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// The whole control plane runs as a process of its own here (this test binary,
// started again), so that it can be killed.

const (
	controlPlaneEnv   = "E2E_CONTROL_PLANE"
	controlPlaneToken = "a token only for tests"
)

type processConfig struct {
	Dir, XDS, Control string
	Edge              plan.Edge
}

// nothing is a store without measurements: only people move groups.
type nothing struct{}

func (nothing) GroupStats(context.Context, sli.Window, ...string) ([]sli.Stats, error) {
	return nil, nil
}
func (nothing) Watermark(context.Context) (time.Time, error)        { return time.Time{}, nil }
func (nothing) SaveDecision(context.Context, decide.Decision) error { return nil }

func beControlPlane(config string) int {
	var c processConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cfg := controlplane.DefaultConfig()
	cfg.Dir = filepath.Join(c.Dir, "state")
	cfg.Policy, cfg.Endpoints = filepath.Join(c.Dir, "policy.yaml"), filepath.Join(c.Dir, "endpoints.yaml")
	cfg.XDSAddress, cfg.ControlAddress, cfg.Token, cfg.Edge = c.XDS, c.Control, controlPlaneToken, c.Edge
	deps := controlplane.Deps{Stats: nothing{}, Decisions: nothing{}, Registry: prometheus.NewRegistry()}
	if err := controlplane.Run(context.Background(), cfg, deps, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process starts the control plane and returns what kills it with -9.
func (s *stack) process(c processConfig) (kill func()) {
	s.t.Helper()
	js, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := child.Command(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), controlPlaneEnv+"="+string(js))
	cmd.Stdout, cmd.Stderr = s.t.Output(), s.t.Output()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	s.t.Cleanup(kill)
	return kill
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestControlPlaneKilled kills the control plane, then spoils its inputs, then kills
// Envoy as well: what was acknowledged last is served throughout, by the edge that
// goes on and by the one that starts anew.
func TestControlPlaneKilled(t *testing.T) {
	s := prepare(t)
	c := processConfig{Dir: t.TempDir(), XDS: freeport.ForTest(t), Control: freeport.ForTest(t), Edge: s.edge}
	endpoints, err := yaml.Marshal(s.endpoints)
	if err != nil {
		t.Fatal(err)
	}
	policyFile, endpointsFile := filepath.Join(c.Dir, "policy.yaml"), filepath.Join(c.Dir, "endpoints.yaml")
	write(t, policyFile, []byte(s.policy))
	write(t, endpointsFile, endpoints)
	kill := s.process(c)
	s.startEnvoy(c.XDS)
	s.envoy.WaitReady(t)

	api := ctlapi.NewClient(c.Control, controlPlaneToken)
	send := request{header: header("X-Env", "canary")}
	s.orderAround(api, send)
	ctx, stop := context.WithCancel(t.Context())
	var l load
	talked := make(chan struct{})
	conn := s.dial(send)
	go func() { defer close(talked); l.talk(ctx, conn) }()
	serves := func(when string, n int) {
		t.Helper()
		for range n {
			if resp, got := s.do(send); resp.StatusCode != http.StatusOK || got.Pool != semconv.PoolIsolated {
				t.Fatalf("%s: status %d, served by %q", when, resp.StatusCode, got.Pool)
			}
		}
	}
	before := s.counters()

	kill()
	serves("control plane killed", 100)

	write(t, policyFile, []byte("colour: {}\n"))
	write(t, endpointsFile, []byte("services: {}\n"))
	kill = s.process(c)
	waitFor(t, "the edge in sync, both inputs refused", func() bool {
		status, err := api.Status(t.Context())
		return err == nil && len(status.Edges) == 1 && status.Edges[0].InSync &&
			status.Sources["policy"].Error != "" && status.Sources["endpoints"].Error != ""
	})
	serves("control plane restarted with spoiled inputs", 100)
	if after := s.counters(); after != before {
		t.Errorf("the restart touched the edge:\nbefore %+v\nafter  %+v", before, after)
	}
	stop()
	<-talked
	if l.dropped.Load() != 0 {
		t.Errorf("the socket was dropped: %s", l.firstTrouble)
	}

	// An Envoy that starts now gets the last good configuration too.
	s.envoy.Kill()
	s.startEnvoy(c.XDS)
	s.envoy.WaitReady(t)
	serves("both restarted", 20)

	// And what is repaired is taken.
	write(t, policyFile, []byte(strings.Replace(s.policy, "exact: canary}}, {cookie", "exact: beta}}, {cookie", 1)))
	write(t, endpointsFile, endpoints)
	waitFor(t, "the repaired policy", func() bool { _, got := s.do(send); return got.Pool == semconv.PoolBaseline })
	kill()
}

// orderAround moves the canary group there and back, and there again, and holds the
// edge to the 300 ms that the design allows from an order to the first request served
// by the other pool.
func (s *stack) orderAround(api *ctlapi.Client, send request) {
	s.t.Helper()
	order := ctlapi.Order{Reason: "test", By: "e2e", Identity: &ctlapi.Identity{Color: canary.Color.String(), Env: canary.Env, Tenant: canary.Tenant}}
	var took []time.Duration
	for i := range 21 {
		pool, give := semconv.PoolIsolated, api.Isolate
		if i%2 == 1 {
			pool, give = semconv.PoolCanary, api.Release
		}
		begin := time.Now()
		if _, err := give(s.t.Context(), canary.ID(), order); err != nil {
			s.t.Fatal(err)
		}
		waitFor(s.t, "order "+pool, func() bool { _, got := s.do(send); return got.Pool == pool })
		took = append(took, time.Since(begin))
	}
	s.t.Logf("order -> first request served by the other pool, p50/p99/max %s", spread(took))
	if median := took[len(took)/2]; median > 300*time.Millisecond {
		s.t.Errorf("half of the orders took longer than 300 ms: %s", median)
	}
}
