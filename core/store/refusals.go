package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// attemptRow is a record as the log took it, as the JSON that the dialects' statements read.
type attemptRow struct {
	Conversation string      `json:"c"`
	SenderID     string      `json:"s"`
	ClientID     string      `json:"k"`
	LoggedAt     int64       `json:"t"`
	Reason       chat.Reason `json:"w,omitempty"`
}

func attemptOf(r chat.Record) attemptRow {
	return attemptRow{Conversation: r.Conversation, SenderID: r.SenderID, ClientID: r.ClientID, LoggedAt: r.Attempt().LoggedAt}
}

// refused reads which of the records were refused already. What the log took after the
// newest refusal of its conversation, as all that is not delivered again, is not looked up.
func (s *Store) refused(ctx context.Context, tx *sql.Tx, records []chat.Record, standing map[string]chat.Standing) (map[chat.Attempt]chat.Reason, error) {
	var rows []attemptRow
	for _, r := range records {
		if st, ok := standing[r.Conversation]; ok && r.Attempt().LoggedAt <= st.Refused {
			rows = append(rows, attemptOf(r))
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	out := map[chat.Attempt]chat.Reason{}
	err := s.query(ctx, tx, "select refusals", s.dialect.refusals, rows, func(rows *sql.Rows) error {
		var a chat.Attempt
		var why chat.Reason
		err := rows.Scan(&a.Conversation, &a.SenderID, &a.ClientID, &a.LoggedAt, &why)
		out[a] = why
		return err
	})
	return out, err
}

// refuse takes up that a record was refused; not where there is no such conversation, which
// no entry changes.
func (c *changes) refuse(n chat.Numbered) {
	if n.Refused == chat.ReasonConversation {
		return
	}
	row := attemptOf(n.Record)
	row.Reason = n.Refused
	c.refusals = append(c.refusals, row)
}

// sweptRefusals is how many are deleted in one statement, so that nobody waits for it long.
const sweptRefusals = 1000

// SweepRefusals forgets that records were refused which the log took before a time: it must
// not deliver them any more.
func (s *Store) SweepRefusals(ctx context.Context, before time.Time) error {
	for {
		r, err := s.write.ExecContext(ctx, `DELETE FROM refusals WHERE (logged_at, conversation_id, sender_id, client_id) IN (
			SELECT logged_at, conversation_id, sender_id, client_id FROM refusals WHERE logged_at < $1 ORDER BY logged_at LIMIT $2)`,
			before.UnixMicro(), sweptRefusals)
		if err != nil {
			return s.dialect.classify("sweep refusals", err)
		}
		if n, err := r.RowsAffected(); err != nil || n < sweptRefusals {
			return s.dialect.classify("sweep refusals", err)
		}
	}
}
