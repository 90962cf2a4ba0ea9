package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type report []result

// quantity is something of a sample; in is how it is shown.
type quantity struct {
	name string
	of   func(sample) float64
	q    float64
	unit string
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func quantities() []quantity {
	acked := func(s sample) float64 { return millis(s.acked) }
	routed := func(s sample) float64 { return millis(s.routed) }
	read := func(s sample) float64 { return millis(s.read) }
	planned := func(s sample) float64 { return millis(s.acked - s.read) }
	return []quantity{
		{"route_change_p50", acked, 0.5, "ms"},
		{"route_change_p99", acked, 0.99, "ms"},
		{"policy_read_p50", read, 0.5, "ms"},
		{"policy_read_p99", read, 0.99, "ms"},
		{"planned_change_p50", planned, 0.5, "ms"},
		{"planned_change_p99", planned, 0.99, "ms"},
		{"first_request_p50", routed, 0.5, "ms"},
		{"first_request_p99", routed, 0.99, "ms"},
		{"envoy_cpu", func(s sample) float64 { return millis(s.envoy) }, 0.5, "ms"},
		{"change_cpu", func(s sample) float64 { return millis(s.CPU) }, 0.5, "ms"},
		{"change_allocs", func(s sample) float64 { return float64(s.Allocs) }, 0.5, "objects"},
		{"planning_cpu", func(s sample) float64 { return millis(s.plan.CPU) }, 0.5, "ms"},
		{"planning_allocs", func(s sample) float64 { return float64(s.plan.Allocs) }, 0.5, "objects"},
		{"serving_cpu", func(s sample) float64 { return millis(s.cache.CPU) }, 0.5, "ms"},
		{"serving_allocs", func(s sample) float64 { return float64(s.cache.Allocs) }, 0.5, "objects"},
		{"change_bytes", func(s sample) float64 { return float64(s.Bytes) }, 0.5, "bytes"},
	}
}

func (q quantity) at(samples []sample) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = q.of(s)
	}
	return quantile(values, q.q)
}

func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

var titles = map[string]string{
	"route_change_p50": "`apply` to acknowledged by all, p50", "route_change_p99": "the same, p99",
	"policy_read_p50": "of that, until the policy is read: p50", "policy_read_p99": "p99",
	"planned_change_p50": "and from there: p50", "planned_change_p99": "p99",
	"first_request_p50": "`apply` to first request routed by Envoy, p50", "first_request_p99": "the same, p99",
	"envoy_cpu":  "CPU time of Envoy's main thread",
	"change_cpu": "CPU time of the control plane", "change_allocs": "its allocations", "change_bytes": "bytes it sends",
	"planning_cpu": "CPU time without reading", "planning_allocs": "allocations without reading",
	"serving_cpu": "CPU time without rendering, either", "serving_allocs": "allocations without rendering, either",
}

func (r report) table() string {
	var b strings.Builder
	b.WriteString("| a change of one rule among |")
	for _, res := range r {
		fmt.Fprintf(&b, " %d, ours | snapshot cache |", res.size.total())
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", 2*len(r)) + "\n")
	for _, q := range quantities() {
		fmt.Fprintf(&b, "| %s |", titles[q.name])
		for _, res := range r {
			fmt.Fprintf(&b, " %s | %s |", shown(q.at(res.ours), q.unit), shown(q.at(res.peer), q.unit))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func shown(v float64, unit string) string {
	if unit == "ms" {
		return fmt.Sprintf("%.1f ms", v)
	}
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// figures are of the largest size; those of the others have it in their names.
func (r report) figures() string {
	var b strings.Builder
	for i, res := range r {
		suffix := ""
		if i < len(r)-1 {
			suffix = fmt.Sprintf("_%d", res.size.total())
		}
		for _, q := range quantities() {
			ours, peer := q.at(res.ours), q.at(res.peer)
			fmt.Fprintf(&b, "figure %s%s %.2f %s vs snapshot_cache %.2f ratio %.4f\n", q.name, suffix, ours, q.unit, peer, ours/peer)
		}
	}
	small, large := r[0], r[len(r)-1]
	for _, q := range quantities() {
		a, z := q.at(small.ours), q.at(large.ours)
		fmt.Fprintf(&b, "figure %s_growth %.2f %s vs %d_rules %.2f ratio %.3f\n", q.name, z, q.unit, small.size.total(), a, z/a)
	}
	return b.String()
}

func describeMachine(ctx context.Context, c config) string {
	version := "unknown"
	if binary, err := envoy.Find(ctx, c.envoy, "", slog.New(slog.DiscardHandler)); err == nil {
		if v, err := envoy.Version(ctx, binary); err == nil {
			version = v
		}
	}
	return fmt.Sprintf("%s; Envoy %s, one worker", benchdoc.Machine(), version)
}

func (r report) section(ctx context.Context, c config) string {
	return fmt.Sprintf(`## What a routing change costs

%s
%d delta clients and one Envoy at each control plane, which is a process of its own; %d changes each, in turn. A change pins one rule, which has a host, to the other of two pools. The
snapshot cache is go-control-plane's (delta ADS, one snapshot for all), fed with full snapshots of the same plan, all virtual hosts in one route configuration; rendering
them is in its time, and shown apart. Times begin with the document's bytes: until it is read it is checked, written (and synced) to its file, read back from there by who watches it, and kept among
the revisions, by the same code for both. Clients, upstreams and both Envoys share the machine, so the times hold what these take. CPU, allocations and bytes are of the control plane's
process, medians. %s, %s.

Repeat: `+"`go tool task bench:xds`", r.table(), c.clients, c.rounds, describeMachine(ctx, c), time.Now().UTC().Format(time.DateOnly))
}
