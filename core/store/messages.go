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

// Messages returns at most limit messages of a conversation after a sequence number, in
// order. It does not check membership.
func (s *Store) Messages(ctx context.Context, conversation string, after int64, limit int) ([]protocol.Message, error) {
	out := make([]protocol.Message, 0, min(limit, 64))
	err := scanAll(ctx, s.read, `SELECT seq, client_id, sender, text, sent_at, trace_id FROM messages
		WHERE conversation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`, []any{conversation, after, limit},
		func(rows *sql.Rows) error {
			m := protocol.Message{Conversation: conversation}
			var at int64
			if err := rows.Scan(&m.Seq, &m.ClientID, &m.Sender, &m.Text, &at, &m.TraceID); err != nil {
				return err
			}
			m.SentAt = time.UnixMicro(at).UTC()
			out = append(out, m)
			return nil
		})
	return out, s.dialect.classify("select messages", err)
}

// row is a record as the JSON that the dialects' statements read.
type row struct {
	Conversation string `json:"c"`
	Seq          int64  `json:"q"`
	SenderID     string `json:"s"`
	Sender       string `json:"n"`
	ClientID     string `json:"k"`
	Text         string `json:"t"`
	SentAt       int64  `json:"a"`
	TraceID      string `json:"r"`
}

// Append stores a batch in one transaction: all of it or nothing. It gives each record
// its number by chat.Number under a lock on the conversations, so numbers have no gaps
// whichever process stores, and a record that was stored before keeps the number it
// has. Records that can never be stored are marked as refused and do not stop the
// others. chat.ErrUnstorable says that the database refused some row of the batch.
func (s *Store) Append(ctx context.Context, records []chat.Record) ([]chat.Numbered, error) {
	var out []chat.Numbered
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		state, err := s.lockState(ctx, tx, records)
		if err != nil {
			return err
		}
		out = chat.Number(records, state)
		return s.insert(ctx, tx, out)
	})
	if err != nil {
		return nil, fmt.Errorf("append messages: %w", err)
	}
	return out, nil
}

// lockState reads what chat.Number needs and holds the conversations until the
// transaction ends.
func (s *Store) lockState(ctx context.Context, tx *sql.Tx, records []chat.Record) (chat.State, error) {
	ids := make([]string, 0, len(records))
	keys := make([]row, 0, len(records))
	state := chat.State{LastSeq: map[string]int64{}, Members: map[string][]string{}, Existing: map[chat.Key]int64{}}
	seen := map[string]bool{}
	for _, r := range records {
		if !seen[r.Conversation] {
			seen[r.Conversation] = true
			ids = append(ids, r.Conversation)
		}
		keys = append(keys, row{Conversation: r.Conversation, SenderID: r.SenderID, ClientID: r.ClientID})
	}
	err := s.query(ctx, tx, "lock conversations", s.dialect.lockConversations, ids, func(rows *sql.Rows) error {
		var id string
		var seq int64
		err := rows.Scan(&id, &seq)
		state.LastSeq[id] = seq
		return err
	})
	if err != nil {
		return state, err
	}
	err = s.query(ctx, tx, "select members", s.dialect.membersOf, ids, func(rows *sql.Rows) error {
		var id, user string
		err := rows.Scan(&id, &user)
		state.Members[id] = append(state.Members[id], user)
		return err
	})
	if err != nil {
		return state, err
	}
	err = s.query(ctx, tx, "select existing", s.dialect.existing, keys, func(rows *sql.Rows) error {
		var k chat.Key
		var seq int64
		err := rows.Scan(&k.Conversation, &k.SenderID, &k.ClientID, &seq)
		state.Existing[k] = seq
		return err
	})
	return state, err
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, numbered []chat.Numbered) error {
	var rows, heads []row
	at := map[string]int{} // conversation -> index in heads
	for _, n := range numbered {
		if n.Refused != "" || n.Duplicate {
			continue
		}
		rows = append(rows, row{
			Conversation: n.Conversation, Seq: n.Seq, SenderID: n.SenderID, Sender: n.Sender, ClientID: n.ClientID,
			Text: n.Text, SentAt: n.SentAt.UnixMicro(), TraceID: n.TraceID,
		})
		i, ok := at[n.Conversation]
		if !ok {
			i = len(heads)
			at[n.Conversation] = i
			heads = append(heads, row{Conversation: n.Conversation})
		}
		heads[i].Seq = n.Seq
	}
	if len(rows) == 0 {
		return nil
	}
	if err := s.exec(ctx, tx, "insert messages", s.dialect.insertMessages, rows); err != nil {
		return err
	}
	return s.exec(ctx, tx, "set last_seq", s.dialect.setLastSeq, heads)
}

func (s *Store) query(ctx context.Context, tx *sql.Tx, step, query string, list any, scan func(*sql.Rows) error) error {
	arg, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", step, err)
	}
	return s.dialect.classify(step, scanAll(ctx, tx, query, []any{string(arg)}, scan))
}

func (s *Store) exec(ctx context.Context, tx *sql.Tx, step, query string, list any) error {
	arg, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", step, err)
	}
	_, err = tx.ExecContext(ctx, query, string(arg))
	return s.dialect.classify(step, err)
}
