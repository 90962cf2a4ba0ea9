package chat

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
)

func message(seq int64, sender, id, text string) protocol.Message {
	return protocol.Message{Conversation: "c", Seq: seq, Sender: sender, ClientID: id, Text: text}
}

func event(seq int64, kind protocol.EventKind, target int64, id, text string, members ...string) protocol.Message {
	m := message(seq, "ann", id, text)
	m.Event = &protocol.Event{Kind: kind, Target: target, Members: members}
	return m
}

// run is a book of two users with a device each and a guest, who all saw a whole story,
// which a case then spoils.
type run struct {
	book    *Book
	history []protocol.Message
}

func story() run {
	r := run{book: NewBook()}
	for device, user := range map[string]string{"ann/1": "ann", "bob/1": "bob"} {
		r.book.Device(device, user, map[string]int64{"c": 0})
	}
	r.book.Device("guest/1", "guest", nil)
	r.history = []protocol.Message{
		message(1, "ann", "m1", "one"),
		message(2, "bob", "m1", "two"), // another sender, the same id
		event(3, protocol.EventAdded, 0, "add.1", "", "guest"),
		message(4, "ann", "m2", "four, better"),
		event(5, protocol.EventEdited, 4, "e1", "four, better"),
		event(6, protocol.EventRemoved, 0, "remove.1", "", "guest"),
		message(7, "ann", "m3", ""),
		event(8, protocol.EventRecalled, 7, "recall.7", ""),
		event(9, protocol.EventAdded, 0, "add.2", "", "guest"),
	}
	for _, i := range []Intent{
		{Key: Key{"c", "ann", "m1"}, Text: "one", Target: 0},
		{Key: Key{"c", "bob", "m1"}, Text: "two", Target: 0},
		{Key: Key{"c", "ann", "m2"}, Text: "four", Target: 0},
		{Key: Key{"c", "ann", "e1"}, Text: "four, better", Target: 4},
		{Key: Key{"c", "ann", "m3"}, Text: "seven", Target: 0},
		{Key: Key{"c", "ann", recallID(7)}, Text: "", Target: 7},
	} {
		r.book.Asked(i)
		r.book.Accepted(i.Key)
	}
	return r
}

func (r run) verdict() Totals {
	return r.book.Verdict([]Talk{{ID: "c", History: r.history, Always: []string{"ann", "bob"}}})
}

// see gives the devices all that they should get, live: texts as they were then.
func (r run) see(skip func(device string, m protocol.Message) bool) {
	for _, m := range r.history {
		switch m.Seq {
		case 4:
			m.Text = "four"
		case 7:
			m.Text = "seven"
		}
		for _, device := range []string{"ann/1", "bob/1", "guest/1"} {
			if device == "guest/1" && (m.Seq < 3 || m.Seq > 6 && m.Seq < 9) || skip != nil && skip(device, m) {
				continue
			}
			r.book.Received(device, m)
		}
	}
}

func TestWholeStoryIsFine(t *testing.T) {
	r := story()
	r.see(nil)
	got := r.verdict()
	want := Totals{Asked: 6, Accepted: 6, Stored: 6, Entries: 9, Deliveries: 23}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := r.book.Waiting(); n != 0 {
		t.Errorf("%d waiting", n)
	}
}

// TestWhoIsAddedAgainStartsAnew has the guest see a message that is edited while it is away.
func TestWhoIsAddedAgainStartsAnew(t *testing.T) {
	r := story()
	r.see(nil)
	removed, edited, added := event(10, protocol.EventRemoved, 0, "remove.2", "", "guest"),
		event(11, protocol.EventEdited, 4, "e2", "four, best"), event(12, protocol.EventAdded, 0, "add.3", "", "guest")
	r.history[3].Text = "four, best"
	r.history = append(r.history, removed, edited, added)
	r.book.Asked(Intent{Key: Key{"c", "ann", "e2"}, Text: "four, best", Target: 4})
	r.book.Accepted(Key{"c", "ann", "e2"})
	for _, m := range []protocol.Message{removed, edited, added} {
		for _, device := range []string{"ann/1", "bob/1", "guest/1"} {
			if device != "guest/1" || m.Seq != edited.Seq {
				r.book.Received(device, m)
			}
		}
	}
	if got := r.verdict(); !got.OK() {
		t.Errorf("%+v", got)
	}
}

// TestReactionsAreHeldAgainstTheLog: what a device and the history show must be what the log
// says.
func TestReactionsAreHeldAgainstTheLog(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(history, live []protocol.Message)
		wrong bool
	}{
		{"all is well", func(_, _ []protocol.Message) {}, false},
		{"the message has none", func(h, _ []protocol.Message) { h[1].Reactions = nil; h[9].Event.Count = 0; h[10].Event.Count = 0 }, true},
		{"the history counts one too many", func(h, _ []protocol.Message) { h[10].Event.Count = 3 }, true},
		{"the device is told too few", func(_, live []protocol.Message) { live[1].Event.Count = 1 }, true},
	} {
		r := story()
		r.see(nil)
		entry := func(seq int64, sender string, kind protocol.EventKind, count int) protocol.Message {
			m := event(seq, kind, 2, reactionID(fmt.Sprint("r", seq), kind == protocol.EventUnreacted), "")
			m.Sender, m.Event.Emoji, m.Event.Count = sender, "👍", count
			return m
		}
		live := []protocol.Message{entry(10, "ann", protocol.EventReacted, 1), entry(11, "bob", protocol.EventReacted, 2)}
		r.history = append(r.history, entry(10, "ann", protocol.EventReacted, 2), entry(11, "bob", protocol.EventReacted, 2)) // by now
		r.history[1].Reactions = []protocol.Reaction{{Emoji: "👍", Count: 2}}
		c.spoil(r.history, live)
		for _, m := range live {
			i := Intent{Key: keyOf(m), Target: 2, Emoji: "👍"}
			r.book.Asked(i)
			r.book.Accepted(i.Key)
			for _, device := range []string{"ann/1", "bob/1", "guest/1"} {
				r.book.Received(device, m)
			}
		}
		if got := r.verdict(); got.OK() == c.wrong || got.Lost > 0 || got.Stored != 8 {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestEachFaultIsFound spoils the story in one way each.
func TestEachFaultIsFound(t *testing.T) {
	all := func(r *run) { r.see(nil) }
	for name, c := range map[string]struct {
		spoil func(*run)
		of    func(Totals) int
		says  string
	}{
		"a device misses the end": {
			func(r *run) { r.see(func(d string, m protocol.Message) bool { return d == "bob/1" && m.Seq > 7 }) },
			func(t Totals) int { return t.Lost }, "bob/1 got c up to seq 7 of 9",
		},
		"a device misses one": {
			func(r *run) { r.see(func(d string, m protocol.Message) bool { return d == "bob/1" && m.Seq == 2 }) },
			func(t Totals) int { return t.Gaps }, "bob/1 got seq 3 of c after 1",
		},
		"a device gets one twice": {
			func(r *run) { all(r); r.book.Received("bob/1", r.history[8]) },
			func(t Totals) int { return t.Duplicated }, "bob/1 got seq 9 of c after 9",
		},
		"an accepted message is not stored": {
			func(r *run) {
				all(r)
				r.book.Asked(Intent{Key: Key{"c", "bob", "m9"}, Text: "x"})
				r.book.Accepted(Key{"c", "bob", "m9"})
			},
			func(t Totals) int { return t.Lost }, "m9 of bob in c was accepted and is not stored",
		},
		"a message is stored twice": {
			func(r *run) { all(r); r.history = append(r.history, message(10, "bob", "m1", "two")) },
			func(t Totals) int { return t.Duplicated }, "history of c has m1 of bob as seq 2 and 10",
		},
		"the history has a gap": {
			func(r *run) { all(r); r.history = append(r.history[:1], r.history[2:]...) },
			func(t Totals) int { return t.Gaps }, "has seq 3 where 2 was next",
		},
		"the order of acceptance is broken": {
			func(r *run) {
				all(r)
				r.history[0].ClientID, r.history[3].ClientID = "m2", "m1"
			},
			func(t Totals) int { return t.OutOfOrder }, "was sent after a later one was accepted",
		},
		"an edit is forgotten": {
			func(r *run) { all(r); r.history[3].Text = "four" },
			func(t Totals) int { return t.Wrong }, `has "four" at seq 4, the log says "four, better"`,
		},
		"a recalled text is still there": {
			func(r *run) { all(r); r.history[6].Text = "seven" },
			func(t Totals) int { return t.Wrong }, `has "seven" at seq 7, the log says ""`,
		},
		"a device shows another text": {
			func(r *run) {
				r.see(func(d string, m protocol.Message) bool {
					if d == "bob/1" && m.Seq == 1 {
						m.Text = "other"
						r.book.Received(d, m)
						return true
					}
					return false
				})
			},
			func(t Totals) int { return t.Wrong }, `bob/1 shows "other" at seq 1`,
		},
		"the guest sees what came while it was away": {
			func(r *run) {
				r.see(func(d string, m protocol.Message) bool {
					if d == "ann/1" && m.Seq == 7 {
						r.book.Received("guest/1", m)
					}
					return false
				})
			},
			func(t Totals) int { return t.Wrong }, "guest/1 got seq 7 of c, which guest may not see",
		},
		"something nobody sent is stored": {
			func(r *run) { all(r); r.history = append(r.history, message(10, "eve", "x", "x")) },
			func(t Totals) int { return t.Wrong }, "nobody asked for x of eve",
		},
		"what was refused is stored": {
			func(r *run) {
				all(r)
				k := Key{"c", "bob", "m9"}
				r.book.Asked(Intent{Key: k, Text: "x"})
				r.book.Refused(k, errors.New("no"))
				r.history = append(r.history, message(10, "bob", "m9", "x"))
			},
			func(t Totals) int { return t.Wrong - 1 }, "m9 of bob was refused and is stored",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := story()
			c.spoil(&r)
			got := r.verdict()
			if c.of(got) < 1 || got.OK() || !strings.Contains(strings.Join(got.Examples, "\n"), c.says) {
				t.Errorf("not found: %+v", got)
			}
		})
	}
}

func TestOwnPicksWhatMayBeEdited(t *testing.T) {
	r := story()
	r.see(nil)
	seen := map[int64]bool{}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		seen[r.book.Own("ann/1", "c", "ann", rnd.IntN)] = true
	}
	if diff := cmp.Diff(map[int64]bool{1: true, 4: true}, seen); diff != "" { // 7 is recalled
		t.Error(diff)
	}
}

func TestExamplesAreBounded(t *testing.T) {
	b := NewBook()
	for i := range 100 {
		b.Problem("%s", fmt.Sprint(i))
	}
	if got := b.Verdict(nil); got.Wrong != 100 || len(got.Examples) != maxExamples {
		t.Errorf("%+v", got)
	}
}
