package chat

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/tracegate/tracegate/core/protocol"
)

// maxExamples bounds the problems that are told in words.
const maxExamples = 12

// Key names something that a user has asked for, and the entry that came of it.
type Key struct{ Conversation, Sender, ID string }

// keyOf is the key of an entry. The id of a recall is core's own; there is one for each
// message.
func keyOf(m protocol.Message) Key {
	k := Key{m.Conversation, m.Sender, m.ClientID}
	if m.Event != nil && m.Event.Kind == protocol.EventRecalled {
		k.ID = recallID(m.Event.Target)
	}
	return k
}

func recallID(target int64) string { return "recall of " + strconv.FormatInt(target, 10) }

// Intent is what a user wants: a message, an edit (Target and Text), a recall (Target), or a
// reaction or its end (Target, Emoji and Off).
type Intent struct {
	Key    Key
	Text   string
	Target int64 // seq
	Emoji  string
	Off    bool
}

// reactionID is the id that core gives the entry of a client's.
func reactionID(id string, off bool) string {
	if off {
		return string(protocol.EventUnreacted) + "." + id
	}
	return string(protocol.EventReacted) + "." + id
}

// wish is an intent and what was said to it.
type wish struct {
	Intent
	sent, accepted int64 // ticks; accepted is 0 while it is not
	refused        bool
	seen           bool // by a device of its sender
}

// stream is what one device was given, in the order in which it came.
type stream struct {
	user string
	last map[string]int64 // position by conversation
	got  []protocol.Message
}

// Book is the account of a run. It is safe for concurrent use.
type Book struct {
	mu      sync.Mutex
	tick    int64 // a logical clock: what was accepted before something else was sent
	wishes  map[Key]*wish
	streams map[string]*stream // by device
	waiting int                // accepted and not seen
	totals  Totals
}

// NewBook is an empty one.
func NewBook() *Book { return &Book{wishes: map[Key]*wish{}, streams: map[string]*stream{}} }

// Device makes a device known, which starts from positions.
func (b *Book) Device(device, user string, positions map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &stream{user: user, last: map[string]int64{}}
	for id, seq := range positions {
		s.last[id] = seq
	}
	b.streams[device] = s
}

// Positions is what a device resumes from.
func (b *Book) Positions(device string) map[string]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]int64{}
	for id, seq := range b.streams[device].last {
		out[id] = seq
	}
	return out
}

// Asked notes an intent before its first attempt.
func (b *Book) Asked(i Intent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick++
	b.wishes[i.Key] = &wish{Intent: i, sent: b.tick}
	b.totals.Asked++
}

// Accepted notes that core said yes to it.
func (b *Book) Accepted(k Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick++
	w := b.wishes[k]
	if w == nil || w.accepted != 0 {
		return
	}
	w.accepted = b.tick
	b.totals.Accepted++
	if !w.seen {
		b.waiting++
	}
}

// Refused notes that core said no for good.
func (b *Book) Refused(k Key, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.wishes[k]; w != nil {
		w.refused = true
		b.totals.Refused++
		b.totals.problem(&b.totals.Wrong, "%s of %s was refused: %v", k.ID, k.Sender, why)
	}
}

// Problem notes what a device or a caller found to be wrong.
func (b *Book) Problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.totals.problem(&b.totals.Wrong, format, args...)
}

// Received notes an entry as it came, and holds it against the device's position.
func (b *Book) Received(device string, m protocol.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[device]
	last, known := s.last[m.Conversation]
	switch {
	case !known, m.Seq == last+1, m.Seq > last && m.Begins(s.user):
	case m.Seq <= last:
		b.totals.problem(&b.totals.Duplicated, "%s got seq %d of %s after %d", device, m.Seq, m.Conversation, last)
		return
	default:
		b.totals.problem(&b.totals.Gaps, "%s got seq %d of %s after %d", device, m.Seq, m.Conversation, last)
	}
	s.last[m.Conversation] = m.Seq
	s.got = append(s.got, m)
	b.totals.Deliveries++
	if w := b.wishes[keyOf(m)]; w != nil && !w.seen && s.user == m.Sender {
		w.seen = true
		if w.accepted != 0 {
			b.waiting--
		}
	}
}

// Waiting is how much was accepted and has not come back to its sender.
func (b *Book) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// Behind says which devices have not got to the heads of their user's conversations.
func (b *Book) Behind(heads map[string]map[string]int64) (devices []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, s := range b.streams {
		for id, head := range heads[s.user] {
			if s.last[id] < head {
				devices = append(devices, fmt.Sprintf("%s: %d of %d in %s", name, s.last[id], head, id))
			}
		}
	}
	slices.Sort(devices)
	return devices
}

// Own picks a message of the user's own in a conversation that no recall was asked for;
// 0 where there is none. choose is given a number above 0 and returns one below it.
func (b *Book) Own(device, conversation, user string, choose func(int) int) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.streams[device].got
	for range 20 {
		if len(got) == 0 {
			return 0
		}
		m := got[choose(len(got))]
		if m.Event == nil && m.Sender == user && m.Conversation == conversation && b.wishes[Key{conversation, user, recallID(m.Seq)}] == nil {
			return m.Seq
		}
	}
	return 0
}

// Got is what a device was given of a conversation.
func (b *Book) Got(device, conversation string) []protocol.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []protocol.Message
	for _, m := range b.streams[device].got {
		if m.Conversation == conversation {
			out = append(out, m)
		}
	}
	return out
}
