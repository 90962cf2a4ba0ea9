package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/tracegate/tracegate/core/chat"
)

// markRow is a mark as the JSON that the dialects' statement reads.
type markRow struct {
	Conversation string `json:"c"`
	User         string `json:"u"`
	Read         int64  `json:"r"`
	Delivered    int64  `json:"d"`
}

// Mark moves the positions of members, each of which must be there once, never back, and
// returns those that hold now; who is not a member (any more) is left out.
func (s *Store) Mark(ctx context.Context, marks []chat.Mark) ([]chat.Mark, error) {
	list := make([]markRow, 0, len(marks))
	for _, m := range marks {
		list = append(list, markRow{m.Conversation, m.UserID, m.Read, max(m.Read, m.Delivered)})
	}
	out := make([]chat.Mark, 0, len(marks))
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		return s.query(ctx, tx, "move marks", s.dialect.mark, list, func(rows *sql.Rows) error {
			var m chat.Mark
			err := rows.Scan(&m.Conversation, &m.UserID, &m.Read, &m.Delivered)
			out = append(out, m)
			return err
		})
	})
	return out, err
}

// Mute says whether a member wants to hear of a conversation; chat.ErrNotFound where the
// user is not one.
func (s *Store) Mute(ctx context.Context, userID, conversation string, muted bool) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE members SET muted = $3 WHERE conversation_id = $1 AND user_id = $2 AND left_seq = 0`,
			conversation, userID, flag(muted))
		if err != nil {
			return s.dialect.classify("mute", err)
		}
		if n, err := r.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return fmt.Errorf("mute: %w", chat.ErrNotFound)
	})
}
