package chat

import (
	"maps"
	"slices"
	"strings"
)

// Verdict says what to do with a message that reaches a connection.
type Verdict int

// The three cases.
const (
	Deliver Verdict = iota // it is the next one: push it
	Drop                   // the connection had it already
	Gap                    // something before it is missing: read from the store
)

// Position is the last sequence number of a conversation that was pushed.
type Position struct {
	Conversation string
	Seq          int64
}

// Positions are the last sequence numbers that were pushed to a connection, by
// conversation. They alone make delivery to a connection exactly once and in order:
// whatever comes late, twice, early or not at all from the fan-out, a message is pushed
// only when it is the next of its conversation.
//
// A conversation that is not in it starts at 0, since a connection begins with the
// heads of all conversations that exist then.
//
// It is sorted by conversation. A map would have 256 bytes, where a connection with one
// conversation now has 24, and a search among thousands is still but a few comparisons.
type Positions []Position

// Next judges a message and, when it is to be delivered, moves the position.
func (p *Positions) Next(conversation string, seq int64) Verdict {
	i, found := p.find(conversation)
	last := int64(0)
	if found {
		last = (*p)[i].Seq
	}
	switch {
	case seq <= last:
		return Drop
	case seq > last+1:
		return Gap
	case found:
		(*p)[i].Seq = seq
	default:
		*p = slices.Insert(*p, i, Position{conversation, seq})
	}
	return Deliver
}

// At is the position of a conversation.
func (p Positions) At(conversation string) int64 {
	if i, found := p.find(conversation); found {
		return p[i].Seq
	}
	return 0
}

func (p Positions) find(conversation string) (i int, found bool) {
	return slices.BinarySearchFunc(p, conversation, func(q Position, c string) int { return strings.Compare(q.Conversation, c) })
}

// move sets the position of a conversation.
func (p *Positions) move(conversation string, seq int64) {
	i, found := p.find(conversation)
	if !found {
		*p = slices.Insert(*p, i, Position{Conversation: conversation})
	}
	(*p)[i].Seq = seq
}

// Begin moves the position to before an entry with which the user's part of the
// conversation begins.
func (p *Positions) Begin(conversation string, seq int64) {
	p.move(conversation, max(p.At(conversation), seq-1))
}

// Behind calls f for each conversation of which the user may see something beyond the
// position, after it has moved the position over what the user may not see.
func (p *Positions) Behind(heads map[string]Span, f func(conversation string, after int64)) {
	for conversation, head := range heads {
		if last := max(p.At(conversation), head.After); head.Last > last {
			p.move(conversation, last)
			f(conversation, last)
		}
	}
}

// Resume returns where a connection starts: at the heads, except where the client says
// that it has seen less. recovered is false when the client cannot get exactly what it
// missed: its positions are of another epoch, or it saw messages that the store no
// longer has. Conversations that are not among the heads (the user is not a member)
// are ignored.
//
// What the user may not see is not missed: a position before the conversation's Span is
// one at its start.
func Resume(heads map[string]Span, seen map[string]int64, sameEpoch bool) (p Positions, recovered bool) {
	p = make(Positions, 0, len(heads))
	for _, conversation := range slices.Sorted(maps.Keys(heads)) {
		p = append(p, Position{conversation, heads[conversation].Last})
	}
	if !sameEpoch && len(seen) > 0 {
		return p, false
	}
	recovered = true
	for conversation, seq := range seen {
		i, member := p.find(conversation)
		switch {
		case !member:
		case seq > p[i].Seq:
			recovered = false
		default:
			p[i].Seq = max(seq, heads[conversation].After)
		}
	}
	return p, recovered
}
