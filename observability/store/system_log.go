package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// SystemLog is a table of what a ClickHouse server writes about itself: its queries, merges,
// metrics. Without a rule of time in its configuration nothing of it ever goes. The embedded
// engine keeps none.
type SystemLog struct {
	Name    string // in the database system
	Bytes   uint64
	Endless bool   // no rule of time says when a row goes
	day     string // column of a row's day, empty: there is none
}

// systemLogNames are those, and what a server has renamed because its definition was another
// than that of the configuration: query_log_0.
const systemLogNames = `'_log(_\\d+)?$'`

// SystemLogs are those that are there, by name; of a cluster, those of any node, with the
// bytes of all.
func (s *Store) SystemLogs(ctx context.Context) ([]SystemLog, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	sql := `SELECT t.name, t.bytes, t.endless, c.day
FROM (
    SELECT name, ifNull(sum(total_bytes), 0) AS bytes, max(position(engine_full, ' TTL ') = 0) = 1 AS endless
    FROM ` + s.cfg.Cluster.systemOfAll("tables") + ` WHERE database = 'system' AND engine LIKE '%MergeTree' AND match(name, ` + systemLogNames + `) GROUP BY name
) AS t LEFT JOIN (
    SELECT table, min(name) AS day FROM ` + s.cfg.Cluster.systemOfAll("columns") + ` WHERE database = 'system' AND name IN ('event_date', 'finish_date') GROUP BY table
) AS c ON c.table = t.name
ORDER BY t.name`
	rows, err := s.conn.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("look at system logs: %w", err)
	}
	defer rows.Close()
	var out []SystemLog
	for rows.Next() {
		var l SystemLog
		if err := rows.Scan(&l.Name, &l.Bytes, &l.Endless, &l.day); err != nil {
			return nil, fmt.Errorf("look at system logs: %w", err)
		}
		out = append(out, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look at system logs: %w", err)
	}
	return out, nil
}

// BoundSystemLogs keeps rows of system logs for that many days, 0: it changes nothing. Those
// that have a rule of time keep theirs: it is the server's administrator's. It says which it
// has bounded and which stay endless, and fails where one of these was to be bounded.
func (s *Store) BoundSystemLogs(ctx context.Context, days int) (bounded, endless []SystemLog, err error) {
	logs, err := s.SystemLogs(ctx)
	if err != nil {
		return nil, nil, err
	}
	var failed error
	for _, l := range logs {
		if !l.Endless {
			continue
		}
		if days == 0 {
			endless = append(endless, l)
			continue
		}
		if err := s.bound(ctx, l, days); err != nil {
			endless, failed = append(endless, l), errors.Join(failed, fmt.Errorf("bound system.%s: %w", l.Name, err))
			continue
		}
		bounded = append(bounded, l)
	}
	return bounded, endless, failed
}

var errNoDay = errors.New("it has no column event_date")

// bound returns before ClickHouse has taken out what is too old: of a log of years that takes
// longer than a statement may.
func (s *Store) bound(ctx context.Context, l SystemLog, days int) error {
	if l.day == "" {
		return errNoDay
	}
	return s.define(ctx, fmt.Sprintf("ALTER TABLE system.`%s`%s MODIFY TTL %s + INTERVAL %d DAY SETTINGS alter_sync = 0", l.Name, s.cfg.Cluster.on(), l.day, days))
}

// systemOfAll is a table of what a node knows of itself, of every node.
func (c Cluster) systemOfAll(table string) string {
	return strings.Replace(c.system(table), "cluster(", "clusterAllReplicas(", 1)
}
