package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

func TestBlockSilencesTheOther(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		block := func(u, whom chat.User) {
			t.Helper()
			if _, err := s.Block(t.Context(), u.ID, whom.ID, 2, at); err != nil {
				t.Fatal(err)
			}
		}
		silent := func(conversation string, want ...string) {
			t.Helper()
			st, err := s.Standing(t.Context(), conversation)
			if diff := cmp.Diff(want, st.Silent); diff != "" || err != nil {
				t.Errorf("%s: %v %s", conversation, err, diff)
			}
		}
		direct(t, s, "ab", ann, bob)
		appendAll(t, s, record("ab", bob, "before"))
		block(ann, bob)
		block(ann, bob) // again
		direct(t, s, "bc", bob, cid)
		block(cid, ann) // before there is a conversation
		direct(t, s, "ac", ann, cid)
		silent("ab", bob.ID)
		silent("bc")
		silent("ac", ann.ID)
		edit := record("ab", bob, "edit")
		edit.Kind, edit.Target = protocol.EventEdited, 1
		recall := change("ab", bob, protocol.EventRecalled, "1")
		recall.Target = 1
		got, err := s.Append(t.Context(), []chat.Record{record("ab", bob, "1"), record("ab", ann, "1"), edit, recall, record("ac", ann, "1"), record("ac", cid, "1")})
		var reasons []chat.Reason
		for _, n := range got {
			reasons = append(reasons, n.Refused)
		}
		want := []chat.Reason{chat.ReasonBlocked, "", chat.ReasonBlocked, "", chat.ReasonBlocked, ""}
		if diff := cmp.Diff(want, reasons); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		block(bob, ann)
		silent("ab", bob.ID, ann.ID)
		block(ann, cid)
		if _, err := s.Block(t.Context(), ann.ID, person(t, s, "dan").ID, 2, at); !errors.Is(err, chat.ErrLimit) {
			t.Errorf("over the limit: %v", err)
		}
		block(ann, cid) // one that is there is not one more
		list, err := s.Blocks(t.Context(), ann.ID, "", 10)
		if diff := cmp.Diff([]chat.User{bob, cid}, list); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		list, err = s.Blocks(t.Context(), ann.ID, bob.ID, 10)
		if diff := cmp.Diff([]chat.User{cid}, list); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		blockers, err := s.Blockers(t.Context(), []string{ann.ID, bob.ID, cid.ID}, ann.ID)
		if diff := cmp.Diff(map[string]bool{bob.ID: true, cid.ID: true}, blockers); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		for _, whom := range []chat.User{bob, bob, cid} {
			if err := s.Unblock(t.Context(), ann.ID, whom.ID); err != nil {
				t.Fatal(err)
			}
		}
		silent("ab", ann.ID)
		appendAll(t, s, record("ab", bob, "after"))
	})
}

// TestBlockAndConversationAtOnce: whichever comes first, the block holds.
func TestBlockAndConversationAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s, other := open(t, cfg), open(t, cfg)
		for i := range 15 {
			a, b := person(t, s, fmt.Sprintf("a%02d", i)), person(t, s, fmt.Sprintf("b%02d", i))
			id := fmt.Sprint("c", i)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := other.Block(t.Context(), b.ID, a.ID, 10, at); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := s.Direct(t.Context(), id, a, b, 100, at); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			st, err := s.Standing(t.Context(), id)
			if diff := cmp.Diff([]string{a.ID}, st.Silent); diff != "" || err != nil {
				t.Fatalf("%v %s", err, diff)
			}
		}
	})
}

// TestWhoBlocksIsNotAdded by whom it blocks, whatever was accepted before; others of the same
// record are.
func TestWhoBlocksIsNotAdded(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid, dan := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid"), person(t, s, "dan")
		group(t, s, "g", ann, dan)
		if _, err := s.Block(t.Context(), bob.ID, ann.ID, 10, at); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Block(t.Context(), ann.ID, cid.ID, 10, at); err != nil { // the other direction
			t.Fatal(err)
		}
		add := func(by chat.User, clientID string, whom ...chat.User) chat.Record {
			return change("g", by, protocol.EventAdded, clientID, whom...)
		}
		admin := change("g", ann, protocol.EventRole, "1", dan)
		admin.Role = chat.RoleAdmin
		out, err := s.Append(t.Context(), []chat.Record{admin, add(ann, "1", bob), add(ann, "2", bob, cid), add(ann, "3", bob, cid), add(dan, "1", bob), add(ann, "4", bob)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range out {
			line := fmt.Sprint(n.Seq, n.Refused)
			for _, m := range n.Members {
				line += " " + m.Name
			}
			got = append(got, line)
		}
		want := []string{"2 dan", "0blocked", "3 cid", "0blocked", "4 bob", "0no_effect"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestBlockAndAdditionAtOnce: whom a group does not have when its block is answered, it does
// not get either; and neither waits for the other for ever.
func TestBlockAndAdditionAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s, other := open(t, cfg), open(t, cfg)
		isMember := func(s *store.Store, group, user string) bool {
			st, err := s.Standing(t.Context(), group)
			if err != nil {
				t.Error(err)
				return false
			}
			_, ok := st.Roster.Find(user)
			return ok
		}
		for i := range 15 {
			a, b := person(t, s, fmt.Sprintf("a%02d", i)), person(t, s, fmt.Sprintf("b%02d", i))
			g, d := fmt.Sprint("g", i), fmt.Sprint("d", i)
			group(t, s, g, a)
			direct(t, s, d, a, b)
			var answered bool
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := other.Block(t.Context(), b.ID, a.ID, 10, at); err != nil {
					t.Error(err)
				}
				answered = isMember(other, g, b.ID)
			})
			wg.Go(func() {
				if _, err := s.Append(t.Context(), []chat.Record{record(d, a, "1"), change(g, a, protocol.EventAdded, "1", b)}); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			if is := isMember(s, g, b.ID); is != answered {
				t.Errorf("a member: %v, when the block was answered: %v", is, answered)
			}
		}
	})
}
