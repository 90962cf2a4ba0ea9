package store_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

func memberOf(u chat.User) chat.Member { return chat.Member{ID: u.ID, Name: u.Name} }

func group(t testing.TB, s *store.Store, id string, owner chat.User, others ...chat.User) {
	t.Helper()
	created := chat.Record{Conversation: id, ClientID: "created." + id, SenderID: owner.ID, Sender: owner.Name, SentAt: at, Name: "group " + id}
	for _, u := range others {
		created.Members = append(created.Members, memberOf(u))
	}
	if _, fresh, err := s.Group(t.Context(), created, 100); err != nil || !fresh {
		t.Fatalf("fresh %v, %v", fresh, err)
	}
}

func change(conversation string, from chat.User, kind protocol.EventKind, clientID string, whom ...chat.User) chat.Record {
	r := record(conversation, from, string(kind)+"."+clientID)
	r.Kind, r.Text = kind, ""
	for _, u := range whom {
		r.Members = append(r.Members, memberOf(u))
	}
	return r
}

// appendAll stores a batch in which nothing may be refused.
func appendAll(t testing.TB, s *store.Store, records ...chat.Record) []chat.Numbered {
	t.Helper()
	out, err := s.Append(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range out {
		if n.Refused != "" {
			t.Fatalf("%s: refused %s", n.ClientID, n.Refused)
		}
	}
	return out
}

func history(t testing.TB, s *store.Store, u chat.User, conversation string) []protocol.Message {
	t.Helper()
	list, err := s.Messages(t.Context(), u.ID, conversation, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func entrySeqs(list []protocol.Message) []int64 {
	var out []int64
	for _, m := range list {
		out = append(out, m.Seq)
	}
	return out
}

func TestGroupLifeIsInItsLog(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid, dan := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid"), person(t, s, "dan")
		group(t, s, "g", ann, bob)
		role := change("g", ann, protocol.EventRole, "1", bob)
		role.Role = chat.RoleAdmin
		rename := change("g", bob, protocol.EventRenamed, "1")
		rename.Name = "昼食"
		appendAll(t, s, // 2 to 9, some in one transaction
			record("g", ann, "before"), role, change("g", bob, protocol.EventAdded, "1", cid, dan, ann), record("g", cid, "hello"))
		appendAll(t, s, rename, change("g", bob, protocol.EventRemoved, "1", cid), record("g", ann, "without cid"), change("g", dan, protocol.EventRemoved, "1", dan))
		got, err := s.Append(t.Context(), []chat.Record{record("g", cid, "late"), record("g", dan, "late"), change("g", bob, protocol.EventRemoved, "2", ann)})
		if err != nil || got[0].Refused != chat.ReasonNotMember || got[1].Refused != chat.ReasonNotMember || got[2].Refused != chat.ReasonForbidden {
			t.Errorf("%v %+v", err, got)
		}
		for _, c := range []struct {
			user chat.User
			want []int64
		}{{ann, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9}}, {cid, []int64{4, 5, 6, 7}}, {dan, []int64{4, 5, 6, 7, 8, 9}}} {
			if diff := cmp.Diff(c.want, entrySeqs(history(t, s, c.user, "g"))); diff != "" {
				t.Errorf("%s sees %s", c.user.Name, diff)
			}
		}
		list := history(t, s, ann, "g")
		want := []*protocol.Event{
			{Kind: "created", Members: []string{"ann", "bob"}, Name: "group g"}, nil, {Kind: "role", Members: []string{"bob"}, Role: "admin"},
			{Kind: "added", Members: []string{"cid", "dan"}}, nil, {Kind: "renamed", Name: "昼食"}, {Kind: "removed", Members: []string{"cid"}}, nil,
			{Kind: "removed", Members: []string{"dan"}},
		}
		for i, m := range list {
			if diff := cmp.Diff(want[i], m.Event); diff != "" {
				t.Errorf("seq %d: %s", m.Seq, diff)
			}
		}
		heads, err := s.Heads(t.Context(), ann.ID, cid.ID, dan.ID)
		wantHeads := map[string]map[string]chat.Span{ann.ID: {"g": {Last: 9}}, cid.ID: {"g": {After: 3, Last: 7}}, dan.ID: {"g": {After: 3, Last: 9}}}
		if diff := cmp.Diff(wantHeads, heads); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		c, err := s.Conversation(t.Context(), bob.ID, "g")
		if diff := cmp.Diff(chat.Conversation{ID: "g", Group: true, Name: "昼食", Count: 2, Role: chat.RoleAdmin, LastSeq: 9, Unread: 3}, c); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		if _, err := s.Conversation(t.Context(), cid.ID, "g"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("who was removed has it: %v", err)
		}
		if list, err := s.Conversations(t.Context(), cid.ID, "", 100); len(list) != 0 || err != nil {
			t.Errorf("who was removed lists it: %v %v", list, err)
		}
		// Back again: from then on, and with no part in what came between.
		appendAll(t, s, record("g", ann, "between"), change("g", ann, protocol.EventAdded, "2", cid), record("g", cid, "back"))
		if diff := cmp.Diff([]int64{11, 12}, entrySeqs(history(t, s, cid, "g"))); diff != "" {
			t.Error(diff)
		}
		owner := change("g", ann, protocol.EventRole, "2", cid)
		owner.Role = chat.RoleOwner
		appendAll(t, s, owner, change("g", ann, protocol.EventRemoved, "3", ann)) // who has given it away may leave
		members, err := s.Members(t.Context(), "g", "", 10)
		wantMembers := []chat.Listed{
			{Member: chat.Member{ID: bob.ID, Name: "bob", Role: chat.RoleAdmin, Joined: 1}}, {Member: chat.Member{ID: cid.ID, Name: "cid", Role: chat.RoleOwner, Joined: 11}},
		}
		if diff := cmp.Diff(wantMembers, members); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func TestOpenGroupsAreJoined(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann)
		join := func(who chat.User, clientID string) chat.Record {
			return change("g", who, protocol.EventAdded, clientID, who)
		}
		refused := func(want chat.Reason, r chat.Record) {
			t.Helper()
			if got, err := s.Append(t.Context(), []chat.Record{r}); err != nil || got[0].Refused != want {
				t.Errorf("%v %+v", err, got)
			}
		}
		refused(chat.ReasonNotMember, join(bob, "1"))
		appendAll(t, s, change("g", ann, protocol.EventOpened, "1"), join(bob, "2")) // 2, 3
		refused(chat.ReasonNoEffect, change("g", ann, protocol.EventOpened, "2"))
		refused(chat.ReasonForbidden, change("g", bob, protocol.EventClosed, "1"))
		rename := change("g", ann, protocol.EventRenamed, "1")
		rename.Name = "as open as before"
		appendAll(t, s, rename, change("g", ann, protocol.EventRemoved, "1", bob)) // 4, 5
		if st, err := s.StandingOf(t.Context(), "g", bob.ID); err != nil || !st.Open {
			t.Errorf("%v %+v", err, st)
		}
		appendAll(t, s, join(bob, "3")) // 6
		if diff := cmp.Diff([]int64{6}, entrySeqs(history(t, s, bob, "g"))); diff != "" {
			t.Error(diff)
		}
		c, err := s.Conversation(t.Context(), bob.ID, "g")
		if diff := cmp.Diff(chat.Conversation{ID: "g", Group: true, Name: rename.Name, Open: true, Count: 2, LastSeq: 6}, c); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		appendAll(t, s, change("g", ann, protocol.EventClosed, "1"))
		refused(chat.ReasonNotMember, join(cid, "1"))
		if c, err := s.Conversation(t.Context(), bob.ID, "g"); err != nil || c.Open {
			t.Errorf("%v %+v", err, c)
		}

		created := chat.Record{Conversation: "h", ClientID: "created.h", SenderID: ann.ID, Sender: "ann", SentAt: at, Name: "h", Open: true}
		if _, _, err := s.Group(t.Context(), created, 100); err != nil {
			t.Fatal(err)
		}
		appendAll(t, s, change("h", cid, protocol.EventAdded, "1", cid))
	})
}

// TestConversationsArePaged: by age, then by id, also after one that the user has left.
func TestConversationsArePaged(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		for _, id := range []string{"d", "b", "c"} {
			group(t, s, id, ann, bob)
		}
		group(t, s, "others", ann)
		old := chat.Record{Conversation: "old", ClientID: "created.old", SenderID: bob.ID, Sender: "bob", SentAt: at.Add(-time.Hour), Name: "old"}
		if _, _, err := s.Group(t.Context(), old, 100); err != nil {
			t.Fatal(err)
		}
		appendAll(t, s, change("c", bob, protocol.EventRemoved, "1", bob))
		for _, page := range []struct {
			after string
			limit int
			want  []string
		}{
			{"", math.MaxInt, []string{"old", "b", "d"}}, {"", 2, []string{"old", "b"}}, {"b", 2, []string{"d"}}, {"old", 1, []string{"b"}},
			{"c", 2, []string{"d"}}, {"d", 2, nil}, {"others", 2, nil}, {"none", 2, nil},
		} {
			list, err := s.Conversations(t.Context(), bob.ID, page.after, page.limit)
			var got []string
			for _, c := range list {
				got = append(got, c.ID)
			}
			if diff := cmp.Diff(page.want, got); diff != "" || err != nil {
				t.Errorf("%d after %q: %v %s", page.limit, page.after, err, diff)
			}
		}
	})
}

func TestGroupIsCreatedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		created := chat.Record{Conversation: "g", ClientID: "created.g", SenderID: ann.ID, Sender: "ann", SentAt: at, Name: "g", Members: []chat.Member{memberOf(bob)}}
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for range 8 {
			wg.Go(func() {
				_, fresh, err := s.Group(t.Context(), created, 100)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if fresh {
					made++
				}
			})
		}
		wg.Wait()
		if list := history(t, s, bob, "g"); made != 1 || len(list) != 1 {
			t.Errorf("made %d times, %d entries", made, len(list))
		}
		other := created
		other.SenderID, other.Sender, other.Members = person(t, s, "eve").ID, "eve", nil
		if _, _, err := s.Group(t.Context(), other, 100); !errors.Is(err, chat.ErrExists) {
			t.Errorf("another one's id: %v", err)
		}
		created.Conversation = "h"
		if _, _, err := s.Group(t.Context(), created, 1); !errors.Is(err, chat.ErrLimit) {
			t.Errorf("over the limit: %v", err)
		}
		if full, err := s.Full(t.Context(), []string{ann.ID, bob.ID, "none"}, 1); err != nil || len(full) != 2 {
			t.Errorf("%v %v", full, err)
		}
		if list, err := s.Conversations(t.Context(), ann.ID, "", 100); err != nil || len(list) != 1 {
			t.Errorf("a refused group left something behind: %v %v", list, err)
		}
		if users, err := s.Users(t.Context(), []string{"ann", "nobody", "bob"}); err != nil || len(users) != 2 {
			t.Errorf("%v %v", users, err)
		}
	})
}

func TestEditAndRecallChangeTheHistory(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		group(t, s, "g", ann, bob)
		edit := func(from chat.User, id, text string, target int64) chat.Record {
			r := record("g", from, id)
			r.Kind, r.Text, r.Target = protocol.EventEdited, text, target
			return r
		}
		recall := func(from chat.User, target int64) chat.Record {
			r := change("g", from, protocol.EventRecalled, fmt.Sprint(target))
			r.Target = target
			return r
		}
		reply := record("g", bob, "reply")
		reply.ReplyTo = 2
		appendAll(t, s, record("g", bob, "one"), record("g", bob, "two"), reply)      // 2, 3, 4
		appendAll(t, s, edit(bob, "e1", "first", 2), edit(bob, "e2", "second", 2))    // 5, 6
		appendAll(t, s, edit(bob, "e3", "secret", 3), recall(ann, 3), recall(bob, 4)) // 7, 8, 9
		out, err := s.Append(t.Context(), []chat.Record{
			edit(bob, "e1", "first", 2), edit(ann, "e4", "not mine", 2), edit(bob, "e5", "too late", 3), recall(bob, 3), recall(ann, 1), recall(ann, 99), edit(bob, "e6", "x", 5),
		})
		var reasons []chat.Reason
		for _, n := range out {
			reasons = append(reasons, n.Refused)
		}
		wantReasons := []chat.Reason{"", chat.ReasonForbidden, chat.ReasonForbidden, chat.ReasonNoEffect, chat.ReasonForbidden, chat.ReasonTarget, chat.ReasonForbidden}
		if diff := cmp.Diff(wantReasons, reasons); diff != "" || err != nil || !out[0].Duplicate || out[0].Seq != 5 {
			t.Errorf("%v %s %+v", err, diff, out[0])
		}
		var lines []string
		for _, m := range history(t, s, ann, "g")[1:] {
			line := fmt.Sprintf("%d %q", m.Seq, m.Text)
			if m.Event != nil {
				line += fmt.Sprintf(" %s %d", m.Event.Kind, m.Event.Target)
			}
			if m.Edited || m.Recalled || m.ReplyTo > 0 {
				line += fmt.Sprintf(" edited=%v recalled=%v reply=%d", m.Edited, m.Recalled, m.ReplyTo)
			}
			lines = append(lines, line)
		}
		want := []string{
			`2 "second" edited=true recalled=false reply=0`, `3 "" edited=false recalled=true reply=0`, `4 "" edited=false recalled=true reply=2`,
			`5 "second" edited 2`, `6 "second" edited 2`, `7 "" edited 3`, `8 "" recalled 3`, `9 "" recalled 4`,
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Error(diff)
		}
		target, err := s.Target(t.Context(), ann.ID, "g", 3)
		if err != nil || target != (chat.Target{SenderID: bob.ID, SentAt: at, Recalled: true}) {
			t.Errorf("%v %+v", err, target)
		}
		if _, err := s.Target(t.Context(), ann.ID, "g", 10); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("no such entry: %v", err)
		}
		if s.CountText(t, "secret") != 0 {
			t.Error("a recalled text is still in the database")
		}
	})
}

func TestHistoryPagesBothWays(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob)
		for i := range 9 {
			appendAll(t, s, record("g", bob, fmt.Sprint(i)))
		}
		appendAll(t, s, change("g", ann, protocol.EventAdded, "1", cid), record("g", bob, "10"), record("g", bob, "11"))
		back := func(u chat.User, before int64, limit int) []int64 {
			t.Helper()
			list, err := s.MessagesBefore(t.Context(), u.ID, "g", before, limit)
			if err != nil {
				t.Fatal(err)
			}
			return entrySeqs(list)
		}
		for _, c := range []struct {
			name   string
			got    []int64
			expect []int64
		}{
			{"newest", back(ann, 1<<60, 3), []int64{11, 12, 13}},
			{"before them", back(ann, 11, 3), []int64{8, 9, 10}},
			{"the first", back(ann, 3, 3), []int64{1, 2}},
			{"nothing before", back(ann, 1, 3), nil},
			{"not before joining", back(cid, 13, 100), []int64{11, 12}},
		} {
			if diff := cmp.Diff(c.expect, c.got); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
		}
		for _, read := range []func() ([]protocol.Message, error){
			func() ([]protocol.Message, error) { return s.Messages(t.Context(), "u-eve", "g", 0, 9) },
			func() ([]protocol.Message, error) { return s.MessagesBefore(t.Context(), "u-eve", "g", 9, 9) },
			func() ([]protocol.Message, error) { return s.Messages(t.Context(), ann.ID, "none", 0, 9) },
		} {
			if list, err := read(); !errors.Is(err, chat.ErrNotFound) || len(list) != 0 {
				t.Errorf("other people's: %v %v", list, err)
			}
		}
	})
}

func TestMembersPage(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		owner := person(t, s, "owner")
		group(t, s, "g", owner)
		var want []string
		for i := range 7 {
			u := person(t, s, fmt.Sprintf("user%d", i))
			want = append(want, u.Name)
			appendAll(t, s, change("g", owner, protocol.EventAdded, fmt.Sprint(i), u))
		}
		want = append([]string{"owner"}, want...)
		var got []string
		for after := ""; ; {
			page, err := s.Members(t.Context(), "g", after, 3)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page {
				got, after = append(got, m.Name), m.ID
			}
			if len(page) < 3 {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestProcessesAgreeOnMembers changes and uses the members of a group by several
// processes at once. Each has members of its own at hand; none may believe them once
// another one has changed them.
func TestProcessesAgreeOnMembers(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		const processes, rounds = 3, 30
		s := open(t, cfg)
		owner := person(t, s, "owner")
		var people []chat.User
		for i := range 6 {
			people = append(people, person(t, s, fmt.Sprintf("user%d", i)))
		}
		group(t, s, "g", owner)
		var wg sync.WaitGroup
		for p := range processes {
			own := open(t, cfg)
			r := rand.New(rand.NewPCG(uint64(p), 5))
			wg.Go(func() {
				for i := range rounds {
					id := fmt.Sprintf("p%d-%d", p, i)
					who := people[r.IntN(len(people))]
					batch := []chat.Record{record("g", people[r.IntN(len(people))], id), change("g", owner, protocol.EventAdded, id, who), record("g", who, "x"+id)}
					if r.IntN(2) == 0 {
						batch[1] = change("g", owner, protocol.EventRemoved, id, who)
					}
					if _, err := own.Append(t.Context(), batch); err != nil {
						t.Error(err)
					}
					if st, err := own.Standing(t.Context(), "g"); err != nil || st.LastSeq < 1 {
						t.Errorf("%+v %v", st, err)
					}
				}
			})
		}
		wg.Wait()
		in := map[string]bool{"owner": true}
		for i, m := range history(t, s, owner, "g") {
			if m.Seq != int64(i+1) {
				t.Fatalf("entry %d has seq %d", i, m.Seq)
			}
			if !in[m.Sender] {
				t.Fatalf("seq %d is of %s, who is not in it", m.Seq, m.Sender)
			}
			if m.Event == nil {
				continue
			}
			for _, name := range m.Event.Members {
				if added := m.Event.Kind != protocol.EventRemoved; m.Event.Kind != protocol.EventCreated && in[name] == added {
					t.Fatalf("seq %d: %s %s", m.Seq, name, m.Event.Kind)
				} else {
					in[name] = added
				}
			}
		}
		st, err := s.Standing(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		for name, is := range in {
			_, found := st.Roster.Find("u-" + name)
			if found != is {
				t.Errorf("%s: in %v, found %v", name, is, found)
			}
		}
		page, err := s.Members(t.Context(), "g", "", 100)
		var listed []chat.Member
		for _, m := range page {
			listed = append(listed, m.Member)
		}
		if diff := cmp.Diff(st.Roster.Members, listed); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// TestAppendWritesNoRowForAMember: what a message writes does not grow with the group.
func TestAppendWritesNoRowForAMember(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		owner := person(t, s, "owner")
		group(t, s, "g", owner)
		s.FillGroup(t, "g", 3000)
		first := appendAll(t, s, record("g", owner, "1"))
		if n := len(first[0].Roster.Members); n != 3001 {
			t.Fatalf("%d members", n)
		}
		before := s.RowsWritten(t)
		appendAll(t, s, record("g", owner, "2"))
		if got := s.RowsWritten(t) - before; got > 4 { // the message, the head, and what PostgreSQL counts beside
			t.Errorf("%d rows written", got)
		}
		second := appendAll(t, s, record("g", owner, "3"))
		if second[0].Roster != first[0].Roster {
			t.Error("the members were read again")
		}
	})
}

// TestStandingOfOneDoesNotReadAll: who asks about one member of a large group does not
// have all of them read.
func TestStandingOfOneDoesNotReadAll(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		owner, eve := person(t, s, "owner"), person(t, s, "eve")
		group(t, s, "g", owner)
		s.FillGroup(t, "g", 1000)
		before := s.Remembered()
		st, err := s.StandingOf(t.Context(), "g", owner.ID)
		if m, in := st.Roster.Find(owner.ID); err != nil || !in || m.Role != chat.RoleOwner || st.Count != 1001 || len(st.Roster.Members) != 1 {
			t.Errorf("%v %+v", err, st)
		}
		if st, err := s.StandingOf(t.Context(), "g", eve.ID); err != nil || len(st.Roster.Members) != 0 {
			t.Errorf("%v %+v", err, st)
		}
		if n := s.Remembered(); n != before {
			t.Errorf("%d members more are remembered", n-before)
		}
		if _, err := s.Standing(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
		if st, err := s.StandingOf(t.Context(), "g", owner.ID); err != nil || len(st.Roster.Members) != 1001 {
			t.Errorf("what is remembered is not used: %v, %d members", err, len(st.Roster.Members))
		}
		if _, err := s.StandingOf(t.Context(), "none", owner.ID); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("no such conversation: %v", err)
		}
	})
}

func TestRostersAreBounded(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		s.RememberMembers(10)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		for i := range 20 {
			id := fmt.Sprintf("g%d", i)
			group(t, s, id, ann, bob)
			appendAll(t, s, record(id, bob, "1"))
			if n := s.Remembered(); n > 10 {
				t.Fatalf("%d members remembered", n)
			}
		}
		if st, err := s.Standing(t.Context(), "g0"); err != nil || len(st.Roster.Members) != 2 {
			t.Errorf("%+v %v", st, err)
		}
		if _, err := s.Standing(t.Context(), "none"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("no such conversation: %v", err)
		}
	})
}

// TestMigratesWhatVersionOneHas opens a database as the first version left it.
func TestMigratesWhatVersionOneHas(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		store.OpenVersion(t, cfg, 1, func(exec func(query string)) {
			exec(`INSERT INTO users (id, name, tenant, password, created_at) VALUES ('u-ann', 'ann', 'public', 'x', 1), ('u-bob', 'bob', 'public', 'x', 1)`)
			exec(`INSERT INTO conversations (id, pair, last_seq, created_at) VALUES ('ab', 'u-ann|u-bob', 1, 1)`)
			exec(`INSERT INTO members (conversation_id, user_id) VALUES ('ab', 'u-ann'), ('ab', 'u-bob')`)
			exec(`INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id) VALUES ('ab', 1, 'u-ann', 'ann', '1', 'old', 1, '')`)
		})
		s := open(t, cfg)
		ann, bob := chat.User{ID: "u-ann", Name: "ann", Tenant: "public"}, chat.User{ID: "u-bob", Name: "bob", Tenant: "public"}
		appendAll(t, s, record("ab", bob, "2"))
		list := history(t, s, ann, "ab")
		if len(list) != 2 || list[0].Text != "old" || list[1].Seq != 2 || list[0].Event != nil {
			t.Errorf("got %+v", list)
		}
		c, err := s.Conversation(t.Context(), ann.ID, "ab")
		if diff := cmp.Diff(chat.Conversation{ID: "ab", Members: []chat.User{ann, bob}, Count: 2, LastSeq: 2, Unread: 1}, c); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// FuzzGroupName stores any name that is allowed, and reads the same.
func FuzzGroupName(f *testing.F) {
	for _, s := range []string{"a", "昼食", "'; DROP TABLE users", `\"`, "\u2028", strings.Repeat("x", 128)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if chat.CheckGroupName(name) != nil {
			return
		}
		s := open(t, sqliteConfig(t))
		ann := person(t, s, "ann")
		group(t, s, "g", ann)
		r := change("g", ann, protocol.EventRenamed, "1")
		r.Name = name
		appendAll(t, s, r)
		c, err := s.Conversation(t.Context(), ann.ID, "g")
		list := history(t, s, ann, "g")
		if err != nil || c.Name != name || slices.IndexFunc(list, func(m protocol.Message) bool { return m.Event.Name == name }) != 1 {
			t.Errorf("%v %q %+v", err, c.Name, list)
		}
	})
}

// texts are what a user gets of a conversation, and what it finds there.
func texts(t *testing.T, s *store.Store, u chat.User, conversation string) (read, found []string) {
	t.Helper()
	var all []chat.Place
	for _, m := range history(t, s, u, conversation) {
		read = append(read, fmt.Sprintf("%d %s %v", m.Seq, m.Text, m.Edited))
		all = append(all, chat.Place{Conversation: conversation, Seq: m.Seq})
	}
	list, err := s.MessagesAt(t.Context(), u.ID, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		found = append(found, fmt.Sprintf("%d %s", m.Seq, m.Text))
	}
	slices.Sort(found)
	return read, found
}

// TestWhoHasLeftDoesNotGetLaterTexts of messages that it has seen.
func TestWhoHasLeftDoesNotGetLaterTexts(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		group(t, s, "g", ann, bob, cid)
		edit := func(id, text string, target int64) chat.Record {
			r := record("g", ann, id)
			r.Kind, r.Text, r.Target = protocol.EventEdited, text, target
			return r
		}
		appendAll(t, s, record("g", ann, "1"), record("g", ann, "2"), edit("3", "draft", 2), edit("4", "final", 3)) // 2 to 5
		appendAll(t, s, change("g", ann, protocol.EventRemoved, "1", bob), edit("5", "secret", 2))                  // 6, 7
		appendAll(t, s, change("g", ann, protocol.EventRemoved, "2", cid))
		for _, c := range []struct {
			user        chat.User
			read, found []string
		}{
			{bob, []string{"1  false", "2  true", "3 final true", "4  false", "5 final false", "6  false"}, []string{"3 final"}},
			{cid, []string{"1  false", "2 secret true", "3 final true", "4 secret false", "5 final false", "6  false", "7 secret false", "8  false"}, []string{"2 secret", "3 final"}},
		} {
			read, found := texts(t, s, c.user, "g")
			if diff := cmp.Diff(c.read, read); diff != "" {
				t.Errorf("%s: %s", c.user.Name, diff)
			}
			if diff := cmp.Diff(c.found, found); diff != "" {
				t.Errorf("%s: %s", c.user.Name, diff)
			}
		}
	})
}

// TestEditsOfBeforeHaveTheirSeq: who had left before an edit that an older program has stored
// does not get its text either.
func TestEditsOfBeforeHaveTheirSeq(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		store.OpenVersion(t, cfg, 11, func(exec func(query string)) {
			exec(`INSERT INTO users (id, name, tenant, password, created_at) VALUES ('u-ann', 'ann', 'public', 'x', 1), ('u-bob', 'bob', 'public', 'x', 1)`)
			exec(`INSERT INTO conversations (id, last_seq, created_at) VALUES ('g', 6, 1)`)
			exec(`INSERT INTO members (conversation_id, user_id, left_seq) VALUES ('g', 'u-ann', 0), ('g', 'u-bob', 4)`)
			exec(`INSERT INTO messages (conversation_id, seq, sender_id, sender, client_id, text, sent_at, trace_id, kind, target, event, edited) VALUES
				('g', 1, 'u-ann', 'ann', '1', 'secret', 1, '', '', 0, '', 1), ('g', 2, 'u-ann', 'ann', '2', 'final', 1, '', '', 0, '', 1),
				('g', 3, 'u-ann', 'ann', '3', '', 1, '', 'edited', 1, '{}', 0), ('g', 4, 'u-ann', 'ann', '4', '', 1, '', 'edited', 2, '{}', 0),
				('g', 5, 'u-ann', 'ann', '5', '', 1, '', 'edited', 1, '{}', 0), ('g', 6, 'u-ann', 'ann', '6', 'plain', 1, '', '', 0, '', 0)`)
		})
		s := open(t, cfg)
		read, found := texts(t, s, chat.User{ID: "u-bob"}, "g")
		if diff := cmp.Diff([]string{"1  true", "2 final true", "3  false", "4 final false"}, read); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"2 final"}, found); diff != "" {
			t.Error(diff)
		}
		if read, _ := texts(t, s, chat.User{ID: "u-ann"}, "g"); len(read) != 6 || read[0] != "1 secret true" || read[5] != "6 plain false" {
			t.Errorf("%q", read)
		}
	})
}
