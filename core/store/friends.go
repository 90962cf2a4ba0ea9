package store

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// Befriend does what chat.Acquaintance.Act says to two users, each of whom may have limit
// friends and requests, and returns how the first one stood to the other one before and
// stands now. Its error may be a *protocol.Error.
func (s *Store) Befriend(ctx context.Context, userID, otherID string, act chat.FriendAct, limit int, at time.Time) (before, after chat.FriendState, err error) {
	pair := pairOf(userID, otherID)
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.lockPair(ctx, tx, pair); err != nil {
			return err
		}
		a, err := s.acquaintance(ctx, tx, userID, otherID, limit)
		if err != nil {
			return err
		}
		before = a.State
		next, no := a.Act(act)
		if no != nil {
			return no
		}
		after = next
		if before == after {
			return nil
		}
		return s.setFriend(ctx, tx, userID, otherID, after, at)
	})
	return before, after, err
}

// acquaintance is what decides; the caller holds lockPair.
func (s *Store) acquaintance(ctx context.Context, tx *sql.Tx, userID, otherID string, limit int) (chat.Acquaintance, error) {
	a := chat.Acquaintance{State: chat.Strangers, HaveRoom: true}
	err := scanAll(ctx, tx, `SELECT state FROM friends WHERE user_id = $1 AND other_id = $2`, []any{userID, otherID}, func(rows *sql.Rows) error {
		return rows.Scan(&a.State)
	})
	if err != nil {
		return a, s.dialect.classify("select friend", err)
	}
	blocked, err := s.blocked(ctx, tx, pairOf(userID, otherID))
	if err != nil {
		return a, err
	}
	first := strings.HasPrefix(pairOf(userID, otherID), userID+"|")
	a.Blocks = first && blocked&firstBlocks != 0 || !first && blocked&secondBlocks != 0
	a.Blocked = first && blocked&secondBlocks != 0 || !first && blocked&firstBlocks != 0
	for _, id := range []string{userID, otherID} {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM friends WHERE user_id = $1`, id).Scan(&n); err != nil {
			return a, s.dialect.classify("count friends", err)
		}
		a.HaveRoom = a.HaveRoom && n < limit
	}
	return a, nil
}

// setFriend writes both sides.
func (s *Store) setFriend(ctx context.Context, tx *sql.Tx, userID, otherID string, state chat.FriendState, at time.Time) error {
	for _, side := range []struct {
		user, other string
		state       chat.FriendState
	}{{userID, otherID, state}, {otherID, userID, state.Mirror()}} {
		query, args := `INSERT INTO friends (user_id, other_id, state, since) VALUES ($1, $2, $3, $4)
			ON CONFLICT (user_id, other_id) DO UPDATE SET state = excluded.state, since = excluded.since`, []any{side.user, side.other, string(side.state), at.UnixMicro()}
		if state == chat.Strangers {
			query, args = `DELETE FROM friends WHERE user_id = $1 AND other_id = $2`, args[:2]
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return s.dialect.classify("set friend", err)
		}
	}
	return nil
}

// Friends returns at most limit users to whom a user stands in a state, in the order of
// their ids, after one of them.
func (s *Store) Friends(ctx context.Context, userID string, state chat.FriendState, after string, limit int) ([]chat.Friend, error) {
	out := make([]chat.Friend, 0, min(limit, 64))
	err := scanAll(ctx, s.read, `SELECT u.id, u.name, u.tenant, f.state, f.since FROM friends f JOIN users u ON u.id = f.other_id
		WHERE f.user_id = $1 AND f.state = $2 AND f.other_id > $3 ORDER BY f.other_id LIMIT $4`, []any{userID, string(state), after, limit},
		func(rows *sql.Rows) error {
			var f chat.Friend
			var since int64
			err := rows.Scan(&f.ID, &f.Name, &f.Tenant, &f.State, &since)
			f.Since = time.UnixMicro(since).UTC()
			out = append(out, f)
			return err
		})
	return out, s.dialect.classify("select friends", err)
}
