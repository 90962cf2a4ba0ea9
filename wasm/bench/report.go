package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

// line is a variant's row: medians, and medians of the ratios to plain in the same
// round, which are steadier.
type line struct {
	variant             variant
	rate, rateRatio     float64
	cpuMicros, cpuRatio float64
}

type report []line

func summarize(results []result) report {
	plain := results[0].samples
	var r report
	for _, res := range results {
		of := func(f func(i int, s sample) float64) float64 {
			values := make([]float64, len(res.samples))
			for i, s := range res.samples {
				values[i] = f(i, s)
			}
			return benchdoc.Median(values)
		}
		r = append(r, line{
			variant:   res.variant,
			rate:      of(func(_ int, s sample) float64 { return s.rate }),
			rateRatio: of(func(i int, s sample) float64 { return s.rate / plain[i].rate }),
			cpuMicros: of(func(_ int, s sample) float64 { return s.cpu * 1e6 }),
			cpuRatio:  of(func(i int, s sample) float64 { return s.cpu / plain[i].cpu }),
		})
	}
	return r
}

func (r report) table() string {
	var b strings.Builder
	b.WriteString("| variant | requests/s | of plain | CPU of the worker a request | of plain | |\n|---|---:|---:|---:|---:|---|\n")
	for _, l := range r {
		fmt.Fprintf(&b, "| %s | %.0f | %.1f%% | %.2f us | %.1f%% | %s |\n",
			l.variant.name, l.rate, 100*l.rateRatio, l.cpuMicros, 100*l.cpuRatio, l.variant.what)
	}
	return b.String()
}

func (r report) figures() string {
	var b strings.Builder
	for _, l := range r[1:] {
		fmt.Fprintf(&b, "figure %s_throughput %.0f req/s vs plain %.0f ratio %.3f\n", l.variant.name, l.rate, r[0].rate, l.rateRatio)
	}
	for _, l := range r[1:] {
		fmt.Fprintf(&b, "figure %s_cpu %.2f us/req vs plain %.2f ratio %.3f\n", l.variant.name, l.cpuMicros, r[0].cpuMicros, l.cpuRatio)
	}
	return b.String()
}

func describeMachine(e *edge) string {
	return fmt.Sprintf("%s; Envoy %s, one worker", benchdoc.Machine(), e.version)
}

func (r report) section(c config, e *edge, m memory) string {
	return fmt.Sprintf(`## What the edge filter costs

%s
%d keep-alive connections on loopback, %d rounds of %v for each variant in turn, medians; ratios are medians of the ratio to
plain in the same round. Load generator and upstream share the machine with Envoy. One request has ten headers, among them a
traceparent and a baggage that must be checked and rewritten: the dearest case. %s %s, %s.

Repeat: `+"`go tool task bench:filter`", r.table(), c.connections, c.rounds, c.slice, m, describeMachine(e), time.Now().UTC().Format(time.DateOnly))
}
