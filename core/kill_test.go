package core_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

// fleet is processes that are killed and started again.
type fleet struct {
	w     *world
	mu    sync.RWMutex
	nodes []*node
}

func (f *fleet) pick(r *rand.Rand) *node {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.nodes[r.IntN(len(f.nodes))]
}

// kill kills one with -9 and starts it again under the same name.
func (f *fleet) kill(i int, pool string) {
	f.mu.RLock()
	old := f.nodes[i]
	f.mu.RUnlock()
	old.stop()
	fresh := f.w.spawn(f.w.config(pool))
	f.mu.Lock()
	f.nodes[i] = fresh
	f.mu.Unlock()
}

// TestKilledProcessesLoseNothing kills processes with -9 while users send, edit, recall
// and receive by REST and WebSocket, in pairs and in one room of all, to which a visitor
// is added and from which it is removed again and again. What was accepted must come
// exactly once, in the same order for all, and in the order in which its sender sent it;
// in the end all show the same texts, and the visitor has got nothing that came while it
// was away. The seed is printed and can be set again by TRACEGATE_TEST_SEED, the number of
// kills by TRACEGATE_TEST_KILLS.
func TestKilledProcessesLoseNothing(t *testing.T) {
	seed, kills := uint64(time.Now().UnixNano()), 4
	if s, err := strconv.ParseUint(os.Getenv("TRACEGATE_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	if k, err := strconv.Atoi(os.Getenv("TRACEGATE_TEST_KILLS")); err == nil {
		kills = k
	}
	t.Logf("seed %d, %d kills", seed, kills)
	w := newWorld(t)
	pools := []string{"baseline", "canary", "isolated"}
	f := &fleet{w: w}
	for _, p := range pools {
		f.nodes = append(f.nodes, w.spawn(w.config(p)))
	}
	const pairs = 3
	var names []string
	users := make([]*chatter, 2*pairs)
	for i := range users {
		names = append(names, fmt.Sprintf("user%d", i))
		users[i] = &chatter{
			t: t, f: f, number: i, bearer: f.nodes[0].person(names[i]), seen: newSeen(), rnd: rand.New(rand.NewPCG(seed, uint64(i))),
			accepted: map[string]int{}, recalled: map[string]bool{}, read: map[string]int64{},
		}
	}
	room := f.nodes[0].group(users[0].bearer, "room", names[1:]...)
	var ids [pairs]string
	for i := range ids {
		ids[i] = f.nodes[0].direct(users[2*i].bearer, names[2*i+1])
	}
	visitor := &chatter{t: t, f: f, bearer: f.nodes[0].person("visitor"), seen: newSeen(), rnd: rand.New(rand.NewPCG(seed, 77))}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, u := range users { // each sends 0, 1, 2, ... until stop
		u.conversations = []string{ids[i/2], room}
		for _, id := range u.conversations {
			u.seen.positions[id] = 0 // from the first entry on
		}
		wg.Go(func() { u.chat(stop) })
	}
	visitor.seen.positions[room] = 0
	wg.Go(func() { visitor.listen(stop) })
	wg.Go(func() { f.doorkeeper(t, rand.New(rand.NewPCG(seed, 98)), users[0].bearer, room, stop) })
	r := rand.New(rand.NewPCG(seed, 99))
	for range kills {
		pair := r.IntN(pairs) // kill after some progress
		users[2*pair].seen.wait(t, ids[pair], users[2*pair].seen.count(ids[pair])+r.IntN(40))
		i := r.IntN(len(pools))
		f.kill(i, pools[i])
	}
	close(stop)
	wg.Wait()
	sent := 0
	for i, id := range ids {
		sent += f.settle(id, users[2*i:2*i+2])
	}
	sent += f.settle(room, users)
	f.settleVisitor(room, users[0].seen, visitor)
	t.Logf("%d entries", sent)
	if sent < 50 {
		t.Errorf("only %d entries: this was no test", sent)
	}
}

// chatter is a user who is connected somewhere.
type chatter struct {
	t             *testing.T
	f             *fleet
	number        int
	bearer        string
	conversations []string
	seen          *seen
	rnd           *rand.Rand
	socket        *socket
	accepted      map[string]int   // by conversation
	recalled      map[string]bool  // conversation and seq
	read          map[string]int64 // position by conversation, as answered
}

// chat sends one message after the other, each until it is accepted, and now and then
// edits or recalls one of its own, or says how far it has read.
func (u *chatter) chat(stop <-chan struct{}) {
	defer u.hangUp()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		conversation := u.conversations[u.rnd.IntN(len(u.conversations))]
		id := fmt.Sprintf("u%d-%d", u.number, n)
		u.insist(conversation, protocol.Command{Send: &protocol.Send{Conversation: conversation, ClientID: id, Text: "text " + id}})
		seq := u.own(conversation)
		if seq == 0 {
			continue
		}
		switch u.rnd.IntN(10) {
		case 3, 4:
			u.mark(conversation, 1+u.rnd.Int64N(seq))
		case 0, 1:
			u.insist(conversation, protocol.Command{Edit: &protocol.Edit{Conversation: conversation, Seq: seq, ClientID: "e" + id, Text: "edit " + id}})
		case 2:
			u.recalled[fmt.Sprint(conversation, seq)] = true
			u.insist(conversation, protocol.Command{Recall: &protocol.Recall{Conversation: conversation, Seq: seq}})
		}
	}
}

// own picks a message of its own that has not been recalled; 0 where there is none.
func (u *chatter) own(conversation string) int64 {
	u.seen.mu.Lock()
	defer u.seen.mu.Unlock()
	list := u.seen.entries[conversation]
	for range 20 {
		if len(list) == 0 {
			return 0
		}
		m := list[u.rnd.IntN(len(list))]
		if m.Event == nil && m.Sender == fmt.Sprintf("user%d", u.number) && !u.recalled[fmt.Sprint(conversation, m.Seq)] {
			return m.Seq
		}
	}
	return 0
}

// mark says how far it has read, once; what is answered must hold from then on.
func (u *chatter) mark(conversation string, seq int64) {
	var r protocol.Receipt
	var err error
	if u.socket != nil && u.rnd.IntN(2) == 0 {
		var f protocol.Frame
		if f, err = u.socket.do(protocol.Command{Mark: &protocol.Mark{Conversation: conversation, Read: seq}}); err == nil {
			r = *f.Receipt
		}
	} else {
		err = u.f.pick(u.rnd).call("PUT", "/v1/conversations/"+conversation+"/receipt", u.bearer, map[string]int64{"read": seq}, &r)
	}
	if pe, ok := errors.AsType[*protocol.Error](err); ok && !pe.Temporary {
		u.t.Errorf("mark: %v", err)
	}
	if err != nil {
		return
	}
	if r.Read < max(seq, u.read[conversation]) {
		u.t.Errorf("marked %d, answered %+v after %d", seq, r, u.read[conversation])
	}
	u.read[conversation] = r.Read
}

// insist repeats a command until it is accepted.
func (u *chatter) insist(conversation string, cmd protocol.Command) {
	u.t.Helper()
	for {
		u.socket = u.f.stayConnected(u.t, u.rnd, u.bearer, u.seen, u.socket)
		var err error
		if u.rnd.IntN(2) == 0 && u.socket != nil {
			_, err = u.socket.do(cmd)
		} else {
			err = u.f.pick(u.rnd).command(u.bearer, cmd)
		}
		if err == nil {
			u.accepted[conversation]++
			return
		}
		if pe, ok := errors.AsType[*protocol.Error](err); ok && !pe.Temporary {
			u.t.Errorf("%+v: %v", cmd, err)
			return
		}
	}
}

// command does by REST what a command does.
func (n *node) command(bearer string, cmd protocol.Command) error {
	path := func(conversation string, seq int64) string {
		return fmt.Sprintf("/v1/conversations/%s/messages/%d", conversation, seq)
	}
	switch {
	case cmd.Edit != nil:
		return n.call("PATCH", path(cmd.Edit.Conversation, cmd.Edit.Seq), bearer, map[string]string{"client_id": cmd.Edit.ClientID, "text": cmd.Edit.Text}, nil)
	case cmd.Recall != nil:
		return n.call("DELETE", path(cmd.Recall.Conversation, cmd.Recall.Seq), bearer, nil, nil)
	default:
		return n.send(bearer, cmd.Send.Conversation, cmd.Send.ClientID)
	}
}

// listen only stays connected.
func (u *chatter) listen(stop <-chan struct{}) {
	defer u.hangUp()
	for {
		u.socket = u.f.stayConnected(u.t, u.rnd, u.bearer, u.seen, u.socket)
		closed := make(<-chan struct{})
		if u.socket != nil {
			closed = u.socket.closed
		}
		select {
		case <-stop:
			return
		case <-closed:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (u *chatter) hangUp() {
	if u.socket != nil {
		_ = u.socket.ws.Close()
		<-u.socket.closed // nothing is taken after this
		u.socket = nil
	}
}

// doorkeeper adds and removes the visitor; what it is told may be too late, so only the
// log says what took effect.
func (f *fleet) doorkeeper(t *testing.T, r *rand.Rand, bearer, room string, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(100)) * time.Millisecond):
		}
		var err error
		if n%2 == 0 {
			err = f.pick(r).call("POST", "/v1/conversations/"+room+"/members", bearer, map[string]any{"members": []string{"visitor"}}, nil)
		} else {
			err = f.pick(r).call("DELETE", "/v1/conversations/"+room+"/members/visitor", bearer, nil, nil)
		}
		if pe, ok := errors.AsType[*protocol.Error](err); ok && !pe.Temporary && pe.Code != protocol.CodeNotFound {
			t.Errorf("doorkeeper: %v", err)
		}
	}
}

// settle lets whoever is behind get the rest on a last connection, and compares what the
// members of a conversation have got with what was accepted and with one another.
func (f *fleet) settle(id string, users []*chatter) (want int) {
	t := f.w.t
	t.Helper()
	for _, u := range users {
		want += u.accepted[id]
	}
	chatted := func(s *seen) (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range s.entries[id] {
			if m.Event == nil || m.Event.Target > 0 {
				n++
			}
		}
		return n
	}
	for _, u := range users {
		c, _ := f.nodes[0].connect(u.bearer, u.seen)
		eventually(t, "all entries", func() bool { return chatted(u.seen) >= want })
		eventually(t, "the newest entry", func() bool {
			var c struct {
				LastSeq int `json:"last_seq"`
			}
			must(t, f.nodes[0].call("GET", "/v1/conversations/"+id, u.bearer, nil, &c))
			return u.seen.count(id) == c.LastSeq
		})
		_ = c.ws.Close()
		<-c.closed
		if n := chatted(u.seen); n != want {
			t.Errorf("%d received, %d accepted", n, want)
		}
		if diff := cmp.Diff(users[0].seen.ids[id], u.seen.ids[id]); diff != "" {
			t.Errorf("two saw different entries: %s", diff)
		}
		if diff := cmp.Diff(users[0].seen.texts[id], u.seen.texts[id]); diff != "" {
			t.Errorf("two show different texts: %s", diff)
		}
	}
	for _, u := range users {
		var c struct{ Read int64 }
		must(t, f.nodes[0].call("GET", "/v1/conversations/"+id, u.bearer, nil, &c))
		if c.Read < u.read[id] {
			t.Errorf("user %d has read up to %d, was answered %d", u.number, c.Read, u.read[id])
		}
	}
	stored := map[int64]string{}
	for _, m := range f.nodes[0].all(users[0].bearer, id) {
		show(stored, m)
	}
	if diff := cmp.Diff(stored, users[0].seen.texts[id]); diff != "" {
		t.Errorf("the history shows other texts: %s", diff)
	}
	next := map[int]int{}
	for _, cid := range users[0].seen.ids[id] {
		var from, n int
		if _, err := fmt.Sscanf(cid, "u%d-%d", &from, &n); err != nil {
			continue // no message
		}
		if n < next[from] { // it skips those that went elsewhere
			t.Fatalf("from user %d: message %d where %d or more was next", from, n, next[from])
		}
		next[from] = n + 1
	}
	return want
}

// settleVisitor compares what the visitor has got with the times at which it was a member.
func (f *fleet) settleVisitor(room string, all *seen, visitor *chatter) {
	t := f.w.t
	in := map[int64]bool{}
	member := false
	var last int64
	for _, m := range all.entries[room] {
		names := m.Event != nil && slices.Contains(m.Event.Members, "visitor")
		in[m.Seq] = member || names
		if names {
			member = m.Event.Kind == protocol.EventAdded
		}
		if in[m.Seq] {
			last = m.Seq
		}
	}
	c, _ := f.nodes[0].connect(visitor.bearer, visitor.seen)
	eventually(t, "the visitor's last entry", func() bool {
		visitor.seen.mu.Lock()
		defer visitor.seen.mu.Unlock()
		return visitor.seen.positions[room] == last
	})
	_ = c.ws.Close()
	<-c.closed
	for _, m := range visitor.seen.entries[room] {
		if !in[m.Seq] {
			t.Errorf("the visitor got seq %d, which came while it was away", m.Seq)
		}
	}
	t.Logf("the visitor got %d of %d entries", len(visitor.seen.entries[room]), len(all.entries[room]))
}

// all is the whole history that a user may see.
func (n *node) all(bearer, conversation string) []protocol.Message {
	n.t.Helper()
	var out []protocol.Message
	for after := int64(0); ; after = out[len(out)-1].Seq {
		var page struct{ Messages []protocol.Message }
		must(n.t, n.call("GET", fmt.Sprintf("/v1/conversations/%s/messages?limit=200&after=%d", conversation, after), bearer, nil, &page))
		if len(page.Messages) == 0 {
			return out
		}
		out = append(out, page.Messages...)
	}
}

// stayConnected returns a live connection, or nil when none is to be had.
func (f *fleet) stayConnected(t *testing.T, r *rand.Rand, bearer string, s *seen, c *socket) *socket {
	t.Helper()
	if c != nil {
		select {
		case <-c.closed:
		default:
			return c
		}
	}
	c, err := f.pick(r).tryOpen(bearer, s, nil)
	if err != nil {
		return nil
	}
	got, err := c.tryResume()
	if err != nil {
		_ = c.ws.Close()
		<-c.closed
		return nil
	}
	if !got.Recovered {
		t.Error("not recovered")
	}
	return c
}
