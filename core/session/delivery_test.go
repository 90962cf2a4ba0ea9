package session_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
)

// TestDeliveryIsExactlyOnceWhateverTheFanoutDoes stores messages while the fan-out
// loses, repeats, delays and reorders pushes, and the client reconnects at random.
func TestDeliveryIsExactlyOnceWhateverTheFanoutDoes(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			const perConversation = 200
			r := newRig(t, func(c *session.Config) { c.ReplayPage = 7 })
			conversations := []string{"a", "b", "c"}
			var wg sync.WaitGroup
			for i, conversation := range conversations {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				wg.Go(func() {
					var late []protocol.Message
					for range perConversation {
						m := r.history.add(conversation, "x")
						switch rnd.IntN(6) {
						case 0: // lost
						case 1: // comes later, out of order
							late = append(late, m)
						case 2: // twice
							r.hub.Deliver("id-ann", conversation, m.Seq, frameOf(m))
							r.hub.Deliver("id-ann", conversation, m.Seq, frameOf(m))
						case 3: // only a hint
							r.hub.Deliver("id-ann", conversation, m.Seq, nil)
						default:
							r.hub.Deliver("id-ann", conversation, m.Seq, frameOf(m))
						}
						if len(late) > 0 && rnd.IntN(3) == 0 {
							k := rnd.IntN(len(late))
							r.hub.Deliver("id-ann", conversation, late[k].Seq, frameOf(late[k]))
						}
						if rnd.IntN(10) == 0 {
							time.Sleep(time.Millisecond) // lets connections go live in between
						}
					}
				})
			}
			rnd := rand.New(rand.NewPCG(seed, 77))
			positions := map[string]int64{"a": 0, "b": 0, "c": 0}
			for total := 0; total < perConversation*len(conversations); {
				c := r.open("")
				id := c.write(protocol.Command{Resume: &protocol.Resume{Epoch: c.hello.Epoch, Positions: positions}})
				stay := 20 + rnd.IntN(150)
				for stay > 0 && total < perConversation*len(conversations) {
					f := c.next()
					switch {
					case f.Message != nil:
						if want := positions[f.Message.Conversation] + 1; f.Message.Seq != want {
							t.Fatalf("%s: got %d, want %d", f.Message.Conversation, f.Message.Seq, want)
						}
						positions[f.Message.Conversation]++
						total++
						stay--
					case f.ID == id && f.Resumed != nil:
						if !f.Resumed.Recovered {
							t.Fatal("not recovered")
						}
					default:
						t.Fatalf("got %+v", f)
					}
				}
				_ = c.ws.Close()
			}
			wg.Wait()
		})
	}
}

func TestResume(t *testing.T) {
	r := newRig(t, nil)
	for range 3 {
		r.history.add("a", "x")
		r.history.add("b", "x")
	}
	for _, c := range []struct {
		name      string
		positions map[string]int64
		epoch     string
		want      string
		recovered bool
	}{
		{"from the start", map[string]int64{"a": 0, "b": 0}, "e1", "a1 a2 a3 b1 b2 b3", true},
		{"one conversation", map[string]int64{"b": 1}, "e1", "b2 b3", true},
		{"nothing missed", map[string]int64{"a": 3, "b": 3}, "e1", "", true},
		{"first connection", nil, "", "", true},
		{"another epoch", map[string]int64{"a": 1}, "e0", "", false},
		{"ahead of the store", map[string]int64{"a": 9, "b": 2}, "e1", "b3", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := r.open("")
			cl.hello.Epoch = c.epoch
			got, resumed := cl.resume(c.positions)
			if seqs(got) != c.want || resumed.Recovered != c.recovered || resumed.Replayed != len(got) {
				t.Errorf("got %q, %+v", seqs(got), resumed)
			}
		})
	}
}

func TestLateResumeIsNotReplayedOutOfOrder(t *testing.T) {
	r := newRig(t, nil)
	r.history.add("a", "x")
	c := r.open("")
	c.write(protocol.Command{Ping: &protocol.Ping{}}) // the first command is no resume
	if f := c.next(); f.Pong == nil {
		t.Fatalf("got %+v", f)
	}
	r.eventually("live", func() bool { // pushes are dropped as seen only when live
		r.hub.Deliver("id-ann", "a", 1, frameOf(protocol.Message{Conversation: "a", Seq: 1}))
		return r.metric("core_pushes_dropped_total") > 0
	})
	if got, resumed := c.resume(map[string]int64{"a": 0}); len(got) != 0 || resumed.Recovered {
		t.Errorf("got %q, %+v", seqs(got), resumed)
	}
	if _, resumed := c.resume(map[string]int64{"a": 1}); !resumed.Recovered {
		t.Error("nothing was missed")
	}
}

func TestSilentClientGetsWhatIsNewAfterTheWait(t *testing.T) {
	r := newRig(t, nil)
	r.history.add("a", "old")
	c := r.open("")
	r.eventually("live by itself", func() bool { // pushes are dropped as seen only when live
		r.hub.Deliver("id-ann", "a", 1, frameOf(protocol.Message{Conversation: "a", Seq: 1}))
		return r.metric("core_pushes_dropped_total") > 0
	})
	m := r.history.add("a", "new") // announced by nobody: the tick finds it
	if f := c.next(); f.Message == nil || f.Message.Seq != m.Seq {
		t.Errorf("got %+v", f)
	}
}

func TestStoreDownDelaysAndLosesNothing(t *testing.T) {
	r := newRig(t, nil)
	c := r.open("")
	c.resume(nil)
	r.history.mu.Lock()
	r.history.down = true
	r.history.mu.Unlock()
	r.history.add("a", "1")
	second := r.history.add("a", "2")
	r.hub.Deliver("id-ann", "a", 2, frameOf(second)) // a gap that cannot be read yet
	r.eventually("tried", func() bool { return r.metric("core_session_store_errors_total") > 0 })
	r.history.mu.Lock()
	r.history.down = false
	r.history.mu.Unlock()
	for want := int64(1); want <= 2; want++ {
		if f := c.next(); f.Message == nil || f.Message.Seq != want {
			t.Fatalf("got %+v, want %d", f, want)
		}
	}
}

func TestSlowConsumerIsClosedAndMissesNothing(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.QueueFrames, c.WriteTimeout = 16, 500*time.Millisecond })
	slow, quick := r.open("user=slow"), r.open("user=quick")
	slow.resume(nil)
	quick.resume(nil)
	text := strings.Repeat("x", 4096)
	sent := 0
	r.eventually("closed as slow", func() bool {
		m := r.history.add("a", text)
		sent++
		r.hub.Deliver("id-slow", "a", m.Seq, frameOf(m))
		r.hub.Deliver("id-quick", "a", m.Seq, frameOf(m))
		if f := quick.next(); f.Message == nil || f.Message.Seq != m.Seq { // never disturbed
			t.Fatalf("got %+v", f)
		}
		return r.metric("core_sockets_closed_total/slow") == 1
	})
	last := int64(0)
	for {
		f, err := slow.read()
		if err != nil {
			break
		}
		if f.Message.Seq != last+1 {
			t.Fatalf("got %d after %d", f.Message.Seq, last)
		}
		last = f.Message.Seq
	}
	r.eventually("gone", func() bool { return r.hub.Sockets() == 1 })
	again := r.open("user=slow")
	got, resumed := again.resume(map[string]int64{"a": last})
	if !resumed.Recovered || int(last)+len(got) != sent || len(got) == 0 || got[0].Seq != last+1 {
		t.Errorf("%d before, %d after, %d sent, %+v", last, len(got), sent, resumed)
	}
}

// TestReplayWaitsForRoom replays far more than a queue holds to a client that reads
// slowly but does read.
func TestReplayWaitsForRoom(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.QueueFrames = 16 })
	for range 2000 {
		r.history.add("a", strings.Repeat("x", 1000))
	}
	c := r.open("")
	got, resumed := c.resume(map[string]int64{"a": 0})
	if len(got) != 2000 || !resumed.Recovered {
		t.Errorf("%d messages, %+v", len(got), resumed)
	}
	if n := r.metric("core_sockets_closed_total/slow"); n != 0 {
		t.Errorf("%v closed", n)
	}
}

// TestResumeOfManyConversations: a user who has 2,000 of them, and knows of 500 more that it
// has left, is sent what it missed.
func TestResumeOfManyConversations(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.ResumeWait = time.Minute })
	positions := map[string]int64{}
	for i := range 2_500 {
		id := uuid.NewString()
		r.history.add(id, "seen")
		positions[id] = 1
		switch {
		case i >= 2_000:
			r.history.spans["id-ann "+id] = chat.Span{Last: 1}
			r.history.add(id, "after ann has left")
		case i%500 == 0:
			r.history.add(id, "missed")
		}
	}
	missed, resumed := r.open("").resume(positions)
	if len(missed) != 4 || resumed != (protocol.Resumed{Recovered: true, Replayed: 4}) {
		t.Errorf("%d missed, %+v", len(missed), resumed)
	}
	for _, m := range missed {
		if m.Text != "missed" {
			t.Errorf("got %+v", m)
		}
	}
}

// TestClosedConnectionReadsNothing: a connection whose client has gone while it waited for
// its turn to read from the store does not take it.
func TestClosedConnectionReadsNothing(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.ReplayReaders, c.ResumeWait = 1, time.Minute })
	r.history.add("a", "missed")
	reading, open := make(chan struct{}), make(chan struct{})
	var late atomic.Int32
	r.history.onRead = func(user string) {
		if user == "id-bob" {
			late.Add(1)
			return
		}
		close(reading)
		<-open
	}
	resume := protocol.Command{Resume: &protocol.Resume{Epoch: "e1", Positions: map[string]int64{"a": 0}}}
	stays := r.open("user=ann")
	stays.write(resume)
	<-reading // the one reader is taken
	leaves := r.open("user=bob")
	leaves.write(resume)
	r.eventually("the other one has its turn to come", func() bool { return r.metric("core_catch_ups_total/resume") == 2 })
	_ = leaves.ws.Close()
	r.eventually("it is gone", func() bool { return r.hub.Sockets() == 1 })
	close(open)
	if f := stays.next(); f.Message == nil {
		t.Errorf("got %+v", f)
	}
	r.stop()
	if n := late.Load(); n != 0 {
		t.Errorf("the store was read %d times for who had gone", n)
	}
}
