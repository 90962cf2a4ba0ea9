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

// Behind calls f for each conversation whose head is beyond the position.
func (p Positions) Behind(heads map[string]int64, f func(conversation string, after int64)) {
	for conversation, head := range heads {
		if last := p[conversation]; head > last {
			f(conversation, last)
		}
	}
}

// Resume returns where a connection starts: at the heads, except where the client says
// that it has seen less. recovered is false when the client cannot get exactly what it
// missed: its positions are of another epoch, or it saw messages that the store no
// longer has. Conversations that are not among the heads (the user is not a member)
// are ignored.
func Resume(heads, seen map[string]int64, sameEpoch bool) (p Positions, recovered bool) {
	p = make(Positions, len(heads))
	for conversation, head := range heads {
		p[conversation] = head
	}
	if !sameEpoch && len(seen) > 0 {
		return p, false
	}
	recovered = true
	for conversation, seq := range seen {
		switch head, member := heads[conversation]; {
		case !member:
		case seq > head:
			recovered = false
		default:
			p[conversation] = seq
		}
	}
	return p, recovered
}
