package chat_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// TestAlready: what is so already needs no entry; all else does.
func TestAlready(t *testing.T) {
	st := chat.Standing{Roster: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Role: chat.RoleOwner}, {ID: "u2"}})}
	for name, c := range map[string]struct {
		r    chat.Record
		t    chat.Target
		want bool
	}{
		"add who is there":         {chat.Record{Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u2"}, {ID: "u1"}}}, chat.Target{}, true},
		"add one who is not":       {chat.Record{Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u2"}, {ID: "u3"}}}, chat.Target{}, false},
		"the role that it has":     {chat.Record{Kind: protocol.EventRole, Members: []chat.Member{{ID: "u2"}}, Role: chat.RoleMember}, chat.Target{}, true},
		"another role":             {chat.Record{Kind: protocol.EventRole, Members: []chat.Member{{ID: "u2"}}, Role: chat.RoleAdmin}, chat.Target{}, false},
		"join again":               {chat.Record{SenderID: "u2", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u2"}}}, chat.Target{}, true},
		"join":                     {chat.Record{SenderID: "u3", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u3"}}}, chat.Target{}, false},
		"close what is closed":     {chat.Record{Kind: protocol.EventClosed}, chat.Target{}, true},
		"open what is closed":      {chat.Record{Kind: protocol.EventOpened}, chat.Target{}, false},
		"recall what was recalled": {chat.Record{Kind: protocol.EventRecalled}, chat.Target{Recalled: true}, true},
		"recall what was not":      {chat.Record{Kind: protocol.EventRecalled}, chat.Target{}, false},
		"say it again":             {chat.Record{Text: "x"}, chat.Target{}, false},
		"react again":              {chat.Record{Kind: protocol.EventReacted, Emoji: "👍"}, chat.Target{}, false},
	} {
		if got := chat.Already(st, c.r, c.t); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestAllow: the answers that name the field, for who may not.
func TestAllow(t *testing.T) {
	group := chat.Standing{Roster: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Role: chat.RoleOwner}, {ID: "u2", Role: chat.RoleAdmin}, {ID: "u3"}})}
	open := group
	open.Open = true
	left := chat.Standing{Roster: chat.NewRoster(true, 9, nil), Open: true}
	pair := chat.Standing{Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1"}, {ID: "u2"}})}
	for name, c := range map[string]struct {
		st    chat.Standing
		r     chat.Record
		code  protocol.Code
		field string
	}{
		"a stranger":                {group, chat.Record{SenderID: "u9"}, protocol.CodeNotFound, "conversation"},
		"a member adds":             {group, chat.Record{SenderID: "u3", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u4"}}}, protocol.CodePermissionDenied, "members"},
		"an admin gives a role":     {group, chat.Record{SenderID: "u2", Kind: protocol.EventRole, Members: []chat.Member{{ID: "u3"}}}, protocol.CodePermissionDenied, "role"},
		"the owner steps down":      {group, chat.Record{SenderID: "u1", Kind: protocol.EventRole, Members: []chat.Member{{ID: "u1"}}}, protocol.CodePermissionDenied, "role"},
		"a role for a stranger":     {group, chat.Record{SenderID: "u1", Kind: protocol.EventRole, Members: []chat.Member{{ID: "u9"}}, Role: chat.RoleAdmin}, protocol.CodeNotFound, "name"},
		"a member renames":          {group, chat.Record{SenderID: "u3", Kind: protocol.EventRenamed}, protocol.CodePermissionDenied, "name"},
		"the owner leaves":          {group, chat.Record{SenderID: "u1", Kind: protocol.EventRemoved, Members: []chat.Member{{ID: "u1"}}}, protocol.CodePermissionDenied, "name"},
		"an admin removes its like": {group, chat.Record{SenderID: "u2", Kind: protocol.EventRemoved, Members: []chat.Member{{ID: "u1"}}}, protocol.CodePermissionDenied, "name"},
		"remove a stranger":         {group, chat.Record{SenderID: "u2", Kind: protocol.EventRemoved, Members: []chat.Member{{ID: "u9"}}}, protocol.CodeNotFound, "name"},
		"join what is not open":     {group, chat.Record{SenderID: "u9", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u9"}}}, protocol.CodeNotFound, "conversation"},
		"join where nobody is left": {left, chat.Record{SenderID: "u9", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u9"}}}, protocol.CodeNotFound, "conversation"},
		"bring another along":       {open, chat.Record{SenderID: "u9", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u9"}, {ID: "u8"}}}, protocol.CodeNotFound, "conversation"},
		"send another":              {open, chat.Record{SenderID: "u9", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u8"}}}, protocol.CodeNotFound, "conversation"},
		"write without joining":     {open, chat.Record{SenderID: "u9"}, protocol.CodeNotFound, "conversation"},
		"a member adds, open":       {open, chat.Record{SenderID: "u3", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u4"}}}, protocol.CodePermissionDenied, "members"},
		"a member opens":            {group, chat.Record{SenderID: "u3", Kind: protocol.EventOpened}, protocol.CodePermissionDenied, "open"},
		"a member closes":           {open, chat.Record{SenderID: "u3", Kind: protocol.EventClosed}, protocol.CodePermissionDenied, "open"},
		"join a direct one again":   {pair, chat.Record{SenderID: "u1", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u1"}}}, protocol.CodeInvalidArgument, "conversation"},
		"create by the log":         {group, chat.Record{SenderID: "u1", Kind: protocol.EventCreated}, protocol.CodeInvalidArgument, "kind"},
		"change a direct one":       {pair, chat.Record{SenderID: "u1", Kind: protocol.EventRenamed}, protocol.CodeInvalidArgument, "conversation"},
	} {
		if err := chat.Allow(c.st, c.r); err == nil || err.Code != c.code || err.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]chat.Record{
		"a member leaves": {SenderID: "u3", Kind: protocol.EventRemoved, Members: []chat.Member{{ID: "u3"}}}, "a member writes": {SenderID: "u3"},
		"an admin renames": {SenderID: "u2", Kind: protocol.EventRenamed}, "the owner gives itself away": {SenderID: "u1", Kind: protocol.EventRole, Members: []chat.Member{{ID: "u2"}}, Role: chat.RoleOwner},
	} {
		if err := chat.Allow(group, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]chat.Record{
		"a stranger joins": {SenderID: "u9", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u9"}}}, "a member joins again": {SenderID: "u3", Kind: protocol.EventAdded, Members: []chat.Member{{ID: "u3"}}},
		"an admin closes": {SenderID: "u2", Kind: protocol.EventClosed},
	} {
		if err := chat.Allow(open, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllowTarget(t *testing.T) {
	st := chat.Standing{Roster: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Role: chat.RoleAdmin}, {ID: "u2"}})}
	of := func(kind protocol.EventKind, sender string) chat.Record {
		return chat.Record{Kind: kind, SenderID: sender}
	}
	for name, c := range map[string]struct {
		r  chat.Record
		t  chat.Target
		no protocol.Code
	}{
		"edit one's own":        {of(protocol.EventEdited, "u2"), chat.Target{SenderID: "u2"}, ""},
		"an admin edits":        {of(protocol.EventEdited, "u1"), chat.Target{SenderID: "u2"}, protocol.CodePermissionDenied},
		"edit what is recalled": {of(protocol.EventEdited, "u2"), chat.Target{SenderID: "u2", Recalled: true}, protocol.CodePermissionDenied},
		"edit an event":         {of(protocol.EventEdited, "u2"), chat.Target{SenderID: "u2", Kind: protocol.EventAdded}, protocol.CodeInvalidArgument},
		"an admin recalls":      {of(protocol.EventRecalled, "u1"), chat.Target{SenderID: "u2"}, ""},
		"a member recalls":      {of(protocol.EventRecalled, "u2"), chat.Target{SenderID: "u1"}, protocol.CodePermissionDenied},
		"react to another's":    {of(protocol.EventReacted, "u2"), chat.Target{SenderID: "u1"}, ""},
		"take back, recalled":   {of(protocol.EventUnreacted, "u2"), chat.Target{SenderID: "u1", Recalled: true}, protocol.CodePermissionDenied},
	} {
		err := chat.AllowTarget(st, c.r, c.t)
		if err == nil && c.no != "" || err != nil && (err.Code != c.no || err.Field != "seq") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMarks(t *testing.T) {
	a, b := chat.Mark{Conversation: "c", UserID: "u", Read: 3, Delivered: 5}, chat.Mark{Conversation: "c", UserID: "u", Read: 7, Delivered: 6}
	want := chat.Mark{Conversation: "c", UserID: "u", Read: 7, Delivered: 7} // what is read has been delivered
	if diff := cmp.Diff([]chat.Mark{want, want, want}, []chat.Mark{a.With(b), b.With(a), a.With(b).With(a)}); diff != "" {
		t.Error(diff)
	}
	for name, c := range map[string]struct {
		m     chat.Mark
		field string
	}{
		"nothing": {chat.Mark{}, "read"}, "less than nothing": {chat.Mark{Read: -1}, "read"}, "what is to come": {chat.Mark{Read: 5}, "read"},
		"delivered, to come": {chat.Mark{Delivered: 5}, "delivered"}, "the last": {chat.Mark{Read: 4, Delivered: 4}, ""},
	} {
		err := chat.CheckMark(c.m, 4)
		if c.field == "" && err != nil || c.field != "" && (err == nil || err.Field != c.field || err.Code != protocol.CodeInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCleanFileName(t *testing.T) {
	for in, want := range map[string]string{
		"cat.png": "cat.png", "../../etc/passwd": "passwd", `C:\temp\cat.png`: "cat.png", ".bashrc": "bashrc", "": "file", "...": "file", "/": "file",
		"a\x00b\nc": "abc", "\u202egpj.exe": "gpj.exe", ` a:*?"<>|b `: "ab", "猫.png": "猫.png", "\xffx": "x",
		strings.Repeat("é", 200) + ".png": strings.Repeat("é", 98) + ".png", strings.Repeat("x", 300): strings.Repeat("x", 200),
		"a." + strings.Repeat("x", 300): "a." + strings.Repeat("x", 198), " ..x": "x", strings.Repeat("x", 199) + " yy": strings.Repeat("x", 199),
	} {
		if got := chat.CleanFileName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanFileName(f *testing.F) {
	f.Add("../猫.png")
	f.Fuzz(func(t *testing.T, s string) {
		got := chat.CleanFileName(s)
		if got == "" || len(got) > chat.MaxFileName || !utf8.ValidString(got) || strings.ContainsAny(got, "/\\\x00\n") || chat.CleanFileName(got) != got {
			t.Errorf("%q: %q", s, got)
		}
	})
}

func TestCheckPushAndDevice(t *testing.T) {
	for name, c := range map[string]struct{ platform, token, field string }{
		"none": {"", "", ""}, "one": {"fcm", "abc:def", ""}, "no token": {"fcm", "", "token"}, "no platform": {"", "x", "token"},
		"an odd platform": {"FCM", "x", "platform"}, "a long platform": {strings.Repeat("x", 33), "x", "platform"},
		"a space": {"fcm", "a b", "token"}, "too long": {"fcm", strings.Repeat("x", 4097), "token"}, "not ASCII": {"fcm", "é", "token"},
	} {
		err := chat.CheckPush(c.platform, c.token)
		if c.field == "" && err != nil || c.field != "" && (err == nil || err.Field != c.field || err.Code != protocol.CodeInvalidArgument) {
			t.Errorf("push, %s: %v", name, err)
		}
	}
	for name, code := range map[string]protocol.Code{
		"": "", "Ada's phone": "", " x": protocol.CodeInvalidArgument, "a\tb": protocol.CodeInvalidArgument, "\xff": protocol.CodeInvalidArgument,
		strings.Repeat("x", 1000): protocol.CodeTooLarge,
	} {
		err := chat.CheckDevice(name)
		if code == "" && err != nil || code != "" && (err == nil || err.Code != code || err.Field != "device") {
			t.Errorf("device %q: %v", name, err)
		}
	}
}

// TestBegin: who is added sees nothing before that, so the step to it is no gap.
func TestBegin(t *testing.T) {
	p := chat.Positions{{Conversation: "a", Seq: 3}}
	p.Begin("a", 9)
	p.Begin("b", 5)
	for _, c := range []struct {
		conversation string
		seq          int64
		want         chat.Verdict
	}{{"a", 8, chat.Drop}, {"a", 9, chat.Deliver}, {"b", 7, chat.Gap}, {"b", 5, chat.Deliver}, {"b", 5, chat.Drop}} {
		if got := p.Next(c.conversation, c.seq); got != c.want {
			t.Errorf("%s %d: %v, want %v", c.conversation, c.seq, got, c.want)
		}
	}
	if p.Begin("a", 2); p.At("a") != 9 {
		t.Errorf("it went back to %d", p.At("a"))
	}
}

// TestRotate: only the newest token is good, the one before it for a moment, and an older
// one ends the session.
func TestRotate(t *testing.T) {
	used := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := chat.Session{ID: "s", Used: used, Generation: 4}
	for name, c := range map[string]struct {
		generation int64
		after      time.Duration
		want       chat.Rotation
	}{
		"the newest": {4, time.Hour, chat.Rotated}, "the one before, at once": {3, 9 * time.Second, chat.Repeated}, "the one before, late": {3, 10 * time.Second, chat.Reused},
		"an old one, at once": {2, time.Second, chat.Reused}, "one to come": {5, time.Second, chat.Reused}, "the newest, too late": {4, 25 * time.Hour, chat.Expired},
		"an old one, too late": {1, 25 * time.Hour, chat.Expired},
	} {
		got, rotation := s.Rotate(c.generation, used.Add(c.after), 24*time.Hour, 10*time.Second)
		want := s
		if c.want == chat.Rotated {
			want.Generation, want.Used = 5, used.Add(c.after)
		}
		if rotation != c.want || got != want {
			t.Errorf("%s: %s, %+v", name, rotation, got)
		}
	}
}

// TestFilesOfMessages: a message goes with its sender's own file only.
func TestFilesOfMessages(t *testing.T) {
	file := chat.File{File: protocol.File{ID: "f1", Name: "cat.png"}, OwnerID: "u1"}
	state := chat.State{
		Standing: map[string]chat.Standing{"c": {Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1"}, {ID: "u2"}})}}, Files: map[string]chat.File{"f1": file},
	}
	got := chat.Number([]chat.Record{
		{Conversation: "c", SenderID: "u1", ClientID: "1", File: "f1"}, {Conversation: "c", SenderID: "u2", ClientID: "1", File: "f1"}, {Conversation: "c", SenderID: "u1", ClientID: "2", File: "f9"},
	}, state)
	if m := got[0].Message(); got[0].Refused != "" || m.File == nil || *m.File != file.File {
		t.Errorf("got %+v", got[0])
	}
	if got[1].Refused != chat.ReasonFile || got[2].Refused != chat.ReasonFile {
		t.Errorf("another's: %s, nobody's: %s", got[1].Refused, got[2].Refused)
	}
}
