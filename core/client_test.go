package core_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
)

// sdkUser is a user of the Go client with a live session.
type sdkUser struct {
	*client.User
	live *client.Session
	got  chan protocol.Message
	told chan client.Signal
}

func (n *node) sdkUser(name string) *sdkUser {
	n.t.Helper()
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Timeout = n.url, 20*time.Second
	c, err := client.New(cfg)
	must(n.t, err)
	n.t.Cleanup(c.Close)
	_, _, err = c.Register(n.t.Context(), name, password)
	must(n.t, err)
	u := &sdkUser{got: make(chan protocol.Message, 1000), told: make(chan client.Signal, 1000)}
	u.User, _, err = c.Login(n.t.Context(), name, password)
	must(n.t, err)
	u.live = u.Session(client.SessionConfig{OnMessage: func(m protocol.Message) { u.got <- m }, OnSignal: func(s client.Signal) { u.told <- s }})
	background(n.t, func(ctx context.Context) error {
		if err := u.live.Run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	})
	must(n.t, u.live.WaitReady(n.t.Context()))
	return u
}

// accepted waits until the user has got the entry that a call has made.
func (u *sdkUser) accepted(t *testing.T, a protocol.Accepted, _ client.Served, err error) protocol.Message {
	t.Helper()
	must(t, err)
	return u.until(t, a.ClientID)
}

func (u *sdkUser) until(t *testing.T, clientID string) protocol.Message {
	t.Helper()
	for {
		select {
		case m := <-u.got:
			if m.ClientID == clientID {
				return m
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s never came", clientID)
		}
	}
}

// TestGoClientSpeaksAllOfIt uses the calls of the Go client once each, the session's over
// an end of the connection as well.
func TestGoClientSpeaksAllOfIt(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob, cid := n.sdkUser("ann"), n.sdkUser("bob"), n.sdkUser("cid")
	ctx := t.Context()
	g, _, err := ann.CreateGroup(ctx, "g1", "lunch", "bob")
	must(t, err)
	if again, _, err := ann.CreateGroup(ctx, "g1", "lunch", "bob"); err != nil || again.ID != g.ID {
		t.Errorf("%v %+v", err, again)
	}
	bob.until(t, "created."+g.ID)
	message := func(id string) protocol.Send { return protocol.Send{Conversation: g.ID, ClientID: id, Text: id} }
	send := func(u *sdkUser, m protocol.Send, sees *sdkUser) protocol.Message {
		a, served, err := u.live.Send(ctx, m)
		return sees.accepted(t, a, served, err)
	}
	first := send(bob, message("m1"), ann)
	a, s, err := ann.AddMembers(ctx, g.ID, "cid")
	if m := cid.accepted(t, a, s, err); m.Seq != first.Seq+1 || !m.Begins("cid") {
		t.Errorf("got %+v", m)
	}
	a, s, err = ann.SetRole(ctx, g.ID, "bob", "admin")
	cid.accepted(t, a, s, err)
	a, s, err = bob.Rename(ctx, g.ID, "dinner")
	cid.accepted(t, a, s, err)
	a, s, err = bob.SetOpen(ctx, g.ID, true)
	cid.accepted(t, a, s, err)
	a, s, err = cid.Leave(ctx, g.ID)
	bob.accepted(t, a, s, err)
	a, s, err = cid.Join(ctx, g.ID)
	if m := bob.accepted(t, a, s, err); m.Sender != "cid" || !m.Begins("cid") {
		t.Errorf("got %+v", m)
	}
	reply := message("r1")
	reply.ReplyTo = first.Seq
	a, s, err = ann.Send(ctx, reply)
	if m := bob.accepted(t, a, s, err); m.ReplyTo != first.Seq {
		t.Errorf("got %+v", m)
	}
	a, s, err = bob.live.Edit(ctx, protocol.Edit{Conversation: g.ID, Seq: first.Seq, ClientID: "e1", Text: "edited"})
	if m := ann.accepted(t, a, s, err); m.Text != "edited" || m.Event.Target != first.Seq {
		t.Errorf("got %+v", m)
	}
	a, s, err = bob.Edit(ctx, protocol.Edit{Conversation: g.ID, Seq: first.Seq, ClientID: "e2", Text: "again"})
	ann.accepted(t, a, s, err)
	a, s, err = ann.live.Recall(ctx, protocol.Recall{Conversation: g.ID, Seq: first.Seq})
	bob.accepted(t, a, s, err)
	_, _, err = ann.Recall(ctx, protocol.Recall{Conversation: g.ID, Seq: first.Seq})
	must(t, err)
	_, _, err = ann.Edit(ctx, protocol.Edit{Conversation: g.ID, Seq: first.Seq, ClientID: "e3", Text: "x"})
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied || e.Field != "seq" {
		t.Errorf("edit another's: %v", err)
	}
	r, _, err := bob.live.Mark(ctx, protocol.Mark{Conversation: g.ID, Read: first.Seq})
	wantReceipt := protocol.Receipt{Conversation: g.ID, User: "bob", Read: first.Seq, Delivered: first.Seq}
	if err != nil || r != wantReceipt {
		t.Errorf("%v %+v", err, r)
	}
	if s := <-ann.told; s.Receipt == nil || *s.Receipt != wantReceipt {
		t.Errorf("told %+v", s)
	}
	if r, _, err = bob.Mark(ctx, protocol.Mark{Conversation: g.ID, Delivered: 1}); err != nil || r != wantReceipt {
		t.Errorf("%v %+v", err, r)
	}
	if s := <-ann.told; s.Receipt == nil {
		t.Errorf("told %+v", s)
	}
	must(t, bob.live.Typing(ctx, g.ID))
	if s := <-ann.told; s.Typing == nil || *s.Typing != (protocol.Typing{Conversation: g.ID, User: "bob"}) {
		t.Errorf("told %+v", s)
	}
	if c, _, err := bob.Mute(ctx, g.ID, true); err != nil || !c.Muted || c.Read != first.Seq || c.Unread != 1 {
		t.Errorf("%v %+v", err, c)
	}
	page, _, err := bob.HistoryBefore(ctx, g.ID, first.Seq+1, 1)
	if err != nil || len(page.Messages) != 1 || !page.Messages[0].Recalled || page.Messages[0].Text != "" {
		t.Errorf("%v %+v", err, page)
	}
	a, s, err = bob.RemoveMember(ctx, g.ID, "cid")
	cid.accepted(t, a, s, err)
	send(ann, message("m2"), bob)
	a, s, err = ann.AddMembers(ctx, g.ID, "cid")
	cid.accepted(t, a, s, err)
	if m := send(ann, message("m3"), cid); m.Text != "m3" {
		t.Errorf("got %+v", m)
	}
	members, _, err := cid.Members(ctx, g.ID, "", 2)
	must(t, err)
	rest, _, err := cid.Members(ctx, g.ID, members.Next, 2)
	must(t, err)
	listed := append(members.Members, rest.Members...)
	if !slices.Contains(listed, client.Member{Name: "bob", Role: "admin", Read: first.Seq, Delivered: first.Seq}) || len(members.Members) != 2 || len(rest.Members) != 1 || rest.Next != "" {
		t.Errorf("%+v %+v", members, rest)
	}
	a, s, err = cid.Leave(ctx, g.ID)
	bob.accepted(t, a, s, err)
	got, _, err := bob.Conversation(ctx, g.ID)
	want := client.Conversation{ID: g.ID, Kind: "group", Name: "dinner", Members: []string{}, Count: 2, Role: "admin", LastSeq: got.LastSeq, Read: first.Seq, Unread: 3, Muted: true, Open: true}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if st := cid.live.Stats(); st.Repairs != 0 {
		t.Errorf("to be added again was taken for a gap: %+v", st)
	}
}

// TestBlockedUserCannotSend: by no process and by no way, and nobody else is touched.
func TestBlockedUserCannotSend(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob := n.sdkUser("ann"), n.sdkUser("bob")
	ctx := t.Context()
	talk, _, err := ann.Open(ctx, "bob")
	must(t, err)
	g, _, err := ann.CreateGroup(ctx, "g", "both", "bob")
	must(t, err)
	message := func(conversation, id string) protocol.Send {
		return protocol.Send{Conversation: conversation, ClientID: id, Text: id}
	}
	a, s, err := bob.Send(ctx, message(talk.ID, "before"))
	first := ann.accepted(t, a, s, err)
	_, err = ann.Block(ctx, "bob")
	must(t, err)
	refused := func(what string, err error, field string) {
		t.Helper()
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied || e.Field != field || e.Temporary {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err = bob.Send(ctx, message(talk.ID, "1"))
	refused("by REST", err, "conversation")
	_, _, err = bob.live.Send(ctx, message(talk.ID, "2"))
	refused("by socket", err, "conversation")
	_, _, err = bob.live.Edit(ctx, protocol.Edit{Conversation: talk.ID, Seq: first.Seq, ClientID: "3", Text: "x"})
	refused("by an edit", err, "conversation")
	refused("by typing", bob.live.Typing(ctx, talk.ID), "conversation")
	_, _, err = bob.CreateGroup(ctx, "g", "trap", "ann")
	refused("by a group", err, "members")
	a, s, err = bob.live.Send(ctx, message(g.ID, "in-group"))
	ann.accepted(t, a, s, err)
	a, s, err = ann.Send(ctx, message(talk.ID, "4"))
	bob.accepted(t, a, s, err)
	if names, _, err := ann.Blocks(ctx, "", 10); err != nil || !cmp.Equal(names.Names, []string{"bob"}) || names.Next != "" {
		t.Errorf("%v %+v", err, names)
	}
	_, err = ann.Unblock(ctx, "bob")
	must(t, err)
	a, s, err = bob.live.Send(ctx, message(talk.ID, "after"))
	if m := ann.accepted(t, a, s, err); m.Seq != 3 {
		t.Errorf("got seq %d: something came through", m.Seq)
	}
}

// TestGoClientBeginsAnew: its positions are those of before a restored backup, one after the
// end of the history and one in a conversation that does not exist.
func TestGoClientBeginsAnew(t *testing.T) {
	n := newWorld(t).start0()
	ann := n.sdkUser("ann")
	n.sdkUser("bob")
	c, _, err := ann.Open(t.Context(), "bob")
	must(t, err)
	a, s, err := ann.Send(t.Context(), protocol.Send{Conversation: c.ID, ClientID: "m1", Text: "hello"})
	want := ann.accepted(t, a, s, err)
	got, resets := make(chan protocol.Message, 10), make(chan client.Event, 10)
	live := ann.Session(client.SessionConfig{
		Positions: map[string]int64{c.ID: 100, "0198c0de-0000-7000-8000-000000000000": 5},
		OnMessage: func(m protocol.Message) { got <- m },
		OnEvent: func(e client.Event) {
			if e.Kind == client.Reset {
				resets <- e
			}
		},
	})
	background(t, func(ctx context.Context) error { return live.Run(ctx) })
	must(t, live.WaitReady(t.Context()))
	if len(resets) != 1 || len(got) != 1 {
		t.Fatalf("%d resets and %d messages, want 1 and 1", len(resets), len(got))
	}
	if m := <-got; m.Seq != want.Seq || m.ClientID != want.ClientID {
		t.Errorf("got %+v, want %+v", m, want)
	}
	if diff := cmp.Diff(map[string]int64{c.ID: want.Seq}, live.Positions()); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
}
