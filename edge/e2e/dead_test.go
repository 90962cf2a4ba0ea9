package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

// A process that is killed gets no request any more before discovery knows of it: it is
// still among the endpoints, Envoy's health checks leave it out, and nothing is tried there.
func TestDeadEndpointGetsNoRequests(t *testing.T) {
	const (
		healthy = `^cluster\.core\.baseline\.membership_healthy$`
		failed  = `^cluster\.core\.baseline\.(upstream_cx_connect_fail|upstream_rq_retry)$`
	)
	dead := newUpstream(t, semconv.PoolBaseline)
	s := bare(t)
	s.endpoints.Services["core"][semconv.PoolBaseline] = []string{s.pools[semconv.PoolBaseline].addr(), dead.addr()}
	s.control = startControlPlane(t, freeport.ForTest(t))
	s.control.Set(s.snapshot())
	s.startEnvoy(s.control.addr)
	s.apply()
	s.envoy.WaitReady(t)
	waitFor(t, "both instances to serve", func() bool {
		s.do(request{})
		return s.stat(healthy) == 2 && dead.requests.Load() > 0 && s.pools[semconv.PoolBaseline].requests.Load() > 0
	})

	began := time.Now()
	_ = dead.Listener.Close()
	dead.CloseClientConnections()
	waitFor(t, "health checks to find out", func() bool { return s.stat(healthy) == 1 })
	t.Log("left out after", time.Since(began))
	before := s.stat(failed)
	for range 100 {
		if resp, _ := s.do(request{}); resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	if n := s.stat(failed) - before; n > 0 {
		t.Errorf("%d requests were tried at the dead instance", n)
	}
}
