package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tracegate/tracegate/observability/sli"
)

// windows are how far back is asked for.
func windows() []time.Duration { return []time.Duration{10 * time.Second, 5 * time.Minute} }

// result is what one window at one size took.
type result struct {
	size      int
	window    time.Duration
	ours, raw []time.Duration
	rows      uint64  // rows of statistics, of all grains
	p95Error  float64 // largest of any group, as a share
}

// measure asks both sides in turn. The window ends at another second each round, never
// at a whole minute only, which would suit the rollups.
func measure(ctx context.Context, d *database, rounds int) ([]result, error) {
	var out []result
	for _, w := range windows() {
		r := result{size: d.size, window: w}
		for round := range rounds + 1 {
			to := d.end.Add(-time.Duration(1+7*round%113) * time.Second)
			window := sli.Window{From: to.Add(-w), To: to}
			began := time.Now()
			stats, err := d.store.GroupStats(ctx, window)
			if err != nil {
				return nil, err
			}
			ours := time.Since(began)
			began = time.Now()
			raw, err := d.raw(ctx, window, digest)
			if err != nil {
				return nil, err
			}
			took := time.Since(began)
			if round == 0 { // warms up, and is checked
				if r.p95Error, err = d.check(ctx, window, stats, raw); err != nil {
					return nil, err
				}
				continue
			}
			r.ours, r.raw = append(r.ours, ours), append(r.raw, took)
		}
		if err := d.conn.QueryRow(ctx, "SELECT sum(rows) FROM system.parts WHERE active AND database = ? AND table = 'traffic_group'", d.name).Scan(&r.rows); err != nil {
			return nil, fmt.Errorf("count rows of statistics: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}

// raw counts the same from the spans themselves.
func (d *database) raw(ctx context.Context, w sli.Window, quantiles string) ([]sli.Stats, error) {
	rows, err := d.conn.Query(ctx, fmt.Sprintf(`
SELECT TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool,
       count(), countIf(StatusCode = 'Error'), %s, max(Timestamp)
FROM otel_traces
WHERE TrafficEntry AND Timestamp >= fromUnixTimestamp64Nano(%d) AND Timestamp < fromUnixTimestamp64Nano(%d)
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6`, quantiles, w.From.UnixNano(), w.To.UnixNano()))
	if err != nil {
		return nil, fmt.Errorf("read raw spans: %w", err)
	}
	defer rows.Close()
	var out []sli.Stats
	for rows.Next() {
		var st sli.Stats
		var id, color string
		var q []uint64
		if err := rows.Scan(&id, &color, &st.Env, &st.Tenant, &st.Service, &st.Pool, &st.Requests, &st.Errors, &q, &st.Newest); err != nil {
			return nil, fmt.Errorf("read raw spans: %w", err)
		}
		st.P95 = time.Duration(q[1])
		out = append(out, st)
	}
	return out, rows.Err()
}

// digest is what one would ask raw spans for.
const digest = "arrayMap(x -> toUInt64(x), quantilesTDigest(0.5, 0.95, 0.99)(Duration))"

// exactQuantiles takes the durations at position q*(n-1), rounded, of all n in order.
const exactQuantiles = "arrayMap(q -> arraySort(groupArray(Duration))[1 + toUInt64(ceil(q * (count() - 1) - 0.5))], [0.5, 0.95, 0.99])"

// bucketWidth is how far a quantile may be off: 2^(1/32).
const bucketWidth = 0.0219

// check compares counts with the raw spans, which must be the same, and P95 with the
// exact one, which must be in the same bucket.
func (d *database) check(ctx context.Context, w sli.Window, stats, raw []sli.Stats) (worst float64, err error) {
	exact, err := d.raw(ctx, w, exactQuantiles)
	if err != nil {
		return 0, err
	}
	if len(stats) != len(raw) || len(stats) != len(exact) || len(stats) == 0 {
		return 0, fmt.Errorf("%d groups, raw %d", len(stats), len(raw))
	}
	for i, st := range stats {
		if x := exact[i]; st.Requests != x.Requests || st.Errors != x.Errors || !st.Newest.Equal(x.Newest) {
			return 0, fmt.Errorf("group %s: %d requests, %d errors, newest %s; raw %d, %d, %s", st.Group, st.Requests, st.Errors, st.Newest, x.Requests, x.Errors, x.Newest)
		}
		worst = max(worst, math.Abs(float64(st.P95)/float64(exact[i].P95)-1))
	}
	if worst > bucketWidth {
		return 0, fmt.Errorf("a P95 is off by %.2f%%, more than a bucket", 100*worst)
	}
	return worst, nil
}

func quantile(d []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(d))
	return float64(sorted[int(q*float64(len(sorted)-1)+0.5)]) / float64(time.Millisecond)
}
