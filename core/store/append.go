package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Append stores a batch in one transaction: all of it or nothing. It gives each record
// its number by chat.Number under a lock on the conversations, so numbers have no gaps
// whichever process stores, and a record that was stored before keeps the number it
// has. Records that can never be stored are marked as refused and do not stop the
// others. chat.ErrUnstorable says that the database refused some row of the batch.
//
// What it writes does not grow with the number of members: a message is one row.
func (s *Store) Append(ctx context.Context, records []chat.Record) ([]chat.Numbered, error) {
	var out []chat.Numbered
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		state, err := s.lockState(ctx, tx, records)
		if err != nil {
			return err
		}
		out = chat.Number(records, state)
		return s.insert(ctx, tx, out, state)
	})
	if err != nil {
		return nil, fmt.Errorf("append records: %w", err)
	}
	for _, n := range out {
		if n.Refused == "" {
			s.rosters.put(n.Conversation, n.Roster)
		}
	}
	return out, nil
}

// lockState reads what chat.Number needs and holds the conversations until the
// transaction ends.
func (s *Store) lockState(ctx context.Context, tx *sql.Tx, records []chat.Record) (chat.State, error) {
	state := chat.State{Standing: map[string]chat.Standing{}, Existing: map[chat.Key]int64{}, Targets: map[chat.Place]chat.Target{}}
	var ids []string
	var keys, targets []keyRow
	seen := map[string]bool{}
	for _, r := range records {
		if !seen[r.Conversation] {
			seen[r.Conversation] = true
			ids = append(ids, r.Conversation)
		}
		keys = append(keys, keyRow{Conversation: r.Conversation, SenderID: r.SenderID, ClientID: r.ClientID})
		if r.Target > 0 {
			targets = append(targets, keyRow{Conversation: r.Conversation, Seq: r.Target})
		}
	}
	var err error
	if state.Blocks, err = s.lockBlocks(ctx, tx, records); err != nil {
		return state, err
	}
	if state.Standing, err = s.standing(ctx, tx, s.dialect.lockConversations, ids); err != nil {
		return state, err
	}
	err = s.query(ctx, tx, "select existing", s.dialect.existing, keys, func(rows *sql.Rows) error {
		var k chat.Key
		var seq int64
		err := rows.Scan(&k.Conversation, &k.SenderID, &k.ClientID, &seq)
		state.Existing[k] = seq
		return err
	})
	if err == nil {
		state.Refused, err = s.refused(ctx, tx, records, state.Standing)
	}
	if err == nil && len(targets) > 0 {
		err = s.query(ctx, tx, "select targets", s.dialect.targets, targets, func(rows *sql.Rows) error {
			var p chat.Place
			t, err := scanTarget(rows, &p.Conversation, &p.Seq)
			state.Targets[p] = t
			return err
		})
	}
	if err == nil {
		err = s.lockReactions(ctx, tx, records, &state)
	}
	if err == nil {
		state.Files, err = s.lockFiles(ctx, tx, records, state.Targets)
	}
	return state, err
}

// scanTarget scans the columns kind, sender_id, sent_at, recalled and file_id after others.
func scanTarget(rows *sql.Rows, before ...any) (chat.Target, error) {
	var t chat.Target
	var at, recalled int64
	err := rows.Scan(append(before, &t.Kind, &t.SenderID, &at, &recalled, &t.File)...)
	t.SentAt, t.Recalled = time.UnixMicro(at).UTC(), recalled > 0
	return t, err
}

// Rows as the JSON that the dialects' statements read.
type (
	// keyRow names an entry by its key or its seq.
	keyRow struct {
		Conversation string `json:"c"`
		Seq          int64  `json:"q,omitempty"`
		SenderID     string `json:"s,omitempty"`
		ClientID     string `json:"k,omitempty"`
	}
	// plainRow is a message that has nothing that others have not: SQLite parses a row
	// once for each column, so most rows should have few.
	plainRow struct {
		Conversation string `json:"c"`
		Seq          int64  `json:"q"`
		SenderID     string `json:"s"`
		Sender       string `json:"n"`
		ClientID     string `json:"k"`
		Text         string `json:"t"`
		SentAt       int64  `json:"a"`
		TraceID      string `json:"r"`
	}
	entryRow struct {
		plainRow
		Kind    string `json:"i"`
		Target  int64  `json:"g"`
		Event   string `json:"e"`
		ReplyTo int64  `json:"p"`
		File    string `json:"f"`
	}
	// messageRow is the newest text of a message that was edited or recalled.
	messageRow struct {
		Conversation string `json:"c"`
		Seq          int64  `json:"q"`
		Text         string `json:"t"`
		Edited       int64  `json:"e"` // seq of the edit
		Recalled     int    `json:"x"`
	}
	// memberRow is a member after the batch.
	memberRow struct {
		Conversation string    `json:"c"`
		User         string    `json:"u"`
		Role         chat.Role `json:"o"`
		Joined       int64     `json:"j"` // below 0: as before
		Left         int64     `json:"l"`
	}
	// headRow is a conversation after the batch.
	headRow struct {
		Conversation string `json:"c"`
		Seq          int64  `json:"q"`
		Version      int64  `json:"v"`
		Count        int    `json:"m"`
		Name         string `json:"n"` // empty: as before
		Open         *int   `json:"o"` // nil: as before
	}
)

// changes are the rows that a batch writes, each once with its last state.
type changes struct {
	plain    []plainRow
	entries  []entryRow
	files    table[string, fileUse]
	heads    table[string, headRow]
	messages table[chat.Place, messageRow]
	members  table[chat.Key, memberRow]

	reactions table[chat.Reaction, reactionRow]
	tallies   table[chat.Reaction, tallyRow]
	cleared   []keyRow // messages whose reactions go

	refusals []attemptRow
}

// table is rows by key in the order in which they were first touched.
type table[K comparable, R any] struct {
	index map[K]int
	rows  []R
}

func (t *table[K, R]) at(key K, fresh R) *R {
	i, ok := t.index[key]
	if !ok {
		if t.index == nil {
			t.index = map[K]int{}
		}
		i = len(t.rows)
		t.index[key] = i
		t.rows = append(t.rows, fresh)
	}
	return &t.rows[i]
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, numbered []chat.Numbered, state chat.State) error {
	var c changes
	before := map[string]*chat.Roster{}
	for id, st := range state.Standing {
		before[id] = st.Roster
	}
	for _, n := range numbered {
		switch {
		case n.Refused != "":
			c.refuse(n)
		case !n.Duplicate:
			c.use(n, state)
			c.add(n, before[n.Conversation])
			before[n.Conversation] = n.Roster
		}
	}
	return s.writeChanges(ctx, tx, c)
}

func (s *Store) writeChanges(ctx context.Context, tx *sql.Tx, c changes) error {
	slices.SortFunc(c.members.rows, func(a, b memberRow) int {
		return cmp.Or(cmp.Compare(a.Conversation, b.Conversation), cmp.Compare(a.User, b.User))
	})
	for _, step := range []struct {
		name, query string
		rows        any
		any         bool
	}{
		{"insert messages", s.dialect.insertMessages, c.plain, len(c.plain) > 0},
		{"insert entries", s.dialect.insertEntries, c.entries, len(c.entries) > 0},
		{"change messages", s.dialect.changeMessages, c.messages.rows, len(c.messages.rows) > 0},
		{"add reactions", s.dialect.addReactions, c.reactions.rows, len(c.reactions.rows) > 0},
		{"remove reactions", s.dialect.removeReactions, c.reactions.rows, len(c.reactions.rows) > 0},
		{"set tallies", s.dialect.setTallies, c.tallies.rows, len(c.tallies.rows) > 0},
		{"remove tallies", s.dialect.removeTallies, c.tallies.rows, len(c.tallies.rows) > 0},
		{"clear reactions", s.dialect.clearReactions, c.cleared, len(c.cleared) > 0},
		{"clear tallies", s.dialect.clearTallies, c.cleared, len(c.cleared) > 0},
		{"use files", s.dialect.useFiles, c.files.rows, len(c.files.rows) > 0},
		{"change members", s.dialect.changeMembers, c.members.rows, len(c.members.rows) > 0},
		{"set heads", s.dialect.setHeads, c.heads.rows, len(c.heads.rows) > 0},
		{"insert refusals", s.dialect.insertRefusals, c.refusals, len(c.refusals) > 0},
		{"set refused", s.dialect.setRefused, c.refusals, len(c.refusals) > 0},
	} {
		if !step.any {
			continue
		}
		if err := s.exec(ctx, tx, step.name, step.query, step.rows); err != nil {
			return err
		}
	}
	return nil
}

// add takes one numbered record up.
func (c *changes) add(n chat.Numbered, before *chat.Roster) {
	plain := plainRow{
		Conversation: n.Conversation, Seq: n.Seq, SenderID: n.SenderID, Sender: n.Sender, ClientID: n.ClientID, Text: n.Text,
		SentAt: n.SentAt.UnixMicro(), TraceID: n.TraceID,
	}
	head := c.heads.at(n.Conversation, headRow{Conversation: n.Conversation})
	head.Seq, head.Version, head.Count = n.Seq, n.Roster.Version, len(n.Roster.Members)
	if n.Kind == "" && n.ReplyTo == 0 && n.File == "" {
		c.plain = append(c.plain, plain)
		return
	}
	row := entryRow{plainRow: plain, Kind: string(n.Kind), Target: n.Target, ReplyTo: n.ReplyTo, File: n.File}
	if n.Kind != "" {
		b, _ := json.Marshal(n.Event()) // strings and numbers always encode
		row.Event = string(b)
	}
	member := func(id string) *memberRow {
		return c.members.at(chat.Key{Conversation: n.Conversation, SenderID: id}, memberRow{Conversation: n.Conversation, User: id, Joined: -1})
	}
	switch n.Kind {
	case protocol.EventEdited, protocol.EventRecalled:
		m := c.messages.at(chat.Place{Conversation: n.Conversation, Seq: n.Target}, messageRow{Conversation: n.Conversation, Seq: n.Target})
		m.Text, row.Text = n.Text, ""
		if n.Kind == protocol.EventEdited {
			m.Edited = n.Seq
		} else {
			m.Recalled = 1
			c.cleared = append(c.cleared, keyRow{Conversation: n.Conversation, Seq: n.Target})
		}
	case protocol.EventReacted, protocol.EventUnreacted:
		row.Text = n.Emoji
		c.react(n)
	case protocol.EventAdded:
		for _, m := range n.Members {
			*member(m.ID) = memberRow{Conversation: n.Conversation, User: m.ID, Joined: n.Seq}
		}
	case protocol.EventRemoved:
		m := member(n.Members[0].ID)
		m.Role, m.Left = chat.RoleMember, n.Seq
	case protocol.EventRole:
		for _, changed := range n.Changed(before) {
			member(changed.ID).Role = changed.Role
		}
	case protocol.EventRenamed:
		head.Name = n.Name
	case protocol.EventOpened, protocol.EventClosed:
		open := flag(n.Kind == protocol.EventOpened)
		head.Open = &open
	}
	c.entries = append(c.entries, row)
}

func (s *Store) query(ctx context.Context, q querier, step, query string, list any, scan func(*sql.Rows) error) error {
	arg, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", step, err)
	}
	return s.dialect.classify(step, scanAll(ctx, q, query, []any{string(arg)}, scan))
}

func (s *Store) exec(ctx context.Context, tx *sql.Tx, step, query string, list any) error {
	arg, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", step, err)
	}
	_, err = tx.ExecContext(ctx, query, string(arg))
	return s.dialect.classify(step, err)
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
