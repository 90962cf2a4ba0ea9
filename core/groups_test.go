package core_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

// change makes a call that changes a group, and waits until somebody has got the entry.
func (n *node) change(method, path, bearer string, in any, sees *seen, conversation string) protocol.Message {
	n.t.Helper()
	var a protocol.Accepted
	must(n.t, n.call(method, "/v1/conversations/"+conversation+path, bearer, in, &a))
	return sees.until(n.t, conversation, func(m protocol.Message) bool { return m.ClientID == a.ClientID })
}

func codeOf(err error) protocol.Code {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code
	}
	return ""
}

// TestGroupOnTwoProcesses: everybody sees the same entries, whoever is added from then
// on, and whoever is removed until then.
func TestGroupOnTwoProcesses(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(w.config("baseline")), w.start(w.config("canary"))
	ann, bob, cid := one.person("ann"), one.person("bob"), one.person("cid")
	ofAnn, ofBob, ofCid := newSeen(), newSeen(), newSeen()
	a, _ := one.connect(ann, ofAnn)
	two.connect(bob, ofBob)
	c, _ := two.connect(cid, ofCid)

	id := one.group(ann, "lunch", "bob", "bob", "ann")
	first := ofBob.until(t, id, func(m protocol.Message) bool { return m.Seq == 1 }) // connected ones are told of it
	want := &protocol.Event{Kind: protocol.EventCreated, Members: []string{"ann", "bob"}, Name: "lunch"}
	if diff := cmp.Diff(want, first.Event); diff != "" {
		t.Error(diff)
	}
	must(t, a.send(id, "before-cid"))
	members := "/members"
	if err := two.call("POST", "/v1/conversations/"+id+members, bob, map[string]any{"members": []string{"cid"}}, nil); codeOf(err) != protocol.CodePermissionDenied {
		t.Errorf("a member adds: %v", err)
	}
	one.change("PUT", members+"/bob", ann, map[string]string{"role": "admin"}, ofBob, id)
	added := two.change("POST", members, bob, map[string]any{"members": []string{"cid", "ann"}}, ofCid, id)
	if diff := cmp.Diff([]string{"cid"}, added.Event.Members); diff != "" || !added.Begins("cid") || added.Begins("ann") {
		t.Errorf("added: %s", diff)
	}
	must(t, c.send(id, "hello"))
	must(t, one.send(ann, id, "hello-cid"))
	ofCid.wait(t, id, 3)
	removed := two.change("DELETE", members+"/cid", bob, nil, ofCid, id)
	if err := two.send(cid, id, "late"); codeOf(err) != protocol.CodeNotFound {
		t.Errorf("who was removed sends: %v", err)
	}
	if err := c.send(id, "late"); codeOf(err) != protocol.CodeNotFound {
		t.Errorf("who was removed sends by socket: %v", err)
	}
	must(t, a.send(id, "after-cid"))
	ofBob.wait(t, id, 8)
	if got := one.history(cid, id); len(got) != 4 || got[0].Seq != added.Seq || got[3].Seq != removed.Seq {
		t.Errorf("who was removed reads %+v", got)
	}
	if err := one.call("GET", "/v1/conversations/"+id, cid, nil, nil); codeOf(err) != protocol.CodeNotFound {
		t.Errorf("who was removed looks: %v", err)
	}
	one.change("PATCH", "", ann, map[string]string{"name": "dinner"}, ofBob, id)
	if err := one.call("DELETE", "/v1/conversations/"+id+members+"/ann", ann, nil, nil); codeOf(err) != protocol.CodePermissionDenied {
		t.Errorf("the owner leaves: %v", err)
	}
	one.change("PUT", members+"/bob", ann, map[string]string{"role": "owner"}, ofBob, id)
	one.change("DELETE", members+"/ann", ann, nil, ofAnn, id)

	var got struct {
		ID, Kind, Name, Role string
		Members              []string
		Count                int   `json:"member_count"`
		LastSeq              int64 `json:"last_seq"`
	}
	must(t, two.call("GET", "/v1/conversations/"+id, bob, nil, &got))
	if got.Kind != "group" || got.Name != "dinner" || got.Role != "owner" || got.Count != 1 || len(got.Members) != 0 || got.LastSeq != 11 {
		t.Errorf("got %+v", got)
	}
	ofBob.wait(t, id, 11)
	if diff := cmp.Diff(ofAnn.ids[id], ofBob.ids[id]); diff != "" {
		t.Errorf("the two saw different entries: %s", diff)
	}
	ofCid.mu.Lock()
	if n := len(ofCid.ids[id]); n != 4 {
		t.Errorf("who was removed got %d entries", n)
	}
	ofCid.mu.Unlock()
	_ = c.ws.Close()
	<-c.closed
	if _, resumed := one.connect(cid, ofCid); !resumed.Recovered || resumed.Replayed != 0 {
		t.Errorf("who was removed resumes: %+v", resumed)
	}
	one.change("POST", members, bob, map[string]any{"members": []string{"cid"}}, ofCid, id) // back
	must(t, two.send(cid, id, "back"))
	ofCid.until(t, id, func(m protocol.Message) bool { return m.ClientID == "back" })
}

// TestOpenGroupsAreJoined: by whoever knows the id, once, on whichever process; and no more
// when the group is closed.
func TestOpenGroupsAreJoined(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(w.config("baseline")), w.start(w.config("canary"))
	ann, bob, cid := one.person("ann"), one.person("bob"), one.person("cid")
	ofAnn, ofBob := newSeen(), newSeen()
	one.connect(ann, ofAnn)
	b, _ := two.connect(bob, ofBob)
	var group struct {
		ID   string
		Open bool
	}
	must(t, one.call("POST", "/v1/conversations", ann, map[string]any{"name": "market", "open": true}, &group))
	if !group.Open {
		t.Errorf("got %+v", group)
	}
	joined := two.change("POST", "/join", bob, map[string]string{"client_id": "1"}, ofBob, group.ID)
	want := &protocol.Event{Kind: protocol.EventAdded, Members: []string{"bob"}}
	if diff := cmp.Diff(want, joined.Event); diff != "" || joined.Sender != "bob" || !joined.Begins("bob") {
		t.Errorf("joined by %s: %s", joined.Sender, diff)
	}
	must(t, two.call("POST", "/v1/conversations/"+group.ID+"/join", bob, map[string]string{"client_id": "2"}, nil)) // is in already
	must(t, b.send(group.ID, "hello"))
	one.change("DELETE", "/members/bob", ann, nil, ofBob, group.ID)
	two.change("POST", "/join", bob, map[string]string{"client_id": "3"}, ofBob, group.ID)
	closed := one.change("PATCH", "", ann, map[string]bool{"open": false}, ofBob, group.ID)
	if closed.Seq != 6 || closed.Event.Kind != protocol.EventClosed { // joining twice was one entry
		t.Errorf("got %+v", closed)
	}
	for _, id := range []string{group.ID, "none"} {
		if err := two.call("POST", "/v1/conversations/"+id+"/join", cid, map[string]string{}, nil); codeOf(err) != protocol.CodeNotFound {
			t.Errorf("join %s: %v", id, err)
		}
	}
	ofAnn.wait(t, group.ID, 6)
}

// TestOfflineDevicesConverge: a device that was away while messages were edited and
// recalled shows in the end what one shows that was there.
func TestOfflineDevicesConverge(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob := n.person("ann"), n.person("bob")
	id := n.direct(ann, "bob")
	there, away := newSeen(), newSeen()
	there.positions[id], away.positions[id] = 0, 0
	n.connect(bob, there)
	c, _ := n.connect(bob, away)
	for i := range 4 {
		must(t, n.send(ann, id, fmt.Sprint(i)))
	}
	away.wait(t, id, 2)
	_ = c.ws.Close()
	<-c.closed
	there.wait(t, id, 4)
	edit := func(bearer string, seq int64, clientID, text string) error {
		return n.call("PATCH", fmt.Sprintf("/v1/conversations/%s/messages/%d", id, seq), bearer, map[string]string{"client_id": clientID, "text": text}, nil)
	}
	must(t, edit(ann, 1, "e1", "first"))
	must(t, edit(ann, 1, "e2", "second"))
	must(t, edit(ann, 1, "e2", "second")) // again
	must(t, edit(ann, 3, "e3", "third"))
	must(t, n.call("DELETE", "/v1/conversations/"+id+"/messages/2", ann, nil, nil))
	must(t, n.call("DELETE", "/v1/conversations/"+id+"/messages/2", ann, nil, nil))
	if err := edit(bob, 1, "e4", "not mine"); codeOf(err) != protocol.CodePermissionDenied {
		t.Errorf("edit another's: %v", err)
	}
	if err := n.call("DELETE", "/v1/conversations/"+id+"/messages/1", bob, nil, nil); codeOf(err) != protocol.CodePermissionDenied {
		t.Errorf("recall another's: %v", err)
	}
	must(t, n.call("POST", "/v1/conversations/"+id+"/messages", bob, map[string]any{"client_id": "r", "text": "reply", "reply_to": 3}, nil))
	there.wait(t, id, 9)
	_, resumed := n.connect(bob, away)
	away.wait(t, id, 9)
	if !resumed.Recovered {
		t.Error("not recovered")
	}
	want := map[int64]string{1: "second", 2: "", 3: "third", 4: "text 3", 9: "reply"}
	fresh := map[int64]string{}
	for _, m := range n.history(bob, id) {
		show(fresh, m)
		if m.Seq == 9 && m.ReplyTo != 3 || m.Seq == 2 && !m.Recalled || m.Seq == 1 && !m.Edited {
			t.Errorf("got %+v", m)
		}
	}
	for name, got := range map[string]map[int64]string{"there": there.texts[id], "away": away.texts[id], "fresh": fresh} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if diff := cmp.Diff(there.ids[id], away.ids[id]); diff != "" {
		t.Errorf("the two saw different entries: %s", diff)
	}
}

// TestLargeGroup: past a number of members all are told by one push a process.
func TestLargeGroup(t *testing.T) {
	w := newWorld(t)
	one, two := w.start(w.config("baseline")), w.start(w.config("canary"))
	ann := one.person("ann")
	var names []string
	var bearers []string
	for i := range 110 {
		names = append(names, fmt.Sprintf("user%d", i))
		bearers = append(bearers, one.person(names[i]))
	}
	id := one.group(ann, "all", names[:90]...)
	last, far := newSeen(), newSeen()
	c, _ := two.connect(bearers[109], last)
	far.positions[id] = 0
	one.connect(bearers[0], far)
	one.change("POST", "/members", ann, map[string]any{"members": names[90:]}, last, id)
	for i := range 20 {
		must(t, one.send(ann, id, fmt.Sprint(i)))
	}
	last.wait(t, id, 21)
	far.wait(t, id, 21)
	one.change("DELETE", "/members/user109", ann, nil, last, id)
	must(t, one.send(ann, id, "after"))
	far.wait(t, id, 23)
	must(t, c.ws.Close())
	<-c.closed
	if n := last.count(id); n != 22 {
		t.Errorf("who was removed got %d entries", n)
	}
	pushes := 0.0 // by whichever process stores to the other
	for _, n := range []*node{one, two} {
		families, err := n.registry.Gather()
		must(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "core_fanout_received_total" && strings.Contains(m.String(), "group") {
					pushes += m.GetCounter().GetValue()
				}
			}
		}
	}
	if pushes == 0 {
		t.Error("no push to a group has come")
	}
	seen := map[string]bool{}
	for next := ""; ; {
		var page struct {
			Members []struct{ Name, Role string }
			Next    string
		}
		must(t, two.call("GET", "/v1/conversations/"+id+"/members?limit=40&after="+next, bearers[0], nil, &page))
		for _, m := range page.Members {
			if seen[m.Name] || (m.Role == "owner") != (m.Name == "ann") {
				t.Errorf("%+v", m)
			}
			seen[m.Name] = true
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if len(seen) != 110 {
		t.Errorf("%d members listed", len(seen))
	}
}

func TestGroupIsMadeOnceUnderItsClientID(t *testing.T) {
	n := newWorld(t).start0()
	ann := n.person("ann")
	n.person("bob")
	create := func(bearer string) string {
		var out struct{ ID string }
		must(t, n.call("POST", "/v1/conversations", bearer, map[string]any{"name": "x", "members": []string{"bob"}, "client_id": "g1"}, &out))
		return out.ID
	}
	if id := create(ann); create(ann) != id || create(n.login("bob")) == id {
		t.Error("not one group for one creator and client id")
	}
}

// TestGroupIsNotMadeAgainAfterItsCreatorHasLeft: nor is it an error of ours.
func TestGroupIsNotMadeAgainAfterItsCreatorHasLeft(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob := n.person("ann"), n.person("bob")
	create := func(out any) error {
		return n.call("POST", "/v1/conversations", ann, map[string]any{"name": "x", "open": true, "client_id": "g1"}, out)
	}
	var group struct{ ID string }
	must(t, create(&group))
	ofBob := newSeen()
	n.connect(bob, ofBob)
	n.change("POST", "/join", bob, map[string]string{"client_id": "1"}, ofBob, group.ID)
	n.change("PUT", "/members/bob", ann, map[string]string{"role": "owner", "client_id": "1"}, ofBob, group.ID)
	n.change("DELETE", "/members/ann?client_id=1", ann, nil, ofBob, group.ID)
	e, _ := errors.AsType[*protocol.Error](create(nil))
	if e == nil || e.Code != protocol.CodeAlreadyExists || e.Field != "client_id" {
		t.Errorf("after its creator has left: %v", e)
	}
}

// TestChangeIsMadeOnceUnderItsClientID: also when it is repeated before it has a number.
func TestChangeIsMadeOnceUnderItsClientID(t *testing.T) {
	n := newWorld(t).start0()
	ann, bob := n.person("ann"), n.person("bob")
	id := n.group(ann, "x")
	s := newSeen()
	s.positions[id] = 0
	n.connect(ann, s)
	for range 5 {
		must(t, n.call("POST", "/v1/conversations/"+id+"/members", ann, map[string]any{"members": []string{"bob"}, "client_id": "1"}, nil))
		must(t, n.call("PATCH", "/v1/conversations/"+id, ann, map[string]any{"name": "y", "client_id": "1"}, nil))
	}
	s.until(t, id, func(m protocol.Message) bool { return m.ClientID == "added.1" })
	for range 2 {
		must(t, n.call("PUT", "/v1/conversations/"+id+"/members/bob", ann, map[string]any{"role": "admin", "client_id": "1"}, nil))
	}
	must(t, n.send(ann, id, "1")) // of a message: another one
	err := n.call("DELETE", "/v1/conversations/"+id+"/members/bob?client_id=a%20b", bob, nil, nil)
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Field != "client_id" {
		t.Errorf("bad client id: %v", err)
	}
	must(t, n.call("DELETE", "/v1/conversations/"+id+"/members/bob?client_id=1", bob, nil, nil))
	s.until(t, id, func(m protocol.Message) bool { return m.ClientID == "removed.1" })
	want := []string{"created." + id, "added.1", "renamed.1", "role.1", "1", "removed.1"}
	if diff := cmp.Diff(want, s.ids[id]); diff != "" {
		t.Error(diff)
	}
}
