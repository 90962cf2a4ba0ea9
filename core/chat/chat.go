// Package chat is the domain of messaging as values: who may say what, what an
// accepted message looks like on its way through the log, which sequence number it
// gets, and which of the messages that reach a connection may be shown to it.
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
package chat

import "time"

// User is a person with a name. Names do not change.
type User struct {
	ID     string
	Name   string
	Tenant string
}

// Conversation is a stream of messages between its members.
type Conversation struct {
	ID      string
	Members []User
	LastSeq int64 // of the newest stored message, 0 when there is none
}

// Has says whether the user is a member: the rule for reading and for writing.
func (c Conversation) Has(userID string) bool {
	for _, m := range c.Members {
		if m.ID == userID {
			return true
		}
	}
	return false
}

// Key identifies a message for idempotency.
type Key struct {
	Conversation string
	SenderID     string
	ClientID     string
}

// Record is an accepted message on its way through the log.
type Record struct {
	Conversation string
	ClientID     string
	SenderID     string
	Sender       string // name
	Text         string
	SentAt       time.Time // when it was accepted, microseconds, UTC
	TraceID      string    // of the request that sent it
}

// Key returns the idempotency key of r.
func (r Record) Key() Key {
	return Key{Conversation: r.Conversation, SenderID: r.SenderID, ClientID: r.ClientID}
}
