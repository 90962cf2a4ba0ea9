package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// RouteStats is what a group got on one route, from one service's pool.
type RouteStats struct {
	Route    string        `json:"route"`
	Service  string        `json:"service"`
	Pool     string        `json:"pool"`
	Requests uint64        `json:"requests"`
	Errors   uint64        `json:"errors"`
	Classes  [6]uint64     `json:"classes"` // requests by first digit of the HTTP status; 0: none
	P50      time.Duration `json:"p50"`
	P95      time.Duration `json:"p95"`
	P99      time.Duration `json:"p99"`
	// Time is about how long its requests took together: what a route costs users.
	Time time.Duration `json:"time"`
}

// SlowestRoutes returns what a group got in w by route, service and pool, highest P95
// first. It reads statistics, so it counts every request, and w is widened to seconds.
func (s *Store) SlowestRoutes(ctx context.Context, id group.ID, w sli.Window, limit int) ([]RouteStats, error) {
	if limit < 1 || limit > MaxTraces {
		return nil, fmt.Errorf("read routes: limit %d is not between 1 and %d", limit, MaxTraces)
	}
	where, _ := rowsSQL(Whole(w), 0, 0)
	if where == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	sql := "SELECT TrafficRoute, TrafficService, TrafficPool, StatusClass, sum(Requests), sum(Errors), sumMap(Latency) FROM traffic_group WHERE (" + where + ") AND TrafficGroup = ? GROUP BY 1, 2, 3, 4"
	rows, err := s.conn.Query(ctx, sql+fmt.Sprintf(" LIMIT %d", MaxStats+1), string(id))
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	defer rows.Close()
	type key struct{ route, service, pool string }
	routes, latencies, read := map[key]*RouteStats{}, map[key]*sli.HistogramSum{}, 0
	for ; rows.Next(); read++ {
		var k key
		var class uint8
		var requests, errs uint64
		var latency map[int16]uint64
		if err := rows.Scan(&k.route, &k.service, &k.pool, &class, &requests, &errs, &latency); err != nil {
			return nil, fmt.Errorf("read routes: %w", err)
		}
		r := routes[k]
		if r == nil {
			r = &RouteStats{Route: k.route, Service: k.service, Pool: k.pool}
			routes[k], latencies[k] = r, &sli.HistogramSum{}
		}
		if int(class) >= len(r.Classes) {
			class = 0 // no status that HTTP knows
		}
		r.Requests, r.Errors = r.Requests+requests, r.Errors+errs
		r.Classes[class] += requests
		latencies[k].Add(sli.NewHistogram(latency))
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	if read > MaxStats {
		return nil, fmt.Errorf("read routes: more than %d rows: the group has too many routes", MaxStats)
	}
	var out []RouteStats
	for k, r := range routes {
		h := latencies[k].Histogram()
		r.P50, r.P95, r.P99, r.Time = h.Quantile(0.5), h.Quantile(0.95), h.Quantile(0.99), h.Sum()
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b RouteStats) int {
		return cmp.Or(cmp.Compare(b.P95, a.P95), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool))
	})
	return out[:min(limit, len(out))], nil
}
