package accept_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/accept"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

var (
	ann = chat.User{ID: "u1", Name: "ann"}
	eve = chat.User{ID: "u9", Name: "eve"}
	now = time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC)
)

// conversations has a direct one, "c1", of ann and bob, and a group, "g", whose roster
// may be replaced.
type conversations struct {
	reads   int
	down    error
	group   *chat.Roster
	targets map[int64]chat.Target

	reactions   map[int64][]protocol.Reaction
	noReactions error
}

func (c *conversations) Standing(ctx context.Context, id string) (chat.Standing, error) {
	c.reads++
	switch {
	case ctx.Err() != nil:
		return chat.Standing{}, ctx.Err()
	case c.down != nil:
		return chat.Standing{}, c.down
	case id == "g":
		return chat.Standing{Roster: c.group}, nil
	case id != "c1":
		return chat.Standing{}, chat.ErrNotFound
	}
	return chat.Standing{Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u2", Name: "bob"}})}, nil
}

func (c *conversations) StandingOf(ctx context.Context, id, _ string) (chat.Standing, error) {
	return c.Standing(ctx, id)
}

func (c *conversations) Target(_ context.Context, _, _ string, seq int64) (chat.Target, error) {
	if c.down != nil {
		return chat.Target{}, c.down
	}
	t, ok := c.targets[seq]
	if !ok {
		return t, chat.ErrNotFound
	}
	return t, nil
}

func (c *conversations) Reactions(_ context.Context, _, _ string, seq int64) ([]protocol.Reaction, error) {
	if c.noReactions != nil {
		return nil, c.noReactions
	}
	return c.reactions[seq], nil
}

// File has "f1" of ann's, "f2" of another's, which she sees.
func (c *conversations) File(_ context.Context, _, id string) (chat.File, error) {
	owner := map[string]string{"f1": "u1", "f2": "u2"}[id]
	switch {
	case c.down != nil:
		return chat.File{}, c.down
	case owner == "":
		return chat.File{}, chat.ErrNotFound
	}
	return chat.File{OwnerID: owner}, nil
}

func config(timeout time.Duration) accept.Config {
	return accept.Config{Timeout: timeout, EditWithin: time.Hour}
}

// logFunc is a Log.
type logFunc func(chat.Record, func(error))

func (logFunc) Full() bool { return false }

func (f logFunc) Accept(_ context.Context, r chat.Record, done func(error)) { f(r, done) }

// fullLog is a Log that takes nothing for as long as it is full.
type fullLog struct {
	logFunc
	full bool
}

func (l *fullLog) Full() bool { return l.full }

type result struct {
	accepted protocol.Accepted
	err      error
	calls    int
}

func send(t *testing.T, a *accept.Acceptor, from chat.User, m protocol.Send) result {
	t.Helper()
	results := make(chan result, 10)
	a.Accept(t.Context(), from, m, "trace", func(acc protocol.Accepted, err error) { results <- result{accepted: acc, err: err} })
	r := <-results
	r.calls = 1 + len(results)
	return r
}

func code(err error) protocol.Code {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

var good = protocol.Send{Conversation: "c1", ClientID: "m1", Text: "x"}

func TestAccept(t *testing.T) {
	var got []chat.Record
	answer := error(nil)
	cs := &conversations{}
	a := accept.New(cs, logFunc(func(r chat.Record, done func(error)) { got = append(got, r); done(answer) }), config(time.Minute), func() time.Time { return now })
	if r := send(t, a, ann, good); r.err != nil || r.accepted != (protocol.Accepted{ClientID: "m1", TraceID: "trace"}) {
		t.Errorf("got %+v", r)
	}
	want := []chat.Record{{
		Conversation: "c1", ClientID: "m1", SenderID: "u1", Sender: "ann", Text: "x", SentAt: now.Truncate(time.Microsecond), TraceID: "trace",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, c := range map[string]struct {
		from chat.User
		m    protocol.Send
		code protocol.Code
	}{
		"bad message":     {ann, protocol.Send{Conversation: "c1", ClientID: "m1"}, protocol.CodeInvalidArgument},
		"other people's":  {eve, good, protocol.CodeNotFound},
		"no conversation": {ann, protocol.Send{Conversation: "c2", ClientID: "m1", Text: "x"}, protocol.CodeNotFound},
	} {
		before := len(got)
		if r := send(t, a, c.from, c.m); code(r.err) != c.code || len(got) != before {
			t.Errorf("%s: %v", name, r.err)
		}
	}
	answer = errors.New("kafka is gone")
	r := send(t, a, ann, good)
	if code(r.err) != protocol.CodeUnavailable || !errors.Is(r.err, answer) {
		t.Errorf("log down: %v", r.err)
	}
	cs.down = errors.New("store is gone")
	if r := send(t, a, eve, good); code(r.err) != "" || !errors.Is(r.err, cs.down) {
		t.Errorf("store down: %v", r.err)
	}
	if r := send(t, a, ann, good); !errors.Is(r.err, answer) {
		t.Errorf("a member who is known does not need the store: %v", r.err)
	}
}

// TestReact: what may not be is refused, and all else is a record.
func TestReact(t *testing.T) {
	cs := &conversations{targets: map[int64]chat.Target{1: {SenderID: "u2"}, 2: {SenderID: "u2", Recalled: true}, 3: {Kind: protocol.EventEdited}, 4: {SenderID: "u1"}}}
	cs.reactions = map[int64][]protocol.Reaction{1: {{Emoji: "👍", Count: 2, Mine: true}, {Emoji: "🎉", Count: 1}}}
	for i := range chat.MaxReactions {
		cs.reactions[4] = append(cs.reactions[4], protocol.Reaction{Emoji: string(rune('😀' + i)), Count: 1})
	}
	var got []chat.Record
	a := accept.New(cs, logFunc(func(r chat.Record, done func(error)) { got = append(got, r); done(nil) }), config(time.Minute), func() time.Time { return now })
	for _, c := range []struct {
		name string
		from chat.User
		add  bool
		m    protocol.React
		key  string // of the record; empty where there is none
		code protocol.Code
	}{
		{"add", ann, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "❤️", ClientID: "1"}, "reacted.1", ""},
		{"add what others have", ann, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "🎉", ClientID: "1"}, "reacted.1", ""},
		{"add again", ann, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "👍", ClientID: "2"}, "reacted.2", ""}, // it may have been taken back, and not stored yet
		{"take back", ann, false, protocol.React{Conversation: "c1", Seq: 1, Emoji: "👍", ClientID: "1"}, "unreacted.1", ""},
		{"take back another's", ann, false, protocol.React{Conversation: "c1", Seq: 1, Emoji: "🎉", ClientID: "3"}, "unreacted.3", ""},
		{"take back of what was recalled", ann, false, protocol.React{Conversation: "c1", Seq: 2, Emoji: "🎉", ClientID: "3"}, "", protocol.CodePermissionDenied},
		{"to what was recalled", ann, true, protocol.React{Conversation: "c1", Seq: 2, Emoji: "👍", ClientID: "4"}, "", protocol.CodePermissionDenied},
		{"to an edit", ann, true, protocol.React{Conversation: "c1", Seq: 3, Emoji: "👍", ClientID: "4"}, "", protocol.CodeNotFound},
		{"one too many", ann, true, protocol.React{Conversation: "c1", Seq: 4, Emoji: "👍", ClientID: "4"}, "", protocol.CodePermissionDenied},
		{"one more of the last", ann, true, protocol.React{Conversation: "c1", Seq: 4, Emoji: "😀", ClientID: "4"}, "reacted.4", ""},
		{"a word", ann, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "ok", ClientID: "4"}, "", protocol.CodeInvalidArgument},
		{"no client id", ann, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "👍"}, "", protocol.CodeInvalidArgument},
		{"a dot in it", ann, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "👍", ClientID: "a.b"}, "", protocol.CodeInvalidArgument},
		{"a stranger", eve, true, protocol.React{Conversation: "c1", Seq: 1, Emoji: "👍", ClientID: "5"}, "", protocol.CodeNotFound},
	} {
		got = nil
		do, key := a.React, ""
		if !c.add {
			do = a.Unreact
		}
		var err error
		do(t.Context(), c.from, c.m, "trace", func(_ protocol.Accepted, e error) { err = e })
		if len(got) > 0 {
			key = got[0].ClientID
		}
		if code(err) != c.code || (c.code == "") != (err == nil) || key != c.key {
			t.Errorf("%s: %v, record %q", c.name, err, key)
		}
	}
	cs.noReactions = errors.New("store is gone")
	a.React(t.Context(), ann, protocol.React{Conversation: "c1", Seq: 1, Emoji: "👍", ClientID: "9"}, "", func(_ protocol.Accepted, err error) {
		if !errors.Is(err, cs.noReactions) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLateAnswerIsNotASecondOne(t *testing.T) {
	late := make(chan func(error), 1)
	a := accept.New(&conversations{}, logFunc(func(_ chat.Record, done func(error)) { late <- done }), config(10*time.Millisecond), time.Now)
	results := make(chan error, 10)
	a.Accept(t.Context(), ann, good, "", func(_ protocol.Accepted, err error) { results <- err })
	if err := <-results; code(err) != protocol.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	(<-late)(nil)
	if len(results) != 0 {
		t.Error("answered twice")
	}
}

func BenchmarkAccept(b *testing.B) {
	a := accept.New(&conversations{}, logFunc(func(_ chat.Record, done func(error)) { done(nil) }), config(time.Minute), time.Now)
	b.ReportAllocs()
	for b.Loop() {
		a.Accept(b.Context(), ann, good, "trace", func(_ protocol.Accepted, err error) {
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// TestMembershipMemoryIsBounded fills it beyond its bound; all answers stay right.
func TestMembershipMemoryIsBounded(t *testing.T) {
	a := accept.New(everyone{}, logFunc(func(_ chat.Record, done func(error)) { done(nil) }), config(time.Minute), time.Now)
	m := good
	for i := range 150_000 {
		m.Conversation = fmt.Sprint(i)
		a.Accept(t.Context(), ann, m, "", func(_ protocol.Accepted, err error) {
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	if n := accept.Remembered(a); n > 100_000 {
		t.Errorf("%d remembered", n)
	}
	m.Conversation = "0"
	if r := send(t, a, eve, m); code(r.err) != protocol.CodeNotFound {
		t.Errorf("got %v", r.err)
	}
}

// everyone has u1 in every conversation.
type everyone struct{ *conversations }

func (everyone) StandingOf(context.Context, string, string) (chat.Standing, error) {
	return chat.Standing{Roster: chat.NewRoster(false, 0, []chat.Member{{ID: "u1", Name: "ann"}})}, nil
}

func TestRemovedMemberIsRefusedAtOnce(t *testing.T) {
	clock := now
	cs := &conversations{group: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Name: "ann"}})}
	a := accept.New(cs, logFunc(func(_ chat.Record, done func(error)) { done(nil) }), config(time.Minute), func() time.Time { return clock })
	m := protocol.Send{Conversation: "g", ClientID: "1", Text: "x"}
	if r := send(t, a, ann, m); r.err != nil {
		t.Fatal(r.err)
	}
	member := cs.group
	cs.group = chat.NewRoster(true, 2, nil)
	if r := send(t, a, ann, m); code(r.err) != protocol.CodeNotFound {
		t.Errorf("removed: %v", r.err)
	}
	cs.down = errors.New("store is gone")
	if r := send(t, a, ann, m); !errors.Is(r.err, cs.down) {
		t.Errorf("removed, and the store is down: %v", r.err)
	}
	cs.down, cs.group = nil, member
	if r := send(t, a, ann, m); r.err != nil {
		t.Fatal(r.err)
	}
	cs.down = errors.New("store is gone")
	before := cs.reads
	for range 10 {
		if r := send(t, a, ann, m); r.err != nil {
			t.Errorf("a known member, and the store is down: %v", r.err)
		}
	}
	if cs.reads != before+1 {
		t.Errorf("a store that is down was asked %d times", cs.reads-before)
	}
	clock = clock.Add(2 * time.Second)
	if _ = send(t, a, ann, m); cs.reads != before+2 {
		t.Error("it is not asked again")
	}
	m.ReplyTo = 1
	if r := send(t, a, ann, m); !errors.Is(r.err, cs.down) {
		t.Errorf("what names a message needs the store: %v", r.err)
	}
}

// TestSenderWhoDoesNotWait: it is not accepted, and others are asked about all the same.
func TestSenderWhoDoesNotWait(t *testing.T) {
	cs := &conversations{group: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u2", Name: "bob"}})}
	a := accept.New(cs, logFunc(func(_ chat.Record, done func(error)) { done(nil) }), config(time.Minute), func() time.Time { return now })
	m, bob := protocol.Send{Conversation: "g", ClientID: "1", Text: "x"}, chat.User{ID: "u2", Name: "bob"}
	for _, from := range []chat.User{ann, bob} {
		if r := send(t, a, from, m); r.err != nil {
			t.Fatal(r.err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	for _, ctx := range []context.Context{gone, late} {
		a.Accept(ctx, ann, m, "", func(_ protocol.Accepted, err error) {
			if !errors.Is(err, ctx.Err()) {
				t.Errorf("got %v, want %v", err, ctx.Err())
			}
		})
	}
	cs.group = chat.NewRoster(true, 2, []chat.Member{{ID: "u1", Name: "ann"}})
	if r := send(t, a, bob, m); code(r.err) != protocol.CodeNotFound {
		t.Errorf("removed: %v", r.err)
	}
}

func TestEditsRecallsAndRepliesNameAMessage(t *testing.T) {
	mine := chat.Target{SenderID: "u1", SentAt: now.Add(-time.Minute)}
	cs := &conversations{
		group: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u9", Name: "eve", Role: chat.RoleAdmin}}),
		targets: map[int64]chat.Target{
			1: mine, 2: {SenderID: "u1", SentAt: now.Add(-2 * time.Hour)}, 3: {SenderID: "u2", SentAt: now}, 4: {SenderID: "u1", SentAt: now, Recalled: true},
			5: {Kind: protocol.EventAdded, SenderID: "u1", SentAt: now},
		},
	}
	var got []chat.Record
	a := accept.New(cs, logFunc(func(r chat.Record, done func(error)) { got = append(got, r); done(nil) }), config(time.Minute), func() time.Time { return now })
	type call func(done accept.Done)
	edit := func(seq int64) call {
		return func(done accept.Done) {
			a.Edit(t.Context(), ann, protocol.Edit{Conversation: "g", Seq: seq, ClientID: "e", Text: "x"}, "", done)
		}
	}
	recall := func(from chat.User, seq int64) call {
		return func(done accept.Done) {
			a.Recall(t.Context(), from, protocol.Recall{Conversation: "g", Seq: seq}, "", done)
		}
	}
	reply := func(seq int64) call {
		return func(done accept.Done) {
			a.Accept(t.Context(), ann, protocol.Send{Conversation: "g", ClientID: "r", Text: "x", ReplyTo: seq}, "", done)
		}
	}
	attach := func(id string) call {
		return func(done accept.Done) {
			a.Accept(t.Context(), ann, protocol.Send{Conversation: "g", ClientID: "f", File: id}, "", done)
		}
	}
	for _, c := range []struct {
		name  string
		call  call
		code  protocol.Code
		field string
		log   int // records that it writes
	}{
		{"edit", edit(1), "", "", 1},
		{"edit what is old", edit(2), protocol.CodePermissionDenied, "seq", 0},
		{"edit another's", edit(3), protocol.CodePermissionDenied, "seq", 0},
		{"edit what is recalled", edit(4), protocol.CodePermissionDenied, "seq", 0},
		{"edit no message", edit(5), protocol.CodeNotFound, "seq", 0},
		{"edit nothing", edit(9), protocol.CodeNotFound, "seq", 0},
		{"edit seq 0", edit(0), protocol.CodeInvalidArgument, "seq", 0},
		{"recall what is old", recall(ann, 2), "", "", 1},
		{"recall another's", recall(ann, 3), protocol.CodePermissionDenied, "seq", 0},
		{"recall another's as an admin", recall(eve, 3), "", "", 1},
		{"recall again", recall(ann, 4), "", "", 0},
		{"reply", reply(3), "", "", 1},
		{"own file", attach("f1"), "", "", 1},
		{"another's file", attach("f2"), protocol.CodeNotFound, "file", 0},
		{"no file", attach("f3"), protocol.CodeNotFound, "file", 0},
		{"no file's id", attach("a/b"), protocol.CodeInvalidArgument, "file", 0},
		{"reply to no message", reply(5), protocol.CodeNotFound, "reply_to", 0},
		{"reply to nothing", reply(9), protocol.CodeNotFound, "reply_to", 0},
	} {
		got = nil
		answers := make(chan error, 2)
		c.call(func(_ protocol.Accepted, err error) { answers <- err })
		e, _ := errors.AsType[*protocol.Error](<-answers)
		if e == nil {
			e = &protocol.Error{}
		}
		if e.Code != c.code || e.Field != c.field || len(got) != c.log || len(answers) != 0 {
			t.Errorf("%s: %+v, %d records", c.name, e, len(got))
		}
		for _, r := range got {
			if err := chat.CheckRecord(r); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}

func TestChangesThatAreDoneAlreadyWriteNothing(t *testing.T) {
	cs := &conversations{group: chat.NewRoster(true, 1, []chat.Member{{ID: "u1", Name: "ann", Role: chat.RoleOwner}, {ID: "u2", Name: "bob"}})}
	written := 0
	a := accept.New(cs, logFunc(func(_ chat.Record, done func(error)) { written++; done(nil) }), config(time.Minute), time.Now)
	bob, cid := chat.Member{ID: "u2", Name: "bob"}, chat.Member{ID: "u3", Name: "cid"}
	for _, c := range []struct {
		name   string
		record chat.Record
		code   protocol.Code
		log    int
	}{
		{"add a member", chat.Record{Kind: protocol.EventAdded, Members: []chat.Member{bob}}, "", 0},
		{"add another", chat.Record{Kind: protocol.EventAdded, Members: []chat.Member{bob, cid}}, "", 1},
		{"give the same role", chat.Record{Kind: protocol.EventRole, Members: []chat.Member{bob}, Role: chat.RoleMember}, "", 0},
		{"give another", chat.Record{Kind: protocol.EventRole, Members: []chat.Member{bob}, Role: chat.RoleAdmin}, "", 1},
		{"role of nobody", chat.Record{Kind: protocol.EventRole, Members: []chat.Member{cid}}, protocol.CodeNotFound, 0},
		{"remove nobody", chat.Record{Kind: protocol.EventRemoved, Members: []chat.Member{cid}}, protocol.CodeNotFound, 0},
		{"the owner leaves", chat.Record{Kind: protocol.EventRemoved, Members: []chat.Member{{ID: "u1", Name: "ann"}}}, protocol.CodePermissionDenied, 0},
		{"the owner is one no more", chat.Record{Kind: protocol.EventRole, Members: []chat.Member{{ID: "u1", Name: "ann"}}}, protocol.CodePermissionDenied, 0},
	} {
		written = 0
		c.record.Conversation, c.record.ClientID = "g", "x.1"
		answers := make(chan error, 2)
		a.Change(t.Context(), ann, c.record, "", func(_ protocol.Accepted, err error) { answers <- err })
		if err := <-answers; code(err) != c.code || written != c.log || len(answers) != 0 {
			t.Errorf("%s: %v, %d records", c.name, err, written)
		}
	}
}

// TestFullLogRefusesAtOnce: neither the store nor the log is asked for anything, and what
// can never be accepted is still told apart.
func TestFullLogRefusesAtOnce(t *testing.T) {
	cs, written := &conversations{}, 0
	log := &fullLog{logFunc: func(_ chat.Record, done func(error)) { written++; done(nil) }, full: true}
	a := accept.New(cs, log, config(time.Minute), time.Now)
	r := send(t, a, ann, good)
	if code(r.err) != protocol.CodeRateLimited || cs.reads != 0 || written != 0 {
		t.Errorf("%v, after %d reads and %d writes", r.err, cs.reads, written)
	}
	if r := send(t, a, ann, protocol.Send{Conversation: "c1", ClientID: "m1"}); code(r.err) != protocol.CodeInvalidArgument {
		t.Errorf("without a text: %v", r.err)
	}
	log.full = false
	if r := send(t, a, ann, good); r.err != nil || written != 1 {
		t.Errorf("no longer full: %v, %d writes", r.err, written)
	}
}
