package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"

	"github.com/tracegate/tracegate/core/chat"
)

// rosters remembers the members of conversations. It is never asked for the newest
// roster, only for the one of a version that was just read from the conversation's row,
// so it cannot be wrong, whichever process changed the members; and it needs no message
// between processes to be right. Direct conversations have version 0 for ever.
type rosters struct {
	mu      sync.Mutex
	max     int // members of all rosters
	members int
	byID    map[string]*chat.Roster
}

func newRosters(limit int) *rosters { return &rosters{max: limit, byID: map[string]*chat.Roster{}} }

// get returns nil where the version is not the one that is remembered.
func (c *rosters) get(conversation string, version int64) *chat.Roster {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.byID[conversation]; r != nil && r.Version == version {
		return r
	}
	return nil
}

// put forgets some others where there is no room.
func (c *rosters) put(conversation string, r *chat.Roster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.byID[conversation]
	if old == r || old != nil && old.Version > r.Version {
		return
	}
	c.drop(conversation)
	c.byID[conversation] = r
	c.members += len(r.Members)
	for id := range c.byID { // Go starts anywhere
		if c.members <= c.max {
			return
		}
		if id != conversation {
			c.drop(id)
		}
	}
}

func (c *rosters) drop(conversation string) {
	if r := c.byID[conversation]; r != nil {
		c.members -= len(r.Members)
		delete(c.byID, conversation)
	}
}

// Standing returns what decides about a record of a conversation, as it is now, or
// chat.ErrNotFound. It costs one row; the members are read only when they have changed.
func (s *Store) Standing(ctx context.Context, conversation string) (chat.Standing, error) {
	out, err := s.standing(ctx, s.read, s.dialect.standingOf, []string{conversation})
	if err != nil {
		return chat.Standing{}, err
	}
	st, ok := out[conversation]
	if !ok {
		return st, fmt.Errorf("select conversation: %w", chat.ErrNotFound)
	}
	return st, nil
}

// wholeRosters is up to how many members StandingOf reads all of them. Past that they are
// read by those who need them, or else each change of a large group would have all of it
// read again for the next message of anybody.
const wholeRosters = 500

// StandingOf is Standing for who only asks about one user: the roster may have that one
// only, or nobody where it is not a member.
func (s *Store) StandingOf(ctx context.Context, conversation, userID string) (chat.Standing, error) {
	heads, missing, err := s.heads(ctx, s.read, s.dialect.standingOf, []string{conversation})
	if err != nil {
		return chat.Standing{}, err
	}
	st, ok := heads[conversation]
	switch {
	case !ok:
		return st, fmt.Errorf("select conversation: %w", chat.ErrNotFound)
	case len(missing) == 0:
		return st, nil
	case st.Count <= wholeRosters:
		err := s.fill(ctx, s.read, heads, missing)
		return heads[conversation], err
	}
	var found []chat.Member
	err = scanAll(ctx, s.read, `SELECT u.id, u.name, m.role, m.joined_seq FROM members m JOIN users u ON u.id = m.user_id
		WHERE m.conversation_id = $1 AND m.user_id = $2 AND m.left_seq = 0`, []any{conversation, userID}, func(rows *sql.Rows) error {
		var m chat.Member
		err := rows.Scan(&m.ID, &m.Name, &m.Role, &m.Joined)
		found = append(found, m)
		return err
	})
	st.Roster = chat.NewRoster(st.Roster.Group, st.Roster.Version, found)
	return st, s.dialect.classify("select member", err)
}

// heads reads conversations, with a lock or without, with those members that are
// remembered; the rosters of those in missing have none yet.
func (s *Store) heads(ctx context.Context, q querier, query string, ids []string) (out map[string]chat.Standing, missing []string, err error) {
	out = map[string]chat.Standing{}
	err = s.query(ctx, q, "select conversations", query, ids, func(rows *sql.Rows) error {
		var id, pair string
		var blocked, open int
		var st chat.Standing
		fresh := &chat.Roster{}
		if err := rows.Scan(&id, &st.LastSeq, &fresh.Version, &fresh.Group, &pair, &blocked, &st.Count, &open, &st.Refused); err != nil {
			return err
		}
		st.Silent, st.Open = silent(pair, blocked), open > 0
		if st.Roster = s.rosters.get(id, fresh.Version); st.Roster == nil {
			st.Roster = fresh
			missing = append(missing, id)
		}
		out[id] = st
		return nil
	})
	return out, missing, err
}

// standing reads conversations with all their members.
func (s *Store) standing(ctx context.Context, q querier, query string, ids []string) (map[string]chat.Standing, error) {
	out, missing, err := s.heads(ctx, q, query, ids)
	if err != nil || len(missing) == 0 {
		return out, err
	}
	return out, s.fill(ctx, q, out, missing)
}

// fill reads the members of those conversations that have none yet. Members come with
// their version in one statement, so that both belong together also outside of a
// transaction.
func (s *Store) fill(ctx context.Context, q querier, out map[string]chat.Standing, missing []string) error {
	members := map[string][]chat.Member{}
	err := s.query(ctx, q, "select members", s.dialect.membersOf, missing, func(rows *sql.Rows) error {
		var id string
		var m chat.Member
		var version int64
		if err := rows.Scan(&id, &version, &m.ID, &m.Name, &m.Role, &m.Joined); err != nil {
			return err
		}
		out[id].Roster.Version = version
		members[id] = append(members[id], m)
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range missing {
		st := out[id]
		st.Roster = chat.NewRoster(st.Roster.Group, st.Roster.Version, members[id])
		out[id] = st
		s.rosters.put(id, st.Roster)
	}
	return nil
}
