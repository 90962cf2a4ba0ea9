// Package chat is the domain of messaging as values: who may say what, what an
// accepted message looks like on its way through the log, which sequence number it
// gets, and which of the messages that reach a connection may be shown to it.
//
// # One log
//
// Everything that the members of a conversation must agree on is an entry of its log
// with a number of its own: messages, and also who was added and removed, roles, a new
// name, edits, recalls and reactions ([protocol.Event]). So one order, one kind of gap and one
// resume serve all of it, and the order of the log decides every race: a message that
// comes after its sender's removal is refused. An edit or a recall does not change the
// numbers: it is an entry of its own, and readers of the history see its outcome in the
// message it names. What is a matter of one member only (how far it has read) has no
// number. The alternative, changes in a table of their own beside the log, has to be
// merged with it by every device, and each would do that in another order.
//
// # Reactions
//
// A reaction is an entry too, as all members must agree on it: whether it came before the
// recall of its message or the removal of its sender, and who was the first. So it needs no
// order, no gap and no resume of its own. What it costs is a number each, which is skipped in
// what is unread. The entry has how many have reacted with that emoji, and in the history how
// many have by now; a client takes that as it is instead of counting, so that reading the
// history, which shows the outcome, and following the log come to the same whatever is seen
// twice. The store keeps who and how many side by side: a message is read with at most
// [MaxReactions] rows, however many have reacted.
//
// The alternative was a sideband: rows beside the log and pushes that may get lost, as for
// receipts. A receipt only grows and the newest says it all; reactions come and go, so that
// devices would need a second position for each conversation to find out what they missed,
// and the order of a reaction and a recall would be another one on each.
//
// It is pure: no clock, no store, no network. [core/api] and [core/session] validate
// with it, [core/queue] encodes with it, [core/store] numbers with it inside its
// transaction, and sessions decide with it what to push. It does not say what the
// wire looks like: that is core/protocol.
//
// # Numbering
//
// A message is accepted first (it is durable in the log) and numbered later, when it
// is stored: only the store sees all messages of a conversation, so only it can give
// numbers without gaps. The alternative, numbering at acceptance with a counter in
// Redis, leaves gaps when the process dies between counter and log, and goes
// backwards when Redis loses its memory.
//
// # Idempotency
//
// The key of a message is conversation + sender + client id, and the store keeps it
// for as long as it keeps the message. A record that comes twice (the client retried,
// the consumer died before its commit, a rebalance overlapped) gets the number that it
// already has. Keeping the consumer's offset in the same database transaction lost to
// this: it protects only against one of these three, and it silently skips new
// messages when the log's topic is created anew and its offsets start again at zero.
//
// What was refused must not be judged anew when the log delivers it again: who was removed
// since would come back by an addition that changed nothing then. So the store keeps
// refusals too, for as long as the log may have their records, by key and the time at which
// the log took the record ([Attempt]): who tries again after a refusal, or replays a dead
// letter, is judged anew.
package chat

import (
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// User is a person with a name. Names do not change.
type User struct {
	ID     string
	Name   string
	Tenant string
}

// Block is that one user blocks another one.
type Block struct{ UserID, BlockedID string }

// Conversation is a conversation as one of its members sees it.
type Conversation struct {
	ID      string
	Group   bool
	Name    string // of a group
	Open    bool   // of a group: anybody may join it
	Members []User // of a direct conversation; a group's are listed in pages
	Count   int    // of members
	Role    Role
	LastSeq int64 // of the newest stored entry, 0 when there is none
	Read    int64 // up to where the member has read
	Unread  int   // messages of others after that, of the newest UnreadWithin entries; at most MaxUnread
	Muted   bool
}

// Bounds of counting what is unread.
const (
	MaxUnread    = 100
	UnreadWithin = 1000
)

// Listed is a member as a list of members has it.
type Listed struct {
	Member
	Read, Delivered int64
}

// Mark is how far a member has got.
type Mark struct {
	Conversation    string
	UserID          string
	Read, Delivered int64
}

// With is the mark that holds after both.
func (m Mark) With(o Mark) Mark {
	m.Read, m.Delivered = max(m.Read, o.Read), max(m.Delivered, o.Delivered, m.Read, o.Read)
	return m
}

// CheckMark checks a mark of a member of a conversation that has lastSeq entries.
func CheckMark(m Mark, lastSeq int64) *protocol.Error {
	for _, f := range []struct {
		field string
		seq   int64
	}{{"read", m.Read}, {"delivered", m.Delivered}} {
		if f.seq < 0 || f.seq > lastSeq {
			return invalid(f.field, "must be the seq of an entry")
		}
	}
	if m.Read == 0 && m.Delivered == 0 {
		return invalid("read", "or delivered must be given")
	}
	return nil
}

// Span is what a user may see of a conversation: the entries after After, up to Last. A
// member that was added sees those from its addition on, one that was removed those up
// to its removal; who comes back sees those from then on.
type Span struct{ After, Last int64 }

// Searchable is what an entry means for who searches messages: that the message it is or
// changes is to be found by this from now on.
type Searchable struct {
	Seq      int64 // of the entry
	Message  int64 // seq of the message; 0 where the entry has to do with none
	Sender   string
	SentAt   time.Time
	Text     string // as it is now; empty when it was recalled, like FileName
	FileName string
}

// Head is how many entries a conversation has.
type Head struct {
	Conversation string
	LastSeq      int64
}

// Key identifies a record for idempotency.
type Key struct {
	Conversation string
	SenderID     string
	ClientID     string
}

// Attempt is a record as the log took it once. What the log delivers again is the same;
// what was sent again, under the same key, is another one.
type Attempt struct {
	Key
	LoggedAt int64 // microseconds since 1970
}

// Record is something accepted on its way through the log.
type Record struct {
	Kind         protocol.EventKind // empty for a message
	Conversation string
	ClientID     string
	SenderID     string
	Sender       string // name
	Text         string
	SentAt       time.Time // when it was accepted, microseconds, UTC
	TraceID      string    // of the request that sent it
	LoggedAt     time.Time // when the log took it, which is not in its encoding

	ReplyTo int64    // seq; of a message
	File    string   // id of a file of the sender's; of a message
	Target  int64    // seq of the message that is edited, recalled or reacted to
	Emoji   string   // of a reaction
	Members []Member // who is added, removed or given Role; their own roles say nothing
	Role    Role
	Name    string // of a group
	Open    bool   // of a group that is created; later it is EventOpened and EventClosed
}

// joins says that somebody adds itself, and nobody else.
func (r Record) joins() bool {
	return r.Kind == protocol.EventAdded && len(r.Members) == 1 && r.Members[0].ID == r.SenderID
}

// Key returns the idempotency key of r.
func (r Record) Key() Key {
	return Key{Conversation: r.Conversation, SenderID: r.SenderID, ClientID: r.ClientID}
}

// Attempt tells r from others of its key.
func (r Record) Attempt() Attempt { return Attempt{Key: r.Key(), LoggedAt: r.LoggedAt.UnixMicro()} }
