package load

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/tracegate/tracegate/core/protocol"
)

// maxExamples bounds the problems that are told in words.
const maxExamples = 10

// Ledger is the lab's own account of messages: what was sent, what core said of it,
// who received it, and what the history has. It is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	tick    int64 // a logical clock, to hold acceptance against later sends
	talks   map[string]*talk
	entries map[messageKey]*entry
	waiting int // accepted, and not yet received by the recipient
}

type messageKey struct{ conversation, sender, clientID string }

type talk struct {
	members []string
	streams map[string]*stream // deliveries, by member
	history []protocol.Message
}

// stream is what one member was given, in the order it was given.
type stream struct{ got []protocol.Message }

type entry struct {
	key      messageKey
	text     string
	sent     int64 // tick
	accepted int64 // tick; 0 while it is not
	refused  bool  // for good: it must not appear
	received bool  // by somebody other than the sender
}

// Messages is the ledger's verdict.
type Messages struct {
	Sent     int `json:"sent"`
	Accepted int `json:"accepted"`
	// Unknown were given up without an answer; they may have arrived, once.
	Unknown  int `json:"unknown"`
	Refused  int `json:"refused"`
	Received int `json:"received"` // by the recipient
	// Lost were accepted and did not reach the recipient, or are not in the history.
	Lost int `json:"lost"`
	// Duplicated counts deliveries of one message to one member beyond the first, and
	// second places in the history.
	Duplicated int `json:"duplicated"`
	// OutOfOrder counts deliveries whose seq is not above the one before, and messages
	// numbered before one that had been accepted before they were sent.
	OutOfOrder int `json:"out_of_order"`
	// Gaps counts seqs that were skipped, by a member's deliveries or by the history.
	Gaps int `json:"gaps"`
	// Wrong counts messages nobody sent, or refused ones that arrived, or texts,
	// senders and seqs that differ between what was sent, received and stored.
	Wrong    int      `json:"wrong"`
	Examples []string `json:"examples,omitempty"` // the first problems, in words
}

// OK says whether every accepted message arrived once and in order.
func (m Messages) OK() bool {
	return m.Lost+m.Duplicated+m.OutOfOrder+m.Gaps+m.Wrong == 0
}

// NewLedger returns an empty one.
func NewLedger() *Ledger {
	return &Ledger{talks: map[string]*talk{}, entries: map[messageKey]*entry{}}
}

// Open makes a conversation known. Messages of others are nobody's.
func (l *Ledger) Open(conversation string, members ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.talks[conversation] != nil {
		return
	}
	t := &talk{members: members, streams: map[string]*stream{}}
	for _, m := range members {
		t.streams[m] = &stream{}
	}
	l.talks[conversation] = t
}

// Sent notes the intent, before the first attempt.
func (l *Ledger) Sent(sender string, m protocol.Send) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	key := messageKey{m.Conversation, sender, m.ClientID}
	l.entries[key] = &entry{key: key, text: m.Text, sent: l.tick}
}

// Accepted notes that core said yes.
func (l *Ledger) Accepted(sender string, m protocol.Send) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	if e := l.entries[messageKey{m.Conversation, sender, m.ClientID}]; e != nil && e.accepted == 0 {
		e.accepted = l.tick
		if !e.received {
			l.waiting++
		}
	}
}

// Refused notes that core said no for good. What was given up without an answer is
// simply not reported.
func (l *Ledger) Refused(sender string, m protocol.Send) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[messageKey{m.Conversation, sender, m.ClientID}]; e != nil {
		e.refused = true
	}
}

// Received notes a delivery to a member, as it came.
func (l *Ledger) Received(member string, m protocol.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.talks[m.Conversation]
	if t == nil || t.streams[member] == nil {
		t = l.strangers()
		member = ""
	}
	t.streams[member].got = append(t.streams[member].got, m)
	e := l.entries[keyOf(m)]
	if e != nil && !e.received && member != "" && member != m.Sender {
		e.received = true
		if e.accepted != 0 {
			l.waiting--
		}
	}
}

// strangers collects deliveries to people or of conversations that are not known; the
// caller holds mu.
func (l *Ledger) strangers() *talk {
	if l.talks[""] == nil {
		l.talks[""] = &talk{streams: map[string]*stream{"": {}}}
	}
	return l.talks[""]
}

// History notes a page of a conversation's history; pages come in order.
func (l *Ledger) History(conversation string, page []protocol.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.talks[conversation]; t != nil {
		t.history = append(t.history, page...)
	}
}

// Waiting is how many accepted messages their recipient does not have yet.
func (l *Ledger) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

// Conversations lists what was opened, sorted.
func (l *Ledger) Conversations() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for id := range l.talks {
		if id != "" {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func keyOf(m protocol.Message) messageKey {
	return messageKey{m.Conversation, m.Sender, m.ClientID}
}

// audit is a verdict in the making.
type audit struct {
	Messages
	stored map[messageKey]int64 // seq in the history
}

func (a *audit) problem(n *int, format string, args ...any) {
	*n++
	if len(a.Examples) < maxExamples {
		a.Examples = append(a.Examples, fmt.Sprintf(format, args...))
	}
}

// Verdict compares everything noted so far. It is meant for when all is quiet: a
// message on its way counts as lost.
func (l *Ledger) Verdict() Messages {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := audit{stored: map[messageKey]int64{}}
	ids := make([]string, 0, len(l.talks))
	for id := range l.talks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		l.auditHistory(&a, id, l.talks[id].history)
	}
	for _, id := range ids {
		t := l.talks[id]
		for _, member := range append(slices.Clone(t.members), "") {
			if s := t.streams[member]; s != nil {
				l.auditStream(&a, member, s.got)
			}
		}
	}
	l.auditEntries(&a)
	return a.Messages
}

func (l *Ledger) auditHistory(a *audit, id string, history []protocol.Message) {
	last := int64(0)
	for _, m := range history {
		switch {
		case m.Seq <= last:
			a.problem(&a.OutOfOrder, "history of %s: seq %d after %d", id, m.Seq, last)
		case m.Seq > last+1:
			a.problem(&a.Gaps, "history of %s: seq %d follows %d", id, m.Seq, last)
		}
		last = max(last, m.Seq)
		key := keyOf(m)
		if first, had := a.stored[key]; had {
			a.problem(&a.Duplicated, "history of %s: %s has seq %d and %d", id, m.ClientID, first, m.Seq)
			continue
		}
		a.stored[key] = m.Seq
		switch e := l.entries[key]; {
		case e == nil:
			a.problem(&a.Wrong, "history of %s: nobody sent %q at seq %d", id, m.ClientID, m.Seq)
		case e.refused:
			a.problem(&a.Wrong, "history of %s: %s was refused and has seq %d", id, m.ClientID, m.Seq)
		case e.text != m.Text:
			a.problem(&a.Wrong, "history of %s: %s has another text", id, m.ClientID)
		}
	}
	l.auditPrecedence(a, id, history)
}

// auditPrecedence finds messages numbered before one that had been accepted before
// they were sent: a sender who waits for the answer must be able to rely on the order.
func (l *Ledger) auditPrecedence(a *audit, id string, history []protocol.Message) {
	sorted := slices.SortedStableFunc(slices.Values(history), func(x, y protocol.Message) int { return cmp.Compare(x.Seq, y.Seq) })
	earliest := int64(0) // acceptance among messages with a higher seq; 0 = none
	for _, m := range slices.Backward(sorted) {
		e := l.entries[keyOf(m)]
		if e == nil {
			continue
		}
		if earliest != 0 && earliest < e.sent {
			a.problem(&a.OutOfOrder, "history of %s: %s has seq %d, but was sent after a later one was accepted", id, m.ClientID, m.Seq)
		}
		if e.accepted != 0 && (earliest == 0 || e.accepted < earliest) {
			earliest = e.accepted
		}
	}
}

func (l *Ledger) auditStream(a *audit, member string, got []protocol.Message) {
	last := map[string]int64{}
	seen := map[messageKey]bool{}
	for _, m := range got {
		key := keyOf(m)
		if seen[key] {
			a.problem(&a.Duplicated, "%s received %s again at seq %d", member, m.ClientID, m.Seq)
			continue
		}
		seen[key] = true
		switch before := last[m.Conversation]; {
		case m.Seq <= before:
			a.problem(&a.OutOfOrder, "%s received seq %d of %s after %d", member, m.Seq, m.Conversation, before)
		case m.Seq > before+1:
			a.problem(&a.Gaps, "%s received seq %d of %s after %d", member, m.Seq, m.Conversation, before)
		}
		last[m.Conversation] = max(last[m.Conversation], m.Seq)
		e := l.entries[key]
		seq, stored := a.stored[key]
		switch {
		case e == nil:
			a.problem(&a.Wrong, "%s received %q of %s, which nobody sent", member, m.ClientID, m.Conversation)
		case member == "":
			a.problem(&a.Wrong, "%s of %s went to somebody who is not a member", m.ClientID, m.Conversation)
		case e.text != m.Text:
			a.problem(&a.Wrong, "%s received %s with another text", member, m.ClientID)
		case stored && seq != m.Seq:
			a.problem(&a.Wrong, "%s received %s with seq %d, stored is %d", member, m.ClientID, m.Seq, seq)
		}
	}
}

func (l *Ledger) auditEntries(a *audit) {
	byAge := make([]*entry, 0, len(l.entries))
	for _, e := range l.entries {
		byAge = append(byAge, e)
	}
	slices.SortFunc(byAge, func(x, y *entry) int { return cmp.Compare(x.sent, y.sent) })
	for _, e := range byAge {
		a.Sent++
		_, stored := a.stored[e.key]
		if e.received {
			a.Received++
		}
		switch {
		case e.accepted != 0:
			a.Accepted++
			switch {
			case !stored && !e.received:
				a.problem(&a.Lost, "%s of %s was accepted, and is neither received nor stored", e.key.clientID, e.key.conversation)
			case !e.received:
				a.problem(&a.Lost, "%s of %s was accepted and stored, and did not reach the recipient", e.key.clientID, e.key.conversation)
			case !stored:
				a.problem(&a.Lost, "%s of %s was accepted and received, and is not in the history", e.key.clientID, e.key.conversation)
			}
		case e.refused:
			a.Refused++
		default:
			a.Unknown++
			if stored && !e.received {
				a.problem(&a.Lost, "%s of %s was stored after an unknown outcome, and did not reach the recipient", e.key.clientID, e.key.conversation)
			}
		}
	}
}
