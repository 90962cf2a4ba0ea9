package chat_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

func TestCheckEmoji(t *testing.T) {
	for _, good := range []string{"👍", "❤️", "❤", "👨‍👩‍👧‍👦", "👩🏽‍❤️‍💋‍👨🏿", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪", "1️⃣", "ℹ️", "‼️", "©", "好", "+"} {
		if err := chat.CheckEmoji(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for name, bad := range map[string]string{
		"nothing": "", "two": "👍👍", "a word": "ok", "two flags": "🇩🇪🇫🇷", "a space": " ", "a wide space": "\u3000", "a line": "\n", "CR LF": "\r\n",
		"NUL": "\x00", "not UTF-8": "\xf0\x9f", "only a joiner": "\u200d", "only a selector": "\ufe0f", "turns the text round": "\u202e",
		"a mark alone": "\u0301", "too long": "a" + strings.Repeat("\u0301", 40), "a private one with a space": "👍 ",
	} {
		if err := chat.CheckEmoji(bad); err == nil || err.Code != protocol.CodeInvalidArgument || err.Field != "emoji" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheckEmoji(f *testing.F) {
	f.Add("👍")
	f.Add("a\u0301")
	f.Add("\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		if chat.CheckEmoji(s) == nil && (len(s) > chat.MaxEmoji || strings.ContainsAny(s, "\x00\r\n\t") || strings.TrimSpace(s) == "") {
			t.Errorf("%q is taken", s)
		}
	})
}

func reaction(from, emoji string, target int64, add bool, id int) chat.Record {
	kind := protocol.EventUnreacted
	if add {
		kind = protocol.EventReacted
	}
	return chat.Record{Kind: kind, Conversation: "c", SenderID: from, Sender: "user" + from, ClientID: fmt.Sprintf("%s.%d", kind, id), Target: target, Emoji: emoji}
}

// wall is what a store keeps of reactions, written plainly: who has reacted with what.
type wall map[int64]map[string][]string // by message and emoji, users in any order

func (w wall) tallies(seq int64, since map[string]int64) (out []chat.Tally) {
	for emoji, users := range w[seq] {
		out = append(out, chat.Tally{Emoji: emoji, Count: len(users), Since: since[fmt.Sprint(seq, emoji)]})
	}
	slices.SortFunc(out, func(a, b chat.Tally) int { return int(a.Since - b.Since) })
	return out
}

// TestReactionsAreAsAPlainModelOfThem gives random reactions, their ends and recalls to
// Number in batches of which some come again, and compares what is refused and how many
// there are with sets of names. A device that starts anywhere, with the outcome as it was
// then or later, must come to the same by the entries that follow.
func TestReactionsAreAsAPlainModelOfThem(t *testing.T) {
	pair := chat.NewRoster(true, 1, []chat.Member{{ID: "u1"}, {ID: "u2"}, {ID: "u3", Role: chat.RoleAdmin}})
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		state := chat.State{
			Standing: map[string]chat.Standing{"c": {LastSeq: 2, Roster: pair}}, Existing: map[chat.Key]int64{},
			Targets: map[chat.Place]chat.Target{{Conversation: "c", Seq: 1}: {SenderID: "u1"}, {Conversation: "c", Seq: 2}: {SenderID: "u2"}},
			Tallies: map[chat.Place][]chat.Tally{}, Reacted: map[chat.Reaction]bool{},
		}
		model, since := wall{1: {}, 2: {}}, map[string]int64{}
		recalled := map[int64]bool{}
		type entry struct {
			chat.Numbered
			shows map[int64][]chat.Tally // after it
		}
		var log []entry
		var history []chat.Record
		for i := range 60 {
			rec := reaction(fmt.Sprint("u", 1+r.IntN(3)), []string{"👍", "❤️", "🎉"}[r.IntN(3)], int64(1+r.IntN(2)), r.IntN(3) > 0, i)
			if r.IntN(40) == 0 {
				rec.Kind, rec.Emoji, rec.SenderID = protocol.EventRecalled, "", "u3"
			}
			history = append(history, rec)
		}
		for at := 0; at < len(history); {
			from, to := at-r.IntN(min(at+1, 5)), min(at+1+r.IntN(6), len(history))
			for _, n := range chat.Number(history[from:to], state) {
				users := model[n.Target][n.Emoji]
				has := slices.Contains(users, n.SenderID)
				var want chat.Reason
				switch {
				case n.Duplicate:
					continue
				case n.Kind == protocol.EventRecalled && recalled[n.Target]:
					want = chat.ReasonNoEffect
				case recalled[n.Target]:
					want = chat.ReasonForbidden
				}
				if n.Refused != want {
					t.Fatalf("seed %d: %s %s of %s: refused %q, want %q", seed, n.Kind, n.Emoji, n.SenderID, n.Refused, want)
				}
				if want != "" {
					continue
				}
				switch n.Kind {
				case protocol.EventRecalled:
					recalled[n.Target], model[n.Target] = true, map[string][]string{}
					maps.DeleteFunc(state.Reacted, func(r chat.Reaction, _ bool) bool { return r.Seq == n.Target })
				case protocol.EventReacted:
					if len(users) == 0 {
						since[fmt.Sprint(n.Target, n.Emoji)] = n.Seq
					}
					if !has {
						model[n.Target][n.Emoji] = append(slices.Clone(users), n.SenderID)
					}
				default:
					model[n.Target][n.Emoji] = slices.DeleteFunc(slices.Clone(users), func(u string) bool { return u == n.SenderID })
					if len(model[n.Target][n.Emoji]) == 0 {
						delete(model[n.Target], n.Emoji)
					}
				}
				if n.Emoji != "" {
					if got := n.Message().Event; got.Count != len(model[n.Target][n.Emoji]) || got.Emoji != n.Emoji || got.Target != n.Target {
						t.Fatalf("seed %d: entry says %+v, model has %v", seed, got, model[n.Target])
					}
				}
				log = append(log, entry{n, map[int64][]chat.Tally{1: model.tallies(1, since), 2: model.tallies(2, since)}})
				state.Existing[n.Key()] = n.Seq
				state.Standing["c"] = chat.Standing{LastSeq: n.Seq, Roster: pair}
				state.Reacted[chat.Reaction{Place: chat.Place{Conversation: "c", Seq: n.Target}, Emoji: n.Emoji, UserID: n.SenderID}] = n.Kind == protocol.EventReacted
				for seq := range model {
					p := chat.Place{Conversation: "c", Seq: seq}
					state.Tallies[p] = model.tallies(seq, since)
					target := state.Targets[p]
					target.Recalled = recalled[seq]
					state.Targets[p] = target
				}
			}
			at = to
		}
		// A device reads the history at an entry, with the outcome of that entry or a later one.
		for start := range log {
			read := start + r.IntN(len(log)-start)
			counts := map[string]int{}
			for seq, list := range log[read].shows {
				for _, tally := range list {
					counts[fmt.Sprint(seq, tally.Emoji)] = tally.Count
				}
			}
			for _, e := range log[start:] {
				switch e.Kind {
				case protocol.EventRecalled:
					maps.DeleteFunc(counts, func(k string, _ int) bool { return strings.HasPrefix(k, fmt.Sprint(e.Target)) })
				default:
					counts[fmt.Sprint(e.Target, e.Emoji)] = e.Message().Event.Count
				}
			}
			want := map[string]int{}
			for seq, emojis := range model {
				for emoji, users := range emojis {
					want[fmt.Sprint(seq, emoji)] = len(users)
				}
			}
			maps.DeleteFunc(counts, func(_ string, n int) bool { return n == 0 })
			if diff := cmp.Diff(want, counts); diff != "" {
				t.Fatalf("seed %d: from entry %d, read at %d: %s", seed, start, read, diff)
			}
		}
	}
}

func TestReactionsHaveABound(t *testing.T) {
	place := chat.Place{Conversation: "c", Seq: 1}
	state := chat.State{
		Standing: map[string]chat.Standing{"c": {LastSeq: 1, Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1"}, {ID: "u2"}})}},
		Targets:  map[chat.Place]chat.Target{place: {SenderID: "u1"}},
	}
	var shown []protocol.Reaction
	for i := range chat.MaxReactions {
		emoji := string(rune('😀' + i))
		state.Tallies = map[chat.Place][]chat.Tally{place: append(state.Tallies[place], chat.Tally{Emoji: emoji, Count: 1})}
		shown = append(shown, protocol.Reaction{Emoji: emoji, Count: 1})
	}
	one, known := reaction("u2", "🎉", 1, true, 1), reaction("u2", "😀", 1, true, 2)
	got := chat.Number([]chat.Record{one, known}, state)
	if got[0].Refused != chat.ReasonForbidden || got[1].Refused != "" || got[1].Tally.Count != 2 {
		t.Errorf("got %+v", got)
	}
	if err := chat.AllowReaction(one, shown); err == nil || err.Code != protocol.CodePermissionDenied || err.Field != "emoji" {
		t.Errorf("got %v", err)
	}
	for _, add := range []bool{true, false} {
		if err := chat.AllowReaction(reaction("u2", "😀", 1, add, 3), shown); err != nil {
			t.Errorf("one that is there, add %v: %v", add, err)
		}
	}
	if err := chat.AllowReaction(reaction("u2", "🎉", 1, false, 3), shown); err != nil {
		t.Errorf("take back what is not there: %v", err)
	}
}

// TestWhoMayNotReact: a stranger, who is blocked, and nobody to what is no message.
func TestWhoMayNotReact(t *testing.T) {
	state := chat.State{
		Standing: map[string]chat.Standing{"c": {LastSeq: 2, Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1"}, {ID: "u2"}}), Silent: []string{"u2"}}},
		Targets: map[chat.Place]chat.Target{
			{Conversation: "c", Seq: 1}: {SenderID: "u1"}, {Conversation: "c", Seq: 2}: {Kind: protocol.EventEdited, SenderID: "u1"},
		},
		Reacted: map[chat.Reaction]bool{{Place: chat.Place{Conversation: "c", Seq: 1}, Emoji: "👍", UserID: "u2"}: true},
		Tallies: map[chat.Place][]chat.Tally{{Conversation: "c", Seq: 1}: {{Emoji: "👍", Count: 1}}},
	}
	var got []chat.Reason
	for _, n := range chat.Number([]chat.Record{
		reaction("u9", "👍", 1, true, 1), reaction("u2", "🎉", 1, true, 2), reaction("u2", "👍", 1, false, 3), // the blocked one may take its own back
		reaction("u1", "👍", 2, true, 4), reaction("u1", "👍", 7, true, 5), reaction("u1", "👍", 1, true, 6),
	}, state) {
		got = append(got, n.Refused)
	}
	want := []chat.Reason{chat.ReasonNotMember, chat.ReasonBlocked, "", chat.ReasonForbidden, chat.ReasonTarget, ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
