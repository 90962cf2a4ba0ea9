package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Partition is a day of a table, or a month of decisions; on a cluster, that of all shards
// together, one replica each.
type Partition struct {
	Table, ID string
	Rows      uint64
	Bytes     uint64    // on disk
	From, To  time.Time // its oldest and its newest row
	Days      uint64    // that a row is kept; 0: for ever
}

// Early says whether its newest row would have been kept at now.
func (p Partition) Early(now time.Time) bool {
	return p.Days == 0 || now.Before(p.To.AddDate(0, 0, int(p.Days)))
}

// Excess is what must go of a table's partitions, the oldest first, so that what stays has
// at most bound bytes. The one that is written to now, and any beyond it that a sender with
// a wrong clock has made, is never among them: so a table can stay above its bound.
func Excess(partitions []Partition, bound uint64, now time.Time) []Partition {
	sorted := slices.SortedFunc(slices.Values(partitions), func(a, b Partition) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID)) })
	begun, _ := slices.BinarySearchFunc(sorted, now, func(p Partition, now time.Time) int {
		if p.From.After(now) {
			return 1
		}
		return -1
	})
	var total uint64
	for _, p := range sorted {
		total += p.Bytes
	}
	var out []Partition
	for _, p := range sorted[:max(begun-1, 0)] {
		if total <= bound {
			break
		}
		total -= p.Bytes
		out = append(out, p)
	}
	return out
}

// Bounded says whether a table can have a quota: it is kept by days or months.
func Bounded(table string) bool {
	kind, isMetric := strings.CutPrefix(table, "otel_metrics_")
	return isMetric && slices.Contains(PointKinds(), PointKind(kind)) ||
		slices.Contains([]string{"otel_traces", "otel_logs", "traffic_group", "traffic_call", "traffic_decisions"}, table)
}

func checkQuotas(quotas map[string]uint64) error {
	for _, table := range slices.Sorted(maps.Keys(quotas)) {
		switch {
		case !Bounded(table):
			return fmt.Errorf("quotas: table %q is not one that can have a quota", table)
		case quotas[table] == 0:
			return fmt.Errorf("quotas: table %s: must be positive", table)
		}
	}
	return nil
}

// Shrink drops what the tables have beyond their quotas and says what that was, also where
// it fails on the way. Of two that do it at once, both say so.
func (s *Store) Shrink(ctx context.Context, now time.Time) ([]Partition, error) {
	if len(s.cfg.Quotas) == 0 {
		return nil, nil
	}
	tables, err := s.partitions(ctx)
	if err != nil {
		return nil, err
	}
	var dropped []Partition
	var failed error
	for _, table := range slices.Sorted(maps.Keys(s.cfg.Quotas)) {
		for _, p := range Excess(tables[table], s.cfg.Quotas[table], now) {
			sql := fmt.Sprintf("ALTER TABLE %s%s DROP PARTITION ID '%s' SETTINGS max_partition_size_to_drop = 0", s.cfg.Cluster.local(table), s.cfg.Cluster.on(), p.ID)
			if err := s.define(ctx, sql); err != nil {
				failed = errors.Join(failed, fmt.Errorf("drop partition %s of %s: %w", p.ID, table, err))
				break // what is newer must not go first
			}
			dropped = append(dropped, p)
		}
	}
	return dropped, failed
}

// keptDays is SQL of how long a table of system.tables keeps a row, by its longest rule.
const keptDays = `arrayMax(arrayPushBack(arrayMap(d -> toUInt64OrZero(d), extractAll(t.engine_full, 'toIntervalDay\\((\\d+)\\)')), 0))`

// partitions are those of every table, by its name.
func (s *Store) partitions(ctx context.Context) (map[string][]Partition, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	sql := `SELECT p.table, p.id, p.rows, p.bytes, p.oldest, p.newest, ` + keptDays + `
FROM (
    SELECT table, partition_id AS id, sum(rows) AS rows, sum(bytes_on_disk) AS bytes,
        min(if(min_time > toDateTime(0), min_time, toDateTime(min_date))) AS oldest, max(if(max_time > toDateTime(0), max_time, toDateTime(max_date))) AS newest
    FROM ` + s.cfg.Cluster.system("parts") + ` WHERE active AND database = ? GROUP BY table, id
) AS p LEFT JOIN (SELECT name, engine_full FROM system.tables WHERE database = ?) AS t ON t.name = p.table`
	rows, err := s.conn.Query(ctx, sql, s.cfg.Database, s.cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("read sizes of partitions: %w", err)
	}
	defer rows.Close()
	out := map[string][]Partition{}
	for rows.Next() {
		var p Partition
		if err := rows.Scan(&p.Table, &p.ID, &p.Rows, &p.Bytes, &p.From, &p.To, &p.Days); err != nil {
			return nil, fmt.Errorf("read sizes of partitions: %w", err)
		}
		p.Table = s.cfg.Cluster.nameOf(p.Table)
		out[p.Table] = append(out[p.Table], p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read sizes of partitions: %w", err)
	}
	return out, nil
}
