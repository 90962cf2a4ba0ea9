package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// Direct returns the one conversation between two users, creating it under the given id
// when there is none. Concurrent calls for one pair return the same conversation. A
// member that has limit conversations already makes it chat.ErrLimit.
func (s *Store) Direct(ctx context.Context, id string, a, b chat.User, limit int, at time.Time) (chat.Conversation, error) {
	pair := pairOf(a.ID, b.ID)
	if existing, err := s.byPair(ctx, pair); err != nil || existing != "" {
		if err != nil {
			return chat.Conversation{}, err
		}
		return s.Conversation(ctx, a.ID, existing)
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error { return s.createDirect(ctx, tx, id, pair, []string{a.ID, b.ID}, limit, at) })
	if err != nil {
		return chat.Conversation{}, err
	}
	created, err := s.byPair(ctx, pair)
	if err != nil {
		return chat.Conversation{}, err
	}
	return s.Conversation(ctx, a.ID, created)
}

// pairOf names the direct conversation of two users.
func pairOf(a, b string) string { return min(a, b) + "|" + max(a, b) }

// byPair returns "" when there is no such conversation.
func (s *Store) byPair(ctx context.Context, pair string) (string, error) {
	var id string
	err := s.read.QueryRowContext(ctx, `SELECT COALESCE(MIN(id), '') FROM conversations WHERE pair = $1`, pair).Scan(&id)
	return id, s.dialect.classify("select pair", err)
}

func (s *Store) createDirect(ctx context.Context, tx *sql.Tx, id, pair string, users []string, limit int, at time.Time) error {
	if err := s.lockPair(ctx, tx, pair); err != nil {
		return err
	}
	blocked, err := s.blocked(ctx, tx, pair)
	if err != nil {
		return err
	}
	r, err := tx.ExecContext(ctx, `INSERT INTO conversations (id, pair, created_at, blocked) VALUES ($1, $2, $3, $4) ON CONFLICT (pair) DO NOTHING`,
		id, pair, at.UnixMicro(), blocked)
	if err != nil {
		return s.dialect.classify("insert conversation", err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return err // another call was first
	}
	for _, user := range users {
		if err := s.hasRoom(ctx, tx, user, limit); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO members (conversation_id, user_id) VALUES ($1, $2)`, id, user); err != nil {
			return s.dialect.classify("insert member", err)
		}
	}
	return nil
}

func (s *Store) hasRoom(ctx context.Context, tx *sql.Tx, user string, limit int) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM members WHERE user_id = $1 AND left_seq = 0`, user).Scan(&n); err != nil {
		return s.dialect.classify("count conversations", err)
	}
	if n >= limit {
		return fmt.Errorf("insert member: %w", chat.ErrLimit)
	}
	return nil
}

// selectConversations looks for what is unread among the newest entries only, and counts to
// a bound ([Store.conversations]), so that who never reads does not pay for it.
const selectConversations = `SELECT c.id, c.pair IS NULL, c.name, c.member_count, c.last_seq, m.role, m.read_seq, m.muted, c.open,
		(SELECT COUNT(*) FROM (SELECT 1 FROM messages x WHERE x.conversation_id = c.id AND x.seq > m.read_seq AND x.seq >= m.joined_seq
			AND x.seq > c.last_seq - %d AND x.kind = '' AND x.recalled = 0 AND x.sender_id <> m.user_id LIMIT %d) AS unread)
	FROM members m JOIN conversations c ON c.id = m.conversation_id WHERE m.user_id = $1 AND m.left_seq = 0`

// Conversation returns a conversation that a user is a member of, or chat.ErrNotFound.
func (s *Store) Conversation(ctx context.Context, userID, id string) (chat.Conversation, error) {
	list, err := s.conversations(ctx, ` AND c.id = $2`, userID, id)
	if err != nil {
		return chat.Conversation{}, err
	}
	if len(list) == 0 {
		return chat.Conversation{}, fmt.Errorf("select conversation: %w", chat.ErrNotFound)
	}
	return list[0], nil
}

// Conversations returns at most limit conversations that a user is a member of, oldest first,
// after one of them, which it may have left since.
func (s *Store) Conversations(ctx context.Context, userID, after string, limit int) ([]chat.Conversation, error) {
	return s.conversations(ctx, ` AND ($2 = '' OR (c.created_at, c.id) > (SELECT x.created_at, x.id
			FROM conversations x JOIN members y ON y.conversation_id = x.id AND y.user_id = $1 WHERE x.id = $2))
		ORDER BY c.created_at, c.id LIMIT $3`, userID, after, limit)
}

func (s *Store) conversations(ctx context.Context, which string, args ...any) ([]chat.Conversation, error) {
	query := fmt.Sprintf(selectConversations, chat.UnreadWithin, chat.MaxUnread) + which
	var out []chat.Conversation
	var direct []string
	err := scanAll(ctx, s.read, query, args, func(rows *sql.Rows) error {
		var c chat.Conversation
		var muted, open int
		err := rows.Scan(&c.ID, &c.Group, &c.Name, &c.Count, &c.LastSeq, &c.Role, &c.Read, &muted, &open, &c.Unread)
		c.Muted, c.Open = muted > 0, open > 0
		if !c.Group {
			direct = append(direct, c.ID)
		}
		out = append(out, c)
		return err
	})
	if err != nil || len(direct) == 0 {
		return out, s.dialect.classify("select conversations", err)
	}
	people := make(map[string][]chat.User, len(direct))
	err = s.query(ctx, s.read, "select people", s.dialect.peopleOf, direct, func(rows *sql.Rows) error {
		var id string
		var u chat.User
		err := rows.Scan(&id, &u.ID, &u.Name, &u.Tenant)
		people[id] = append(people[id], u)
		return err
	})
	for i := range out {
		out[i].Members = people[out[i].ID]
	}
	return out, err
}
