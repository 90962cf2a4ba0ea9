package store

import (
	"context"
	"time"
)

// MigrationStatements are all statements of migrations as they are run, upwards, then those
// that undo them.
func MigrationStatements(c Cluster, database string) ([]string, error) {
	all, err := readMigrations(migrations)
	if err != nil {
		return nil, err
	}
	out := []string{c.migrationsTable()}
	for _, undone := range []bool{false, true} {
		for _, m := range all {
			list := m.statements
			if undone {
				list = m.down
			}
			for _, sql := range list {
				statements, err := c.statements(database, sql)
				if err != nil {
					return nil, err
				}
				out = append(out, statements...)
			}
		}
	}
	return out, nil
}

// SetLease sets how long a lock of the schema counts that nobody renews.
func (s *Store) SetLease(d time.Duration) { s.lease = d }

// Alone is what Migrate and Downgrade change the schema by.
func (s *Store) Alone(ctx context.Context, change func(hold func(context.Context) error) error) error {
	return s.alone(ctx, change)
}

// ColumnTypes are the columns of inserts with their types, by table.
func ColumnTypes() map[string][]string {
	out := map[string][]string{"otel_traces": types(spanColumns()), "otel_logs": types(logColumns())}
	for _, k := range PointKinds() {
		out["otel_metrics_"+string(k)] = types(pointColumns(k))
	}
	return out
}

func types[T any](cols []column[T]) []string {
	var out []string
	for _, c := range cols {
		out = append(out, c.name+" "+string(c.data.Type()))
	}
	return out
}
