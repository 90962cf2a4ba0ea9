package chat

import (
	"slices"

	"github.com/tracegate/tracegate/core/protocol"
)

// Reason says why a record can never be stored; it is the label of a counter and a
// header of the dead letter.
type Reason string

// The closed list.
const (
	ReasonUndecodable  Reason = "undecodable"  // DecodeRecord refused it
	ReasonConversation Reason = "conversation" // there is no such conversation
	ReasonNotMember    Reason = "not_member"   // the sender is not in it, or not any more
	ReasonForbidden    Reason = "forbidden"    // Allow or AllowTarget says no, by now
	ReasonBlocked      Reason = "blocked"      // the other one of a direct conversation, or whoever is to be added, blocks the sender
	ReasonNoEffect     Reason = "no_effect"    // another record has done the same before it
	ReasonTarget       Reason = "target"       // there is no message of that seq
	ReasonFile         Reason = "file"         // there is no such file of the sender's, or not any more
	ReasonRefused      Reason = "refused"      // the database refuses the row itself
)

// Reasons is the closed list, for those who want a counter for each.
func Reasons() []Reason {
	return []Reason{
		ReasonUndecodable, ReasonConversation, ReasonNotMember, ReasonForbidden, ReasonBlocked,
		ReasonNoEffect, ReasonTarget, ReasonFile, ReasonRefused,
	}
}

// Numbered is what becomes of one record of a batch. Its Members are only those for
// whom the record makes a difference.
type Numbered struct {
	Record
	Seq       int64   // 0 when refused
	Duplicate bool    // stored before, under Seq
	Refused   Reason  // empty when it is stored
	Roster    *Roster // after the record; whom to tell, beside a removed member
	Attached  *protocol.File
	Tally     Tally // of a reaction, after it
}

// Message is the entry as its readers get it.
func (n Numbered) Message() protocol.Message {
	m := protocol.Message{
		Conversation: n.Conversation, Seq: n.Seq, ClientID: n.ClientID, Sender: n.Sender,
		Text: n.Text, SentAt: n.SentAt, TraceID: n.TraceID, ReplyTo: n.ReplyTo, File: n.Attached,
	}
	if n.Kind != "" {
		m.Event = n.Event()
		m.Event.Count = n.Tally.Count
	}
	return m
}

// Event is the change that a record of a kind makes.
func (r Record) Event() *protocol.Event {
	e := &protocol.Event{Kind: r.Kind, Name: r.Name, Target: r.Target, Emoji: r.Emoji}
	for _, m := range r.Members {
		e.Members = append(e.Members, m.Name)
	}
	if r.Kind == protocol.EventRole {
		e.Role = r.Role.String()
	}
	return e
}

// Place is where an entry stands.
type Place struct {
	Conversation string
	Seq          int64
}

// State is what the store knows of the conversations of a batch, read under the lock
// that makes the numbers right.
type State struct {
	Standing map[string]Standing // by conversation; missing = no such conversation
	Existing map[Key]int64       // seq of records that are stored already
	Refused  map[Attempt]Reason  // of records that were refused already
	Targets  map[Place]Target    // of the entries that edits, recalls and reactions name
	Tallies  map[Place][]Tally   // of the messages that reactions name
	Reacted  map[Reaction]bool   // those of the senders of reactions
	Files    map[string]File     // by id, of those that messages carry
	Blocks   map[Block]bool      // by those whom records add, of the senders
}

// Number gives each record of a batch its sequence number, in the order of the batch:
// the next one of its conversation, the one it already has when it is a repetition
// (also of a record earlier in the batch), or none when it is refused. A record is
// judged by the members and messages that those before it have left, so the order of
// the log alone decides whether a message came before its sender was removed; one that was
// refused already stays so, as those before it have left something else by then. The
// state is not changed.
func Number(records []Record, s State) []Numbered {
	b := batch{state: s, standing: map[string]Standing{}, given: map[Key]int64{}}
	if slices.ContainsFunc(records, func(r Record) bool { return r.Target > 0 }) {
		b.targets = map[Place]Target{}
	}
	out := make([]Numbered, 0, len(records))
	for _, r := range records {
		out = append(out, b.number(r))
	}
	return out
}

// batch is a state with what the records before have changed.
type batch struct {
	state    State
	standing map[string]Standing
	given    map[Key]int64
	targets  map[Place]Target // nil where no record names one
	tallies  map[Place][]Tally
	reacted  map[Reaction]bool
}

func (b *batch) number(r Record) Numbered {
	n := Numbered{Record: r}
	now, exists := b.standing[r.Conversation]
	if !exists {
		if now, exists = b.state.Standing[r.Conversation]; !exists {
			n.Refused = ReasonConversation
			return n
		}
	}
	n.Roster = now.Roster
	key := r.Key()
	if seq := max(b.state.Existing[key], b.given[key]); seq > 0 {
		n.Seq, n.Duplicate = seq, true
		return n
	}
	if n.Refused = b.state.Refused[r.Attempt()]; n.Refused != "" {
		return n
	}
	if n.Refused = b.judge(now, &n); n.Refused != "" {
		return n
	}
	now.LastSeq++
	n.Seq = now.LastSeq
	now.Roster = apply(now.Roster, n)
	n.Roster = now.Roster
	if isOpening(n.Kind) {
		now.Open = n.Kind == protocol.EventOpened
	}
	b.standing[r.Conversation], b.given[key] = now, n.Seq
	if b.targets != nil {
		b.targets[Place{r.Conversation, n.Seq}] = Target{Kind: r.Kind, SenderID: r.SenderID, SentAt: r.SentAt, File: r.File}
	}
	return n
}

// judge says why a record is refused, or "", and leaves those members in it for whom it
// makes a difference.
func (b *batch) judge(now Standing, n *Numbered) Reason {
	if err := Allow(now, n.Record); err != nil {
		_, in := now.Roster.Find(n.SenderID)
		switch {
		case !in && err.Code == protocol.CodeNotFound:
			return ReasonNotMember
		case err.Code == protocol.CodeNotFound: // somebody else has removed the member
			return ReasonNoEffect
		case now.Speaks(n.SenderID) != nil:
			return ReasonBlocked
		}
		return ReasonForbidden
	}
	if n.File != "" {
		file, ok := b.state.Files[n.File]
		if !ok || file.OwnerID != n.SenderID {
			return ReasonFile
		}
		n.Attached = &file.File
	}
	switch n.Kind {
	case protocol.EventAdded:
		if n.Members = newcomers(now.Roster, n.Members); len(n.Members) == 0 {
			return ReasonNoEffect
		}
		blocks := func(m Member) bool { return b.state.Blocks[Block{m.ID, n.SenderID}] }
		if n.Members = slices.DeleteFunc(n.Members, blocks); len(n.Members) == 0 {
			return ReasonBlocked
		}
	case protocol.EventOpened, protocol.EventClosed:
		if Already(now, n.Record, Target{}) {
			return ReasonNoEffect
		}
	case protocol.EventEdited, protocol.EventRecalled:
		return b.judgeTarget(now, n)
	case protocol.EventReacted, protocol.EventUnreacted:
		if why := b.judgeTarget(now, n); why != "" {
			return why
		}
		return b.judgeReaction(now, n)
	}
	return ""
}

func (b *batch) judgeTarget(now Standing, n *Numbered) Reason {
	place := Place{n.Conversation, n.Target}
	t, ok := b.targets[place]
	if !ok {
		if t, ok = b.state.Targets[place]; !ok {
			return ReasonTarget
		}
	}
	switch {
	case AllowTarget(now, n.Record, t) != nil:
		return ReasonForbidden
	case n.Kind == protocol.EventRecalled && t.Recalled:
		return ReasonNoEffect
	}
	if n.Kind == protocol.EventRecalled {
		t.Recalled = true
	}
	b.targets[place] = t
	return ""
}

// apply is the roster after a record that was judged to be good.
func apply(r *Roster, n Numbered) *Roster {
	switch n.Kind {
	case protocol.EventAdded:
		return r.with(n.Seq, n.Members...)
	case protocol.EventRemoved:
		return r.without(n.Seq, n.Members[0].ID)
	case protocol.EventRole:
		return r.with(n.Seq, n.Changed(r)...)
	default:
		return r
	}
}

// Changed are the members that a record of a role leaves with another one: whoever gets
// it and, where that is the owner's, the one who gives it away.
func (n Numbered) Changed(before *Roster) []Member {
	m, _ := before.Find(n.Members[0].ID)
	m.Role = n.Role
	out := []Member{m}
	if actor, ok := before.Find(n.SenderID); ok && n.Role == RoleOwner && actor.ID != m.ID {
		actor.Role = RoleAdmin
		out = append(out, actor)
	}
	return out
}
