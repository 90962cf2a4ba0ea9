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

func TestFriends(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		act := func(u, other chat.User, act chat.FriendAct, want chat.FriendState) {
			t.Helper()
			if _, got, err := s.Befriend(t.Context(), u.ID, other.ID, act, 2, at); err != nil || got != want {
				t.Errorf("%v %v", got, err)
			}
		}
		listed := func(u chat.User, state chat.FriendState, after string, want ...chat.User) {
			t.Helper()
			list, err := s.Friends(t.Context(), u.ID, state, after, 10)
			var got []chat.User
			for _, f := range list {
				got = append(got, f.User)
				if f.State != state || !f.Since.Equal(at) {
					t.Errorf("got %+v", f)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		}
		act(ann, bob, chat.AskFriend, chat.Outgoing)
		listed(ann, chat.Outgoing, "", bob)
		listed(bob, chat.Incoming, "", ann)
		listed(bob, chat.Friends, "")
		act(bob, ann, chat.AcceptFriend, chat.Friends)
		act(cid, ann, chat.AskFriend, chat.Outgoing)
		act(ann, cid, chat.AskFriend, chat.Friends)
		listed(ann, chat.Friends, "", bob, cid)
		listed(ann, chat.Friends, bob.ID, cid)
		dan := person(t, s, "dan")
		_, _, err := s.Befriend(t.Context(), dan.ID, ann.ID, chat.AskFriend, 2, at)
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied {
			t.Errorf("over the other one's limit: %v", err)
		}
		act(ann, cid, chat.EndFriend, chat.Strangers)
		listed(cid, chat.Friends, "")
		if ended, err := s.Block(t.Context(), bob.ID, ann.ID, 9, at); err != nil || !ended {
			t.Errorf("%v %v", ended, err)
		}
		if ended, err := s.Block(t.Context(), bob.ID, ann.ID, 9, at); err != nil || ended {
			t.Errorf("%v %v", ended, err)
		}
		listed(ann, chat.Friends, "")
		for _, pair := range [][2]chat.User{{ann, bob}, {bob, ann}} {
			_, _, err := s.Befriend(t.Context(), pair[0].ID, pair[1].ID, chat.AskFriend, 2, at)
			if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied || e.Field != "name" {
				t.Errorf("%s asks %s: %v", pair[0].Name, pair[1].Name, err)
			}
		}
	})
}

// TestFriendsAtOnce: two who ask each other are friends; a request and a block end blocked.
func TestFriendsAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s, other := open(t, cfg), open(t, cfg)
		for i := range 10 {
			a, b, c := person(t, s, fmt.Sprintf("a%02d", i)), person(t, s, fmt.Sprintf("b%02d", i)), person(t, s, fmt.Sprintf("c%02d", i))
			var wg sync.WaitGroup
			ask := func(s *store.Store, u, whom chat.User) {
				if _, _, err := s.Befriend(t.Context(), u.ID, whom.ID, chat.AskFriend, 9, at); err != nil {
					if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied || whom.ID != c.ID {
						t.Error(err)
					}
				}
			}
			wg.Go(func() { ask(s, a, b) })
			wg.Go(func() { ask(other, b, a) })
			wg.Go(func() { ask(s, a, c) })
			wg.Go(func() {
				if _, err := other.Block(t.Context(), c.ID, a.ID, 9, at); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			for _, u := range []chat.User{a, b} {
				if list, err := s.Friends(t.Context(), u.ID, chat.Friends, "", 9); err != nil || len(list) != 1 {
					t.Fatalf("%v %+v", err, list)
				}
			}
			if list, err := s.Friends(t.Context(), c.ID, chat.Incoming, "", 9); err != nil || len(list) != 0 {
				t.Fatalf("%v %+v", err, list)
			}
		}
	})
}
