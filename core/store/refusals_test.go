package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

// TestWhatWasRefusedStaysSo when the log delivers it again, also to another process and when
// nothing else is in the batch; who tries again is judged anew.
func TestWhatWasRefusedStaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s, other := open(t, cfg), open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob)
		admin := change("g", ann, protocol.EventRole, "1", bob)
		admin.Role = chat.RoleAdmin
		batch := []chat.Record{
			admin, record("g", cid, "1"), change("g", ann, protocol.EventAdded, "1", cid), change("g", bob, protocol.EventAdded, "1", cid),
			change("g", ann, protocol.EventRemoved, "1", cid), record("none", ann, "1"),
		}
		for i := range batch {
			batch[i].LoggedAt = at.Add(time.Duration(i) * time.Millisecond)
		}
		outcome := func(s *store.Store, batch []chat.Record) (out []string) {
			t.Helper()
			list, err := s.Append(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				out = append(out, fmt.Sprint(n.Seq, n.Refused))
			}
			return out
		}
		want := []string{"2", "0not_member", "3", "0no_effect", "4", "0conversation"}
		for _, again := range []*store.Store{s, s, other} {
			if diff := cmp.Diff(want, outcome(again, batch)); diff != "" {
				t.Error(diff)
			}
		}
		if diff := cmp.Diff(want[3:4], outcome(other, batch[3:4])); diff != "" {
			t.Error(diff)
		}
		if list := history(t, s, ann, "g"); len(list) != 4 {
			t.Errorf("%d entries", len(list))
		}
		retry := batch[3]
		retry.LoggedAt = retry.LoggedAt.Add(time.Second)
		if diff := cmp.Diff([]string{"5", "5"}, outcome(s, []chat.Record{retry, batch[3]})); diff != "" { // now the first one is a repetition
			t.Error(diff)
		}
	})
}

// TestRefusalsAreSwept: those of before a time, however many there are.
func TestRefusalsAreSwept(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		const n = 2500
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		direct(t, s, "ab", ann, bob)
		batch := make([]chat.Record, n)
		for i := range batch {
			batch[i] = record("ab", cid, fmt.Sprint(i))
			batch[i].LoggedAt = at.Add(time.Duration(i) * time.Millisecond)
		}
		if _, err := s.Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ before, left int }{{-1, n}, {0, n}, {n - 10, 10}, {n - 10, 10}, {n, 0}} {
			if err := s.SweepRefusals(t.Context(), at.Add(time.Duration(c.before)*time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if left := s.CountRefusals(t); left != c.left {
				t.Errorf("%d are left of before %d, want %d", left, c.before, c.left)
			}
		}
	})
}
