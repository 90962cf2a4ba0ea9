package session_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

// groupWriter writes entries of group "g", of which ann is a member only some of the
// time, and pushes them as badly as a fan-out may.
type groupWriter struct {
	r       *rig
	rnd     *rand.Rand
	roster  *chat.Roster
	in      bool
	visible []bool // by seq: whether ann may see it
	late    []func()
}

func newGroupWriter(r *rig, seed uint64) *groupWriter {
	w := &groupWriter{r: r, rnd: rand.New(rand.NewPCG(seed, 1)), visible: []bool{false}}
	w.change(true)
	return w
}

// change adds or removes ann.
func (w *groupWriter) change(in bool) {
	h := w.r.history
	h.mu.Lock()
	m := h.addLocked("g", "")
	kind := protocol.EventRemoved
	members := []chat.Member{{ID: "id-bob", Name: "bob"}}
	if in {
		kind = protocol.EventAdded
		members = append(members, chat.Member{ID: "id-ann", Name: "ann", Joined: m.Seq})
		h.spans["id-ann g"] = chat.Span{After: m.Seq - 1}
	} else {
		h.spans["id-ann g"] = chat.Span{After: h.spans["id-ann g"].After, Last: m.Seq}
	}
	m.Event = &protocol.Event{Kind: kind, Members: []string{"ann"}}
	h.messages["g"][m.Seq-1] = m
	w.roster = chat.NewRoster(true, m.Seq, members)
	h.rosters["g"] = w.roster
	h.mu.Unlock()
	w.in, w.visible = in, append(w.visible, true)
	w.push(m, w.roster)
	if !in && w.rnd.IntN(2) == 0 { // who is removed is told by a push of its own, if it comes
		w.r.hub.Deliver("id-ann", "g", m.Seq, frameOf(m))
	}
}

func (w *groupWriter) say() {
	m := w.r.history.add("g", "x")
	w.visible = append(w.visible, w.in)
	w.push(m, w.roster)
}

// push pushes in one of the two ways, now, twice, later or never.
func (w *groupWriter) push(m protocol.Message, roster *chat.Roster) {
	frame := frameOf(m)
	push := func() { w.r.hub.Group("g", roster.Version, m.Seq, frame) }
	if w.rnd.IntN(2) == 0 {
		push = func() { w.r.hub.DeliverAll(roster, "g", m.Seq, frame) }
	}
	switch w.rnd.IntN(6) {
	case 0: // lost
	case 1:
		w.late = append(w.late, push)
	case 2:
		push()
		push()
	default:
		push()
	}
	if len(w.late) > 0 && w.rnd.IntN(3) == 0 {
		w.late[w.rnd.IntN(len(w.late))]()
	}
}

// TestRemovedMemberGetsNothingAfterIt removes and adds a member again and again, while
// the fan-out loses, repeats, delays and reorders pushes, also those that were for rosters
// that are long gone, and the client reconnects at random. The client must get nothing
// that came while it was away, all else in order, and the newest entry in the end.
func TestRemovedMemberGetsNothingAfterIt(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRig(t, func(c *session.Config) { c.ReplayPage = 7 })
			w := newGroupWriter(r, seed)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 600 {
					switch w.rnd.IntN(25) {
					case 0:
						w.change(!w.in)
					case 1, 2:
						time.Sleep(time.Millisecond) // lets connections go live in between
					default:
						w.say()
					}
				}
				if !w.in {
					w.change(true)
				}
			})
			var last int64
			got := []int64{}
			jumps := 0
			rnd := rand.New(rand.NewPCG(seed, 77))
			head := func() int64 { wg.Wait(); return int64(len(w.visible) - 1) }
			for done := false; !done; {
				c := r.open("")
				c.write(protocol.Command{Resume: &protocol.Resume{Epoch: c.hello.Epoch, Positions: map[string]int64{"g": last}}})
				for stay := 20 + rnd.IntN(100); stay > 0 && !done; stay-- {
					f := c.next()
					if f.Resumed != nil && !f.Resumed.Recovered {
						t.Fatal("not recovered")
					}
					if f.Message == nil {
						done = f.Resumed != nil && last > 400 && last == head()
						continue
					}
					m := *f.Message
					if m.Seq != last+1 {
						if m.Seq <= last || !m.Begins("ann") {
							t.Fatalf("%d after %d", m.Seq, last)
						}
						jumps++
					}
					last = m.Seq
					got = append(got, m.Seq)
					done = last > 400 && last == head()
				}
				_ = c.ws.Close()
			}
			for _, seq := range got {
				if !w.visible[seq] {
					t.Fatalf("got %d, which came while the user was no member", seq)
				}
			}
			if jumps == 0 || len(got) < 100 {
				t.Errorf("%d jumps, %d messages: this was no test", jumps, len(got))
			}
		})
	}
}

// TestBurstOfJoins: of two joins in one batch the store has only the roster after both when
// the pushes come. Those who were there before are pushed both, and nobody reads the store
// for it; who joins is sent nothing from before.
func TestBurstOfJoins(t *testing.T) {
	r := newRig(t, nil)
	bob, cid := chat.Member{ID: "id-bob", Name: "bob", Joined: 2}, chat.Member{ID: "id-cid", Name: "cid", Joined: 3}
	r.history.spans["id-cid g"] = chat.Span{After: 2}
	r.history.add("g", "created")
	there, joins := r.open("user=ann"), r.open("user=cid")
	there.resume(map[string]int64{"g": 1})
	joins.resume(nil)
	r.eventually("live", func() bool {
		before := r.metric("core_signals_dropped_total")
		for _, user := range []string{"id-ann", "id-cid"} {
			r.hub.Signal(user, []byte(`{"pong":{}}`))
		}
		return r.metric("core_signals_dropped_total") == before
	})
	r.history.mu.Lock()
	second, third := r.history.addLocked("g", "bob joins"), r.history.addLocked("g", "cid joins")
	for _, m := range []*protocol.Message{&second, &third} {
		m.Event = &protocol.Event{Kind: protocol.EventAdded, Members: []string{strings.Fields(m.Text)[0]}}
		r.history.messages["g"][m.Seq-1] = *m
	}
	r.history.rosters["g"] = chat.NewRoster(true, 3, []chat.Member{{ID: "id-ann", Name: "ann", Joined: 1}, bob, cid})
	r.history.mu.Unlock()
	r.hub.Group("g", 2, 2, frameOf(second))
	r.hub.Group("g", 3, 3, frameOf(third))
	next := func(c *client) (m protocol.Message) {
		for {
			if f := c.next(); f.Message != nil {
				return *f.Message
			}
		}
	}
	for _, want := range []int64{2, 3} {
		if m := next(there); m.Seq != want {
			t.Errorf("who was there got %d, want %d", m.Seq, want)
		}
	}
	if m := next(joins); m.Seq != 3 {
		t.Errorf("who joins got %d", m.Seq)
	}
	if n := r.metric("core_catch_ups_total/hint"); n != 0 {
		t.Errorf("%v connections read the store for a hint", n)
	}
}

func TestGroupPushesAreBounded(t *testing.T) {
	r := newRig(t, nil)
	w := newGroupWriter(r, 1)
	c := r.open("")
	c.resume(map[string]int64{"g": 1})
	r.history.mu.Lock() // the loop waits for the roster
	for seq := range int64(3000) {
		r.hub.Group("g", 99, seq+2, nil)
	}
	r.history.mu.Unlock()
	if n := r.metric("core_group_pushes_dropped_total"); n < 1900 {
		t.Errorf("%v dropped", n)
	}
	w.say()
	if f := c.next(); f.Message == nil || f.Message.Seq != 2 { // the tick at the latest
		t.Errorf("got %+v", f)
	}
}

func TestChangesOfMessagesAreCommands(t *testing.T) {
	r := newRig(t, nil)
	c := r.open("")
	c.resume(nil)
	for want, cmd := range map[string]protocol.Command{
		"edit 3":     {Edit: &protocol.Edit{Conversation: "g", Seq: 3, ClientID: "1", Text: "x"}},
		"recall 4":   {Recall: &protocol.Recall{Conversation: "g", Seq: 4}},
		"react 5👍":   {React: &protocol.React{Conversation: "g", Seq: 5, Emoji: "👍", ClientID: "1"}},
		"unreact 5👍": {Unreact: &protocol.React{Conversation: "g", Seq: 5, Emoji: "👍", ClientID: "2"}},
	} {
		id := c.write(cmd)
		if f := c.next(); f.ID != id || f.Accepted == nil || f.Accepted.ClientID != want {
			t.Errorf("%s: got %+v", want, f)
		}
	}
}

func TestMarksAndTypingAreCommandsAndSignalsArePushed(t *testing.T) {
	r := newRig(t, nil)
	c := r.open("")
	r.hub.Signal("id-ann", []byte(`{"typing":{"conversation":"early"}}`)) // not live: dropped
	c.resume(nil)
	r.eventually("live", func() bool {
		before := r.metric("core_signals_dropped_total")
		r.hub.Signal("id-ann", []byte(`{"typing":{"conversation":"g","user":"bob"}}`))
		return r.metric("core_signals_dropped_total") == before
	})
	if f := c.next(); f.Typing == nil || *f.Typing != (protocol.Typing{Conversation: "g", User: "bob"}) {
		t.Errorf("got %+v", f)
	}
	id := c.write(protocol.Command{Mark: &protocol.Mark{Conversation: "g", Read: 3, Delivered: 4}})
	if f := c.next(); f.ID != id || f.Receipt == nil || *f.Receipt != (protocol.Receipt{Conversation: "g", User: "ann", Read: 3, Delivered: 4}) {
		t.Errorf("got %+v", f)
	}
	id = c.write(protocol.Command{Typing: &protocol.Typing{Conversation: "g"}})
	if f := c.next(); f.ID != id || f.Typing == nil {
		t.Errorf("got %+v", f)
	}
	for _, cmd := range []protocol.Command{{Mark: &protocol.Mark{Conversation: "none"}}, {Typing: &protocol.Typing{Conversation: "none"}}} {
		id := c.write(cmd)
		if f := c.next(); f.ID != id || f.Error == nil || f.Error.Code != protocol.CodeNotFound || f.Receipt != nil || f.Typing != nil {
			t.Errorf("got %+v", f)
		}
	}
}
