package store_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

func react(conversation string, from chat.User, kind protocol.EventKind, id, emoji string, target int64) chat.Record {
	r := change(conversation, from, kind, id)
	r.Emoji, r.Target = emoji, target
	return r
}

// reactions are those of a message as the history shows them to a user.
func reactions(t testing.TB, s *store.Store, u chat.User, conversation string, seq int64) []protocol.Reaction {
	t.Helper()
	list, err := s.Messages(t.Context(), u.ID, conversation, seq-1, 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %d entries", err, len(list))
	}
	return list[0].Reactions
}

func TestReactionsAreInTheHistory(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob)
		appendAll(t, s, record("g", ann, "one"), record("g", bob, "two")) // 2, 3
		out := appendAll(t, s,
			react("g", bob, protocol.EventReacted, "1", "👍", 2), react("g", ann, protocol.EventReacted, "2", "❤️", 2), // 4, 5
			react("g", ann, protocol.EventReacted, "3", "👍", 2), react("g", bob, protocol.EventReacted, "4", "👍", 3)) // 6, 7
		if got := out[2].Message().Event; got.Count != 2 || got.Emoji != "👍" {
			t.Errorf("the entry says %+v", got)
		}
		want := []protocol.Reaction{{Emoji: "👍", Count: 2, Mine: true}, {Emoji: "❤️", Count: 1}} // as they came up
		if diff := cmp.Diff(want, reactions(t, s, bob, "g", 2)); diff != "" {
			t.Error(diff)
		}
		// Repeated, the same again, somebody else's, of nothing, of what is no message.
		var reasons []chat.Reason
		again, err := s.Append(t.Context(), []chat.Record{
			react("g", bob, protocol.EventReacted, "1", "👍", 2), react("g", bob, protocol.EventReacted, "5", "👍", 2),
			react("g", bob, protocol.EventUnreacted, "6", "❤️", 2), react("g", bob, protocol.EventReacted, "7", "👍", 99),
			react("g", bob, protocol.EventReacted, "8", "👍", 4), react("g", cid, protocol.EventReacted, "9", "👍", 2),
		})
		for _, n := range again {
			reasons = append(reasons, n.Refused)
		}
		wantReasons := []chat.Reason{"", "", "", chat.ReasonTarget, chat.ReasonForbidden, chat.ReasonNotMember} // 8, 9 change nothing
		if diff := cmp.Diff(wantReasons, reasons); diff != "" || err != nil || !again[0].Duplicate || again[0].Seq != 4 {
			t.Errorf("%v %s %+v", err, diff, again[0])
		}
		// Who takes one back and gives another is shown behind it.
		appendAll(t, s, react("g", ann, protocol.EventUnreacted, "10", "❤️", 2), react("g", bob, protocol.EventReacted, "11", "🎉", 2), // 10, 11
			react("g", ann, protocol.EventReacted, "12", "❤️", 2)) // 12
		want = []protocol.Reaction{{Emoji: "👍", Count: 2, Mine: true}, {Emoji: "🎉", Count: 1}, {Emoji: "❤️", Count: 1, Mine: true}}
		if diff := cmp.Diff(want, reactions(t, s, ann, "g", 2)); diff != "" {
			t.Error(diff)
		}
		// The entries have how many there are by now, also through search's window.
		var counts []string
		for _, m := range history(t, s, ann, "g")[3:] {
			counts = append(counts, fmt.Sprintf("%d %s %s %d %d%s", m.Seq, m.Event.Kind, m.Event.Emoji, m.Event.Target, m.Event.Count, m.Text))
		}
		wantCounts := []string{"4 reacted 👍 2 2", "5 reacted ❤️ 2 1", "6 reacted 👍 2 2", "7 reacted 👍 3 1",
			"8 reacted 👍 2 2", "9 unreacted ❤️ 2 1", "10 unreacted ❤️ 2 1", "11 reacted 🎉 2 1", "12 reacted ❤️ 2 1"}
		if diff := cmp.Diff(wantCounts, counts); diff != "" {
			t.Error(diff)
		}
		if got, err := s.Reactions(t.Context(), ann.ID, "g", 2); err != nil || len(got) != 3 {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := s.Reactions(t.Context(), cid.ID, "g", 2); err != nil || got != nil {
			t.Errorf("a stranger sees %v, %v", got, err)
		}
		c, err := s.Conversation(t.Context(), ann.ID, "g")
		if err != nil || c.Unread != 1 { // bob's message; reactions are none
			t.Errorf("%d unread, %v", c.Unread, err)
		}
		// A recall takes them, and those of the same batch before it.
		recall := change("g", ann, protocol.EventRecalled, "2")
		recall.Target = 2
		appendAll(t, s, react("g", ann, protocol.EventReacted, "13", "👀", 2), recall)
		if got := reactions(t, s, ann, "g", 2); got != nil {
			t.Errorf("a recalled message has %v", got)
		}
		if n := s.CountReactions(t, "g", 2); n != 0 {
			t.Errorf("%d rows are left of it", n)
		}
		for _, m := range history(t, s, ann, "g")[3:] {
			if m.Event.Target == 2 && m.Event.Count != 0 {
				t.Errorf("seq %d says %d after the recall", m.Seq, m.Event.Count)
			}
		}
		if got := reactions(t, s, bob, "g", 3); len(got) != 1 {
			t.Errorf("another message has %v", got)
		}
		late, err := s.Append(t.Context(), []chat.Record{react("g", bob, protocol.EventReacted, "14", "👍", 2), react("g", bob, protocol.EventUnreacted, "15", "👍", 2)})
		if err != nil || late[0].Refused != chat.ReasonForbidden || late[1].Refused != chat.ReasonForbidden {
			t.Errorf("%v %+v", err, late)
		}
	})
}

// TestTalliesAreAsManyAsReactions stores random reactions in random batches and counts.
func TestTalliesAreAsManyAsReactions(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		people := []chat.User{person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")}
		group(t, s, "g", people[0], people[1:]...)
		appendAll(t, s, record("g", people[0], "one"), record("g", people[1], "two"))
		r := rand.New(rand.NewPCG(11, 1))
		want := map[string]bool{}
		for i := 0; i < 120; {
			var batch []chat.Record
			for range 1 + r.IntN(12) {
				who, emoji, target, kind := r.IntN(3), []string{"👍", "❤️", "🎉"}[r.IntN(3)], int64(2+r.IntN(2)), protocol.EventReacted
				if r.IntN(2) == 0 {
					kind = protocol.EventUnreacted
				}
				batch = append(batch, react("g", people[who], kind, fmt.Sprint(i), emoji, target))
				want[fmt.Sprint(target, emoji, who)] = kind == protocol.EventReacted
				i++
			}
			if _, err := s.Append(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		for target := int64(2); target <= 3; target++ {
			for who, u := range people {
				got := map[string]protocol.Reaction{}
				for _, o := range reactions(t, s, u, "g", target) {
					got[o.Emoji] = o
				}
				for _, emoji := range []string{"👍", "❤️", "🎉"} {
					n := 0
					for other := range people {
						if want[fmt.Sprint(target, emoji, other)] {
							n++
						}
					}
					if o := got[emoji]; o.Count != n || o.Mine != want[fmt.Sprint(target, emoji, who)] {
						t.Errorf("%s of %d as %s sees it: %+v, want %d", emoji, target, u.Name, o, n)
					}
				}
			}
		}
	})
}
