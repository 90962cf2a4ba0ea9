package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// selectEntries reads what a user ($2) may see of a conversation ($1). The text of an
// edit is that of the message it names, as that stands now; so is the count of a reaction,
// whose emoji is in the column text. There is no text for who left before it was edited:
// the one that it saw is gone.
func (d dialect) selectEntries() string {
	return `SELECT ` + entryColumns + d.reactions + `
	FROM members b JOIN messages m ON m.conversation_id = b.conversation_id AND m.seq >= b.joined_seq AND (b.left_seq = 0 OR m.seq <= b.left_seq)
	` + entryJoins + `
	WHERE b.conversation_id = $1 AND b.user_id = $2 AND `
}

const entryColumns = `m.seq, m.client_id, m.sender, CASE WHEN b.left_seq > 0 AND COALESCE(t.edited, m.edited) > b.left_seq THEN ''
			WHEN m.kind = 'edited' THEN COALESCE(t.text, '') WHEN m.kind IN ('reacted', 'unreacted') THEN '' ELSE m.text END,
		m.sent_at, m.trace_id, m.reply_to, m.edited, m.recalled, m.event,
		COALESCE(f.id, ''), COALESCE(f.name, ''), COALESCE(f.type, ''), COALESCE(f.size, 0), COALESCE(f.width, 0), COALESCE(f.height, 0), COALESCE(f.thumbnail, ''), COALESCE(n.count, 0), `

const entryJoins = `LEFT JOIN messages t ON m.kind = 'edited' AND t.conversation_id = m.conversation_id AND t.seq = m.target
	LEFT JOIN files f ON m.file_id <> '' AND f.id = m.file_id
	LEFT JOIN tallies n ON m.kind IN ('reacted', 'unreacted') AND n.conversation_id = m.conversation_id AND n.seq = m.target AND n.emoji = m.text`

// Messages returns at most limit entries of a conversation after a sequence number, in
// order, of those that the user may see; chat.ErrNotFound where it never was a member.
// Messages that were edited or recalled have their newest text, or none where that is newer
// than what the user may see.
func (s *Store) Messages(ctx context.Context, userID, conversation string, after int64, limit int) ([]protocol.Message, error) {
	return s.entries(ctx, s.dialect.selectEntries()+`m.seq > $3 ORDER BY m.seq LIMIT $4`, userID, conversation, after, limit)
}

// MessagesBefore is Messages backwards: the newest entries before a sequence number, in
// order all the same.
func (s *Store) MessagesBefore(ctx context.Context, userID, conversation string, before int64, limit int) ([]protocol.Message, error) {
	out, err := s.entries(ctx, s.dialect.selectEntries()+`m.seq < $3 ORDER BY m.seq DESC LIMIT $4`, userID, conversation, before, limit)
	slices.Reverse(out)
	return out, err
}

func (s *Store) entries(ctx context.Context, query, userID, conversation string, from int64, limit int) ([]protocol.Message, error) {
	out := make([]protocol.Message, 0, min(limit, 64))
	err := scanAll(ctx, s.read, query, []any{conversation, userID, from, limit}, func(rows *sql.Rows) error {
		m, err := scanEntry(rows)
		m.Conversation = conversation
		out = append(out, m)
		return err
	})
	if err != nil {
		return nil, s.dialect.classify("select messages", err)
	}
	if len(out) == 0 {
		return out, s.wasMember(ctx, userID, conversation)
	}
	return out, nil
}

// scanEntry scans entryColumns and dialect.reactions after others.
func scanEntry(rows *sql.Rows, before ...any) (protocol.Message, error) {
	var m protocol.Message
	var at, edited, recalled int64
	var event, thumbnail, reactions string
	var count int
	var f protocol.File
	if err := rows.Scan(append(before, &m.Seq, &m.ClientID, &m.Sender, &m.Text, &at, &m.TraceID, &m.ReplyTo, &edited, &recalled, &event,
		&f.ID, &f.Name, &f.Type, &f.Size, &f.Width, &f.Height, &thumbnail, &count, &reactions)...); err != nil {
		return m, err
	}
	if f.ID != "" {
		f.Thumbnail = thumbnail != ""
		m.File = &f
	}
	m.SentAt, m.Edited, m.Recalled = time.UnixMicro(at).UTC(), edited > 0 && recalled == 0, recalled > 0
	if event == "" {
		var err error
		m.Reactions, err = readReactions(reactions)
		return m, err
	}
	m.Event = &protocol.Event{}
	if err := json.Unmarshal([]byte(event), m.Event); err != nil {
		return m, fmt.Errorf("event of seq %d: %w", m.Seq, err)
	}
	m.Event.Count = count
	return m, nil
}

// wasMember is nil where the user is or was a member, else chat.ErrNotFound.
func (s *Store) wasMember(ctx context.Context, userID, conversation string) error {
	var n int
	err := s.read.QueryRowContext(ctx, `SELECT COUNT(*) FROM members WHERE conversation_id = $1 AND user_id = $2`, conversation, userID).Scan(&n)
	if err == nil && n == 0 {
		err = chat.ErrNotFound
	}
	return s.dialect.classify("select membership", err)
}

// Target returns what decides about an edit, a recall or a reply of a user that names
// an entry; chat.ErrNotFound where the user sees none of that number.
func (s *Store) Target(ctx context.Context, userID, conversation string, seq int64) (chat.Target, error) {
	var out chat.Target
	found := false
	query := `SELECT m.kind, m.sender_id, m.sent_at, m.recalled, m.file_id FROM members b JOIN messages m ON m.conversation_id = b.conversation_id
		WHERE b.conversation_id = $1 AND b.user_id = $2 AND m.seq = $3 AND m.seq >= b.joined_seq AND (b.left_seq = 0 OR m.seq <= b.left_seq)`
	err := scanAll(ctx, s.read, query, []any{conversation, userID, seq}, func(rows *sql.Rows) (err error) {
		found = true
		out, err = scanTarget(rows)
		return err
	})
	if err == nil && !found {
		err = chat.ErrNotFound
	}
	return out, s.dialect.classify("select message", err)
}

// Heads returns what each user that has any conversation may see of each.
func (s *Store) Heads(ctx context.Context, userIDs ...string) (map[string]map[string]chat.Span, error) {
	out := make(map[string]map[string]chat.Span, len(userIDs))
	err := s.query(ctx, s.read, "select heads", s.dialect.headsOf, userIDs, func(rows *sql.Rows) error {
		var user, conversation string
		var joined, last int64
		if err := rows.Scan(&user, &conversation, &joined, &last); err != nil {
			return err
		}
		if out[user] == nil {
			out[user] = make(map[string]chat.Span)
		}
		out[user][conversation] = chat.Span{After: max(joined-1, 0), Last: last}
		return nil
	})
	return out, err
}
