package store_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

func TestSearchablesSayWhatIsNow(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		group(t, s, "g", ann, bob)
		upload(t, s, ann, "f1")
		appendAll(t, s, record("g", ann, "1"), sendFile("g", bob, "2", ""), record("g", ann, "3"))
		edit := record("g", ann, "4")
		edit.Kind, edit.Target, edit.Text = protocol.EventEdited, 2, "newer"
		file := sendFile("g", ann, "5", "f1")
		file.Text = ""
		appendAll(t, s, edit, recall("g", ann, 4), file)
		got, err := s.Searchables(t.Context(), "g", 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		want := []chat.Searchable{
			{Seq: 1, Sender: "ann", SentAt: at},
			{Seq: 2, Message: 2, Sender: "ann", SentAt: at, Text: "newer"},
			{Seq: 3, Message: 3, Sender: "bob", SentAt: at, Text: "text 2"},
			{Seq: 4, Message: 4, Sender: "ann", SentAt: at},
			{Seq: 5, Message: 2, Sender: "ann", SentAt: at, Text: "newer"},
			{Seq: 6, Message: 4, Sender: "ann", SentAt: at},
			{Seq: 7, Message: 7, Sender: "ann", SentAt: at, FileName: "f1.png"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if page, err := s.Searchables(t.Context(), "g", 5, 1); err != nil || len(page) != 1 || page[0].Seq != 6 {
			t.Errorf("page: %+v, %v", page, err)
		}
	})
}

func TestMessagesAtAreThoseThatMayBeSeen(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob)
		direct(t, s, "d", ann, bob)
		appendAll(t, s, record("g", ann, "1"), record("d", ann, "1"), change("g", ann, protocol.EventAdded, "1", cid), record("g", bob, "2"),
			change("g", ann, protocol.EventRemoved, "2", bob), record("g", ann, "3"))
		all := []chat.Place{{Conversation: "d", Seq: 1}, {Conversation: "none", Seq: 1}}
		for seq := range int64(9) {
			all = append(all, chat.Place{Conversation: "g", Seq: seq})
		}
		for _, c := range []struct {
			user chat.User
			want []chat.Place
		}{
			{ann, []chat.Place{{Conversation: "d", Seq: 1}, {Conversation: "g", Seq: 2}, {Conversation: "g", Seq: 4}, {Conversation: "g", Seq: 6}}},
			{bob, []chat.Place{{Conversation: "d", Seq: 1}, {Conversation: "g", Seq: 2}, {Conversation: "g", Seq: 4}}},
			{cid, []chat.Place{{Conversation: "g", Seq: 4}, {Conversation: "g", Seq: 6}}},
			{chat.User{ID: "nobody"}, nil},
		} {
			list, err := s.MessagesAt(t.Context(), c.user.ID, all)
			if err != nil {
				t.Fatal(err)
			}
			var got []chat.Place
			for _, m := range list {
				got = append(got, chat.Place{Conversation: m.Conversation, Seq: m.Seq})
			}
			slices.SortFunc(got, func(a, b chat.Place) int {
				if a.Conversation != b.Conversation {
					return map[bool]int{true: -1, false: 1}[a.Conversation < b.Conversation]
				}
				return int(a.Seq - b.Seq)
			})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: %s", c.user.Name, diff)
			}
		}
		heads, err := s.ConversationHeads(t.Context(), "d", 10)
		if diff := cmp.Diff([]chat.Head{{Conversation: "g", LastSeq: 6}}, heads); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}
