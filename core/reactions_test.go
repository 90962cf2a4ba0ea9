package core_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

// showReactions does what a device of a user does with entries: it takes a message's
// reactions as it is given them, and those of an entry as the entry says.
func showReactions(user string, entries []protocol.Message) map[int64][]protocol.Reaction {
	out := map[int64][]protocol.Reaction{}
	for _, m := range entries {
		if m.Event == nil {
			out[m.Seq] = slices.Clone(m.Reactions)
			continue
		}
		e := m.Event
		list, known := out[e.Target]
		switch {
		case !known:
			continue
		case e.Kind == protocol.EventRecalled:
			list = nil
		case e.Emoji != "":
			i := slices.IndexFunc(list, func(r protocol.Reaction) bool { return r.Emoji == e.Emoji })
			if i < 0 {
				i = len(list)
				list = append(list, protocol.Reaction{Emoji: e.Emoji})
			}
			if list[i].Count = e.Count; m.Sender == user {
				list[i].Mine = e.Kind == protocol.EventReacted
			}
			list = slices.DeleteFunc(list, func(r protocol.Reaction) bool { return r.Count == 0 })
		}
		out[e.Target] = list
	}
	return out
}

// TestReactionsConverge: on two processes, by REST and by sockets, people react and take
// back; a device that was there, one that was away and one that only reads the history show
// the same. Who was removed or blocked does not react.
func TestReactionsConverge(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(w.config("baseline")), w.start(w.config("canary"))
	ann, bob, cid := one.person("ann"), two.person("bob"), one.person("cid")
	id := one.group(ann, "dinner", "bob", "cid")
	path := func(seq int64, emoji string) string {
		return fmt.Sprintf("/v1/conversations/%s/messages/%d/reactions/%s", id, seq, url.PathEscape(emoji))
	}
	n := 0
	react := func(on *node, bearer string, seq int64, emoji string) error {
		n++
		return on.call("PUT", path(seq, emoji), bearer, map[string]string{"client_id": fmt.Sprint(n)}, nil)
	}
	unreact := func(on *node, bearer string, seq int64, emoji string) error {
		n++
		return on.call("DELETE", path(seq, emoji)+"?client_id="+fmt.Sprint(n), bearer, nil, nil)
	}
	there, away := newSeen(), newSeen()
	there.positions[id], away.positions[id] = 0, 0
	c, _ := two.connect(bob, there)
	left, _ := one.connect(bob, away)
	must(t, one.send(ann, id, "a")) // 2
	must(t, two.send(bob, id, "b")) // 3
	away.wait(t, id, 3)
	must(t, react(one, ann, 2, "👍"))
	away.wait(t, id, 4)
	_ = left.ws.Close()
	<-left.closed

	f, err := c.do(protocol.Command{React: &protocol.React{Conversation: id, Seq: 2, Emoji: "👍", ClientID: "ws-1"}})
	must(t, err)
	if f.Accepted == nil || f.Accepted.ClientID != "reacted.ws-1" || len(f.Accepted.TraceID) != 32 {
		t.Errorf("got %+v", f)
	}
	there.wait(t, id, 5)
	must(t, react(one, ann, 2, "👍")) // is there already
	must(t, react(two, cid, 2, "👨‍👩‍👧‍👦"))
	there.wait(t, id, 7)
	must(t, unreact(one, ann, 2, "👍"))
	must(t, unreact(one, cid, 2, "🎉")) // was not there
	must(t, react(one, cid, 3, "🎉"))
	must(t, react(two, ann, 3, "🎉"))
	there.wait(t, id, 11)
	_, err = c.do(protocol.Command{Unreact: &protocol.React{Conversation: id, Seq: 2, Emoji: "👍", ClientID: "ws-1"}}) // a key of its own
	must(t, err)
	there.wait(t, id, 12)
	must(t, one.call("DELETE", fmt.Sprintf("/v1/conversations/%s/messages/2", id), ann, nil, nil))
	there.wait(t, id, 13)
	if err := react(two, bob, 2, "👍"); codeOf(err) != protocol.CodePermissionDenied {
		t.Errorf("react to what was recalled: %v", err)
	}

	must(t, one.call("DELETE", "/v1/conversations/"+id+"/members/cid", ann, nil, nil))
	there.wait(t, id, 14)
	if err := react(one, cid, 3, "👀"); codeOf(err) != protocol.CodeNotFound {
		t.Errorf("who was removed reacts: %v", err)
	}
	must(t, react(one, ann, 3, "👍"))
	there.wait(t, id, 15)
	_, resumed := two.connect(bob, away)
	if !resumed.Recovered {
		t.Error("not recovered")
	}
	away.wait(t, id, 15)
	fresh := one.history(bob, id)
	want := map[int64][]protocol.Reaction{2: nil, 3: {{Emoji: "🎉", Count: 2}, {Emoji: "👍", Count: 1}}}
	for name, entries := range map[string][]protocol.Message{"there": there.entries[id], "away": away.entries[id], "fresh": fresh} {
		got := showReactions("bob", entries)
		if len(got[2]) == 0 {
			got[2] = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if diff := cmp.Diff(there.ids[id], away.ids[id]); diff != "" {
		t.Errorf("the two saw different entries: %s", diff)
	}

	// In a direct conversation the blocked one may only take back.
	direct := one.direct(ann, "bob")
	must(t, one.send(ann, direct, "1"))
	must(t, one.send(ann, direct, "2"))
	there.wait(t, direct, 2)
	id = direct
	must(t, react(two, bob, 1, "👍"))
	there.wait(t, direct, 3)
	must(t, one.call("PUT", "/v1/blocks/bob", ann, nil, nil))
	if err := react(two, bob, 2, "👍"); codeOf(err) != protocol.CodePermissionDenied {
		t.Errorf("who is blocked reacts: %v", err)
	}
	must(t, unreact(two, bob, 1, "👍"))
	last := there.until(t, direct, func(m protocol.Message) bool { return m.Event != nil && m.Event.Kind == protocol.EventUnreacted })
	if last.Event.Count != 0 || last.Event.Target != 1 {
		t.Errorf("got %+v", last.Event)
	}
}
