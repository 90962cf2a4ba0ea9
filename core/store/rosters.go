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

// standing reads conversations, with a lock or without. Members come with their version
// in one statement, so that both belong together also outside of a transaction.
func (s *Store) standing(ctx context.Context, q querier, query string, ids []string) (map[string]chat.Standing, error) {
	out := map[string]chat.Standing{}
	missing := map[string]*chat.Roster{}
	var list []string
	scan := func(rows *sql.Rows) error {
		var id string
		var st chat.Standing
		fresh := &chat.Roster{}
		var pair string
		var blocked int
		if err := rows.Scan(&id, &st.LastSeq, &fresh.Version, &fresh.Group, &pair, &blocked); err != nil {
			return err
		}
		st.Silent = silent(pair, blocked)
		if st.Roster = s.rosters.get(id, fresh.Version); st.Roster == nil {
			missing[id], list = fresh, append(list, id)
		}
		out[id] = st
		return nil
	}
	err := s.query(ctx, q, "select conversations", query, ids, scan)
	if err != nil || len(list) == 0 {
		return out, err
	}
	members := map[string][]chat.Member{}
	err = s.query(ctx, q, "select members", s.dialect.membersOf, list, func(rows *sql.Rows) error {
		var id string
		var m chat.Member
		var version int64
		err := rows.Scan(&id, &version, &m.ID, &m.Name, &m.Role)
		missing[id].Version = version
		members[id] = append(members[id], m)
		return err
	})
	if err != nil {
		return nil, err
	}
	for id, fresh := range missing {
		roster := chat.NewRoster(fresh.Group, fresh.Version, members[id])
		st := out[id]
		st.Roster = roster
		out[id] = st
		s.rosters.put(id, roster)
	}
	return out, nil
}
