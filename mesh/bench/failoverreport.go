package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

type failoverReport []cut

// at is the p-quantile of a figure over all cuts (nearest rank).
func (r failoverReport) at(p float64, of func(cut) float64) float64 {
	var v []float64
	for _, c := range r {
		v = append(v, of(c))
	}
	slices.Sort(v)
	return v[max(0, int(math.Ceil(p*float64(len(v))))-1)]
}

func (r failoverReport) sum(of func(cut) int) (n int) {
	for _, c := range r {
		n += of(c)
	}
	return n
}

func (r failoverReport) section() string {
	var b strings.Builder
	b.WriteString("## A cluster is cut off\n\n| | requests | lost | of these writes | served again after: median | P95 |\n|---|---:|---:|---:|---:|---:|\n")
	for _, row := range []struct {
		words string
		of    func(cut) damage
	}{
		{"the cluster's own edge, from the cut on", func(c cut) damage { return c.away[0] }},
		{"the other cluster's edge, from the cut on", func(c cut) damage { return c.away[1] }},
		{"the cluster's own edge, when it is mended", func(c cut) damage { return c.back[0] }},
		{"the other cluster's edge, when it is mended", func(c cut) damage { return c.back[1] }},
	} {
		until := func(c cut) float64 { return row.of(c).until.Seconds() }
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %.2f s | %.2f s |\n", row.words,
			r.sum(func(c cut) int { return row.of(c).sent }), r.sum(func(c cut) int { return row.of(c).lost }), r.sum(func(c cut) int { return row.of(c).writes }),
			r.at(0.5, until), r.at(0.95, until))
	}
	fmt.Fprintf(&b, `
%d cuts. Each of two clusters has an API server, a control plane that reads both, an edge (Envoy) and a pod. The pods of one cluster stop to answer while their connections stay open, as in a partition; at the same moment its API
server is killed and its control plane ends. %.0f requests a second go to each edge, a tenth of them writes, which are never sent twice. Served again: from then on each request was answered within %s. %s

Repeat: %sgo tool task bench:failover -- -runs %d%s
`, len(r), float64(time.Second)/float64(loadEvery), slow, benchdoc.Machine(), "`", len(r), "`")
	return b.String()
}

func (r failoverReport) figures() string {
	n := float64(len(r))
	until := func(c cut) float64 { return c.away[0].until.Seconds() }
	return strings.Join([]string{
		benchdoc.Figure("failover_p50", "s", r.at(0.5, until), "-", 0),
		benchdoc.Figure("failover_p95", "s", r.at(0.95, until), "-", 0),
		benchdoc.Figure("failover_lost", "requests", float64(r.sum(func(c cut) int { return c.away[0].lost }))/n, "-", 0),
		benchdoc.Figure("failover_lost_elsewhere", "requests", float64(r.sum(func(c cut) int { return c.away[1].lost + c.back[1].lost }))/n, "-", 0),
		benchdoc.Figure("failback_lost", "requests", float64(r.sum(func(c cut) int { return c.back[0].lost }))/n, "-", 0),
		"",
	}, "\n")
}
