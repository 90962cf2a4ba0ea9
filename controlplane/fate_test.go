package controlplane

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/controlplane/xds"
)

// TestFateOfPolicies: who brings policies is told what became of each.
func TestFateOfPolicies(t *testing.T) {
	t.Parallel()
	fates := make(chan source.Fate, 100)
	file := make(chan string)
	overlay := func(ctx context.Context, in <-chan source.Update[policy.Policy], out chan<- source.Update[policy.Policy], told <-chan source.Fate) error {
		for {
			select {
			case <-in: // of the file: this test brings its own
			case document := <-file:
				u := source.Update[policy.Policy]{Raw: []byte(document)}
				u.Value, u.Err = policy.Parse(u.Raw)
				out <- u
			case f := <-told:
				fates <- f
			case <-ctx.Done():
				return nil
			}
		}
	}
	cfg, w, edges, control := testConfig(t), newWorld(), listener(t), listener(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, cfg, Deps{Stats: w, Decisions: w, Registry: prometheus.NewRegistry(), XDS: edges, Control: control, Overlay: overlay}, slog.New(slog.DiscardHandler))
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	wait := func(what string, ok func(source.Fate) bool) {
		t.Helper()
		deadline := time.NewTimer(time.Minute)
		defer deadline.Stop()
		var last source.Fate
		for {
			select {
			case last = <-fates:
				if ok(last) {
					return
				}
			case <-deadline.C:
				t.Fatalf("%s: refused %q, held %v, %d and %d bytes", what, last.Refused, last.Held, len(last.Wanted), len(last.InForce))
			}
		}
	}
	first := string(policy.Default)
	file <- first
	wait("nobody has it", func(f source.Fate) bool { return string(f.Wanted) == first && f.InForce == nil && f.Refused == "" })
	edge := servertest.Connect(t, edges.Addr().String(), servertest.Options{})
	inForce := func(f source.Fate) bool { return bytes.Equal(f.Wanted, f.InForce) && f.Refused == "" }
	wait("the edge has it", inForce)

	edge.Answer(func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.GetResources() {
			if typ == xds.Routes && strings.Contains(string(res.GetResource().GetValue()), "poison") {
				return "poison is not to be had"
			}
		}
		return ""
	})
	file <- strings.Replace(first, "{name: /, prefix: /}", "{name: poison, prefix: /}", 1)
	wait("the edge refuses it", func(f source.Fate) bool {
		return strings.Contains(string(f.Wanted), "poison") && string(f.InForce) == first && strings.Contains(f.Refused, "poison is not to be had")
	})
	file <- strings.Replace(first, "maxP95: 500ms", "maxP95: 400ms", 1)
	wait("a change that is no edge's", func(f source.Fate) bool { return inForce(f) && strings.Contains(string(f.InForce), "400ms") })
}
