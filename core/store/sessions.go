package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// CreateSession stores a new session of a user whose password still has the given hash;
// chat.ErrNotFound where it has another one by now. Of a user's sessions beyond limit,
// those that were not used for longest end; they are returned.
func (s *Store) CreateSession(ctx context.Context, n chat.Session, hash string, limit int) ([]chat.Ended, error) {
	var ended []chat.Ended
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		// SetPassword waits for this lock, or has come before it.
		if err := s.lockPassword(ctx, tx, n.UserID, hash); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, user_id, device, created_at, used_at, generation) VALUES ($1, $2, $3, $4, $5, $6)`,
			n.ID, n.UserID, n.Device, n.Created.UnixMicro(), n.Used.UnixMicro(), n.Generation)
		if err != nil {
			return s.dialect.classify("insert session", err)
		}
		ended, err = s.endSessions(ctx, tx, n.Created,
			`id IN (SELECT id FROM sessions WHERE user_id = $1 AND id <> $2 ORDER BY used_at DESC, id LIMIT 1000000 OFFSET $3)`, n.UserID, n.ID, limit-1)
		return err
	})
	return ended, err
}

// lockPassword holds a user's row, or answers chat.ErrNotFound where the password has
// another hash.
func (s *Store) lockPassword(ctx context.Context, tx *sql.Tx, userID, hash string) error {
	ids, _ := json.Marshal([]string{userID}) // always encodes
	if _, err := tx.ExecContext(ctx, s.dialect.lockUsers, string(ids)); err != nil {
		return s.dialect.classify("lock user", err)
	}
	var n int
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM users WHERE id = $1 AND password = $2`, userID, hash).Scan(&n)
	if err == nil && n == 0 {
		err = chat.ErrNotFound
	}
	return s.dialect.classify("compare password hash", err)
}

// RotateSession uses the refresh token of a generation, as chat.Session.Rotate says, and
// ends the session where that says so. chat.ErrNotFound where there is no such session
// (any more).
func (s *Store) RotateSession(ctx context.Context, id string, generation int64, now time.Time, ttl, grace time.Duration) (u chat.User, after chat.Session, r chat.Rotation, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		before, err := s.lockSession(ctx, tx, id)
		if err != nil {
			return err
		}
		switch after, r = before.Rotate(generation, now, ttl, grace); r {
		case chat.Reused, chat.Expired:
			_, err = s.endSessions(ctx, tx, now, `id = $1`, id)
		case chat.Rotated:
			_, err = tx.ExecContext(ctx, `UPDATE sessions SET generation = $2, used_at = $3 WHERE id = $1`, id, after.Generation, after.Used.UnixMicro())
			err = s.dialect.classify("rotate session", err)
		}
		if err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `SELECT id, name, tenant FROM users WHERE id = $1`, before.UserID).Scan(&u.ID, &u.Name, &u.Tenant)
		return s.dialect.classify("select user", err)
	})
	return u, after, r, err
}

func (s *Store) lockSession(ctx context.Context, tx *sql.Tx, id string) (chat.Session, error) {
	list, err := selectSessions(ctx, tx, `WHERE id = $1`+s.dialect.forUpdate, id)
	if err == nil && len(list) == 0 {
		err = chat.ErrNotFound
	}
	if err != nil {
		return chat.Session{}, s.dialect.classify("select session", err)
	}
	return list[0], nil
}

func selectSessions(ctx context.Context, q querier, where string, args ...any) ([]chat.Session, error) {
	var out []chat.Session
	err := scanAll(ctx, q, `SELECT id, user_id, device, created_at, used_at, generation FROM sessions `+where, args, func(rows *sql.Rows) error {
		var n chat.Session
		var created, used int64
		err := rows.Scan(&n.ID, &n.UserID, &n.Device, &created, &used, &n.Generation)
		n.Created, n.Used = time.UnixMicro(created).UTC(), time.UnixMicro(used).UTC()
		out = append(out, n)
		return err
	})
	return out, err
}

// Sessions returns all sessions of a user, the one that was used last first.
func (s *Store) Sessions(ctx context.Context, userID string) ([]chat.Session, error) {
	list, err := selectSessions(ctx, s.read, `WHERE user_id = $1 ORDER BY used_at DESC, id`, userID)
	return list, s.dialect.classify("select sessions", err)
}

// EndSession ends a session, of a user where that is not empty. None is no error.
func (s *Store) EndSession(ctx context.Context, userID, id string, at time.Time) (ended []chat.Ended, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		ended, err = s.endSessions(ctx, tx, at, `id = $1 AND ($2 = '' OR user_id = $2)`, id, userID)
		return err
	})
	return ended, err
}

// EndSessions ends all sessions of a user but one, which may be empty.
func (s *Store) EndSessions(ctx context.Context, userID, except string, at time.Time) (ended []chat.Ended, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		ended, err = s.endSessions(ctx, tx, at, `user_id = $1 AND id <> $2`, userID, except)
		return err
	})
	return ended, err
}

// endSessions ends those of a condition. They are deleted, and remembered as ended for
// the processes that may know a token of theirs.
func (s *Store) endSessions(ctx context.Context, tx *sql.Tx, at time.Time, where string, args ...any) ([]chat.Ended, error) {
	var ended []chat.Ended
	err := scanAll(ctx, tx, `DELETE FROM sessions WHERE `+where+` RETURNING id, user_id`, args, func(rows *sql.Rows) error {
		e := chat.Ended{At: at}
		err := rows.Scan(&e.ID, &e.UserID)
		ended = append(ended, e)
		return err
	})
	if err != nil {
		return nil, s.dialect.classify("delete sessions", err)
	}
	for _, e := range ended {
		_, err := tx.ExecContext(ctx, `INSERT INTO ended_sessions (id, user_id, ended_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, e.ID, e.UserID, at.UnixMicro())
		if err != nil {
			return nil, s.dialect.classify("insert ended session", err)
		}
	}
	return ended, nil
}

// EndedSince returns the sessions that have ended at a time or after it.
func (s *Store) EndedSince(ctx context.Context, since time.Time) ([]chat.Ended, error) {
	var out []chat.Ended
	err := scanAll(ctx, s.read, `SELECT id, user_id, ended_at FROM ended_sessions WHERE ended_at >= $1`, []any{since.UnixMicro()}, func(rows *sql.Rows) error {
		var e chat.Ended
		var at int64
		err := rows.Scan(&e.ID, &e.UserID, &at)
		e.At = time.UnixMicro(at).UTC()
		out = append(out, e)
		return err
	})
	return out, s.dialect.classify("select ended sessions", err)
}

// SweepSessions deletes the sessions that were last used before a time, and forgets those
// that had ended before another.
func (s *Store) SweepSessions(ctx context.Context, used, ended time.Time) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE used_at < $1`, used.UnixMicro()); err != nil {
			return s.dialect.classify("sweep sessions", err)
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM ended_sessions WHERE ended_at < $1`, ended.UnixMicro())
		return s.dialect.classify("sweep ended sessions", err)
	})
}

// SetPassword replaces a password's hash, where it still is the old one, and ends all
// sessions of the user but one. Where it is not, the answer is chat.ErrNotFound.
func (s *Store) SetPassword(ctx context.Context, userID, old, hash, except string, at time.Time) (ended []chat.Ended, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.lockPassword(ctx, tx, userID, old); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE users SET password = $2 WHERE id = $1`, userID, hash); err != nil {
			return s.dialect.classify("set password", err)
		}
		ended, err = s.endSessions(ctx, tx, at, `user_id = $1 AND id <> $2`, userID, except)
		return err
	})
	return ended, err
}

const selectPerson = `id, name, tenant, display_name, avatar, about`

func (s *Store) person(row *sql.Row) (chat.Person, error) {
	var p chat.Person
	err := row.Scan(&p.ID, &p.Name, &p.Tenant, &p.DisplayName, &p.Avatar, &p.About)
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("select user: %w", chat.ErrNotFound)
	}
	return p, s.dialect.classify("select user", err)
}

// Person returns a user with its profile by its name, or chat.ErrNotFound.
func (s *Store) Person(ctx context.Context, name string) (chat.Person, error) {
	return s.person(s.read.QueryRowContext(ctx, `SELECT `+selectPerson+` FROM users WHERE name = $1`, name))
}

// SetProfile changes a user's profile and returns what it is then, or chat.ErrNotFound.
func (s *Store) SetProfile(ctx context.Context, userID string, p chat.ProfileChange) (chat.Person, error) {
	return s.person(s.write.QueryRowContext(ctx, `UPDATE users SET display_name = COALESCE($2, display_name), avatar = COALESCE($3, avatar),
		about = COALESCE($4, about) WHERE id = $1 RETURNING `+selectPerson, userID, p.DisplayName, p.Avatar, p.About))
}
