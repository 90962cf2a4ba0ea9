package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Searchables returns what the next entries of a conversation after a seq, at most limit,
// mean for who searches messages. A message has the text that it has now.
func (s *Store) Searchables(ctx context.Context, conversation string, after int64, limit int) ([]chat.Searchable, error) {
	out := make([]chat.Searchable, 0, min(limit, 64))
	err := scanAll(ctx, s.read, `SELECT m.seq, COALESCE(t.seq, CASE WHEN m.kind = '' THEN m.seq ELSE 0 END), COALESCE(t.sender, m.sender),
			COALESCE(t.sent_at, m.sent_at), COALESCE(t.text, m.text), COALESCE(f.name, '')
		FROM messages m LEFT JOIN messages t ON m.kind IN ('edited', 'recalled') AND t.conversation_id = m.conversation_id AND t.seq = m.target
		LEFT JOIN files f ON f.id = COALESCE(t.file_id, m.file_id) AND f.id <> ''
		WHERE m.conversation_id = $1 AND m.seq > $2 ORDER BY m.seq LIMIT $3`, []any{conversation, after, limit}, func(rows *sql.Rows) error {
		var e chat.Searchable
		var at int64
		err := rows.Scan(&e.Seq, &e.Message, &e.Sender, &at, &e.Text, &e.FileName)
		e.SentAt = time.UnixMicro(at).UTC()
		out = append(out, e)
		return err
	})
	return out, s.dialect.classify("select searchables", err)
}

// ConversationHeads returns at most limit conversations in the order of their ids, after
// one of them.
func (s *Store) ConversationHeads(ctx context.Context, after string, limit int) ([]chat.Head, error) {
	out := make([]chat.Head, 0, min(limit, 64))
	err := scanAll(ctx, s.read, `SELECT id, last_seq FROM conversations WHERE id > $1 ORDER BY id LIMIT $2`, []any{after, limit}, func(rows *sql.Rows) error {
		var h chat.Head
		err := rows.Scan(&h.Conversation, &h.LastSeq)
		out = append(out, h)
		return err
	})
	return out, s.dialect.classify("select conversation heads", err)
}

// MessagesAt returns those of the messages that a user may see with the text that they have
// now, in any order.
func (s *Store) MessagesAt(ctx context.Context, userID string, places []chat.Place) ([]protocol.Message, error) {
	list := make([]keyRow, 0, len(places))
	for _, p := range places {
		list = append(list, keyRow{Conversation: p.Conversation, Seq: p.Seq})
	}
	arg, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode places: %w", err)
	}
	out := make([]protocol.Message, 0, len(places))
	err = scanAll(ctx, s.read, s.dialect.messagesAt, []any{string(arg), userID}, func(rows *sql.Rows) error {
		var conversation string
		m, err := scanEntry(rows, &conversation)
		m.Conversation = conversation
		out = append(out, m)
		return err
	})
	return out, s.dialect.classify("select messages", err)
}
