package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// SetPush says how a session's device is notified, and takes the token away from any other
// session: it is one device's. chat.ErrNotFound where there is no such session.
func (s *Store) SetPush(ctx context.Context, session, platform, token string) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if token != "" {
			_, err := tx.ExecContext(ctx, `UPDATE sessions SET push_platform = '', push_token = '' WHERE push_token = $1 AND push_platform = $2 AND id <> $3`, token, platform, session)
			if err != nil {
				return s.dialect.classify("take push token away", err)
			}
		}
		r, err := tx.ExecContext(ctx, `UPDATE sessions SET push_platform = $2, push_token = $3 WHERE id = $1`, session, platform, token)
		if err != nil {
			return s.dialect.classify("set push token", err)
		}
		if n, err := r.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return fmt.Errorf("set push token: %w", chat.ErrNotFound)
	})
}

// ForgetPush takes a token away that is not good any more, unless it has been replaced.
func (s *Store) ForgetPush(ctx context.Context, session, token string) error {
	_, err := s.write.ExecContext(ctx, `UPDATE sessions SET push_platform = '', push_token = '' WHERE id = $1 AND push_token = $2`, session, token)
	return s.dialect.classify("forget push token", err)
}

// Unpushed returns at most limit messages of a conversation that devices have not been
// notified of, in order, of those that were sent after a time.
func (s *Store) Unpushed(ctx context.Context, conversation string, after time.Time, limit int) ([]chat.Unpushed, error) {
	var out []chat.Unpushed
	err := scanAll(ctx, s.read, `SELECT seq, sender_id, sender, text, sent_at FROM messages WHERE conversation_id = $1 AND kind = '' AND recalled = 0
		AND seq > COALESCE((SELECT p.seq FROM pushed p WHERE p.conversation_id = $1), 0) AND sent_at > $2 ORDER BY seq LIMIT $3`,
		[]any{conversation, after.UnixMicro(), limit}, func(rows *sql.Rows) error {
			var m chat.Unpushed
			var at int64
			err := rows.Scan(&m.Seq, &m.SenderID, &m.Sender, &m.Text, &at)
			m.SentAt = time.UnixMicro(at).UTC()
			out = append(out, m)
			return err
		})
	return out, s.dialect.classify("select unpushed", err)
}

// Pushed says that devices have been notified up to a message. It never goes back.
func (s *Store) Pushed(ctx context.Context, conversation string, seq int64) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO pushed (conversation_id, seq) VALUES ($1, $2)
		ON CONFLICT (conversation_id) DO UPDATE SET seq = excluded.seq WHERE pushed.seq < excluded.seq`, conversation, seq)
	return s.dialect.classify("set pushed", err)
}

// PushDevices returns at most limit devices that may be notified of a message, in the
// order of their sessions, after one of them: those of members that see it, did not send
// it, have not read it and have not muted the conversation.
func (s *Store) PushDevices(ctx context.Context, conversation string, seq int64, senderID, after string, limit int) ([]chat.PushDevice, error) {
	var out []chat.PushDevice
	err := scanAll(ctx, s.read, `SELECT n.id, u.id, u.name, u.tenant, n.push_platform, n.push_token
		FROM members m JOIN sessions n ON n.user_id = m.user_id JOIN users u ON u.id = m.user_id
		WHERE m.conversation_id = $1 AND m.joined_seq <= $2 AND m.left_seq = 0 AND m.muted = 0 AND m.read_seq < $2 AND m.user_id <> $3
		AND n.push_token <> '' AND n.id > $4 ORDER BY n.id LIMIT $5`, []any{conversation, seq, senderID, after, limit},
		func(rows *sql.Rows) error {
			var d chat.PushDevice
			err := rows.Scan(&d.Session, &d.User.ID, &d.User.Name, &d.User.Tenant, &d.Platform, &d.Token)
			out = append(out, d)
			return err
		})
	return out, s.dialect.classify("select push devices", err)
}
