package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/edge/envoytest"
)

// TestAssess is the arithmetic of the report.
func TestAssess(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(after, took time.Duration, failed, write bool) request {
		return request{sent: from.Add(after), took: took, failed: failed, write: write}
	}
	got := assess([]request{
		at(-2*time.Second, time.Minute, true, true), // was over before, whatever came of it
		at(-time.Millisecond, 10*time.Second, true, false),
		at(time.Second, 10*time.Second, true, true),
		at(2*time.Second, 1500*time.Millisecond, false, false), // late
		at(3*time.Second, 5*time.Millisecond, false, true),
	}, from)
	if diff := cmp.Diff(damage{sent: 4, lost: 2, writes: 1, until: 2 * time.Second}, got, cmp.AllowUnexported(damage{})); diff != "" {
		t.Error(diff)
	}
}

// TestFailover cuts one of two clusters off, API server, control plane and pods, and mends it
// again: what `bench:failover` measures, without a clock. Each edge holds both clusters' pods
// beforehand, its own first; the cut loses nothing elsewhere, and nothing here once the other
// cluster serves; nothing is lost when it is mended.
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two Kubernetes")
	}
	binary := envoytest.Binary(t)
	if _, err := engine.FindKubernetes(); err != nil {
		t.Skip(err)
	}
	regions, closeAll, err := startRegions(t.Context(), binary, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeAll(); err != nil {
			t.Error(err)
		}
	}()
	west, east := regions[0], regions[1]
	serves := func(edge, by *region) {
		t.Helper()
		if err := edge.servedBy(t.Context(), by.name); err != nil {
			t.Fatal(err)
		}
	}
	serves(west, west)
	serves(east, east)
	healthy(t, west, west.at(0, true), east.at(1, true))
	healthy(t, east, east.at(0, true), west.at(1, true))

	elsewhere := startLoad(t.Context(), "http://"+east.plane.cfg.Edge.Listen)
	defer elsewhere.stop()
	if err := west.shut(); err != nil {
		t.Fatal(err)
	}
	serves(west, east)
	// Neither its control plane nor its API server are there: this is what the edge has.
	healthy(t, west, west.at(0, false), east.at(1, true))
	healthy(t, east, east.at(0, true), west.at(1, false))
	here := startLoad(t.Context(), "http://"+west.plane.cfg.Edge.Listen)
	defer here.stop()
	answered(t, here, 200)

	if err := west.mend(t.Context()); err != nil {
		t.Fatal(err)
	}
	serves(west, west)
	healthy(t, west, west.at(0, true), east.at(1, true))
	answered(t, here, 200)
	answered(t, elsewhere, 200)
}

// answered waits until so many more requests were, and no one was lost.
func answered(t *testing.T, l *load, n int) {
	t.Helper()
	deadline, tick := time.NewTimer(time.Minute), time.NewTicker(10*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for had := 0; had < n; {
		for _, r := range l.take() {
			had++
			if r.failed {
				t.Errorf("a request is lost, sent %s ago, a write: %v", time.Since(r.sent), r.write)
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d requests were answered in a minute", had)
		}
	}
}

// held is an endpoint as Envoy holds it.
type held struct {
	Address  string
	Priority int
	Healthy  bool
}

func (r *region) at(priority int, healthy bool) held {
	return held{r.gate.addr.String(), priority, healthy}
}

// healthy waits until the region's Envoy holds exactly these endpoints.
func healthy(t *testing.T, r *region, want ...held) {
	t.Helper()
	slices.SortFunc(want, func(a, b held) int { return a.Priority - b.Priority })
	var got []held
	_, err := until(t.Context(), "endpoints of "+r.name, time.Minute, func() (ok bool, err error) {
		got, err = holds(t, r)
		return err == nil && cmp.Equal(want, got), err
	})
	if err != nil {
		t.Fatalf("%v (-want +got):\n%s", err, cmp.Diff(want, got))
	}
}

func holds(t *testing.T, r *region) ([]held, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.plane.admin+"/clusters?format=json", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Priority int `json:"priority"`
				Address  struct {
					Socket struct {
						Address string `json:"address"`
						Port    int    `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
				Health struct {
					Failed bool `json:"failed_active_health_check"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return nil, err
	}
	var out []held
	for _, c := range all.Clusters {
		if c.Name != "core.baseline" {
			continue
		}
		for _, h := range c.Hosts {
			out = append(out, held{fmt.Sprintf("%s:%d", h.Address.Socket.Address, h.Address.Socket.Port), h.Priority, !h.Health.Failed})
		}
	}
	slices.SortFunc(out, func(a, b held) int { return a.Priority - b.Priority })
	return out, nil
}
