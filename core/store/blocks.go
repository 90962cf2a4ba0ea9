package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Who of a pair blocks the other; see migration 0004.
const (
	firstBlocks = 1 << iota
	secondBlocks
)

// silent are the users of a pair whose messages are refused.
func silent(pair string, blocked int) []string {
	first, second, _ := strings.Cut(pair, "|")
	var out []string
	if blocked&firstBlocks != 0 {
		out = append(out, second)
	}
	if blocked&secondBlocks != 0 {
		out = append(out, first)
	}
	return out
}

// Block makes a user's direct conversation with another one silent for that one, now and
// when it is opened later. Repeating it changes nothing. A user who blocks limit others
// already makes it chat.ErrLimit. A friendship or a request between the two ends.
func (s *Store) Block(ctx context.Context, userID, blockedID string, limit int, at time.Time) (ended bool, err error) {
	err = s.changeBlock(ctx, userID, blockedID, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM blocks WHERE user_id = $1 AND blocked_id <> $2`, userID, blockedID).Scan(&n); err != nil {
			return s.dialect.classify("count blocks", err)
		}
		if n >= limit {
			return fmt.Errorf("insert block: %w", chat.ErrLimit)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO blocks (user_id, blocked_id, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			userID, blockedID, at.UnixMicro())
		if err != nil {
			return s.dialect.classify("insert block", err)
		}
		r, err := tx.ExecContext(ctx, `DELETE FROM friends WHERE (user_id = $1 AND other_id = $2) OR (user_id = $2 AND other_id = $1)`, userID, blockedID)
		if err != nil {
			return s.dialect.classify("end friendship", err)
		}
		rows, err := r.RowsAffected()
		ended = rows > 0
		return err
	})
	return ended, err
}

// Unblock ends it.
func (s *Store) Unblock(ctx context.Context, userID, blockedID string) error {
	return s.changeBlock(ctx, userID, blockedID, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2`, userID, blockedID)
		return s.dialect.classify("delete block", err)
	})
}

// changeBlock changes the blocks of two users and writes what they mean now into their
// direct conversation, if there is one.
func (s *Store) changeBlock(ctx context.Context, userID, blockedID string, change func(*sql.Tx) error) error {
	pair := pairOf(userID, blockedID)
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := s.lockPair(ctx, tx, pair); err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		blocked, err := s.blocked(ctx, tx, pair)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE conversations SET blocked = $2 WHERE pair = $1`, pair, blocked)
		return s.dialect.classify("set blocked", err)
	})
}

// lockPair holds two users until the transaction ends, so that a conversation that is
// made and a block that is set at the same time see each other.
func (s *Store) lockPair(ctx context.Context, tx *sql.Tx, pair string) error {
	return s.query(ctx, tx, "lock users", s.dialect.lockUsers, strings.Split(pair, "|"), func(*sql.Rows) error { return nil })
}

// blocked is what the blocks of a pair mean; the caller holds lockPair.
func (s *Store) blocked(ctx context.Context, tx *sql.Tx, pair string) (blocked int, err error) {
	first, second, _ := strings.Cut(pair, "|")
	err = scanAll(ctx, tx, `SELECT user_id FROM blocks WHERE (user_id = $1 AND blocked_id = $2) OR (user_id = $2 AND blocked_id = $1)`,
		[]any{first, second}, func(rows *sql.Rows) error {
			var user string
			err := rows.Scan(&user)
			if user == first {
				blocked |= firstBlocks
			} else {
				blocked |= secondBlocks
			}
			return err
		})
	return blocked, s.dialect.classify("select blocks", err)
}

// blockRow is a block, as the JSON that the statement reads.
type blockRow struct {
	User    string `json:"u"`
	Blocked string `json:"b"`
}

// lockBlocks reads which of those whom records add block the one who adds them. It holds the
// latter until the transaction ends, so that a block that is not seen here is answered after
// the batch has its numbers. Users are held before conversations, as by Block.
func (s *Store) lockBlocks(ctx context.Context, tx *sql.Tx, records []chat.Record) (map[chat.Block]bool, error) {
	var senders []string
	var pairs []blockRow
	for _, r := range records {
		if r.Kind != protocol.EventAdded {
			continue
		}
		for _, m := range r.Members {
			if m.ID != r.SenderID {
				senders, pairs = append(senders, r.SenderID), append(pairs, blockRow{User: m.ID, Blocked: r.SenderID})
			}
		}
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	if err := s.query(ctx, tx, "lock users", s.dialect.lockUsers, slices.Compact(senders), func(*sql.Rows) error { return nil }); err != nil {
		return nil, err
	}
	out := map[chat.Block]bool{}
	err := s.query(ctx, tx, "select blocks", s.dialect.blocksOf, pairs, func(rows *sql.Rows) error {
		var b chat.Block
		err := rows.Scan(&b.UserID, &b.BlockedID)
		out[b] = true
		return err
	})
	return out, err
}

// Blocks returns at most limit users whom a user blocks, in the order of their ids, after
// one of them.
func (s *Store) Blocks(ctx context.Context, userID, after string, limit int) ([]chat.User, error) {
	out := make([]chat.User, 0, min(limit, 64))
	err := scanAll(ctx, s.read, `SELECT u.id, u.name, u.tenant FROM blocks b JOIN users u ON u.id = b.blocked_id
		WHERE b.user_id = $1 AND b.blocked_id > $2 ORDER BY b.blocked_id LIMIT $3`, []any{userID, after, limit},
		func(rows *sql.Rows) error {
			var u chat.User
			err := rows.Scan(&u.ID, &u.Name, &u.Tenant)
			out = append(out, u)
			return err
		})
	return out, s.dialect.classify("select blocks", err)
}

// Blockers are those of the users who block one.
func (s *Store) Blockers(ctx context.Context, userIDs []string, blockedID string) (map[string]bool, error) {
	list, err := json.Marshal(userIDs)
	if err != nil {
		return nil, fmt.Errorf("encode user ids: %w", err)
	}
	out := map[string]bool{}
	err = scanAll(ctx, s.read, s.dialect.blockersOf, []any{string(list), blockedID}, func(rows *sql.Rows) error {
		var user string
		err := rows.Scan(&user)
		out[user] = true
		return err
	})
	return out, s.dialect.classify("select blockers", err)
}
