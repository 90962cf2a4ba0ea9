package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

func names() []string { return []string{"ours", "collector"} }

// median is that of one number of all rounds.
func median(results []result, of func(result) float64) float64 {
	var v []float64
	for _, r := range results {
		v = append(v, of(r))
	}
	return benchdoc.Median(v)
}

func perSecond(r result) float64 { return float64(r.rows) / r.took.Seconds() }

func lost(r result) int { return r.sent - int(r.distinct) }

func table(results map[string][]result, killed map[string]result) string {
	var b strings.Builder
	b.WriteString("| receiver | spans a CPU second | CPU of a million spans | in the engine | spans stored a second | bytes a span on disk | beside them | memory at most | engine killed: lost | twice |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, name := range names() {
		rs, k := results[name], killed[name]
		fmt.Fprintf(&b, "| %s | %.0f | %.2f s | %.2f s | %.0f | %.1f | %.1f | %.0f MB | %d of %d | %d |\n", name, median(rs, result.perCPU),
			median(rs, func(r result) float64 { return 1e6 * r.cpu.Seconds() / float64(r.sent) }), median(rs, func(r result) float64 { return 1e6 * r.engineCPU.Seconds() / float64(r.sent) }),
			median(rs, perSecond), median(rs, func(r result) float64 { return r.bytes[0] }), median(rs, func(r result) float64 { return r.bytes[1] }),
			median(rs, func(r result) float64 { return r.peak }), lost(k), k.sent, k.rows-k.distinct)
	}
	return b.String()
}

func figures(results map[string][]result, killed map[string]result) string {
	of := func(f func(result) float64) (float64, float64) {
		return median(results["ours"], f), median(results["collector"], f)
	}
	var b strings.Builder
	line := func(name, unit string, f func(result) float64) {
		x, y := of(f)
		b.WriteString(benchdoc.Figure(name, unit, x, "otelcol", y) + "\n")
	}
	line("spans_per_cpu_second", "spans/s", result.perCPU)
	line("spans_stored_per_second", "spans/s", perSecond)
	line("bytes_per_span", "B", func(r result) float64 { return r.bytes[0] })
	b.WriteString(benchdoc.Figure("spans_lost", "spans", float64(lost(killed["ours"])), "otelcol", float64(lost(killed["collector"]))) + "\n")
	return b.String()
}

func section(c config, results map[string][]result, killed map[string]result) string {
	return fmt.Sprintf(`## What it costs to receive and store spans

%s
Spans with ten attributes, a parent and four attributes of their resource, in messages of %d over gRPC from %d senders, each with one message under way; %d spans a round, medians of
%d rounds in turn. Each receiver is a process of its own and writes to the same engine (chDB, another process) by LZ4 over HTTP, in batches of up to 20,000 spans or 200 ms. CPU is that of the receiver's process from
the first message until all rows are in the table; the engine's is its own, and holds our statistics by group, which the collector does not make. On disk: the table of spans, and beside them our statistics or the
collector's index of traces, merged. Ours answers a sender when ClickHouse has the rows; the collector (%s, queue in memory, senders wait where it is full) when it has queued them. "Engine killed": SIGKILL in the
middle of a round, started again after %s; lost is what was acknowledged and is not in the table after all has settled. Senders, receiver and engine share the machine. %s, %s.

Repeat: `+"`go tool task bench:ingest`", table(results, killed), c.size, c.senders, c.spans, c.rounds, collectorVersion, c.outage, benchdoc.Machine(), time.Now().UTC().Format(time.DateOnly))
}
