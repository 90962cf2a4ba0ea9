package store

import (
	"context"
	"fmt"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// maxHops bounds a call path.
const maxHops = 500

// CallPath is every pool that served requests of a group in w, by the server spans of its
// traces, with how many each request at the edge caused; the most asked first. It is empty
// where the group had no request. Where traces are sampled, whole ones are, so the share
// stays right.
func (s *Store) CallPath(ctx context.Context, id group.ID, w sli.Window) ([]sli.Hop, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	const sql = `WITH (SELECT count() FROM otel_traces WHERE TrafficGroup = ? AND TrafficEntry AND Timestamp >= ? AND Timestamp < ?) AS entries
SELECT ServiceName, TrafficPool, count() / entries AS PerRequest FROM otel_traces
WHERE TrafficGroup = ? AND SpanKind = 'Server' AND NOT TrafficEntry AND TrafficPool != '' AND Timestamp >= ? AND Timestamp < ? AND entries > 0
GROUP BY ServiceName, TrafficPool ORDER BY PerRequest DESC, ServiceName, TrafficPool LIMIT ` // then the bound
	rows, err := s.conn.Query(ctx, sql+fmt.Sprint(maxHops), string(id), w.From, w.To, string(id), w.From, w.To)
	if err != nil {
		return nil, fmt.Errorf("read call path: %w", err)
	}
	defer rows.Close()
	var out []sli.Hop
	for rows.Next() {
		var h sli.Hop
		if err := rows.Scan(&h.Service, &h.Pool, &h.PerRequest); err != nil {
			return nil, fmt.Errorf("read call path: %w", err)
		}
		out = append(out, h)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read call path: %w", err)
	}
	return out, nil
}
