package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/benchdoc"
)

// short writes a size as 1M.
func short(size int) string {
	if size%1_000_000 == 0 {
		return fmt.Sprintf("%dM", size/1_000_000)
	}
	return fmt.Sprintf("%dk", size/1000)
}

// name writes a window as 10s or 5m.
func name(d time.Duration) string {
	if d < time.Minute {
		return d.String()
	}
	return strings.TrimSuffix(d.String(), "0s")
}

func table(results []result) string {
	var b strings.Builder
	b.WriteString("| stored spans | rows of statistics | window | statistics: P50 | P95 | raw spans: P50 | P95 | of raw | largest error of a P95 |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %d | %s | %.1f ms | %.1f ms | %.1f ms | %.1f ms | %.1f%% | %.2f%% |\n", short(r.size), r.rows, name(r.window),
			quantile(r.ours, 0.5), quantile(r.ours, 0.95), quantile(r.raw, 0.5), quantile(r.raw, 0.95), 100*quantile(r.ours, 0.5)/quantile(r.raw, 0.5), 100*r.p95Error)
	}
	return b.String()
}

func figures(results []result) string {
	var b strings.Builder
	for _, r := range results {
		ours, raw := quantile(r.ours, 0.5), quantile(r.raw, 0.5)
		fmt.Fprintf(&b, "figure p95_query_%s_%s %.2f ms vs raw %.2f ratio %.3f\n", name(r.window), short(r.size), ours, raw, ours/raw)
	}
	return b.String()
}

func section(c config, results []result) string {
	return fmt.Sprintf(`## How long the statistics of all groups take

%s
Requests, errors, P50, P95 and P99 of 30 groups (five routes, three status classes), asked by store.GroupStats and decoded, against one query over otel_traces
(t-digest), in turn, %d rounds, another window each time. An hour of traffic whatever the size, four spans a request; spans were made inside ClickHouse and
went through the product's views. Client and engine (chDB) share the machine. %s, %s.

Repeat: `+"`go tool task bench:groupstats -- -sizes 1000000,10000000,100000000`", table(results), c.rounds, benchdoc.Machine(), time.Now().UTC().Format(time.DateOnly))
}
