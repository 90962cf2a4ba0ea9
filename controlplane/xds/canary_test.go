package xds

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// split is the weighted cluster of the canary rule in what is rendered.
func split(t *testing.T, percent int) *routev3.WeightedCluster {
	t.Helper()
	r, err := render(build(t, fmt.Sprintf(`services:
  - name: core
    pools: [{name: baseline}, {name: canary}, {name: isolated}]
    routes: [{prefix: /}]
    rules:
      - {name: new, match: [{prefix: /new}], canary: {header: x-user, pools: [{pool: canary, percent: %d}]}}
`, percent)))
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range r.routes[0].GetVirtualHosts()[0].GetRoutes() {
		if w := route.GetRoute().GetWeightedClusters(); w != nil {
			if !w.GetUseHashPolicy().GetValue() {
				t.Fatal("the canary is not sticky")
			}
			return w
		}
	}
	t.Fatal("no weighted cluster is rendered")
	return nil
}

// clusterOf is the one of a hash, as Envoy chooses: modulo the sum of weights, in their
// order. edge/e2e holds the real one to the same.
func clusterOf(w *routev3.WeightedCluster, hash uint64) string {
	var sum uint64
	for _, c := range w.GetClusters() {
		sum += uint64(c.GetWeight().GetValue())
	}
	at := hash % sum
	for _, c := range w.GetClusters() {
		if weight := uint64(c.GetWeight().GetValue()); at < weight {
			return c.GetName()
		} else {
			at -= weight
		}
	}
	return ""
}

// TestCanaryGrows from 0 to 50% in ten steps under 100,000 users: nobody who is in it
// leaves, and the share is the one that is asked for.
func TestCanaryGrows(t *testing.T) {
	t.Parallel()
	const users = 100_000
	in := make([]bool, users)
	for percent := 0; percent <= 50; percent += 5 {
		w := split(t, percent)
		count := 0
		for u := range users {
			canary := strings.HasSuffix(clusterOf(w, xxhash.Sum64String(fmt.Sprintf("user-%d", u))), ".canary")
			if in[u] && !canary {
				t.Fatalf("at %d%% user %d left the canary", percent, u)
			}
			if in[u] = canary; canary {
				count++
			}
		}
		share := 100 * float64(count) / users
		if math.Abs(share-float64(percent)) > 1 {
			t.Errorf("at %d%% the share is %.2f%%", percent, share)
		}
		t.Logf("at %d%%: %.2f%% of %d users", percent, share, users)
	}
}
