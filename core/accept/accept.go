// Package accept takes messages from senders, by REST and by WebSocket alike: it checks
// the message and the membership, and hands it to the log. A message is accepted when
// the log has it; storing and numbering come later (core/deliver).
//
// Membership is read from the store once and then remembered, within a bound: members
// of a direct conversation never change. The store decides again when it numbers, so
// a wrong memory could not let anyone in.
package accept

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Conversations is where membership is kept.
type Conversations interface {
	// Conversation answers chat.ErrNotFound where there is none.
	Conversation(ctx context.Context, id string) (chat.Conversation, error)
}

// Log makes records durable.
type Log interface {
	// Accept returns at once and calls done exactly once: with nil when the record is
	// durable, else with an error, after which it may or may not become durable.
	Accept(ctx context.Context, r chat.Record, done func(error))
}

// Acceptor accepts. It is safe for concurrent use.
type Acceptor struct {
	conversations Conversations
	log           Log
	members       *members
	now           func() time.Time
	timeout       time.Duration
}

// New prepares an acceptor; a sender whose message is not durable after timeout is told
// so.
func New(conversations Conversations, log Log, timeout time.Duration, now func() time.Time) *Acceptor {
	return &Acceptor{conversations: conversations, log: log, members: newMembers(100_000), now: now, timeout: timeout}
}

// Accept checks and accepts a message of a user, and calls done exactly once, possibly
// before it returns. Messages of one conversation that one goroutine sends keep their
// order. The error of done is a *protocol.Error, or another one that the sender must not
// see; unless it is about the message itself, the message may still come through, and
// sending it again under its client id is safe.
func (a *Acceptor) Accept(ctx context.Context, from chat.User, m protocol.Send, traceID string, done func(protocol.Accepted, error)) {
	if err := chat.CheckSend(m.Conversation, m.ClientID, m.Text); err != nil {
		done(protocol.Accepted{}, err)
		return
	}
	if err := a.Member(ctx, m.Conversation, from.ID); err != nil {
		done(protocol.Accepted{}, err)
		return
	}
	record := chat.Record{
		Conversation: m.Conversation, ClientID: m.ClientID, SenderID: from.ID, Sender: from.Name,
		Text: m.Text, SentAt: a.now().UTC().Truncate(time.Microsecond), TraceID: traceID,
	}
	once := newOnce(a.timeout, func(err error) {
		if err != nil {
			done(protocol.Accepted{}, err)
			return
		}
		done(protocol.Accepted{ClientID: m.ClientID, TraceID: traceID}, nil)
	})
	a.log.Accept(ctx, record, once.done)
}

// Member says whether a user may read and write a conversation: nil, a *protocol.Error,
// or what went wrong with the store. A conversation that does not exist and one of other
// people give the same answer.
func (a *Acceptor) Member(ctx context.Context, conversation, userID string) error {
	if a.members.has(conversation, userID) {
		return nil
	}
	c, err := a.conversations.Conversation(ctx, conversation)
	if errors.Is(err, chat.ErrNotFound) || err == nil && !c.Has(userID) {
		return protocol.NewError(protocol.CodeNotFound, "conversation", "there is no such conversation of yours")
	}
	if err != nil {
		return fmt.Errorf("check membership: %w", err)
	}
	for _, m := range c.Members {
		a.members.add(conversation, m.ID)
	}
	return nil
}
