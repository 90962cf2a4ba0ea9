package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Rows as the JSON that the dialects' statements read.
type (
	// reactionRow is a reaction after the batch.
	reactionRow struct {
		Conversation string `json:"c"`
		Seq          int64  `json:"q"`
		Emoji        string `json:"e"`
		User         string `json:"u"`
		On           int    `json:"o"`
	}
	// tallyRow is how many there are after the batch.
	tallyRow struct {
		Conversation string `json:"c"`
		Seq          int64  `json:"q"`
		Emoji        string `json:"e"`
		Count        int    `json:"n"`
		Since        int64  `json:"s"`
	}
)

// reactionsColumn has who reads in $2. It is read with the message, in one statement: what
// is in the history at an entry is never older than that entry.
func reactionsColumn(array, object, cast string) string {
	return `CASE WHEN m.kind <> '' OR m.recalled > 0 THEN '' ELSE COALESCE((SELECT ` + array + `(` + object + `('e', x.emoji, 'n', x.count, 's', x.since, 'm',
		(SELECT COUNT(*) FROM reactions r WHERE r.conversation_id = x.conversation_id AND r.seq = x.seq AND r.emoji = x.emoji AND r.user_id = $2)))` + cast + `
		FROM tallies x WHERE x.conversation_id = m.conversation_id AND x.seq = m.seq), '') END`
}

// readReactions reads what reactionsColumn says.
func readReactions(text string) ([]protocol.Reaction, error) {
	if text == "" || text == "[]" {
		return nil, nil
	}
	type row struct {
		tallyRow
		Mine int `json:"m"`
	}
	var rows []row
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, fmt.Errorf("decode reactions: %w", err)
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.Since, b.Since) })
	out := make([]protocol.Reaction, 0, len(rows))
	for _, r := range rows {
		out = append(out, protocol.Reaction{Emoji: r.Emoji, Count: r.Count, Mine: r.Mine > 0})
	}
	return out, nil
}

// Reactions returns those of a message as a user sees them; none where the user does not
// see the message.
func (s *Store) Reactions(ctx context.Context, userID, conversation string, seq int64) ([]protocol.Reaction, error) {
	list, err := s.MessagesAt(ctx, userID, []chat.Place{{Conversation: conversation, Seq: seq}})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0].Reactions, nil
}

// lockReactions reads what chat.Number needs for reactions; the conversations are held.
func (s *Store) lockReactions(ctx context.Context, tx *sql.Tx, records []chat.Record, state *chat.State) error {
	var places []keyRow
	var mine []reactionRow
	seen := map[chat.Place]bool{}
	for _, r := range records {
		if r.Emoji == "" {
			continue
		}
		mine = append(mine, reactionRow{Conversation: r.Conversation, Seq: r.Target, Emoji: r.Emoji, User: r.SenderID})
		if p := (chat.Place{Conversation: r.Conversation, Seq: r.Target}); !seen[p] {
			seen[p] = true
			places = append(places, keyRow{Conversation: r.Conversation, Seq: r.Target})
		}
	}
	if len(mine) == 0 {
		return nil
	}
	state.Tallies, state.Reacted = map[chat.Place][]chat.Tally{}, map[chat.Reaction]bool{}
	err := s.query(ctx, tx, "select tallies", s.dialect.tallies, places, func(rows *sql.Rows) error {
		var p chat.Place
		var t chat.Tally
		err := rows.Scan(&p.Conversation, &p.Seq, &t.Emoji, &t.Count, &t.Since)
		state.Tallies[p] = append(state.Tallies[p], t)
		return err
	})
	if err != nil {
		return err
	}
	return s.query(ctx, tx, "select reactions", s.dialect.reacted, mine, func(rows *sql.Rows) error {
		var r chat.Reaction
		err := rows.Scan(&r.Conversation, &r.Seq, &r.Emoji, &r.UserID)
		state.Reacted[r] = true
		return err
	})
}

// react takes one numbered reaction up.
func (c *changes) react(n chat.Numbered) {
	r := chat.Reaction{Place: chat.Place{Conversation: n.Conversation, Seq: n.Target}, Emoji: n.Emoji, UserID: n.SenderID}
	row := c.reactions.at(r, reactionRow{Conversation: n.Conversation, Seq: n.Target, Emoji: n.Emoji, User: n.SenderID})
	row.On = 0
	if n.Kind == protocol.EventReacted {
		row.On = 1
	}
	r.UserID = ""
	*c.tallies.at(r, tallyRow{}) = tallyRow{Conversation: n.Conversation, Seq: n.Target, Emoji: n.Emoji, Count: n.Tally.Count, Since: n.Tally.Since}
}
