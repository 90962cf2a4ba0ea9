package store

import (
	"errors"
	"fmt"

	"github.com/tracegate/tracegate/core/chat"
)

// dialect is what differs between the databases. Lists go into a statement as one JSON
// array, which both can read as a table: a batch of any size is one round trip.
type dialect struct {
	name string // also the folder of its migrations
	// lockMigrations keeps two processes from migrating at once; empty where
	// beginning the transaction does it.
	lockMigrations string

	// Statements of Append; $1 is JSON.
	lockConversations string // [id] -> id, last_seq
	membersOf         string // [id] -> conversation_id, user_id
	existing          string // [{c,s,k}] -> conversation_id, sender_id, client_id, seq
	insertMessages    string // [{c,q,s,n,k,t,a,r}]
	setLastSeq        string // [{c,q}]
	// headsOf: [user id] -> user_id, conversation_id, last_seq
	headsOf string

	// permanent says that a statement failed because of its data.
	permanent func(error) bool
	// unique says that it failed because a unique key exists already.
	unique func(error) bool
}

// classify names the step and says by chat.ErrUnstorable and chat.ErrExists what kind of
// failure it was; nil stays nil.
func (d dialect) classify(step string, err error) error {
	switch {
	case err == nil:
		return nil
	case d.unique(err):
		return fmt.Errorf("%s: %w", step, errors.Join(chat.ErrExists, chat.ErrUnstorable, err))
	case d.permanent(err):
		return fmt.Errorf("%s: %w", step, errors.Join(chat.ErrUnstorable, err))
	default:
		return fmt.Errorf("%s: %w", step, err)
	}
}
