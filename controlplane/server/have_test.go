package server

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// random is a snapshot of a few resources of each type.
func random(rnd *rand.Rand) *xds.Snapshot {
	var out [xds.NumTypes][]xds.Resource
	for t := range out {
		for i := range 4 {
			if rnd.IntN(3) == 0 {
				continue
			}
			name := fmt.Sprint(i)
			if xds.Type(t) == xds.VirtualHosts {
				name = "edge/" + name
			}
			out[t] = append(out[t], xds.Resource{Name: name, Version: fmt.Sprint(rnd.IntN(3)), Body: &anypb.Any{}})
		}
	}
	return xds.NewSnapshot(out)
}

// TestWhatIsLeftIsCounted holds what [have] keeps of the difference between an edge
// and its target to that difference, whatever the edge answers.
func TestWhatIsLeftIsCounted(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		cfg := DefaultConfig()
		cfg.Warmup, cfg.RetryMin, cfg.RetryMax = 0, time.Nanosecond, time.Nanosecond
		e := newEdge(cfg, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler), func() {})
		out := make(chan cache.DeltaResponse, xds.NumTypes)
		var subs [xds.NumTypes]stream.Subscription
		ask := func(typ xds.Type, req *discoveryv3.DeltaDiscoveryRequest) {
			req.TypeUrl = typ.URL()
			if err := e.OnStreamDeltaRequest(1, req); err != nil {
				t.Fatal(err)
			}
			subs[typ].UpdateResourceSubscriptions(req.GetResourceNamesSubscribe(), req.GetResourceNamesUnsubscribe())
			if _, err := e.CreateDeltaWatch(req, subs[typ], out); err != nil {
				t.Fatal(err)
			}
		}
		last := &xds.Snapshot{}
		for i := range xds.NumTypes {
			typ := xds.Type(i)
			subs[i] = stream.NewDeltaSubscription(nil, nil, nil, true)
			req := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "e"}}
			switch typ {
			case xds.Clusters, xds.Listeners:
			case xds.VirtualHosts:
				subs[i] = stream.NewDeltaSubscription([]string{"edge"}, nil, nil, false)
				req.ResourceNamesSubscribe = []string{"edge"}
			default:
				subs[i] = stream.NewDeltaSubscription([]string{"0", "1", "2"}, nil, nil, false)
				req.ResourceNamesSubscribe = []string{"0", "1", "2"}
			}
			if rnd.IntN(2) == 0 {
				req.InitialResourceVersions = map[string]string{"0": "0", "edge/9": "1"}
			}
			ask(typ, req)
		}
		for range 60 {
			switch rnd.IntN(6) {
			case 0:
				next := random(rnd)
				e.update(next, last.Changes(next))
				last = next
			case 1:
				ask(xds.Endpoints, &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"1"}})
			case 2:
				ask(xds.VirtualHosts, &discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"edge"}})
			default:
				select {
				case r := <-out:
					resp, err := r.GetDeltaDiscoveryResponse()
					if err != nil {
						t.Fatal(err)
					}
					typ, _ := xds.TypeOf(resp.GetTypeUrl())
					resp.Nonce = "n"
					e.OnStreamDeltaResponse(1, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ.URL()}, resp)
					answer := &discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "n"}
					if rnd.IntN(3) == 0 {
						answer.ErrorDetail = &status.Status{Message: "no"}
					}
					ask(typ, answer)
				default:
				}
			}
			left(t, seed, e, last)
		}
		e.OnDeltaStreamClosed(1, nil)
	}
}

func left(t *testing.T, seed uint64, e *edge, target *xds.Snapshot) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.has {
		ts := &e.has[i]
		missing, stale := 0, 0
		for _, r := range target.Resources[i] {
			if !ts.holds(r) {
				missing++
				if _, ok := ts.missing[r.Name]; !ok {
					t.Fatalf("seed %d: %s %s is missing and nobody knows", seed, xds.Type(i), r.Name)
				}
			}
		}
		for name := range ts.acked {
			if _, ok := target.Find(xds.Type(i), name); e.target != nil && !ok {
				stale++
				if _, ok := ts.stale[name]; !ok {
					t.Fatalf("seed %d: %s %s is stale and nobody knows", seed, xds.Type(i), name)
				}
			}
		}
		if missing != len(ts.missing) || stale != len(ts.stale) {
			t.Fatalf("seed %d: %s: %d missing of %d, %d stale of %d", seed, xds.Type(i), missing, len(ts.missing), stale, len(ts.stale))
		}
	}
}
