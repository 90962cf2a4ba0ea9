package store

import (
	"context"
	"fmt"
	"time"
)

// Table is what a table takes, and for how long.
type Table struct {
	Name   string    `json:"name"`
	Rows   uint64    `json:"rows"`
	Bytes  uint64    `json:"bytes"` // on disk, compressed
	Parts  uint64    `json:"parts"` // many small ones are slow to read
	Oldest time.Time `json:"oldest,omitzero"`
	Days   uint64    `json:"days,omitempty"`  // that a row is kept, the longest of the table's rules; 0: for ever
	Quota  uint64    `json:"quota,omitempty"` // bytes it may take, beyond which its oldest days go; 0: any
}

// Tables says what every table with rows takes on disk, largest first, and what ClickHouse's
// own logs do, as system.NAME; of a cluster, one replica of each shard. A row counts until ClickHouse has removed it, which can be some
// time after its end.
func (s *Store) Tables(ctx context.Context) ([]Table, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	sql := `SELECT p.table, p.rows, p.bytes, p.parts, p.oldest, ` + keptDays + `
FROM (
    SELECT if(database = 'system', 'system.', '') || table AS table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes, count() AS parts, minIf(min_time, min_time > toDateTime(0)) AS oldest
    FROM ` + s.cfg.Cluster.system("parts") + ` AS parts WHERE active AND (database = ? OR database = 'system' AND match(parts.table, ` + systemLogNames + `)) GROUP BY database, parts.table
) AS p LEFT JOIN (SELECT if(database = 'system', 'system.', '') || name AS name, engine_full FROM system.tables WHERE database IN (?, 'system')) AS t ON t.name = p.table
ORDER BY p.bytes DESC, p.table`
	rows, err := s.conn.Query(ctx, sql, s.cfg.Database, s.cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("read sizes of tables: %w", err)
	}
	defer rows.Close()
	var out []Table
	for rows.Next() {
		var t Table
		if err := rows.Scan(&t.Name, &t.Rows, &t.Bytes, &t.Parts, &t.Oldest, &t.Days); err != nil {
			return nil, fmt.Errorf("read sizes of tables: %w", err)
		}
		t.Name = s.cfg.Cluster.nameOf(t.Name)
		t.Quota = s.cfg.Quotas[t.Name]
		if t.Oldest.Unix() <= 0 {
			t.Oldest = time.Time{} // a table without days
		}
		out = append(out, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read sizes of tables: %w", err)
	}
	return out, nil
}

// Disk is the room for tables, in bytes.
type Disk struct {
	Free  uint64 `json:"free"`
	Total uint64 `json:"total"`
}

// Disk says how much room ClickHouse has.
func (s *Store) Disk(ctx context.Context) (Disk, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var d Disk
	if err := s.conn.QueryRow(ctx, "SELECT sum(unreserved_space), sum(total_space) FROM "+s.cfg.Cluster.system("disks")+" WHERE type = 'Local'").Scan(&d.Free, &d.Total); err != nil {
		return Disk{}, fmt.Errorf("read room on disk: %w", err)
	}
	return d, nil
}
