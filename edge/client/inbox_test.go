package client

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

func TestInbox(t *testing.T) {
	for _, tt := range []struct {
		name      string
		start     map[string]int64
		in        []int64
		want      []int64
		gapAtEnd  bool
		wantTwice int64
	}{
		{"in order", map[string]int64{"c": 0}, []int64{1, 2, 3}, []int64{1, 2, 3}, false, 0},
		{"doubled", map[string]int64{"c": 0}, []int64{1, 1, 2, 1, 2}, []int64{1, 2}, false, 3},
		{"reordered", map[string]int64{"c": 0}, []int64{2, 3, 1}, []int64{1, 2, 3}, false, 0},
		{"set aside twice", map[string]int64{"c": 0}, []int64{3, 3, 1, 2}, []int64{1, 2, 3}, false, 1},
		{"missing", map[string]int64{"c": 0}, []int64{1, 3}, []int64{1}, true, 0},
		{"not followed starts anywhere", nil, []int64{7, 8}, []int64{7, 8}, false, 0},
		{"resumed", map[string]int64{"c": 5}, []int64{4, 5, 6}, []int64{6}, false, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newInbox("ann", tt.start)
			var got []int64
			var gap bool
			for _, seq := range tt.in {
				var ready []protocol.Message
				ready, gap = b.push(protocol.Message{Conversation: "c", Seq: seq})
				for _, m := range ready {
					got = append(got, m.Seq)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("delivered (-want +got):\n%s", diff)
			}
			if gap != tt.gapAtEnd || b.duplicates != tt.wantTwice {
				t.Errorf("gap %v, duplicates %d; want %v, %d", gap, b.duplicates, tt.gapAtEnd, tt.wantTwice)
			}
			if broken := len(b.broken()) > 0; broken != tt.gapAtEnd {
				t.Errorf("broken = %v, want %v", broken, tt.gapAtEnd)
			}
		})
	}
}

func TestInboxIsBounded(t *testing.T) {
	b := newInbox("ann", map[string]int64{"c": 0})
	for seq := int64(2); seq < maxAside+100; seq++ {
		b.push(protocol.Message{Conversation: "c", Seq: seq})
	}
	if n := len(b.tracks["c"].aside); n != maxAside {
		t.Errorf("%d messages set aside, want %d", n, maxAside)
	}
	if b.dropped != 98 {
		t.Errorf("dropped = %d, want 98", b.dropped)
	}
	ready, gap := b.push(protocol.Message{Conversation: "c", Seq: 1})
	if len(ready) != maxAside+1 || gap {
		t.Errorf("then %d ready, gap %v; want %d, false", len(ready), gap, maxAside+1)
	}
}

// Whatever order a network makes of the messages, and however often it repeats them,
// once all have come they were given out once and in order.
func FuzzInbox(f *testing.F) {
	f.Add(uint64(1), uint8(10))
	f.Add(uint64(99), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var wire []int64
		for seq := int64(1); seq <= int64(n); seq++ {
			for range 1 + rng.IntN(3) {
				wire = append(wire, seq)
			}
		}
		rng.Shuffle(len(wire), func(i, j int) { wire[i], wire[j] = wire[j], wire[i] })
		b := newInbox("ann", map[string]int64{"c": 0})
		next := int64(1)
		for _, seq := range wire {
			ready, _ := b.push(protocol.Message{Conversation: "c", Seq: seq})
			for _, m := range ready {
				if m.Seq != next {
					t.Fatalf("seed %d: got seq %d, want %d", seed, m.Seq, next)
				}
				next++
			}
		}
		if next != int64(n)+1 || len(b.broken()) != 0 {
			t.Fatalf("seed %d: %d of %d given out, broken %v", seed, next-1, n, b.broken())
		}
	})
}

// TestInboxBeginsAnew: who is added to a group, again or for the first time, has missed
// nothing before; who only sees that others are added has.
func TestInboxBeginsAnew(t *testing.T) {
	added := func(seq int64, names ...string) protocol.Message {
		return protocol.Message{Conversation: "g", Seq: seq, Event: &protocol.Event{Kind: protocol.EventAdded, Members: names}}
	}
	b := newInbox("ann", map[string]int64{"g": 3})
	if ready, gap := b.push(added(7, "bob")); len(ready) != 0 || !gap {
		t.Errorf("another was added: %v %v", ready, gap)
	}
	if ready, gap := b.push(protocol.Message{Conversation: "g", Seq: 10}); len(ready) != 0 || !gap {
		t.Errorf("early: %v %v", ready, gap)
	}
	ready, gap := b.push(added(9, "bob", "ann"))
	if len(ready) != 2 || ready[0].Seq != 9 || ready[1].Seq != 10 || gap || len(b.broken()) != 0 {
		t.Errorf("added: %v %v %v", ready, gap, b.broken())
	}
	if ready, _ := b.push(added(9, "ann")); len(ready) != 0 {
		t.Errorf("again: %v", ready)
	}
}
