package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// CreateUser stores a user with the bcrypt hash of the password. A taken name is
// chat.ErrExists.
func (s *Store) CreateUser(ctx context.Context, u chat.User, hash string, at time.Time) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO users (id, name, tenant, password, created_at) VALUES ($1, $2, $3, $4, $5)`,
		u.ID, u.Name, u.Tenant, hash, at.UnixMicro())
	return s.dialect.classify("insert user", err)
}

// Credentials returns a user and the bcrypt hash of the password, or chat.ErrNotFound.
func (s *Store) Credentials(ctx context.Context, name string) (chat.User, string, error) {
	var u chat.User
	var hash string
	err := s.read.QueryRowContext(ctx, `SELECT id, name, tenant, password FROM users WHERE name = $1`, name).Scan(&u.ID, &u.Name, &u.Tenant, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		err = chat.ErrNotFound
	}
	if err != nil {
		return chat.User{}, "", fmt.Errorf("select user: %w", err)
	}
	return u, hash, nil
}

// User returns a user by name, or chat.ErrNotFound.
func (s *Store) User(ctx context.Context, name string) (chat.User, error) {
	u, _, err := s.Credentials(ctx, name)
	return u, err
}

// Users returns the users of the given names that there are, in any order.
func (s *Store) Users(ctx context.Context, names []string) ([]chat.User, error) {
	out := make([]chat.User, 0, len(names))
	err := s.query(ctx, s.read, "select users", s.dialect.usersOf, names, func(rows *sql.Rows) error {
		var u chat.User
		err := rows.Scan(&u.ID, &u.Name, &u.Tenant)
		out = append(out, u)
		return err
	})
	return out, err
}
