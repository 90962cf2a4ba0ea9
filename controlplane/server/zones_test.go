package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// TestZonesInEnvoy holds two real Envoys in two zones to a pool's zones: each prefers the
// instances of its own, and takes the others' when they are gone; with weights each zone
// gets its share at both.
func TestZonesInEnvoy(t *testing.T) {
	t.Parallel()
	envoytest.Binary(t)
	pool := plan.Pool{Name: "baseline", Zones: map[string]string{}, Balances: &policy.ZoneBalance{Prefer: true}}
	up := map[string]*httptest.Server{}
	for _, zone := range []string{"a", "b"} {
		up[zone] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, zone) }))
		t.Cleanup(up[zone].Close)
		addr := up[zone].Listener.Addr().String()
		pool.Endpoints, pool.Zones[addr] = append(pool.Endpoints, addr), zone
	}
	edges := map[string]string{}
	chains := map[string]chain{}
	set := func() {
		for zone, c := range chains {
			s := snapshot(t, func(p *plan.Plan) { p.Edge.Listen, p.Services[0].Pools = edges[zone], []plan.Pool{pool} })
			c.Set(s)
			c.inSync(s)
		}
	}
	for _, zone := range []string{"a", "b"} { // each with a control plane, since both listen on one machine
		edges[zone], chains[zone] = freeport.ForTest(t), start(t, nil)
		boot := bootstrap.DefaultConfig()
		boot.XDS, boot.Zone = chains[zone].addr, zone
		envoytest.StartADS(t, boot)
	}
	set()
	for _, zone := range []string{"a", "b"} {
		answered(t, edges[zone], zone+" only", func(n map[string]int) bool { return n[zone] == 200 })
	}
	pool.Balances = &policy.ZoneBalance{Weights: map[string]uint32{"a": 9, "b": 1}}
	set()
	for _, addr := range edges {
		answered(t, addr, "nine of ten by a", func(n map[string]int) bool { return n["a"] > 140 && n["b"] > 2 && n["a"]+n["b"] == 200 })
	}
	pool.Balances = &policy.ZoneBalance{Prefer: true}
	set()
	answered(t, edges["b"], "b again", func(n map[string]int) bool { return n["b"] == 200 })
	up["b"].Close()
	answered(t, edges["b"], "a, since b is gone", func(n map[string]int) bool { return n["a"] == 200 })
}

// answered asks 200 times, again and again until it fits: health checks take a moment.
func answered(t *testing.T, addr, what string, fits func(map[string]int) bool) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	var n map[string]int
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		n = map[string]int{}
		for range 200 {
			resp, err := client.Get("http://" + addr + "/")
			if err != nil {
				n["error"]++
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			n[string(body)]++
		}
		if fits(n) {
			return
		}
	}
	t.Fatalf("%s: %s: %v", addr, what, n)
}
