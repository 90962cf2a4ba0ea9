package store_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

func TestMarksOnlyGrow(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob, cid)
		direct(t, s, "ab", ann, bob)
		of := func(u chat.User, conversation string, read, delivered int64) chat.Mark {
			return chat.Mark{Conversation: conversation, UserID: u.ID, Read: read, Delivered: delivered}
		}
		mark := func(marks ...chat.Mark) []chat.Mark {
			t.Helper()
			got, err := s.Mark(t.Context(), marks)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, func(a, b chat.Mark) int {
				return cmp.Or(cmp.Compare(a.Conversation, b.Conversation), cmp.Compare(a.UserID, b.UserID))
			})
			return got
		}
		got := mark(of(ann, "g", 3, 0), of(bob, "g", 0, 5), of(bob, "ab", 1, 2), of(chat.User{ID: "none"}, "g", 1, 1))
		want := []chat.Mark{of(bob, "ab", 1, 2), of(ann, "g", 3, 3), of(bob, "g", 0, 5)}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		got = mark(of(ann, "g", 2, 4), of(bob, "g", 4, 1))
		if diff := gocmp.Diff([]chat.Mark{of(ann, "g", 3, 4), of(bob, "g", 4, 5)}, got); diff != "" {
			t.Error(diff)
		}
		appendAll(t, s, change("g", ann, protocol.EventRemoved, "1", cid))
		if got := mark(of(cid, "g", 1, 1)); len(got) != 0 {
			t.Errorf("who was removed: %+v", got)
		}
		page, err := s.Members(t.Context(), "g", "", 10)
		if err != nil || len(page) != 2 || page[0].Read != 3 || page[0].Delivered != 4 || page[1].Read != 4 {
			t.Errorf("%v %+v", err, page)
		}
	})
}

// TestProcessesMarkAtOnce moves positions of the same members in opposite orders.
func TestProcessesMarkAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		owner := person(t, s, "owner")
		var people []chat.User
		for i := range 10 {
			people = append(people, person(t, s, fmt.Sprintf("user%d", i)))
		}
		group(t, s, "g", owner, people...)
		var wg sync.WaitGroup
		for p := range 3 {
			own := open(t, cfg)
			wg.Go(func() {
				for i := range 20 {
					var marks []chat.Mark
					for _, u := range people {
						marks = append(marks, chat.Mark{Conversation: "g", UserID: u.ID, Read: int64(10*i + p)})
					}
					if p == 1 {
						slices.Reverse(marks)
					}
					if _, err := own.Mark(t.Context(), marks); err != nil {
						t.Error(err)
					}
					who := people[i%len(people)]
					kind := protocol.EventRemoved
					if i >= len(people) {
						kind = protocol.EventAdded
					}
					if _, err := own.Append(t.Context(), []chat.Record{change("g", owner, kind, fmt.Sprint(p, i), who), record("g", owner, fmt.Sprintf("p%d-%d", p, i))}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestUnreadCountsWhatOthersSay(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob)
		unread := func(u chat.User, want int) {
			t.Helper()
			c, err := s.Conversation(t.Context(), u.ID, "g")
			if err != nil || c.Unread != want {
				t.Errorf("%s: %d unread, want %d: %v", u.Name, c.Unread, want, err)
			}
		}
		appendAll(t, s, record("g", ann, "1"), record("g", bob, "2"), record("g", ann, "3")) // 2, 3, 4
		unread(bob, 2)
		unread(ann, 1)
		recall := change("g", ann, protocol.EventRecalled, "4")
		recall.Target = 4
		appendAll(t, s, recall, change("g", ann, protocol.EventAdded, "1", cid)) // 5, 6
		unread(bob, 1)
		unread(cid, 0)
		if _, err := s.Mark(t.Context(), []chat.Mark{{Conversation: "g", UserID: bob.ID, Read: 3}}); err != nil {
			t.Fatal(err)
		}
		unread(bob, 0)
		var many []chat.Record
		for i := range 120 {
			many = append(many, record("g", bob, fmt.Sprint("many", i)))
		}
		appendAll(t, s, many...)
		unread(bob, 0)
		unread(cid, chat.MaxUnread)
		c, err := s.Conversation(t.Context(), bob.ID, "g")
		if err != nil || c.Read != 3 || c.Muted {
			t.Errorf("%v %+v", err, c)
		}
		if err := s.Mute(t.Context(), bob.ID, "g", true); err != nil {
			t.Fatal(err)
		}
		list, err := s.Conversations(t.Context(), bob.ID, "", 100)
		if err != nil || len(list) != 1 || !list[0].Muted {
			t.Errorf("%v %+v", err, list)
		}
		if err := s.Mute(t.Context(), "u-eve", "g", true); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("mutes other people's: %v", err)
		}
	})
}
