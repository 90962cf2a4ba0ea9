package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/store"
)

func TestPush(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		direct(t, s, "ab", ann, bob)
		for id, u := range map[string]chat.User{"a1": ann, "b1": bob, "b2": bob, "b3": bob, "c1": cid} {
			begin(t, s, login(id, u, 0), "hash of "+u.Name, 9)
			if id != "b3" {
				if err := s.SetPush(t.Context(), id, "fcm", "token "+id); err != nil {
					t.Fatal(err)
				}
			}
		}
		m1 := record("ab", ann, "1")
		m2 := record("ab", ann, "2")
		m2.SentAt = at.Add(time.Hour)
		appendAll(t, s, m1, m2)
		unpushed := func(after time.Time, want ...int64) {
			t.Helper()
			list, err := s.Unpushed(t.Context(), "ab", after, 10)
			var got []int64
			for _, m := range list {
				got = append(got, m.Seq)
				if m.SenderID != ann.ID || m.Sender != "ann" || m.Text == "" {
					t.Errorf("got %+v", m)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		}
		devices := func(seq int64, after string, want ...string) {
			t.Helper()
			list, err := s.PushDevices(t.Context(), "ab", seq, ann.ID, after, 10)
			var got []string
			for _, d := range list {
				got = append(got, d.Session)
				if d.User != bob || d.Platform != "fcm" {
					t.Errorf("got %+v", d)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		}
		unpushed(at.Add(-time.Second), 1, 2)
		unpushed(at, 2)
		devices(1, "", "b1", "b2")
		devices(1, "b1", "b2")
		for _, seq := range []int64{1, 2, 1} { // never back
			if err := s.Pushed(t.Context(), "ab", seq); err != nil {
				t.Fatal(err)
			}
		}
		unpushed(at.Add(-time.Second))
		if err := s.SetPush(t.Context(), "b3", "fcm", "token b2"); err != nil { // the same device logged in anew
			t.Fatal(err)
		}
		devices(2, "", "b1", "b3")
		if err := s.ForgetPush(t.Context(), "b1", "another"); err != nil {
			t.Fatal(err)
		}
		devices(2, "", "b1", "b3")
		if err := s.ForgetPush(t.Context(), "b1", "token b1"); err != nil {
			t.Fatal(err)
		}
		devices(2, "", "b3")
		if _, err := s.Mark(t.Context(), []chat.Mark{{Conversation: "ab", UserID: bob.ID, Read: 1}}); err != nil {
			t.Fatal(err)
		}
		devices(1, "")
		devices(2, "", "b3")
		if err := s.Mute(t.Context(), bob.ID, "ab", true); err != nil {
			t.Fatal(err)
		}
		devices(2, "")
		if err := s.Mute(t.Context(), bob.ID, "ab", false); err != nil {
			t.Fatal(err)
		}
		long := strings.Repeat("x", chat.MaxPushToken)
		if err := s.SetPush(t.Context(), "b3", "fcm", long); err != nil {
			t.Errorf("the longest token: %v", err)
		}
		if _, err := s.EndSession(t.Context(), bob.ID, "b3", at); err != nil {
			t.Fatal(err)
		}
		devices(2, "")
		if err := s.SetPush(t.Context(), "b3", "fcm", "x"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("of an ended session: %v", err)
		}
	})
}
