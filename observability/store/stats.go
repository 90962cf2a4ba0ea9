package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// statsSQL has a place for a key by time. Parameters are seconds since 1970.
const statsSQL = `
SELECT %s, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficService, TrafficPool,
       sum(Requests), sum(Errors), quantilesTDigestMerge(0.5, 0.95, 0.99)(Latency), max(Newest)
FROM traffic_group_1s
WHERE Second >= toDateTime({from:Int64}, 'UTC') AND Second < toDateTime({to:Int64}, 'UTC') AND NOT has({ignore:Array(String)}, TrafficRoute)
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY 1, 2, 3, 4, 5, 6, 7
LIMIT {limit:UInt32}`

// MaxStats bounds how many rows GroupStats and GroupSeries give; they fail beyond.
const MaxStats = 100_000

// Whole widens w to whole seconds, the grain of the statistics.
func Whole(w sli.Window) sli.Window {
	to := w.To.Truncate(time.Second)
	if to.Before(w.To) {
		to = to.Add(time.Second)
	}
	return sli.Window{From: w.From.Truncate(time.Second), To: to}
}

// GroupStats counts what started in w, for each group, service and pool that had a
// request. The window is widened to whole seconds and given back in the statistics; a
// caller that wants complete seconds asks for a window that ends at one. Groups without
// requests are not there: no data is not zero. Requests of the routes to ignore are not
// counted: some are slow on purpose and say nothing about a group.
func (s *Store) GroupStats(ctx context.Context, w sli.Window, ignore ...string) ([]sli.Stats, error) {
	w = Whole(w)
	return s.stats(ctx, w, ignore, fmt.Sprintf("toDateTime(%d, 'UTC')", w.From.Unix()), w.To.Sub(w.From))
}

// GroupSeries is GroupStats for each step of w on its own, oldest first. Step must be
// whole seconds.
func (s *Store) GroupSeries(ctx context.Context, w sli.Window, step time.Duration) ([]sli.Stats, error) {
	seconds := int64(step / time.Second)
	if seconds < 1 || step%time.Second != 0 {
		return nil, fmt.Errorf("group series: step %s is not whole seconds", step)
	}
	return s.stats(ctx, Whole(w), nil, fmt.Sprintf("toDateTime(intDiv(toUnixTimestamp(Second), %d) * %d, 'UTC')", seconds, seconds), step)
}

func (s *Store) stats(ctx context.Context, w sli.Window, ignore []string, key string, length time.Duration) ([]sli.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	ctx = clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{
		"from": strconv.FormatInt(w.From.Unix(), 10), "to": strconv.FormatInt(w.To.Unix(), 10), "limit": strconv.Itoa(MaxStats + 1), "ignore": array(ignore),
	}))
	rows, err := s.conn.Query(ctx, fmt.Sprintf(statsSQL, key))
	if err != nil {
		return nil, fmt.Errorf("read group statistics: %w", err)
	}
	defer rows.Close()
	var out []sli.Stats
	for rows.Next() {
		var st sli.Stats
		var id, color string
		var quantiles []float32
		if err := rows.Scan(&st.Window.From, &id, &color, &st.Env, &st.Tenant, &st.Service, &st.Pool, &st.Requests, &st.Errors, &quantiles, &st.Newest); err != nil {
			return nil, fmt.Errorf("read group statistics: %w", err)
		}
		st.Window.To = st.Window.From.Add(length)
		st.Group = group.ID(id)
		st.Color, _ = group.ParseColor(color)
		if len(quantiles) == 3 {
			st.P50, st.P95, st.P99 = time.Duration(quantiles[0]), time.Duration(quantiles[1]), time.Duration(quantiles[2])
		}
		out = append(out, st)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read group statistics: %w", err)
	}
	if len(out) > MaxStats {
		return nil, fmt.Errorf("read group statistics: more than %d rows: ask for a shorter window", MaxStats)
	}
	return out, nil
}

// array writes a list of strings as ClickHouse reads a parameter of type Array(String).
func array(list []string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("'" + quote.Replace(s) + "'")
	}
	return "[" + b.String() + "]"
}
