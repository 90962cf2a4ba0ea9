package e2e

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/edge/ratelimit"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// limiter is a rate limit service on an address of its own.
func limiter(t *testing.T, redis string) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", freeport.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg := ratelimit.DefaultConfig()
	cfg.Redis = []string{redis}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- ratelimit.Run(ctx, cfg, l, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

const limits = `
limits:
  - {name: posts, per: [user], requests: 5, unit: day}
  - {name: tenants, per: [tenant], requests: 3, unit: day}
  - {name: tried, requests: 1, unit: day, shadow: true}
  - {name: strict, requests: 1, unit: day, failure: closed}
`

// TestSharedLimits: two Envoys count together, per user and per tenant, say what is left,
// and let requests pass while the service or its counts are away.
func TestSharedLimits(t *testing.T) {
	redis := miniredis.RunT(t)
	addr, stopLimiter := limiter(t, redis.Addr())
	s := bare(t) // without filter: the test says itself what the filter would
	s.edge.RateLimit, s.edge.TrustedHops = addr, 1
	s.policy = withRules([]string{
		"{name: posts, match: [{path: /posts}], limits: [posts, tried]}",
		"{name: tenants, match: [{path: /tenants}], limits: [tenants]}",
		"{name: strict, match: [{path: /strict}], limits: [strict]}",
		"{name: inside, match: [{path: /inside}], addresses: {allow: [10.0.0.0/8], deny: [10.9.0.0/16]}}",
	}) + limits
	s.control = startControlPlane(t, freeport.ForTest(t))
	s.startEnvoy(s.control.addr)
	s.apply()
	s.envoy.WaitReady(t)
	r := &rules{stack: s}

	// A second edge of the same control plane. Both have the same listener, so it gets
	// an address of its own by a plan of its own.
	other := *s
	other.edge.Listen = freeport.ForTest(t)
	other.control = startControlPlane(t, freeport.ForTest(t))
	other.control.Set(other.snapshot())
	cfg := bootstrap.DefaultConfig()
	cfg.XDS, cfg.ID = other.control.addr, "edge-2"
	other.envoy = envoytest.StartADS(t, cfg)
	other.apply()
	other.envoy.WaitReady(t)
	edges := []*rules{r, {stack: &other}}

	user := func(name string) http.Header {
		return header("Authorization", "Bearer "+s.token(jwt.MapClaims{"sub": name}), "Baggage", "traffic.tenant=t-"+name)
	}
	passed := map[string]int{}
	for i := range 14 {
		name := []string{"ann", "bob"}[i/7]
		told := edges[i%2].ask(ask{path: "/posts", header: user(name)})
		switch told.status {
		case http.StatusOK:
			passed[name]++
			if left := told.header.Get("X-Ratelimit-Remaining"); told.header.Get("X-Ratelimit-Limit") == "" || left == "" || told.header.Get("X-Ratelimit-Reset") == "" {
				t.Errorf("headers: %v", told.header)
			}
		case http.StatusTooManyRequests:
			if !strings.Contains(told.body, `"code"`) {
				t.Errorf("refused with %s", told.body)
			}
		default:
			t.Fatalf("status %d: %s", told.status, told.body)
		}
	}
	if passed["ann"] != 5 || passed["bob"] != 5 {
		t.Errorf("passed: %v, want 5 of each user over both edges", passed)
	}
	for i := range 4 {
		if told := edges[i%2].ask(ask{path: "/tenants", header: user("ann")}); (told.status == http.StatusOK) != (i < 3) {
			t.Errorf("request %d of the tenant: %d", i, told.status)
		}
	}
	if told := r.ask(ask{path: "/tenants", header: user("bob")}); told.status != http.StatusOK {
		t.Errorf("another tenant: %d", told.status)
	}

	for from, want := range map[string]int{"10.1.2.3": 200, "10.9.2.3": 403, "192.0.2.1": 403, "10.1.2.3, 192.0.2.1": 403, "192.0.2.1, 10.1.2.3": 200} {
		if told := r.ask(ask{path: "/inside", header: header("X-Forwarded-For", from)}); told.status != want {
			t.Errorf("from %s: %d, want %d", from, told.status, want)
		}
	}

	// Counts are away, then the service.
	redis.Close()
	if told := r.ask(ask{path: "/posts", header: user("ann")}); told.status != http.StatusOK {
		t.Errorf("without Redis: %d", told.status)
	}
	if told := r.ask(ask{path: "/strict"}); told.status != http.StatusTooManyRequests {
		t.Errorf("without Redis, of a closed limit: %d", told.status)
	}
	stopLimiter()
	if told := r.ask(ask{path: "/posts", header: user("ann")}); told.status != http.StatusOK {
		t.Errorf("without the service: %d", told.status)
	}
	if n := s.stat(`ratelimit.*failure_mode_allowed`); n == 0 {
		t.Error("nothing counts requests that passed for want of the service")
	}
}
