package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
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
}

// Migrate makes the database and brings its tables to this version's schema. It fails
// where the schema is newer than this program.
func (s *Store) Migrate(ctx context.Context) error {
	all, err := readMigrations(migrations)
	if err != nil {
		return err
	}
	if err := s.createDatabase(ctx); err != nil {
		return err
	}
	if err := s.exec(ctx, createMigrations); err != nil {
		return fmt.Errorf("create table of migrations: %w", err)
	}
	var applied uint32
	readCtx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.conn.QueryRow(readCtx, "SELECT max(Version) FROM schema_migrations").Scan(&applied); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if newest := all[len(all)-1].version; applied > newest {
		return fmt.Errorf("database %s has schema %d, this program knows %d: use a newer version of it", s.cfg.Database, applied, newest)
	}
	for _, m := range all {
		if m.version <= applied {
			continue
		}
		for _, sql := range m.statements {
			if err := s.exec(ctx, sql); err != nil {
				return fmt.Errorf("migration %s: %w", m.name, err)
			}
		}
		if err := s.exec(ctx, "INSERT INTO schema_migrations (Version, Name) VALUES (?, ?)", m.version, m.name); err != nil {
			return fmt.Errorf("record migration %s: %w", m.name, err)
		}
	}
	return nil
}

// createDatabase connects without one, as a database that is not there refuses clients.
func (s *Store) createDatabase(ctx context.Context) (err error) {
	conn, err := connect(s.cfg, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+s.cfg.Database); err != nil {
		return fmt.Errorf("create database %s: %w", s.cfg.Database, err)
	}
	return nil
}

func (s *Store) exec(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.conn.Exec(ctx, sql, args...)
}

// readMigrations reads files named NNNN_words.sql, numbered from 1 without a gap.
func readMigrations(fsys fs.FS) ([]migration, error) {
	files, err := fs.Glob(fsys, "migrations/*.sql") // sorted
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("list migrations: %w", errors.Join(err, fs.ErrNotExist))
	}
	var all []migration
	for i, file := range files {
		raw, err := fs.ReadFile(fsys, file)
		if err != nil {
			return nil, fmt.Errorf("read migration: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil || version != uint64(i+1) {
			return nil, fmt.Errorf("migration %s: expected number %d", name, i+1)
		}
		all = append(all, migration{version: uint32(version), name: name, statements: splitStatements(string(raw))})
	}
	return all, nil
}

// splitStatements cuts at a semicolon that ends a line.
func splitStatements(sql string) []string {
	var out []string
	for s := range strings.SplitSeq(sql, ";\n") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
