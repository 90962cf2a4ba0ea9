// Package accept takes what users want in the log, by REST and by WebSocket alike: it
// checks it, looks whether the user may, and hands it to the log. It is accepted when the
// log has it; storing and numbering come later (core/deliver).
//
// Whether a user may is read from the store each time: a row or two, since members are
// remembered there by their version, or asked for one by one. So a change of members holds at once for all
// processes, without a message between them and without a time for which an old answer
// is good. The store decides once more when it numbers, for what was on its way.
//
// While the store is down, messages of those who were members when they last sent one
// are accepted all the same, until the log says that too much waits to be stored.
package accept

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// Conversations is where members and messages are kept.
type Conversations interface {
	// Standing says who is in a conversation now. It answers chat.ErrNotFound where
	// there is none.
	Standing(ctx context.Context, conversation string) (chat.Standing, error)
	// StandingOf is the same for who only asks about one user.
	StandingOf(ctx context.Context, conversation, userID string) (chat.Standing, error)
	// Target answers chat.ErrNotFound where the user sees no entry of that seq.
	Target(ctx context.Context, userID, conversation string, seq int64) (chat.Target, error)
	// Reactions are those of a message, as a user sees them.
	Reactions(ctx context.Context, userID, conversation string, seq int64) ([]protocol.Reaction, error)
	// File answers chat.ErrNotFound where there is none that the user may see.
	File(ctx context.Context, userID, id string) (chat.File, error)
}

// Log makes records durable.
type Log interface {
	// Full says that too much waits to be stored: nothing more is accepted for now.
	Full() bool
	// Accept returns at once and calls done exactly once: with nil when the record is
	// durable, else with an error, after which it may or may not become durable.
	Accept(ctx context.Context, r chat.Record, done func(error))
}

// Config bounds what is accepted.
type Config struct {
	Timeout    time.Duration // after which a sender whose record is not durable is told so
	EditWithin time.Duration // after it was sent, a message may not be edited any more; 0: always
}

// Acceptor accepts. It is safe for concurrent use.
type Acceptor struct {
	conversations Conversations
	log           Log
	members       *members
	down          atomic.Int64 // until when, in unix nanoseconds, the store is not asked about known members
	now           func() time.Time
	timeout       time.Duration
	editWithin    atomic.Int64 // nanoseconds
}

// New prepares an acceptor.
func New(conversations Conversations, log Log, cfg Config, now func() time.Time) *Acceptor {
	a := &Acceptor{conversations: conversations, log: log, members: newMembers(100_000), now: now, timeout: cfg.Timeout}
	a.EditWithin(cfg.EditWithin)
	return a
}

// EditWithin replaces how long a message may be edited.
func (a *Acceptor) EditWithin(d time.Duration) { a.editWithin.Store(int64(d)) }

// Done is called exactly once, possibly before the call that it was given to returns.
// Its error is a *protocol.Error, or another one that the sender must not see; unless it
// is about the request itself, that may still come through, and repeating it under its
// client id is safe.
type Done = func(protocol.Accepted, error)

// Accept checks and accepts a message of a user. What one goroutine sends to one
// conversation keeps its order.
func (a *Acceptor) Accept(ctx context.Context, from chat.User, m protocol.Send, traceID string, done Done) {
	a.accept(ctx, from, chat.Record{Conversation: m.Conversation, ClientID: m.ClientID, Text: m.Text, ReplyTo: m.ReplyTo, File: m.File}, traceID, done)
}

// Edit accepts a new text for a message.
func (a *Acceptor) Edit(ctx context.Context, from chat.User, m protocol.Edit, traceID string, done Done) {
	a.accept(ctx, from, chat.Record{
		Kind: protocol.EventEdited, Conversation: m.Conversation, ClientID: m.ClientID, Text: m.Text, Target: m.Seq,
	}, traceID, done)
}

// Recall accepts that a message is taken back. Its key follows from the message, so that
// it takes effect once.
func (a *Acceptor) Recall(ctx context.Context, from chat.User, m protocol.Recall, traceID string, done Done) {
	a.accept(ctx, from, chat.Record{
		Kind: protocol.EventRecalled, Conversation: m.Conversation, ClientID: fmt.Sprintf("recall.%d", m.Seq), Target: m.Seq,
	}, traceID, done)
}

// React accepts a reaction to a message, Unreact that it is taken back. The kind before
// their client ids keeps them apart from messages, and a reaction from its end.
func (a *Acceptor) React(ctx context.Context, from chat.User, m protocol.React, traceID string, done Done) {
	a.react(ctx, from, protocol.EventReacted, m, traceID, done)
}

// Unreact is as React.
func (a *Acceptor) Unreact(ctx context.Context, from chat.User, m protocol.React, traceID string, done Done) {
	a.react(ctx, from, protocol.EventUnreacted, m, traceID, done)
}

func (a *Acceptor) react(ctx context.Context, from chat.User, kind protocol.EventKind, m protocol.React, traceID string, done Done) {
	if err := chat.CheckClientID(m.ClientID); err != nil {
		done(protocol.Accepted{}, err)
		return
	}
	a.accept(ctx, from, chat.Record{
		Kind: kind, Conversation: m.Conversation, ClientID: string(kind) + "." + m.ClientID, Target: m.Seq, Emoji: m.Emoji,
	}, traceID, done)
}

// Change accepts a change of a group: a record with its kind, its conversation, its
// client id and what it changes.
func (a *Acceptor) Change(ctx context.Context, from chat.User, r chat.Record, traceID string, done Done) {
	a.accept(ctx, from, r, traceID, done)
}

func (a *Acceptor) accept(ctx context.Context, from chat.User, r chat.Record, traceID string, done Done) {
	r.SenderID, r.Sender, r.TraceID = from.ID, from.Name, traceID
	r.SentAt = a.now().UTC().Truncate(time.Microsecond)
	if err := chat.CheckRecord(r); err != nil {
		done(protocol.Accepted{}, err)
		return
	}
	if a.log.Full() { // before the store is asked, which cannot keep up
		done(protocol.Accepted{}, protocol.NewError(protocol.CodeRateLimited, "", "messages are not stored fast enough at the moment: send it again under the same client_id"))
		return
	}
	accepted := protocol.Accepted{ClientID: r.ClientID, TraceID: traceID}
	if already, err := a.may(ctx, r); err != nil || already {
		done(accepted, err)
		return
	}
	once := newOnce(a.timeout, func(err error) {
		if err != nil {
			done(protocol.Accepted{}, err)
			return
		}
		done(accepted, nil)
	})
	a.log.Accept(ctx, r, once.done)
}

// storePatience is how long the store may take to say whether a known member may send,
// and storePause how long it is left alone after it could not.
const (
	storePatience = 500 * time.Millisecond
	storePause    = time.Second
)

// may says whether the sender may: nil, a *protocol.Error, or what went wrong with the
// store; already says that there is nothing to do, since it is stored that way.
func (a *Acceptor) may(ctx context.Context, r chat.Record) (already bool, err error) {
	plain := r.Kind == "" && r.ReplyTo == 0 && r.File == ""
	known := plain && a.members.has(r.Conversation, r.SenderID)
	if known && a.now().UnixNano() < a.down.Load() {
		return false, nil
	}
	asking := ctx
	if known {
		patient, cancel := context.WithTimeout(ctx, storePatience)
		defer cancel()
		asking = patient
	}
	standing, err := a.standing(asking, r)
	switch {
	case errors.Is(err, chat.ErrNotFound):
		return false, chat.NoConversation()
	case err != nil && known && ctx.Err() == nil: // a sender who does not wait says nothing about the store
		a.down.Store(a.now().Add(storePause).UnixNano())
		return false, nil
	case err != nil:
		return false, fmt.Errorf("check membership: %w", err)
	}
	if no := chat.Allow(standing, r); no != nil {
		a.members.remove(r.Conversation, r.SenderID)
		return false, no
	}
	a.members.add(r.Conversation, r.SenderID)
	if plain {
		return false, nil
	}
	if r.File != "" {
		if err := a.mayAttach(ctx, r); err != nil {
			return false, err
		}
	}
	target, err := a.mayTarget(ctx, standing, r)
	if err == nil && r.Emoji != "" {
		err = a.mayReact(ctx, r)
	}
	return chat.Already(standing, r, target), err
}

// standing is about the sender only, except where members of a group are at stake.
func (a *Acceptor) standing(ctx context.Context, r chat.Record) (chat.Standing, error) {
	if len(r.Members) > 0 {
		return a.conversations.Standing(ctx, r.Conversation)
	}
	return a.conversations.StandingOf(ctx, r.Conversation, r.SenderID)
}

// mayAttach looks at the file that a message carries: only its uploader sends it.
func (a *Acceptor) mayAttach(ctx context.Context, r chat.Record) error {
	f, err := a.conversations.File(ctx, r.SenderID, r.File)
	if errors.Is(err, chat.ErrNotFound) || err == nil && f.OwnerID != r.SenderID {
		return protocol.NewError(protocol.CodeNotFound, "file", "there is no such file of yours")
	}
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	return nil
}

// mayReact looks at what others have reacted to the message with.
func (a *Acceptor) mayReact(ctx context.Context, r chat.Record) error {
	list, err := a.conversations.Reactions(ctx, r.SenderID, r.Conversation, r.Target)
	if err != nil {
		return fmt.Errorf("read reactions: %w", err)
	}
	if no := chat.AllowReaction(r, list); no != nil {
		return no
	}
	return nil
}

// mayTarget looks at the message that an edit, a recall, a reaction or a reply names, if any.
func (a *Acceptor) mayTarget(ctx context.Context, standing chat.Standing, r chat.Record) (chat.Target, error) {
	seq, field := r.Target, "seq"
	if r.Kind == "" {
		seq, field = r.ReplyTo, "reply_to"
	}
	if seq == 0 {
		return chat.Target{}, nil
	}
	t, err := a.conversations.Target(ctx, r.SenderID, r.Conversation, seq)
	if errors.Is(err, chat.ErrNotFound) || err == nil && t.Kind != "" {
		return t, protocol.NewError(protocol.CodeNotFound, field, "there is no such message")
	}
	if err != nil {
		return t, fmt.Errorf("read message: %w", err)
	}
	if r.Kind == "" {
		return t, nil
	}
	if no := chat.AllowTarget(standing, r, t); no != nil {
		return t, no
	}
	if within := time.Duration(a.editWithin.Load()); r.Kind == protocol.EventEdited && within > 0 && r.SentAt.Sub(t.SentAt) > within {
		return t, protocol.NewError(protocol.CodePermissionDenied, "seq", fmt.Sprintf("a message may be edited for %v", within))
	}
	return t, nil
}
