package chat

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tracegate/tracegate/core/protocol"
)

// Totals is the verdict about messages.
type Totals struct {
	Asked    int `json:"asked"`    // messages, edits, recalls and reactions
	Accepted int `json:"accepted"` // of them, by an answer
	Refused  int `json:"refused"`
	Unknown  int `json:"unknown"` // given up without an answer; they may have taken effect, once
	Stored   int `json:"stored"`  // accepted and in the history
	Entries  int `json:"entries"` // in the histories, changes of groups included
	// Deliveries are entries given to devices, each device counted.
	Deliveries int `json:"deliveries"`

	Lost       int `json:"lost"`         // accepted and not in the history, or not given to a device
	Duplicated int `json:"duplicated"`   // given twice to a device, or twice in the history
	OutOfOrder int `json:"out_of_order"` // numbered before what had been accepted before it was sent
	Gaps       int `json:"gaps"`         // numbers skipped, by a device's entries or in the history
	// Wrong counts entries nobody sent, texts that differ, what came to who may not see it,
	// and answers that were not as promised.
	Wrong    int      `json:"wrong"`
	Examples []string `json:"examples,omitempty"` // the first problems, in words
}

// OK says that nothing was found.
func (t Totals) OK() bool { return t.Lost+t.Duplicated+t.OutOfOrder+t.Gaps+t.Wrong == 0 }

func (t *Totals) problem(n *int, format string, args ...any) {
	*n++
	if len(t.Examples) < maxExamples {
		t.Examples = append(t.Examples, fmt.Sprintf(format, args...))
	}
}

// Talk is a conversation as it stands at the end.
type Talk struct {
	ID      string
	History []protocol.Message // whole, as its first member reads it
	// Always are users who were members all the time; others come and go by entries.
	Always []string
}

// Verdict compares everything that was noted with the histories. It is meant for when all
// is quiet: what is on its way counts as lost.
func (b *Book) Verdict(talks []Talk) Totals {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := audit{Totals: b.totals, book: b, stored: map[Key]int64{}}
	a.Examples = slices.Clone(a.Examples)
	for _, t := range talks {
		a.history(t)
		a.precedence(t)
		a.texts(t)
		for _, device := range slices.Sorted(maps.Keys(b.streams)) {
			a.device(t, device, b.streams[device])
		}
	}
	a.accepted(talks)
	return a.Totals
}

type audit struct {
	Totals
	book   *Book
	stored map[Key]int64 // seq
}

// history must be numbered from 1 without gaps, and have what was asked for once.
func (a *audit) history(t Talk) {
	for i, m := range t.History {
		a.Entries++
		if want := int64(i + 1); m.Seq != want {
			a.problem(&a.Gaps, "history of %s has seq %d where %d was next", t.ID, m.Seq, want)
		}
		k := keyOf(m)
		if seq, twice := a.stored[k]; twice {
			a.problem(&a.Duplicated, "history of %s has %s of %s as seq %d and %d", t.ID, k.ID, k.Sender, seq, m.Seq)
		}
		a.stored[k] = m.Seq
		if personal(m) && a.book.wishes[k] == nil {
			a.problem(&a.Wrong, "history of %s: nobody asked for %s of %s, seq %d", t.ID, k.ID, k.Sender, m.Seq)
		}
	}
}

// personal entries are messages and what is done to them: all that is in the book.
func personal(m protocol.Message) bool { return m.Event == nil || m.Event.Target > 0 }

// precedence finds entries numbered before one that had been accepted before they were
// sent: whoever waits for an answer must be able to rely on the order.
func (a *audit) precedence(t Talk) {
	earliest := int64(0) // acceptance among entries with a higher seq; 0: none
	for _, m := range slices.Backward(t.History) {
		w := a.book.wishes[keyOf(m)]
		if w == nil {
			continue
		}
		if earliest != 0 && earliest < w.sent {
			a.problem(&a.OutOfOrder, "history of %s: %s has seq %d and was sent after a later one was accepted", t.ID, w.Key.ID, m.Seq)
		}
		if w.accepted != 0 && (earliest == 0 || w.accepted < earliest) {
			earliest = w.accepted
		}
	}
}

// shown is what a reader shows who has got entries, by seq: the texts of messages.
func shown(entries []protocol.Message) map[int64]string {
	texts := map[int64]string{}
	for _, m := range entries {
		switch {
		case m.Event == nil:
			texts[m.Seq] = m.Text
		case m.Event.Target == 0, m.Event.Emoji != "":
		case m.Event.Kind == protocol.EventRecalled:
			texts[m.Event.Target] = ""
		default:
			texts[m.Event.Target] = m.Text
		}
	}
	return texts
}

// tallied is how many react to messages, by seq and emoji, as a reader shows it who takes
// what entries say.
func tallied(entries []protocol.Message) map[int64]map[string]int {
	out := map[int64]map[string]int{}
	for _, m := range entries {
		switch {
		case m.Event == nil:
			out[m.Seq] = map[string]int{}
			for _, r := range m.Reactions {
				out[m.Seq][r.Emoji] = r.Count
			}
		case m.Event.Kind == protocol.EventRecalled:
			clear(out[m.Event.Target])
		case m.Event.Emoji != "" && out[m.Event.Target] != nil:
			if out[m.Event.Target][m.Event.Emoji] = m.Event.Count; m.Event.Count == 0 {
				delete(out[m.Event.Target], m.Event.Emoji)
			}
		}
	}
	return out
}

// counted is the same by who has done what, in the order of the log.
func counted(history []protocol.Message) map[int64]map[string]int {
	type reaction struct {
		target        int64
		emoji, sender string
	}
	on, out := map[reaction]bool{}, map[int64]map[string]int{}
	for _, m := range history {
		switch {
		case m.Event == nil:
			out[m.Seq] = map[string]int{}
		case m.Event.Kind == protocol.EventRecalled:
			maps.DeleteFunc(on, func(r reaction, _ bool) bool { return r.target == m.Event.Target })
		case m.Event.Emoji != "":
			on[reaction{m.Event.Target, m.Event.Emoji, m.Sender}] = m.Event.Kind == protocol.EventReacted
		}
	}
	for r, is := range on {
		if is {
			out[r.target][r.emoji]++
		}
	}
	return out
}

// texts holds the history against what was asked for.
func (a *audit) texts(t Talk) {
	want := map[int64]string{}
	for _, m := range t.History {
		w := a.book.wishes[keyOf(m)]
		switch {
		case w == nil:
		case m.Event == nil:
			want[m.Seq] = w.Text
		case m.Event.Kind == protocol.EventEdited:
			want[m.Event.Target] = w.Text
		case m.Event.Kind == protocol.EventRecalled:
			want[m.Event.Target] = ""
		}
	}
	got := shown(t.History)
	for _, seq := range slices.Sorted(maps.Keys(want)) {
		if got[seq] != want[seq] {
			a.problem(&a.Wrong, "history of %s shows %q at seq %d, the log says %q", t.ID, got[seq], seq, want[seq])
		}
	}
	counts, log := tallied(t.History), counted(t.History)
	for _, seq := range slices.Sorted(maps.Keys(log)) {
		if !maps.Equal(counts[seq], log[seq]) {
			a.problem(&a.Wrong, "history of %s shows reactions %v at seq %d, the log says %v", t.ID, counts[seq], seq, log[seq])
		}
	}
	for _, m := range t.History {
		if m.Event == nil && m.Text != want[m.Seq] {
			a.problem(&a.Wrong, "history of %s has %q at seq %d, the log says %q", t.ID, m.Text, m.Seq, want[m.Seq])
		}
	}
}

// device holds what a device was given against what its user may see, and against what
// the history shows.
func (a *audit) device(t Talk, name string, s *stream) {
	may, member := visible(t, s.user)
	var got []protocol.Message
	for _, m := range s.got {
		if m.Conversation == t.ID {
			got = append(got, m)
		}
	}
	for _, m := range got {
		switch {
		case m.Seq < 1 || m.Seq > int64(len(t.History)):
			a.problem(&a.Wrong, "%s got seq %d of %s, which the history has not", name, m.Seq, t.ID)
			return
		case !may[m.Seq]:
			a.problem(&a.Wrong, "%s got seq %d of %s, which %s may not see", name, m.Seq, t.ID, s.user)
		case keyOf(m) != keyOf(t.History[m.Seq-1]):
			a.problem(&a.Wrong, "%s got %s as seq %d of %s, stored is %s", name, m.ClientID, m.Seq, t.ID, t.History[m.Seq-1].ClientID)
		}
	}
	if member && s.last[t.ID] < int64(len(t.History)) {
		a.problem(&a.Lost, "%s got %s up to seq %d of %d", name, t.ID, s.last[t.ID], len(t.History))
	}
	a.picture(t, name, sinceAdded(got, s.user))
}

// sinceAdded leaves out what a user was given before it was added the last time: what was
// done to those messages while it was away is not told it, so a client shows them no more.
func sinceAdded(got []protocol.Message, user string) []protocol.Message {
	for i, m := range slices.Backward(got) {
		if m.Begins(user) {
			return got[i:]
		}
	}
	return got
}

// picture compares the texts and reactions that a device shows with those of the history, of messages
// that it has.
func (a *audit) picture(t Talk, name string, got []protocol.Message) {
	if len(got) == 0 || got[len(got)-1].Seq < int64(len(t.History)) {
		return // what came after it left may have changed them
	}
	mine, all := shown(got), shown(t.History)
	for _, seq := range slices.Sorted(maps.Keys(mine)) {
		if mine[seq] != all[seq] {
			a.problem(&a.Wrong, "%s shows %q at seq %d of %s, the history %q", name, mine[seq], seq, t.ID, all[seq])
		}
	}
	reactions, stored := tallied(got), tallied(t.History)
	for _, seq := range slices.Sorted(maps.Keys(reactions)) {
		if !maps.Equal(reactions[seq], stored[seq]) {
			a.problem(&a.Wrong, "%s shows reactions %v at seq %d of %s, the history %v", name, reactions[seq], seq, t.ID, stored[seq])
		}
	}
}

// visible are the seqs that a user may see at some time, and whether it is a member at the
// end.
func visible(t Talk, user string) (may map[int64]bool, member bool) {
	may = map[int64]bool{}
	member = slices.Contains(t.Always, user)
	for _, m := range t.History {
		named := m.Event != nil && slices.Contains(m.Event.Members, user)
		may[m.Seq] = member || named
		if named && !slices.Contains(t.Always, user) {
			switch m.Event.Kind {
			case protocol.EventAdded, protocol.EventCreated:
				member = true
			case protocol.EventRemoved:
				member = false
			}
		}
	}
	return may, member
}

// accepted must be stored.
func (a *audit) accepted(talks []Talk) {
	known := map[string]bool{}
	for _, t := range talks {
		known[t.ID] = true
	}
	for _, w := range a.book.wishes {
		_, stored := a.stored[w.Key]
		switch {
		case !known[w.Key.Conversation]:
		case w.accepted != 0 && stored:
			a.Stored++
		case w.accepted != 0:
			a.problem(&a.Lost, "%s of %s in %s was accepted and is not stored", w.Key.ID, w.Key.Sender, w.Key.Conversation)
		case w.refused && stored:
			a.problem(&a.Wrong, "%s of %s was refused and is stored", w.Key.ID, w.Key.Sender)
		case !w.refused:
			a.Unknown++
		}
	}
}
