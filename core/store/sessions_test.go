package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/store"
)

const month = 30 * 24 * time.Hour

func login(id string, u chat.User, after time.Duration) chat.Session {
	return chat.Session{ID: id, UserID: u.ID, Device: "device " + id, Created: at.Add(after), Used: at.Add(after), Generation: 1}
}

// begin stores a session.
func begin(t testing.TB, s *store.Store, n chat.Session, hash string, limit int) []chat.Ended {
	t.Helper()
	ended, err := s.CreateSession(t.Context(), n, hash, limit)
	if err != nil {
		t.Fatal(err)
	}
	return ended
}

func TestSessions(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		a, b, c := login("a", ann, 0), login("b", ann, time.Second), login("c", ann, 2*time.Second)
		begin(t, s, a, "hash of ann", 2)
		begin(t, s, b, "hash of ann", 2)
		begin(t, s, login("other", bob, 0), "hash of bob", 2)
		if _, err := s.CreateSession(t.Context(), c, "another hash", 2); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("with another password: %v", err)
		}
		now := at.Add(time.Minute)
		u, after, r, err := s.RotateSession(t.Context(), "a", 1, now, month, time.Second)
		a.Generation, a.Used = 2, now
		if err != nil || r != chat.Rotated || u != ann || after != a {
			t.Errorf("%v %v %v %+v", err, r, u, after)
		}
		if ended := begin(t, s, c, "hash of ann", 2); !cmp.Equal(ended, []chat.Ended{{ID: "b", UserID: ann.ID, At: c.Created}}) {
			t.Errorf("over the limit: %v", ended)
		}
		list, err := s.Sessions(t.Context(), ann.ID)
		if diff := cmp.Diff([]chat.Session{a, c}, list); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		if _, _, r, err = s.RotateSession(t.Context(), "a", 1, now, month, time.Second); err != nil || r != chat.Repeated {
			t.Errorf("%v %v", err, r)
		}
		if _, _, r, err = s.RotateSession(t.Context(), "a", 1, now.Add(time.Second), month, time.Second); err != nil || r != chat.Reused {
			t.Errorf("%v %v", err, r)
		}
		if _, _, _, err = s.RotateSession(t.Context(), "a", 2, now, month, time.Second); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("after reuse: %v", err)
		}
		if ended, err := s.EndSession(t.Context(), bob.ID, "c", now); err != nil || ended != nil {
			t.Errorf("another's: %v %v", err, ended)
		}
		if ended, err := s.EndSession(t.Context(), "", "c", now); err != nil || len(ended) != 1 {
			t.Errorf("%v %v", err, ended)
		}
		ended, err := s.EndedSince(t.Context(), at.Add(3*time.Second))
		want := map[string]time.Time{"a": now.Add(time.Second), "c": now}
		got := map[string]time.Time{}
		for _, e := range ended {
			got[e.ID] = e.At
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		if err := s.SweepSessions(t.Context(), at.Add(time.Second), now.Add(time.Millisecond)); err != nil {
			t.Error(err)
		}
		if list, err := s.Sessions(t.Context(), bob.ID); err != nil || len(list) != 0 {
			t.Errorf("one that was not used: %v %v", err, list)
		}
		if ended, err := s.EndedSince(t.Context(), at); err != nil || len(ended) != 1 || ended[0].ID != "a" {
			t.Errorf("%v %v", err, ended)
		}
	})
}

// TestRefreshAtOnce: of many uses of one token by two processes one rotates.
func TestRefreshAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s, other := open(t, cfg), open(t, cfg)
		ann := person(t, s, "ann")
		begin(t, s, login("a", ann, 0), "hash of ann", 9)
		var mu sync.Mutex
		got := map[chat.Rotation]int{}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				_, after, r, err := []*store.Store{s, other}[i%2].RotateSession(t.Context(), "a", 1, at, month, time.Second)
				if err != nil || after.Generation != 2 {
					t.Errorf("%v %+v", err, after)
				}
				mu.Lock()
				got[r]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if diff := cmp.Diff(map[chat.Rotation]int{chat.Rotated: 1, chat.Repeated: 9}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestPasswordAndLoginAtOnce: no session of the old password outlives its change.
func TestPasswordAndLoginAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s, other := open(t, cfg), open(t, cfg)
		ann := person(t, s, "ann")
		begin(t, s, login("mine", ann, 0), "hash of ann", 99)
		old := "hash of ann"
		for i := range 10 {
			fresh := fmt.Sprint("hash ", i)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := other.CreateSession(t.Context(), login(fmt.Sprint(i), ann, 0), old, 99)
				if err != nil && !errors.Is(err, chat.ErrNotFound) {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := s.SetPassword(t.Context(), ann.ID, old, fresh, "mine", at); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			if list, err := s.Sessions(t.Context(), ann.ID); err != nil || len(list) != 1 || list[0].ID != "mine" {
				t.Fatalf("%v %+v", err, list)
			}
			if _, err := s.SetPassword(t.Context(), ann.ID, old, "x", "", at); !errors.Is(err, chat.ErrNotFound) {
				t.Fatalf("by an old password: %v", err)
			}
			old = fresh
		}
		if ended, err := s.EndSessions(t.Context(), ann.ID, "", at); err != nil || len(ended) != 1 {
			t.Errorf("%v %v", err, ended)
		}
	})
}

func TestProfile(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann := person(t, s, "ann")
		text := func(s string) *string { return &s }
		for _, step := range []struct {
			change chat.ProfileChange
			want   chat.Profile
		}{
			{chat.ProfileChange{}, chat.Profile{}},
			{chat.ProfileChange{DisplayName: text("Ann 安"), About: text("a\nb")}, chat.Profile{DisplayName: "Ann 安", About: "a\nb"}},
			{chat.ProfileChange{Avatar: text("https://x.example/a.png"), About: text("")}, chat.Profile{DisplayName: "Ann 安", Avatar: "https://x.example/a.png"}},
		} {
			want := chat.Person{User: ann, Profile: step.want}
			got, err := s.SetProfile(t.Context(), ann.ID, step.change)
			if err != nil || got != want {
				t.Errorf("%v %+v", err, got)
			}
			if got, err = s.Person(t.Context(), "ann"); err != nil || got != want {
				t.Errorf("%v %+v", err, got)
			}
		}
		if _, err := s.SetProfile(t.Context(), "nobody", chat.ProfileChange{}); !errors.Is(err, chat.ErrNotFound) {
			t.Error(err)
		}
		if _, err := s.Person(t.Context(), "nobody"); !errors.Is(err, chat.ErrNotFound) {
			t.Error(err)
		}
	})
}
