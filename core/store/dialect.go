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
	lockConversations string // [id] -> id, last_seq, member_seq, is a group, pair, blocked, member_count, open, refused_at
	membersOf         string // [id] -> id, member_seq, user_id, name, role
	existing          string // [keyRow] -> conversation_id, sender_id, client_id, seq
	refusals          string // [attemptRow] -> conversation_id, sender_id, client_id, logged_at, reason
	targets           string // [keyRow] -> conversation_id, seq, kind, sender_id, sent_at, recalled, file_id
	// reactions is a column: those of message m as user $2 sees them, as JSON; see
	// readReactions
	reactions       string
	tallies         string // [keyRow] -> conversation_id, seq, emoji, count, since
	reacted         string // [reactionRow] -> conversation_id, seq, emoji, user_id
	addReactions    string // [reactionRow], those that are on
	removeReactions string // [reactionRow], those that are off
	setTallies      string // [tallyRow], those above 0
	removeTallies   string // [tallyRow], the others
	clearReactions  string // [keyRow]
	clearTallies    string // [keyRow]
	// messagesAt: [keyRow], user id -> conversation_id, entryColumns and reactions of the messages that it sees as they are now
	messagesAt     string
	lockFiles      string // [id] -> fileColumns of those that are whole
	useFiles       string // [fileUse]
	insertMessages string // [plainRow]
	insertEntries  string // [entryRow]
	changeMessages string // [messageRow]
	changeMembers  string // [memberRow]
	setHeads       string // [headRow]
	insertRefusals string // [attemptRow]; those that are there stay
	setRefused     string // [attemptRow]
	standingOf     string // lockConversations without the lock
	mark           string // [markRow] -> conversation_id, user_id, read_seq, delivered_seq
	// headsOf: [user id] -> user_id, conversation_id, joined_seq, last seq that it sees
	headsOf string
	// forUpdate ends a SELECT whose rows are to be held until the transaction ends
	forUpdate string
	// lockUsers: [id] -> id; held until the transaction ends
	lockUsers string
	// blockersOf: [user id], user id -> those of the list that block that one
	blockersOf string
	blocksOf   string // [blockRow] -> user_id, blocked_id of those that there are
	peopleOf   string // [id] -> conversation_id, user_id, name, tenant
	countsOf   string // [user id] -> user_id, number of its conversations
	usersOf    string // [name] -> id, name, tenant

	// permanent says that a statement failed because of its data.
	permanent func(error) bool
	// unique says that it failed because a unique key exists already.
	unique func(error) bool
}

// What both dialects read of conversations, and of who is in them, by a list of ids.
const (
	selectStanding = `SELECT id, last_seq, member_seq, pair IS NULL, COALESCE(pair, ''), blocked, member_count, open, refused_at FROM conversations WHERE id IN `
	selectMembers  = `SELECT c.id, c.member_seq, u.id, u.name, m.role, m.joined_seq FROM conversations c JOIN members m ON m.conversation_id = c.id
			JOIN users u ON u.id = m.user_id WHERE m.left_seq = 0 AND c.id IN `
)

// flag is a column that says yes or no.
func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// onMember ends changeMembers: a joined_seq below 0 is no new one.
const onMember = `ON CONFLICT (conversation_id, user_id) DO UPDATE SET role = excluded.role, left_seq = excluded.left_seq,
	joined_seq = CASE WHEN excluded.joined_seq < 0 THEN members.joined_seq ELSE excluded.joined_seq END`

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
