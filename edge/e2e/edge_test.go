package e2e

import (
	"maps"
	"testing"

	"github.com/tracegate/tracegate/controlplane/policy"
)

// TestEdge runs what one healthy edge must do on one Envoy, because each Envoy
// compiles the filter first, which takes two seconds of a core.
func TestEdge(t *testing.T) {
	s := newStack(t, nil)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *stack)
	}{
		{"headers", testHeaders},
		{"hardening", testHardening},
		{"move", testMove},
		{"release", testRelease},
		{"shed", testShed},
		{"policy change", testPolicyChange},
		{"fallback", testFallback},
		{"pool is a metric tag", testPoolTag},
		{"broken update", testBrokenUpdate},
		{"control plane away", testControlPlaneAway},
		{"churn", testChurn},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer, endpoints := s.t, policy.Endpoints{Services: map[string]map[string][]string{"core": maps.Clone(s.endpoints.Services["core"])}}
			s.t = t
			tt.run(t, s)
			s.policy, s.endpoints = testPolicy, endpoints
			clear(s.moves)
			s.home, s.sheds = nil, nil
			s.apply()
			s.t = outer
		})
	}
}
