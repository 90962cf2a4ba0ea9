package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

// A move touches routes only: no listener drains, no filter is rebuilt.
func testMove(t *testing.T, s *stack) {
	send := request{header: header("X-Env", "canary")}
	if _, got := s.do(send); got.Pool != "canary" {
		t.Fatalf("before: served by %s", got.Pool)
	}
	before := s.counters()

	s.moves[canary.ID()] = semconv.PoolIsolated
	s.apply()
	waitFor(t, "the move", func() bool { _, got := s.do(send); return got.Pool == "isolated" })
	if resp, got := s.do(request{}); got.Pool != "baseline" {
		t.Errorf("another group is served by %s, %d", got.Pool, resp.StatusCode)
	}
	delete(s.moves, canary.ID())
	s.apply()
	waitFor(t, "the way back", func() bool { _, got := s.do(send); return got.Pool == "canary" })

	after := s.counters()
	if after.listeners != before.listeners || after.ecds != before.ecds {
		t.Errorf("a move touched more than routes:\nbefore %+v\nafter  %+v", before, after)
	}
	if after.routes != before.routes+2 {
		t.Errorf("%d route updates for two moves", after.routes-before.routes)
	}
}

// A policy change reaches the filter by ECDS and touches no listener.
func testPolicyChange(t *testing.T, s *stack) {
	before := s.counters()
	s.policy = strings.Replace(s.policy, "exact: canary}}, {cookie", "exact: beta}}, {cookie", 1)
	s.apply()
	waitFor(t, "the new policy", func() bool { _, got := s.do(request{header: header("X-Env", "beta")}); return got.Pool == "canary" })
	if _, got := s.do(request{header: header("X-Env", "canary")}); got.Pool != "baseline" {
		t.Errorf("the old rule still holds: %s", got.Pool)
	}
	waitFor(t, "the filter update's counter", func() bool { return s.counters().ecds > before.ecds })
	after := s.counters()
	if after.listeners != before.listeners {
		t.Errorf("listeners: before %+v, after %+v", before.listeners, after.listeners)
	}
	if after.ecds != before.ecds+1 {
		t.Errorf("%d filter updates for one change", after.ecds-before.ecds)
	}
}

// A pool without a healthy endpoint falls back to baseline, never to an error.
func testFallback(t *testing.T, s *stack) {
	send := request{header: header("X-Env", "canary")}
	tests := []struct {
		name  string
		spoil func(t *testing.T, s *stack)
		back  func(s *stack)
	}{
		{"no endpoint", func(_ *testing.T, s *stack) { s.endpoints.Services["core"]["canary"] = nil; s.apply() },
			func(s *stack) { s.endpoints.Services["core"]["canary"] = []string{s.pools["canary"].addr()}; s.apply() }},
		{"dead endpoint", func(t *testing.T, s *stack) {
			s.endpoints.Services["core"]["canary"] = []string{freeport.ForTest(t)}
			s.apply()
		},
			func(s *stack) { s.endpoints.Services["core"]["canary"] = []string{s.pools["canary"].addr()}; s.apply() }},
		{"unhealthy endpoint", func(_ *testing.T, s *stack) { s.pools["canary"].sick.Store(true) },
			func(s *stack) { s.pools["canary"].sick.Store(false) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			served := func(pool string) func() bool {
				return func() bool {
					resp, got := s.do(send)
					if resp.StatusCode != http.StatusOK {
						t.Errorf("status %d on the way to %s", resp.StatusCode, pool)
					}
					if v := resp.Header.Get(semconv.HeaderGroup); v != string(canary.ID()) {
						t.Errorf("group %q", v)
					}
					return got.Pool == pool
				}
			}
			waitFor(t, "canary first", served("canary"))
			tt.spoil(t, s)
			waitFor(t, "fall back", served("baseline"))
			tt.back(s)
			waitFor(t, "return", served("canary"))
		})
	}
}

// Metrics of a cluster carry the pool as a tag, not in their names.
func testPoolTag(t *testing.T, s *stack) {
	s.do(request{header: header("X-Env", "canary")})
	text, err := s.envoy.Admin().Prometheus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pool := range []string{"baseline", "canary", "isolated"} {
		want := fmt.Sprintf(`envoy_cluster_upstream_rq_total{envoy_cluster_name="core",traffic_pool=%q}`, pool)
		if !strings.Contains(string(text), want) {
			t.Errorf("no metric %s", want)
		}
	}
}
