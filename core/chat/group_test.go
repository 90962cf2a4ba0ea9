package chat_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// room is a group as somebody would write it who has never heard of logs: a map of roles
// and a list of texts. It judges what may be done by rules of its own.
type room struct {
	roles map[string]chat.Role
	open  bool
	said  []*said
	keys  map[chat.Key]bool
}

type said struct {
	sender, text   string
	event, recalls bool // no message; taken back
}

func newRoom() *room {
	return &room{
		roles: map[string]chat.Role{"u0": chat.RoleOwner, "u1": chat.RoleAdmin, "u2": chat.RoleMember},
		said:  []*said{{event: true}}, keys: map[chat.Key]bool{},
	}
}

// do says whether the record takes effect.
func (m *room) do(r chat.Record) bool {
	if m.keys[r.Key()] || !m.may(r) {
		return false
	}
	m.keys[r.Key()] = true
	m.said = append(m.said, &said{sender: r.SenderID, text: r.Text, event: r.Kind != ""})
	switch r.Kind {
	case protocol.EventAdded:
		for _, who := range r.Members {
			if _, in := m.roles[who.ID]; !in {
				m.roles[who.ID] = chat.RoleMember
			}
		}
	case protocol.EventRemoved:
		delete(m.roles, r.Members[0].ID)
	case protocol.EventRole:
		if r.Role == chat.RoleOwner {
			m.roles[r.SenderID] = chat.RoleAdmin
		}
		m.roles[r.Members[0].ID] = r.Role
	case protocol.EventOpened, protocol.EventClosed:
		m.open = r.Kind == protocol.EventOpened
	case protocol.EventEdited:
		m.said[r.Target-1].text = r.Text
	case protocol.EventRecalled:
		*m.said[r.Target-1] = said{sender: m.said[r.Target-1].sender, recalls: true}
	}
	return true
}

func (m *room) may(r chat.Record) bool {
	mine, in := m.roles[r.SenderID]
	if !in {
		return m.open && len(m.roles) > 0 && r.Kind == protocol.EventAdded && len(r.Members) == 1 && r.Members[0].ID == r.SenderID
	}
	var theirs chat.Role
	there := false
	if len(r.Members) > 0 {
		theirs, there = m.roles[r.Members[0].ID]
	}
	switch r.Kind {
	case protocol.EventAdded:
		fresh := slices.ContainsFunc(r.Members, func(who chat.Member) bool { _, in := m.roles[who.ID]; return !in })
		return mine >= chat.RoleAdmin && fresh
	case protocol.EventRemoved:
		if r.Members[0].ID == r.SenderID {
			return mine < chat.RoleOwner || len(m.roles) == 1
		}
		return there && mine >= chat.RoleAdmin && mine > theirs
	case protocol.EventRole:
		return there && mine == chat.RoleOwner && (r.Members[0].ID != r.SenderID || r.Role == chat.RoleOwner)
	case protocol.EventRenamed:
		return mine >= chat.RoleAdmin
	case protocol.EventOpened:
		return mine >= chat.RoleAdmin && !m.open
	case protocol.EventClosed:
		return mine >= chat.RoleAdmin && m.open
	case protocol.EventEdited, protocol.EventRecalled:
		if int(r.Target) > len(m.said) || m.said[r.Target-1].event || m.said[r.Target-1].recalls {
			return false
		}
		own := m.said[r.Target-1].sender == r.SenderID
		return own || r.Kind == protocol.EventRecalled && mine >= chat.RoleAdmin
	}
	return true
}

// randomRecord is anything that anybody may try; it may be a repetition.
func randomRecord(r *rand.Rand, i int) chat.Record {
	user := func() chat.Member {
		n := r.IntN(5)
		return chat.Member{ID: fmt.Sprintf("u%d", n), Name: fmt.Sprintf("user%d", n)}
	}
	sender := user()
	rec := chat.Record{Conversation: "g", SenderID: sender.ID, Sender: sender.Name, ClientID: fmt.Sprint(r.IntN(i + 1)), LoggedAt: time.UnixMilli(int64(i))}
	switch r.IntN(24) {
	case 0, 1:
		rec.Kind, rec.Members = protocol.EventAdded, []chat.Member{user(), user()}
	case 2:
		rec.Kind, rec.Members = protocol.EventRemoved, []chat.Member{user()}
	case 3:
		rec.Kind, rec.Members, rec.Role = protocol.EventRole, []chat.Member{user()}, chat.Role(r.IntN(3))
	case 4:
		rec.Kind, rec.Name = protocol.EventRenamed, "name"
	case 5, 6, 7, 8, 9:
		rec.Kind, rec.Target, rec.Text = protocol.EventEdited, int64(1+r.IntN(i+2)), fmt.Sprint("edit ", i)
	case 10, 11:
		rec.Kind, rec.Target = protocol.EventRecalled, int64(1+r.IntN(i+2))
	case 12, 13:
		rec.Kind, rec.Members = protocol.EventAdded, []chat.Member{sender}
	case 14:
		rec.Kind = protocol.EventOpened
	case 15:
		rec.Kind = protocol.EventClosed
	default:
		rec.Text = fmt.Sprint("text ", i)
	}
	return rec
}

// log keeps what Number makes of a group, as a store does.
type log struct {
	state   chat.State
	entries []chat.Numbered
	rosters []*chat.Roster // before each entry, and after the last
}

func newLog() *log {
	roster := chat.NewRoster(true, 1, []chat.Member{
		{ID: "u2", Name: "user2"}, {ID: "u0", Name: "user0", Role: chat.RoleOwner}, {ID: "u1", Name: "user1", Role: chat.RoleAdmin},
	})
	first := chat.Numbered{Record: chat.Record{Kind: protocol.EventCreated, Conversation: "g"}, Seq: 1, Roster: roster}
	return &log{
		entries: []chat.Numbered{first}, rosters: []*chat.Roster{roster},
		state: chat.State{
			Standing: map[string]chat.Standing{"g": {LastSeq: 1, Roster: roster}}, Existing: map[chat.Key]int64{}, Refused: map[chat.Attempt]chat.Reason{},
			Targets: map[chat.Place]chat.Target{{Conversation: "g", Seq: 1}: {Kind: protocol.EventCreated}},
		},
	}
}

func (l *log) store(t *testing.T, batch []chat.Record) []chat.Numbered {
	t.Helper()
	out := chat.Number(batch, l.state)
	for _, n := range out {
		if n.Refused != "" {
			l.state.Refused[n.Attempt()] = n.Refused
		}
		if n.Refused != "" || n.Duplicate {
			continue
		}
		if n.Seq != int64(len(l.entries)+1) {
			t.Fatalf("seq %d after %d entries", n.Seq, len(l.entries))
		}
		l.entries = append(l.entries, n)
		l.rosters = append(l.rosters, n.Roster)
		place := chat.Place{Conversation: "g", Seq: n.Seq}
		l.state.Targets[place] = chat.Target{Kind: n.Kind, SenderID: n.SenderID}
		if n.Kind == protocol.EventRecalled {
			place.Seq = n.Target
			target := l.state.Targets[place]
			target.Recalled = true
			l.state.Targets[place] = target
		}
		open := l.state.Standing["g"].Open && n.Kind != protocol.EventClosed || n.Kind == protocol.EventOpened
		l.state.Standing["g"] = chat.Standing{LastSeq: n.Seq, Roster: n.Roster, Open: open}
		l.state.Existing[n.Key()] = n.Seq
	}
	return out
}

// TestGroupIsAsAPlainModelOfIt gives random records of all kinds to Number, cut into
// batches after each of which some of the past comes again, and to a plain model, and
// compares members, roles and texts.
func TestGroupIsAsAPlainModelOfIt(t *testing.T) {
	effects, joined := map[protocol.EventKind]int{}, 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		var history []chat.Record
		for i := range 80 {
			history = append(history, randomRecord(r, i))
		}
		model := newRoom()
		for _, rec := range history {
			if model.do(rec) {
				effects[rec.Kind]++
				if rec.Kind == protocol.EventAdded && rec.Members[0].ID == rec.SenderID {
					joined++
				}
			}
		}
		l := newLog()
		for at := 0; at < len(history); {
			to := min(at+1+r.IntN(8), len(history))
			l.store(t, history[at:to])
			entries := len(l.entries)
			if l.store(t, history[r.IntN(to):to]); len(l.entries) != entries {
				t.Fatalf("seed %d: what comes again is one more entry", seed)
			}
			at = to
		}
		roles := map[string]chat.Role{}
		for _, m := range l.rosters[len(l.rosters)-1].Members {
			roles[m.ID] = m.Role
		}
		if diff := cmp.Diff(model.roles, roles); diff != "" {
			t.Fatalf("seed %d: roles %s", seed, diff)
		}
		if diff := cmp.Diff(texts(model), l.shown(1, int64(len(l.entries)))); diff != "" {
			t.Fatalf("seed %d: texts %s", seed, diff)
		}
	}
	for _, kind := range []protocol.EventKind{"", protocol.EventAdded, protocol.EventRemoved, protocol.EventRole, protocol.EventOpened, protocol.EventClosed, protocol.EventEdited, protocol.EventRecalled} {
		if effects[kind] < 100 {
			t.Errorf("only %d of kind %q took effect: this was no test", effects[kind], kind)
		}
	}
	if joined < 100 {
		t.Errorf("only %d have joined: this was no test", joined)
	}
}

// TestJoiningIsDecidedByTheLog: by what stands before it, and by the bound of members.
func TestJoiningIsDecidedByTheLog(t *testing.T) {
	join := func(id string) chat.Record {
		return chat.Record{Kind: protocol.EventAdded, Conversation: "g", SenderID: id, ClientID: "added.1", Members: []chat.Member{{ID: id}}}
	}
	set := func(kind protocol.EventKind, clientID string) chat.Record {
		return chat.Record{Kind: kind, Conversation: "g", SenderID: "u0", ClientID: clientID}
	}
	members := make([]chat.Member, chat.MaxMembers-1)
	for i := range members {
		members[i] = chat.Member{ID: fmt.Sprintf("u%d", i)}
	}
	members[0].Role = chat.RoleOwner
	st := chat.Standing{LastSeq: 9, Roster: chat.NewRoster(true, 9, members)}
	got := chat.Number([]chat.Record{
		join("v1"), set(protocol.EventOpened, "1"), set(protocol.EventOpened, "2"), join("v2"), join("v2"), join("v3"), set(protocol.EventClosed, "3"), join("v4"),
	}, chat.State{Standing: map[string]chat.Standing{"g": st}})
	want := []chat.Reason{chat.ReasonNotMember, "", chat.ReasonNoEffect, "", "", chat.ReasonForbidden, "", chat.ReasonNotMember}
	for i, n := range got {
		if n.Refused != want[i] {
			t.Errorf("record %d: refused %q, want %q", i, n.Refused, want[i])
		}
	}
	if !got[4].Duplicate || got[4].Seq != got[3].Seq || len(got[7].Roster.Members) != chat.MaxMembers {
		t.Errorf("again: %v %d, %d members", got[4].Duplicate, got[4].Seq, len(got[7].Roster.Members))
	}
}

func texts(m *room) []string {
	var out []string
	for _, s := range m.said {
		if !s.event {
			out = append(out, s.text)
		}
	}
	return out
}

// shown is what a device shows that was given the entries from first to last, in order.
func (l *log) shown(first, last int64) []string {
	texts := map[int64]string{}
	var order []int64
	for _, n := range l.entries[first-1 : last] {
		switch n.Kind {
		case "":
			texts[n.Seq], order = n.Text, append(order, n.Seq)
		case protocol.EventEdited:
			texts[n.Target] = n.Text
		case protocol.EventRecalled:
			texts[n.Target] = ""
		}
	}
	var out []string
	for _, seq := range order {
		out = append(out, texts[seq])
	}
	return out
}

// TestRemovedIsNotTold: no roster of an entry has somebody who was removed before it and
// not added since, nor misses a member.
func TestRemovedIsNotTold(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 4))
		l := newLog()
		for i := range 80 {
			l.store(t, []chat.Record{randomRecord(r, i)})
		}
		in := map[string]bool{"u0": true, "u1": true, "u2": true}
		for _, n := range l.entries[1:] {
			for _, m := range n.Members {
				switch n.Kind {
				case protocol.EventAdded:
					if in[m.ID] {
						t.Fatalf("seed %d: seq %d adds a member", seed, n.Seq)
					}
					in[m.ID] = true
				case protocol.EventRemoved:
					delete(in, m.ID)
				}
			}
			if !in[n.SenderID] && (n.Kind != protocol.EventRemoved || n.Members[0].ID != n.SenderID) {
				t.Fatalf("seed %d: seq %d is of somebody who is not there", seed, n.Seq)
			}
			told := map[string]bool{}
			owners := 0
			for _, m := range n.Roster.Members {
				told[m.ID] = true
				if m.Role == chat.RoleOwner {
					owners++
				}
			}
			if diff := cmp.Diff(in, told); diff != "" {
				t.Fatalf("seed %d: seq %d: %s", seed, n.Seq, diff)
			}
			if owners != 1 && len(told) > 0 {
				t.Fatalf("seed %d: seq %d: %d owners", seed, n.Seq, owners)
			}
		}
	}
}

func TestGroupHasABound(t *testing.T) {
	members := make([]chat.Member, chat.MaxMembers)
	for i := range members {
		members[i] = chat.Member{ID: fmt.Sprintf("u%05d", i), Name: "abc"}
	}
	members[0].Role = chat.RoleOwner
	full := chat.Standing{LastSeq: 9, Roster: chat.NewRoster(true, 9, members)}
	add := chat.Record{Kind: protocol.EventAdded, Conversation: "g", SenderID: "u00000", Members: []chat.Member{{ID: "new"}, {ID: "u00001"}}}
	if err := chat.Allow(full, add); err == nil || err.Code != protocol.CodeTooLarge || err.Field != "members" {
		t.Errorf("got %v", err)
	}
	got := chat.Number([]chat.Record{
		{Kind: protocol.EventRemoved, Conversation: "g", SenderID: "u00000", ClientID: "1", Members: []chat.Member{{ID: "u00007"}}}, add,
	}, chat.State{Standing: map[string]chat.Standing{"g": full}})
	if got[0].Seq != 10 || got[1].Seq != 11 || len(got[1].Members) != 1 || len(got[1].Roster.Members) != chat.MaxMembers {
		t.Errorf("got %+v %+v", got[0].Refused, got[1].Refused)
	}
	if len(full.Roster.Members) != chat.MaxMembers || full.Roster.Members[7].ID != "u00007" {
		t.Error("the roster that was given has been changed")
	}
}

func TestDirectConversationsDoNotChange(t *testing.T) {
	pair := chat.Standing{Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1"}, {ID: "u2"}})}
	for _, kind := range []protocol.EventKind{protocol.EventAdded, protocol.EventRemoved, protocol.EventRole, protocol.EventRenamed} {
		r := chat.Record{Kind: kind, SenderID: "u1", Members: []chat.Member{{ID: "u2"}}}
		if err := chat.Allow(pair, r); err == nil || err.Code != protocol.CodeInvalidArgument || err.Field != "conversation" {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestRolesHaveNames(t *testing.T) {
	for _, r := range []chat.Role{chat.RoleMember, chat.RoleAdmin, chat.RoleOwner} {
		if got, ok := chat.ParseRole(r.String()); !ok || got != r {
			t.Errorf("%s: %v %v", r, got, ok)
		}
	}
	if _, ok := chat.ParseRole("king"); ok {
		t.Error("king is a role")
	}
}

func TestBlockedOneIsRefused(t *testing.T) {
	st := chat.Standing{LastSeq: 4, Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1"}, {ID: "u2"}}), Silent: []string{"u2"}}
	own := chat.Place{Conversation: "c", Seq: 4}
	records := []chat.Record{
		{Conversation: "c", SenderID: "u2", ClientID: "1"}, {Conversation: "c", SenderID: "u1", ClientID: "1"},
		{Conversation: "c", SenderID: "u2", ClientID: "2", Kind: protocol.EventEdited, Target: 4},
		{Conversation: "c", SenderID: "u2", ClientID: "3", Kind: protocol.EventRecalled, Target: 4},
	}
	got := chat.Number(records, chat.State{Standing: map[string]chat.Standing{"c": st}, Targets: map[chat.Place]chat.Target{own: {SenderID: "u2"}}})
	if got[0].Refused != chat.ReasonBlocked || got[1].Seq != 5 || got[2].Refused != chat.ReasonBlocked || got[3].Seq != 6 {
		t.Errorf("got %+v", got)
	}
	if err := chat.Allow(st, records[0]); err == nil || err.Code != protocol.CodePermissionDenied || err.Field != "conversation" {
		t.Errorf("got %v", err)
	}
}
