package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

//go:embed migrations
var migrations embed.FS

// migration is one numbered file: 0001_init.sql is number 1.
type migration struct {
	number int
	name   string
	sql    string
}

// loadMigrations reads a dialect's migrations in order. A gap in the numbers is a
// mistake of ours and an error.
func loadMigrations(files fs.FS, dialect string) ([]migration, error) {
	dir := path.Join("migrations", dialect)
	entries, err := fs.ReadDir(files, dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var out []migration
	for _, e := range entries {
		digits, _, _ := strings.Cut(e.Name(), "_")
		n, err := strconv.Atoi(digits)
		if err != nil || n != len(out)+1 {
			return nil, fmt.Errorf("%s: want number %04d", e.Name(), len(out)+1)
		}
		text, err := fs.ReadFile(files, path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Name(), err)
		}
		out = append(out, migration{number: n, name: e.Name(), sql: string(text)})
	}
	return out, nil
}

// migrate brings the schema to this program's version in one transaction, so that a
// process that dies half way leaves nothing half done, and another that starts at the
// same time waits.
func (s *Store) migrate(ctx context.Context) error {
	all, err := loadMigrations(migrations, s.dialect.name)
	if err != nil {
		return err
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if s.dialect.lockMigrations != "" {
			if _, err := tx.ExecContext(ctx, s.dialect.lockMigrations); err != nil {
				return fmt.Errorf("lock: %w", err)
			}
		}
		return applyMigrations(ctx, tx, all)
	})
}

func applyMigrations(ctx context.Context, tx *sql.Tx, all []migration) error {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)`); err != nil {
		return fmt.Errorf("create schema_version: %w", err)
	}
	var version int
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&version); err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	if version > len(all) {
		return fmt.Errorf("the database has schema version %d, this program knows %d: use the newer program", version, len(all))
	}
	for _, m := range all[version:] {
		if _, err := tx.ExecContext(ctx, m.sql); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version) VALUES ($1)`, m.number); err != nil {
			return fmt.Errorf("%s: record version: %w", m.name, err)
		}
	}
	if version == 0 {
		if _, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('epoch', $1)`, rand.Text()); err != nil {
			return fmt.Errorf("write epoch: %w", err)
		}
	}
	return nil
}
