package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Group creates a group with its first entry, which tells who is in it: by, its owner,
// and others. Under an id that exists it changes nothing, fresh is false, and the result
// is chat.ErrExists where by is not a member of what is there. A member that has limit
// conversations already makes it chat.ErrLimit.
func (s *Store) Group(ctx context.Context, created chat.Record, limit int) (first chat.Numbered, fresh bool, err error) {
	owner := chat.Member{ID: created.SenderID, Name: created.Sender, Role: chat.RoleOwner}
	members := append([]chat.Member{owner}, created.Members...)
	for i := range members {
		members[i].Joined = 1
	}
	created.Kind, created.Members = protocol.EventCreated, members
	first = chat.Numbered{Record: created, Seq: 1, Roster: chat.NewRoster(true, 1, append([]chat.Member{}, members...))}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `INSERT INTO conversations (id, name, created_at, open) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
			created.Conversation, created.Name, created.SentAt.UnixMicro(), flag(created.Open))
		if err != nil {
			return s.dialect.classify("insert conversation", err)
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return err // another call was first
		}
		fresh = true
		for _, m := range members {
			if err := s.hasRoom(ctx, tx, m.ID, limit); err != nil {
				return err
			}
		}
		var c changes
		c.add(first, nil)
		for _, m := range first.Roster.Members {
			c.members.rows = append(c.members.rows, memberRow{Conversation: created.Conversation, User: m.ID, Role: m.Role, Joined: m.Joined})
		}
		return s.writeChanges(ctx, tx, c)
	})
	if err != nil || fresh {
		return first, fresh, err
	}
	if _, err := s.Conversation(ctx, created.SenderID, created.Conversation); err != nil {
		if errors.Is(err, chat.ErrNotFound) {
			err = chat.ErrExists
		}
		return first, false, err
	}
	return first, false, nil
}

// Members returns at most limit members of a conversation in the order of their ids,
// after one of them.
func (s *Store) Members(ctx context.Context, conversation, after string, limit int) ([]chat.Listed, error) {
	out := make([]chat.Listed, 0, min(limit, 64))
	err := scanAll(ctx, s.read, `SELECT u.id, u.name, m.role, m.joined_seq, m.read_seq, m.delivered_seq FROM members m JOIN users u ON u.id = m.user_id
		WHERE m.conversation_id = $1 AND m.user_id > $2 AND m.left_seq = 0 ORDER BY m.user_id LIMIT $3`, []any{conversation, after, limit},
		func(rows *sql.Rows) error {
			var m chat.Listed
			err := rows.Scan(&m.ID, &m.Name, &m.Role, &m.Joined, &m.Read, &m.Delivered)
			out = append(out, m)
			return err
		})
	return out, s.dialect.classify("select members", err)
}

// Full are those of the users that have limit conversations already.
func (s *Store) Full(ctx context.Context, userIDs []string, limit int) (map[string]bool, error) {
	out := map[string]bool{}
	err := s.query(ctx, s.read, "count conversations", s.dialect.countsOf, userIDs, func(rows *sql.Rows) error {
		var id string
		var n int
		err := rows.Scan(&id, &n)
		if n >= limit {
			out[id] = true
		}
		return err
	})
	return out, err
}
