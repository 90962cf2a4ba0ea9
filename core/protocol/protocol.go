// Package protocol is what core and its clients say to each other: REST bodies,
// WebSocket frames and the closed list of errors. It is pure and has no state;
// the server is core, a client for Go is edge/client, the one for browsers is
// the chat page.
//
// WebSocket: one JSON object a frame. A frame with an id is a command; its reply
// carries the same id. A frame without an id is a push.
package protocol

import (
	"slices"
	"time"
)

// Message is one entry of a conversation: a message or, where Event is set, a change.
// Seq is its offset: it starts at 1, has no gaps and is given when the entry is stored,
// after it was accepted. Every member's devices see the same entries in this order, so
// that all agree on who was there when, and on what was edited or taken back.
type Message struct {
	Conversation string    `json:"conversation"`
	Seq          int64     `json:"seq"`
	ClientID     string    `json:"client_id"` // chosen by the sender; conversation + sender + client id is the idempotency key
	Sender       string    `json:"sender"`    // user name
	Text         string    `json:"text"`
	SentAt       time.Time `json:"sent_at"`  // when core accepted it
	TraceID      string    `json:"trace_id"` // of the request that sent it

	ReplyTo  int64  `json:"reply_to,omitempty"` // seq of the message that this one answers
	Edited   bool   `json:"edited,omitempty"`   // Text is not the first one any more
	Recalled bool   `json:"recalled,omitempty"` // Text has been taken back and is empty, and File is gone
	File     *File  `json:"file,omitempty"`
	Event    *Event `json:"event,omitempty"`

	Reactions []Reaction `json:"reactions,omitempty"` // each emoji once, in the order in which they came up
}

// Reaction is an emoji that members have reacted to a message with, as it stands now.
type Reaction struct {
	Emoji string `json:"emoji"`
	Count int    `json:"count"`          // members
	Mine  bool   `json:"mine,omitempty"` // the reader is one of them
}

// Begins says whether the entry is where a user's part of the conversation begins: it
// sees nothing before it, so a step in seq to this entry is no gap.
func (m Message) Begins(user string) bool {
	return m.Event != nil && (m.Event.Kind == EventCreated || m.Event.Kind == EventAdded) && slices.Contains(m.Event.Members, user)
}

// EventKind says what an entry changed; empty for a message.
type EventKind string

// The closed list.
const (
	EventCreated  EventKind = "created"  // a group, with its first Members and Name
	EventAdded    EventKind = "added"    // Members, by Sender; a member that joined is its own Sender
	EventRemoved  EventKind = "removed"  // Members, by Sender; a member that left is its own Sender
	EventRole     EventKind = "role"     // Members have Role now
	EventRenamed  EventKind = "renamed"  // to Name
	EventOpened   EventKind = "opened"   // a group: anybody may join it
	EventClosed   EventKind = "closed"   // a group: nobody may any more
	EventEdited   EventKind = "edited"   // the message Target, to Text (its newest, where that is another)
	EventRecalled EventKind = "recalled" // the message Target

	EventReacted   EventKind = "reacted"   // its Sender has reacted to Target with Emoji: Count have now
	EventUnreacted EventKind = "unreacted" // its Sender has taken that back
)

// Event is a change of a conversation or of a message in it.
type Event struct {
	Kind    EventKind `json:"kind"`
	Members []string  `json:"members,omitempty"` // names; those for whom it made a difference
	Role    string    `json:"role,omitempty"`    // member, admin or owner
	Name    string    `json:"name,omitempty"`
	Target  int64     `json:"target,omitempty"` // seq
	Emoji   string    `json:"emoji,omitempty"`
	Count   int       `json:"count,omitempty"` // of those who have reacted with Emoji then, or by now
}

// Command is a client's frame; exactly one of the pointers is set.
type Command struct {
	ID      uint32  `json:"id"`
	Send    *Send   `json:"send,omitempty"`
	Edit    *Edit   `json:"edit,omitempty"`
	Recall  *Recall `json:"recall,omitempty"`
	React   *React  `json:"react,omitempty"`
	Unreact *React  `json:"unreact,omitempty"`
	Mark    *Mark   `json:"mark,omitempty"`
	Typing  *Typing `json:"typing,omitempty"`
	Resume  *Resume `json:"resume,omitempty"`
	Ping    *Ping   `json:"ping,omitempty"`
}

// Send asks to accept a message. Its reply comes when the message is durable.
type Send struct {
	Conversation string `json:"conversation"`
	ClientID     string `json:"client_id"`
	Text         string `json:"text"`
	ReplyTo      int64  `json:"reply_to,omitempty"` // seq of a message of the conversation
	File         string `json:"file,omitempty"`     // id of a file that the user has uploaded; Text may be empty then
}

// Edit asks to replace the text of a message of one's own. ClientID makes repeating it
// safe; it must not be that of a message. The reply is as for Send.
type Edit struct {
	Conversation string `json:"conversation"`
	Seq          int64  `json:"seq"`
	ClientID     string `json:"client_id"`
	Text         string `json:"text"`
}

// Recall asks to take back a message: one's own or, as an admin of a group, anybody's.
// Repeating it is safe. The reply is as for Send.
type Recall struct {
	Conversation string `json:"conversation"`
	Seq          int64  `json:"seq"`
}

// React asks to react to a message, or to take that back. ClientID makes repeating it safe;
// it must be a new one each time. The reply is as for Send.
type React struct {
	Conversation string `json:"conversation"`
	Seq          int64  `json:"seq"`
	Emoji        string `json:"emoji"`
	ClientID     string `json:"client_id"`
}

// Mark says how far the user has read a conversation, and how far a device of its has
// got (Delivered; what is read has been delivered). Positions only grow, so repeating it
// is safe, and one Mark stands for all before it. Its reply, a Receipt with the positions
// that hold now, is sent when they are durable.
type Mark struct {
	Conversation string `json:"conversation"`
	Read         int64  `json:"read,omitempty"`
	Delivered    int64  `json:"delivered,omitempty"`
}

// Typing says that the user is writing. It is kept nowhere; the reply repeats it. It
// should be sent every few seconds, and at most once a second is passed on.
type Typing struct {
	Conversation string `json:"conversation"`
	User         string `json:"user,omitempty"` // name; of a push
}

// Resume asks for what was missed: Positions maps a conversation to the last seq
// the client has seen. Conversations that are not named are sent from their next
// message on. Epoch is the one the client was told in its last Hello; where it
// differs from the server's, the reply says Recovered: false and every
// conversation is sent from its next message on.
//
// It should be the first command on every connection, with no positions on a first
// one: the server holds messages back until the first command, or for two seconds
// where none comes, so that what was missed is pushed before what is new. From then
// on each conversation's messages come exactly once and in order on a connection.
type Resume struct {
	Token     string           `json:"token,omitempty"` // from Reconnect or Hello
	Epoch     string           `json:"epoch"`
	Positions map[string]int64 `json:"positions"`
}

// Ping asks for a Pong, so that a client may measure the round trip.
type Ping struct{}

// Frame is a server's frame: a reply (ID set) or a push.
type Frame struct {
	ID        uint32     `json:"id,omitempty"`
	Error     *Error     `json:"error,omitempty"`
	Accepted  *Accepted  `json:"accepted,omitempty"`
	Resumed   *Resumed   `json:"resumed,omitempty"`
	Pong      *Ping      `json:"pong,omitempty"`
	Hello     *Hello     `json:"hello,omitempty"`
	Message   *Message   `json:"message,omitempty"`
	Receipt   *Receipt   `json:"receipt,omitempty"`
	Typing    *Typing    `json:"typing,omitempty"`
	Friend    *Friend    `json:"friend,omitempty"`
	Reconnect *Reconnect `json:"reconnect,omitempty"`
}

// Accepted says that a message is durable in the log (Kafka, acks=all) and will be
// stored, numbered and delivered even if this process dies now.
type Accepted struct {
	ClientID string `json:"client_id"`
	TraceID  string `json:"trace_id"`
}

// Receipt is how far a user has got in a conversation. A push of it may get lost: the
// positions are in the list of members, one's own in that of conversations.
type Receipt struct {
	Conversation string `json:"conversation"`
	User         string `json:"user"` // name
	Read         int64  `json:"read"`
	Delivered    int64  `json:"delivered"`
}

// Friend is how the user stands to another one now: none, outgoing (a request), incoming or
// friend. A push of it may get lost; the list of friends is what holds.
type Friend struct {
	User  string `json:"user"` // name
	State string `json:"state"`
}

// Resumed ends a replay: what was missed has been pushed before it.
type Resumed struct {
	Recovered bool `json:"recovered"`
	Replayed  int  `json:"replayed"`
}

// Hello is the first push on every connection.
type Hello struct {
	User    string `json:"user"`
	Session string `json:"session"`
	Epoch   string `json:"epoch"`
	Resume  string `json:"resume"` // token for Resume on the next connection
	Group   string `json:"group"`
	Pool    string `json:"pool"`
	Node    string `json:"node"`
}

// Reconnect asks the client to open a new connection after DelayMS and to resume
// there; the edge will route it to where its group now lives. The old connection
// goes on working until the client closes it, for at most GraceMS.
type Reconnect struct {
	DelayMS int64  `json:"delay_ms"`
	GraceMS int64  `json:"grace_ms"`
	Resume  string `json:"resume"`
	Reason  string `json:"reason"`
}
