// Package store keeps users, conversations and messages in SQL: SQLite in a file for
// one machine, the PostgreSQL protocol past that. One type serves both; what differs is
// a dialect of a few statements, and one conformance suite runs on both.
//
// A row that a method has reported as written survives the death of the process and,
// where the disk does not lie, of the machine (SQLite: WAL with synchronous=FULL).
// Several core processes may share one database, one SQLite file included.
//
// It gives sequence numbers by the pure rule of [chat.Number] and stores nothing about
// Kafka. Its only cache is that of members, which the database itself keeps right: see
// rosters. Its users are core/account, core/api, core/session and
// core/deliver, each by a small interface of its own.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Config says where the database is.
type Config struct {
	// URL is "sqlite:<path>" or "postgres://user:password@host/database?...".
	// It may hold a password: log it with Redacted only.
	URL string
	// Conns bounds the open connections (PostgreSQL) or concurrent readers (SQLite,
	// which has exactly one writer a process).
	Conns int
	// BusyTimeout is how long SQLite waits for another process that writes.
	BusyTimeout time.Duration
}

// DefaultConfig is a SQLite file in the working folder.
func DefaultConfig() Config {
	return Config{URL: "sqlite:core.db", Conns: 8, BusyTimeout: 10 * time.Second}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	switch {
	case !strings.HasPrefix(c.URL, "sqlite:") && !strings.HasPrefix(c.URL, "postgres://") && !strings.HasPrefix(c.URL, "postgresql://"):
		return errors.New("url: must start with sqlite: or postgres://")
	case strings.TrimPrefix(c.URL, "sqlite:") == "":
		return errors.New("url: names no file")
	case c.Conns < 1 || c.Conns > 1000:
		return errors.New("conns: must be 1 to 1000")
	case c.BusyTimeout < 0:
		return errors.New("busy_timeout: must not be negative")
	}
	return nil
}

// Redacted is the URL without its password.
func (c Config) Redacted() string {
	scheme, rest, ok := strings.Cut(c.URL, "://")
	if !ok {
		return c.URL
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = "..." + rest[at:]
	}
	if q := strings.IndexByte(rest, '?'); q >= 0 {
		rest = rest[:q] // parameters may carry a password too
	}
	return scheme + "://" + rest
}

// Store is an open database. Close it.
type Store struct {
	write   *sql.DB
	read    *sql.DB // the same as write for PostgreSQL
	dialect dialect
	rosters *rosters
	epoch   string
}

// System is what the database is, as OpenTelemetry names it (db.system.name).
func (s *Store) System() string {
	if s.dialect.name == "postgres" {
		return "postgresql"
	}
	return s.dialect.name
}

// rememberedMembers bounds what is remembered, at some 100 bytes each.
const rememberedMembers = 500_000

// Open connects, applies the migrations that are missing and reads the epoch. It
// refuses a database that a newer program has migrated.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("store config: %w", err)
	}
	open := openPostgres
	if strings.HasPrefix(cfg.URL, "sqlite:") {
		open = openSQLite
	}
	s, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Redacted(), err)
	}
	s.rosters = newRosters(rememberedMembers)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", cfg.Redacted(), err), s.Close())
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	err := s.read.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'epoch'`).Scan(&s.epoch)
	if err != nil {
		return fmt.Errorf("read epoch: %w", err)
	}
	return nil
}

// Epoch names this history of messages. Another epoch means that positions of a client
// say nothing.
func (s *Store) Epoch() string { return s.epoch }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.read.ExecContext(ctx, `SELECT 1`); err != nil {
		return fmt.Errorf("ping store: %w", err)
	}
	return nil
}

// Close waits for what runs and closes all connections.
func (s *Store) Close() error {
	if s.read == s.write {
		return s.write.Close()
	}
	return errors.Join(s.read.Close(), s.write.Close())
}

// inTx runs f in one transaction. SQLite begins it IMMEDIATE, so that it never has to
// give up half way because another process wrote in between.
func (s *Store) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.dialect.classify("begin", err)
	}
	defer tx.Rollback() // without effect after a commit
	if err := f(tx); err != nil {
		return err
	}
	return s.dialect.classify("commit", tx.Commit())
}
