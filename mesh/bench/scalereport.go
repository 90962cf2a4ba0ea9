package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

// scaleReport is all runs.
type scaleReport struct{ ours, stock []timeline }

var steps = []struct {
	name, words string
	of          func(timeline) time.Duration
}{
	{"decided", "the policy says how many pods", func(t timeline) time.Duration { return t.decided }},
	{"scaled", "the Deployment is scaled", func(t timeline) time.Duration { return t.scaled }},
	{"ready", "its pods are Ready", func(t timeline) time.Duration { return t.ready }},
	{"eds", "Envoy has their endpoints", func(t timeline) time.Duration { return t.edge }},
}

// percentile is the value that p in 1 are at most (nearest rank), in seconds.
func percentile(runs []timeline, of func(timeline) time.Duration, p float64) float64 {
	if len(runs) == 0 {
		return 0
	}
	var v []time.Duration
	for _, r := range runs {
		v = append(v, of(r))
	}
	slices.Sort(v)
	return v[max(0, int(math.Ceil(p*float64(len(v))))-1)].Seconds()
}

func (r scaleReport) section() string {
	var b strings.Builder
	b.WriteString("## From the metric to pods that serve\n\n")
	b.WriteString("| seconds after statistics say 900 instead of 100 requests a second | ours: median | P95 | stock autoscaler: median | P95 |\n|---|---:|---:|---:|---:|\n")
	for _, s := range steps {
		stock := [2]string{"-", "-"}
		if s.name != "decided" {
			stock = [2]string{fmt.Sprintf("%.2f", percentile(r.stock, s.of, 0.5)), fmt.Sprintf("%.2f", percentile(r.stock, s.of, 0.95))}
		}
		fmt.Fprintf(&b, "| %s | %.2f | %.2f | %s | %s |\n", s.words, percentile(r.ours, s.of, 0.5), percentile(r.ours, s.of, 0.95), stock[0], stock[1])
	}
	fmt.Fprintf(&b, `
%d runs of each, at moments drawn by chance, from 1 pod to the 5 that 900 requests a second need. API server, controller manager, scheduler, control plane and Envoy are real; machines are
played by kwok, whose pods are ready as soon as they are placed. Statistics are played too: what lies between a request and them is measured by the benchmarks of telemetry. The stock autoscaler
is Kubernetes' own with its defaults, evaluated every 15 s, on the same rate, measured every 15 s as metrics-server does. %s

Repeat: %sgo tool task bench:scale%s
`, len(r.ours), benchdoc.Machine(), "`", "`")
	return b.String()
}

func (r scaleReport) figures() string {
	var b strings.Builder
	for _, s := range steps[1:] {
		for _, p := range []struct {
			name string
			of   float64
		}{{"p50", 0.5}, {"p95", 0.95}} {
			b.WriteString(benchdoc.Figure("metric_to_"+s.name+"_"+p.name, "s", percentile(r.ours, s.of, p.of), "stock_hpa", percentile(r.stock, s.of, p.of)) + "\n")
		}
	}
	return b.String()
}
