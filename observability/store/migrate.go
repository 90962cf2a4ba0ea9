package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed migrations/*.sql
var migrations embed.FS

const createMigrations = `CREATE TABLE IF NOT EXISTS schema_migrations (Version UInt32, Name String, Applied DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY Version`

// migration is one numbered file. ClickHouse has no transactions for tables, so every
// statement must be safe to run twice: a migration that was cut short runs again.
type migration struct {
	version    uint32
	name       string
	statements []string
	down       []string // that undo it; none: it cannot be undone
}

// Migrate makes the database and brings its tables to this version's schema. It fails
// where the schema is newer than this program, and with [ErrMigrating] where another process
// is at it.
func (s *Store) Migrate(ctx context.Context) error {
	all, err := readMigrations(migrations)
	if err != nil {
		return err
	}
	if err := s.createDatabase(ctx); err != nil {
		return err
	}
	if err := s.define(ctx, s.cfg.Cluster.migrationsTable()); err != nil {
		return fmt.Errorf("create table of migrations: %w", err)
	}
	if err := s.checkLayout(ctx); err != nil {
		return err
	}
	if missing, err := s.missing(ctx, all); err != nil || len(missing) == 0 {
		return err
	}
	return s.alone(ctx, func(hold func(context.Context) error) error {
		missing, err := s.missing(ctx, all) // another may have been at it until now
		if err != nil {
			return err
		}
		for _, m := range missing {
			if err := s.run(ctx, hold, m.name, m.statements); err != nil {
				return err
			}
			if err := s.exec(ctx, "INSERT INTO schema_migrations (Version, Name) VALUES (?, ?)", m.version, m.name); err != nil {
				return fmt.Errorf("record migration %s: %w", m.name, err)
			}
		}
		return nil
	})
}

// missing are those of all that the schema has not.
func (s *Store) missing(ctx context.Context, all []migration) ([]migration, error) {
	applied, err := s.Schema(ctx)
	if err != nil {
		return nil, err
	}
	if int(applied) > len(all) {
		return nil, fmt.Errorf("database %s has schema %d, this program knows %d: use a newer version of it", s.cfg.Database, applied, len(all))
	}
	return all[applied:], nil
}

// Downgrade takes the schema back to version, for an older program, and nothing may use the
// store meanwhile. What newer tables had is lost; at 0 nothing is left but the table of
// migrations, without rows. Where one of the migrations cannot be undone it changes nothing.
func (s *Store) Downgrade(ctx context.Context, version uint32) error {
	all, err := readMigrations(migrations)
	if err != nil {
		return err
	}
	return s.alone(ctx, func(hold func(context.Context) error) error { return s.downgrade(ctx, hold, all, version) })
}

func (s *Store) downgrade(ctx context.Context, hold func(context.Context) error, all []migration, version uint32) error {
	applied, err := s.Schema(ctx)
	if err != nil {
		return err
	}
	if int(applied) > len(all) || version > applied {
		return fmt.Errorf("downgrade: version %d is not between 0 and %d, or not known here", version, applied)
	}
	undo := all[version:applied]
	for _, m := range undo {
		if len(m.down) == 0 {
			return fmt.Errorf("downgrade: migration %s cannot be undone", m.name)
		}
	}
	for _, m := range slices.Backward(undo) {
		if err := s.run(ctx, hold, m.name+" undone", m.down); err != nil {
			return err
		}
		if err := s.exec(ctx, "ALTER TABLE schema_migrations DELETE WHERE Version = ? SETTINGS "+s.cfg.Cluster.waitForMutation(), m.version); err != nil {
			return fmt.Errorf("record downgrade of %s: %w", m.name, err)
		}
	}
	return nil
}

// Schema is the version of the tables; zero: there are none yet.
func (s *Store) Schema(ctx context.Context) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if s.cfg.Cluster.Name != "" { // another node may have just written it
		if err := s.conn.Exec(ctx, "SYSTEM SYNC REPLICA schema_migrations"); err != nil {
			return 0, fmt.Errorf("read schema version: %w", err)
		}
	}
	var version uint32
	if err := s.conn.QueryRow(ctx, "SELECT max(Version) FROM schema_migrations").Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return version, nil
}

func (s *Store) run(ctx context.Context, hold func(context.Context) error, name string, statements []string) error {
	for _, sql := range statements {
		all, err := s.cfg.Cluster.statements(s.cfg.Database, sql)
		if err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
		for _, sql := range all {
			if err := hold(ctx); err != nil {
				return fmt.Errorf("migration %s: %w", name, err)
			}
			if err := s.define(ctx, sql); err != nil {
				return fmt.Errorf("migration %s: %w", name, err)
			}
		}
	}
	return nil
}

// clusterTimeout bounds a statement that all nodes run, which takes as long as the slowest.
const clusterTimeout = 90 * time.Second

// define runs a statement of a migration.
func (s *Store) define(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.defineTimeout())
	defer cancel()
	return s.conn.Exec(ctx, sql)
}

func (c Config) defineTimeout() time.Duration {
	if c.Cluster.Name != "" {
		return max(c.Timeout, clusterTimeout)
	}
	return c.Timeout
}

// checkLayout refuses tables of one node where there should be those of a cluster, and the
// other way round: neither becomes the other by itself.
func (s *Store) checkLayout(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var tables, distributed uint64
	err := s.conn.QueryRow(ctx, "SELECT count(), countIf(engine = 'Distributed') FROM system.tables WHERE database = ? AND name = 'otel_traces'", s.cfg.Database).Scan(&tables, &distributed)
	if err != nil {
		return fmt.Errorf("look at tables: %w", err)
	}
	switch clustered := s.cfg.Cluster.Name != ""; {
	case tables == 0 || clustered == (distributed > 0):
		return nil
	case clustered:
		return fmt.Errorf("database %s has tables of a single node: for cluster %s use another database", s.cfg.Database, s.cfg.Cluster.Name)
	default:
		return fmt.Errorf("database %s has tables of a cluster: say which (clickhouse.cluster)", s.cfg.Database)
	}
}

// createDatabase connects without one, as a database that is not there refuses clients.
func (s *Store) createDatabase(ctx context.Context) (err error) {
	conn, err := connect(s.cfg, s.tls, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+s.cfg.Database+s.cfg.Cluster.on()); err != nil {
		return fmt.Errorf("create database %s: %w", s.cfg.Database, err)
	}
	return nil
}

func (s *Store) exec(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.conn.Exec(ctx, sql, args...)
}

// readMigrations reads files named NNNN_words.sql, numbered from 1 without a gap, and what
// undoes them from NNNN_words.down.sql, where there is one.
func readMigrations(fsys fs.FS) ([]migration, error) {
	files, err := fs.Glob(fsys, "migrations/*.sql") // sorted
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("list migrations: %w", errors.Join(err, fs.ErrNotExist))
	}
	var all []migration
	down := map[string][]string{}
	for _, file := range files {
		raw, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
		if of, ok := strings.CutSuffix(name, ".down"); ok {
			down[of] = splitStatements(string(raw))
			continue
		}
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil || version != uint64(len(all)+1) {
			return nil, fmt.Errorf("migration %s: expected number %d", name, len(all)+1)
		}
		all = append(all, migration{version: uint32(version), name: name, statements: splitStatements(string(raw))})
	}
	for i := range all {
		all[i].down = down[all[i].name]
		delete(down, all[i].name)
	}
	for of := range down {
		return nil, fmt.Errorf("migration %s.down undoes nothing", of)
	}
	return all, nil
}

// splitStatements cuts at a semicolon that ends a line which is no comment. Comments stay
// with the statement that they stand before.
func splitStatements(sql string) []string {
	var out []string
	var statement strings.Builder
	end := func() {
		if s := strings.TrimSpace(statement.String()); comment.ReplaceAllString(s, "") != "" {
			out = append(out, strings.TrimSuffix(s, ";"))
		}
		statement.Reset()
	}
	for line := range strings.Lines(sql) {
		statement.WriteString(line)
		if line = strings.TrimSpace(line); strings.HasSuffix(line, ";") && !strings.HasPrefix(line, "--") {
			end()
		}
	}
	end()
	return out
}
