package store

import (
	"context"
	"fmt"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// nodeName is the resource attribute by which an Envoy names itself in its access log: the
// id of the edge.
const nodeName = "node_name"

// EdgeStats counts what came in at each edge in w, by service and route: its own spans, as
// the group statistics count them, and to the nanosecond. It reads spans and not states:
// who asks does so for seconds and seldom, and states by edge would cost every request.
func (s *Store) EdgeStats(ctx context.Context, w sli.Window) ([]sli.EdgeStats, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	const sql = `SELECT ResourceAttributes['` + nodeName + `'] AS Edge, TrafficService, TrafficRoute, count(), countIf(StatusCode = 'Error')
FROM otel_traces
WHERE ServiceName = ? AND TrafficEntry AND Timestamp >= fromUnixTimestamp64Nano(?) AND Timestamp < fromUnixTimestamp64Nano(?) AND Edge != ''
GROUP BY Edge, TrafficService, TrafficRoute
ORDER BY Edge, TrafficService, TrafficRoute
LIMIT ?`
	rows, err := s.conn.Query(ctx, sql, semconv.ServiceEdge, w.From.UnixNano(), w.To.UnixNano(), MaxStats+1)
	if err != nil {
		return nil, fmt.Errorf("read edge statistics: %w", err)
	}
	defer rows.Close()
	var out []sli.EdgeStats
	for rows.Next() {
		var st sli.EdgeStats
		if err := rows.Scan(&st.Edge, &st.Service, &st.Route, &st.Requests, &st.Errors); err != nil {
			return nil, fmt.Errorf("read edge statistics: %w", err)
		}
		out = append(out, st)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read edge statistics: %w", err)
	}
	if len(out) > MaxStats {
		return nil, fmt.Errorf("read edge statistics: more than %d rows: ask for a shorter window", MaxStats)
	}
	return out, nil
}
