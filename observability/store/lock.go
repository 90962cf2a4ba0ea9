package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// ErrMigrating says that another process changes the schema; it is worth another try.
var ErrMigrating = errors.New("another process changes the schema")

// lockTable is there while a process changes the schema. Of two that make the same table
// ClickHouse tells one that it exists, which is all that it decides between two without
// Keeper; on a cluster every node takes their statements in the same order.
//
// To have only statements that may run twice is not enough, and lost: of two processes that
// are not at the same migration, one makes again the view that the other has just replaced,
// and rows that a migration adds up would be there twice. A row of schema_migrations with a
// token of deduplication decides as well, but leaves nothing that says since when.
const lockTable = "schema_migrations_lock"

const (
	codeTableExists  = 57
	codeUnknownTable = 60
)

// lease is how long a lock counts that nobody renews: its holder was killed. A holder renews
// it before a statement where a third of it is over, and a statement takes another third at
// most; so nobody takes over while one runs.
func (c Config) lease() time.Duration { return 3 * c.defineTimeout() }

// alone calls change while no other process is in its own, and fails with ErrMigrating
// where one is. Change calls hold before every statement and ends where that fails.
func (s *Store) alone(ctx context.Context, change func(hold func(context.Context) error) error) (err error) {
	s.migrating.Lock() // the lock of a process is the same for all its calls
	defer s.migrating.Unlock()
	left, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.unlock(context.WithoutCancel(ctx), left)) }()
	return change(s.hold)
}

// lock gives the name of what was left by a holder that was killed, for unlock.
func (s *Store) lock(ctx context.Context) (left string, err error) {
	if err := s.makeLock(ctx); !isCode(err, codeTableExists) {
		return "", err
	}
	owner, age, err := s.holder(ctx)
	switch {
	case err != nil:
		return "", err
	case owner == s.owner: // unlock had failed
		s.renewed = time.Time{}
		return "", s.hold(ctx)
	case owner == "" || age < s.lease:
		return "", fmt.Errorf("%w, last heard of %s ago", ErrMigrating, age)
	}
	// The name is the dead holder's, so that of two that see it dead one finds it taken,
	// and does not take the lock from the other.
	left = lockTable + "_" + owner
	err = s.define(ctx, "RENAME TABLE "+lockTable+" TO "+left+s.cfg.Cluster.on())
	if err == nil {
		err = s.makeLock(ctx)
	}
	switch {
	case isCode(err, codeTableExists), isCode(err, codeUnknownTable):
		return "", ErrMigrating
	case err != nil:
		return "", fmt.Errorf("take over lock of schema: %w", err)
	}
	return left, nil
}

func (s *Store) makeLock(ctx context.Context) error {
	s.renewed = time.Now()
	sql := "CREATE TABLE " + lockTable + s.cfg.Cluster.on() + " (Nothing UInt8) ENGINE = Null COMMENT '" + s.owner + "'"
	if err := s.define(ctx, sql); err != nil {
		return fmt.Errorf("lock schema: %w", err)
	}
	return nil
}

// holder says who has the lock, empty: nobody, and how long ago it was renewed.
func (s *Store) holder(ctx context.Context) (owner string, age time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var seconds int64
	sql := "SELECT any(comment), any(dateDiff('second', metadata_modification_time, now())) FROM system.tables WHERE database = ? AND name = ?"
	if err := s.conn.QueryRow(ctx, sql, s.cfg.Database, lockTable).Scan(&owner, &seconds); err != nil {
		return "", 0, fmt.Errorf("look at lock of schema: %w", err)
	}
	return owner, time.Duration(seconds) * time.Second, nil
}

// hold renews the lock where that is due, and fails where another has taken it over.
func (s *Store) hold(ctx context.Context) error {
	now := time.Now()
	if now.Sub(s.renewed) < s.lease/3 {
		return nil
	}
	owner, _, err := s.holder(ctx)
	switch {
	case err != nil:
		return err
	case owner != s.owner:
		return fmt.Errorf("%w: it took over", ErrMigrating)
	}
	if err := s.define(ctx, "ALTER TABLE "+lockTable+s.cfg.Cluster.on()+" MODIFY COMMENT '"+s.owner+"'"); err != nil {
		return fmt.Errorf("renew lock of schema: %w", err)
	}
	s.renewed = now
	return nil
}

// unlock leaves a lock alone that another has taken over.
func (s *Store) unlock(ctx context.Context, left string) error {
	owner, _, err := s.holder(ctx)
	if err != nil || owner != s.owner {
		return err
	}
	for _, table := range []string{lockTable, left} {
		if table == "" {
			continue
		}
		if err := s.define(ctx, "DROP TABLE IF EXISTS "+table+s.cfg.Cluster.on()+" SYNC"); err != nil {
			return fmt.Errorf("unlock schema: %w", err)
		}
	}
	return nil
}

// isCode says whether ClickHouse refused with that code.
func isCode(err error, code int32) bool {
	var ex *clickhouse.Exception
	return errors.As(err, &ex) && ex.Code == code
}
