package client

import "github.com/tracegate/tracegate/core/protocol"

// maxAside bounds what is kept of a conversation while an earlier message is
// missing. When it is full the newest are dropped; the history has them.
const maxAside = 256

// inbox puts the messages of all conversations in order. It is a pure value: it
// does not lock, call back or wait.
type inbox struct {
	user   string // name
	tracks map[string]*track
	// Counters of what the network did, for [Stats].
	duplicates, dropped int64
}

type track struct {
	last  int64 // seq of the last message given out
	aside map[int64]protocol.Message
}

func newInbox(user string, positions map[string]int64) *inbox {
	b := &inbox{user: user, tracks: make(map[string]*track, len(positions))}
	for conversation, seq := range positions {
		b.tracks[conversation] = &track{last: seq}
	}
	return b
}

// push takes a message as it came. ready is what can be given out now, in order;
// gap says that the message was set aside because earlier ones are missing.
//
// A conversation that is not followed yet starts with whatever comes first, as the
// server sends those "from their next message on". One that the user was added to, also
// not for the first time, starts with the entry that says so.
func (b *inbox) push(m protocol.Message) (ready []protocol.Message, gap bool) {
	t := b.tracks[m.Conversation]
	if t == nil {
		t = &track{last: m.Seq - 1}
		b.tracks[m.Conversation] = t
	}
	if m.Seq > t.last+1 && m.Begins(b.user) {
		t.begin(m.Seq)
	}
	switch {
	case m.Seq <= t.last:
		b.duplicates++
		return nil, false
	case m.Seq > t.last+1:
		if _, have := t.aside[m.Seq]; have {
			b.duplicates++
			return nil, true
		}
		if len(t.aside) >= maxAside {
			b.dropped++
			return nil, true
		}
		if t.aside == nil {
			t.aside = map[int64]protocol.Message{}
		}
		t.aside[m.Seq] = m
		return nil, true
	}
	ready = append(ready, m)
	t.last = m.Seq
	for {
		next, have := t.aside[t.last+1]
		if !have {
			break
		}
		delete(t.aside, next.Seq)
		ready = append(ready, next)
		t.last = next.Seq
	}
	return ready, len(t.aside) > 0
}

// begin gives up what came before seq, and waits for nothing before it.
func (t *track) begin(seq int64) {
	t.last = seq - 1
	for early := range t.aside {
		if early < seq {
			delete(t.aside, early)
		}
	}
}

// follow makes the conversation known at seq unless it is already.
func (b *inbox) follow(conversation string, seq int64) {
	if b.tracks[conversation] == nil {
		b.tracks[conversation] = &track{last: seq}
	}
}

// forget makes the conversation unknown, as if nothing of it had ever come.
func (b *inbox) forget(conversation string) { delete(b.tracks, conversation) }

// positions is what to resume from.
func (b *inbox) positions() map[string]int64 {
	p := make(map[string]int64, len(b.tracks))
	for conversation, t := range b.tracks {
		p[conversation] = t.last
	}
	return p
}

func (b *inbox) last(conversation string) int64 {
	if t := b.tracks[conversation]; t != nil {
		return t.last
	}
	return 0
}

// broken lists the conversations in which something is missing.
func (b *inbox) broken() []string {
	var out []string
	for conversation, t := range b.tracks {
		if len(t.aside) > 0 {
			out = append(out, conversation)
		}
	}
	return out
}

// restart forgets the positions: the server's numbering began anew, or lost a part.
func (b *inbox) restart() {
	for _, t := range b.tracks {
		t.last, t.aside = 0, nil
	}
}
