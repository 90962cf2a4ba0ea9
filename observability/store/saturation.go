package store

import (
	"context"
	"fmt"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/sli"
)

// A point that came twice counts once. What an instance says of one resource at one time
// adds up (CPU time by mode), then the mean over the times is taken.
const saturationSQL = `
SELECT ServiceName, TrafficPool, Resource, avg(Value) AS Mean, max(Value) AS Highest, count() AS Instances, max(Newest) AS Last
FROM
(
    SELECT ServiceName, TrafficPool, Resource, sum(Value) / uniqExact(TimeUnix) AS Value, max(TimeUnix) AS Newest
    FROM
    (
        SELECT DISTINCT
            ServiceName, TrafficPool, if(MetricName = '` + semconv.CPUUtilization + `', '` + sli.CPU + `', Attributes['` + semconv.Queue + `']) AS Resource,
            ResourceAttributes['service.instance.id'] AS Instance, Attributes, TimeUnix, Value
        FROM otel_metrics_gauge
        WHERE MetricName IN ('` + semconv.CPUUtilization + `', '` + semconv.QueueUtilization + `') AND TrafficPool != '' AND bitAnd(Flags, 1) = 0 AND isFinite(Value)
          AND TimeUnix >= fromUnixTimestamp64Nano(%d, 'UTC') AND TimeUnix < fromUnixTimestamp64Nano(%d, 'UTC')
    )
    WHERE Resource != ''
    GROUP BY ServiceName, TrafficPool, Resource, Instance
)
GROUP BY ServiceName, TrafficPool, Resource
ORDER BY ServiceName, TrafficPool, Resource
LIMIT %d`

// Saturation is how full pools were in w by what their instances said of themselves
// (semconv.CPUUtilization and QueueUtilization, with traffic.pool and service.instance.id).
// A pool of which nobody said anything is not there: no data is not zero. Fails where more
// than MaxStats rows would come.
func (s *Store) Saturation(ctx context.Context, w sli.Window) ([]sli.Saturation, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	rows, err := s.conn.Query(ctx, fmt.Sprintf(saturationSQL, w.From.UnixNano(), w.To.UnixNano(), MaxStats+1))
	if err != nil {
		return nil, fmt.Errorf("read saturation: %w", err)
	}
	defer rows.Close()
	var out []sli.Saturation
	for rows.Next() {
		var one sli.Saturation
		if err := rows.Scan(&one.Service, &one.Pool, &one.Resource, &one.Mean, &one.Highest, &one.Instances, &one.Newest); err != nil {
			return nil, fmt.Errorf("read saturation: %w", err)
		}
		out = append(out, one)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read saturation: %w", err)
	}
	if len(out) > MaxStats {
		return nil, fmt.Errorf("read saturation: more than %d rows", MaxStats)
	}
	return out, nil
}
