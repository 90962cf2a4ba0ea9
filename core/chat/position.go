package chat

// Verdict says what to do with a message that reaches a connection.
type Verdict int

// The three cases.
const (
	Deliver Verdict = iota // it is the next one: push it
	Drop                   // the connection had it already
	Gap                    // something before it is missing: read from the store
)

// Positions are the last sequence numbers that were pushed to a connection, by
// conversation. They alone make delivery to a connection exactly once and in order:
// whatever comes late, twice, early or not at all from the fan-out, a message is pushed
// only when it is the next of its conversation.
//
// A conversation that is not in it starts at 0, since a connection begins with the
// heads of all conversations that exist then.
type Positions map[string]int64

// Next judges a message and, when it is to be delivered, moves the position.
func (p Positions) Next(conversation string, seq int64) Verdict {
	switch last := p[conversation]; {
	case seq <= last:
		return Drop
	case seq == last+1:
		p[conversation] = seq
		return Deliver
	default:
		return Gap
	}
}

// Begin moves the position to before an entry with which the user's part of the
// conversation begins.
func (p Positions) Begin(conversation string, seq int64) {
	p[conversation] = max(p[conversation], seq-1)
}

// Behind calls f for each conversation of which the user may see something beyond the
// position, after it has moved the position over what the user may not see.
func (p Positions) Behind(heads map[string]Span, f func(conversation string, after int64)) {
	for conversation, head := range heads {
		last := max(p[conversation], head.After)
		if head.Last > last {
			p[conversation] = last
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
	p = make(Positions, len(heads))
	for conversation, head := range heads {
		p[conversation] = head.Last
	}
	if !sameEpoch && len(seen) > 0 {
		return p, false
	}
	recovered = true
	for conversation, seq := range seen {
		switch head, member := heads[conversation]; {
		case !member:
		case seq > head.Last:
			recovered = false
		default:
			p[conversation] = max(seq, head.After)
		}
	}
	return p, recovered
}
