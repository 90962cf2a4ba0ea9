package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// Direct returns the one conversation between two users, creating it under the given id
// when there is none. Concurrent calls for one pair return the same conversation. A
// member that has limit conversations already makes it chat.ErrLimit.
func (s *Store) Direct(ctx context.Context, id string, a, b chat.User, limit int, at time.Time) (chat.Conversation, error) {
	pair := a.ID + "|" + b.ID
	if b.ID < a.ID {
		pair = b.ID + "|" + a.ID
	}
	if existing, err := s.byPair(ctx, pair); err != nil || existing != "" {
		if err != nil {
			return chat.Conversation{}, err
		}
		return s.Conversation(ctx, existing)
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error { return s.createDirect(ctx, tx, id, pair, []string{a.ID, b.ID}, limit, at) })
	if err != nil {
		return chat.Conversation{}, err
	}
	created, err := s.byPair(ctx, pair)
	if err != nil {
		return chat.Conversation{}, err
	}
	return s.Conversation(ctx, created)
}

// byPair returns "" when there is no such conversation.
func (s *Store) byPair(ctx context.Context, pair string) (string, error) {
	var id string
	err := s.read.QueryRowContext(ctx, `SELECT COALESCE(MIN(id), '') FROM conversations WHERE pair = $1`, pair).Scan(&id)
	return id, s.dialect.classify("select pair", err)
}

func (s *Store) createDirect(ctx context.Context, tx *sql.Tx, id, pair string, users []string, limit int, at time.Time) error {
	r, err := tx.ExecContext(ctx, `INSERT INTO conversations (id, pair, created_at) VALUES ($1, $2, $3) ON CONFLICT (pair) DO NOTHING`,
		id, pair, at.UnixMicro())
	if err != nil {
		return s.dialect.classify("insert conversation", err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return err // another call was first
	}
	for _, user := range users {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM members WHERE user_id = $1`, user).Scan(&n); err != nil {
			return s.dialect.classify("count conversations", err)
		}
		if n >= limit {
			return fmt.Errorf("insert member: %w", chat.ErrLimit)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO members (conversation_id, user_id) VALUES ($1, $2)`, id, user); err != nil {
			return s.dialect.classify("insert member", err)
		}
	}
	return nil
}

const selectConversations = `SELECT c.id, c.last_seq, u.id, u.name, u.tenant
	FROM conversations c JOIN members m ON m.conversation_id = c.id JOIN users u ON u.id = m.user_id `

// Conversation returns a conversation with its members, or chat.ErrNotFound.
func (s *Store) Conversation(ctx context.Context, id string) (chat.Conversation, error) {
	list, err := s.conversations(ctx, selectConversations+`WHERE c.id = $1 ORDER BY u.name`, id)
	if err != nil {
		return chat.Conversation{}, err
	}
	if len(list) == 0 {
		return chat.Conversation{}, fmt.Errorf("select conversation: %w", chat.ErrNotFound)
	}
	return list[0], nil
}

// Conversations returns all conversations of a user, oldest first.
func (s *Store) Conversations(ctx context.Context, userID string) ([]chat.Conversation, error) {
	return s.conversations(ctx, selectConversations+
		`WHERE c.id IN (SELECT conversation_id FROM members WHERE user_id = $1) ORDER BY c.created_at, c.id, u.name`, userID)
}

func (s *Store) conversations(ctx context.Context, query string, arg any) ([]chat.Conversation, error) {
	var out []chat.Conversation
	err := scanAll(ctx, s.read, query, []any{arg}, func(rows *sql.Rows) error {
		var c chat.Conversation
		var u chat.User
		if err := rows.Scan(&c.ID, &c.LastSeq, &u.ID, &u.Name, &u.Tenant); err != nil {
			return err
		}
		if len(out) == 0 || out[len(out)-1].ID != c.ID {
			out = append(out, c)
		}
		last := &out[len(out)-1]
		last.Members = append(last.Members, u)
		return nil
	})
	return out, s.dialect.classify("select conversations", err)
}

// Heads returns the last sequence number of each conversation of each user that has any.
func (s *Store) Heads(ctx context.Context, userIDs ...string) (map[string]map[string]int64, error) {
	list, err := json.Marshal(userIDs)
	if err != nil {
		return nil, fmt.Errorf("encode user ids: %w", err)
	}
	out := make(map[string]map[string]int64, len(userIDs))
	err = scanAll(ctx, s.read, s.dialect.headsOf, []any{string(list)}, func(rows *sql.Rows) error {
		var user, conversation string
		var seq int64
		if err := rows.Scan(&user, &conversation, &seq); err != nil {
			return err
		}
		if out[user] == nil {
			out[user] = make(map[string]int64)
		}
		out[user][conversation] = seq
		return nil
	})
	return out, s.dialect.classify("select heads", err)
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func scanAll(ctx context.Context, q querier, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() // Err below reports what matters
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
