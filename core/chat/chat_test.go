package chat_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

func TestChecksNameTheField(t *testing.T) {
	send := func(conversation, clientID, text string) func() *protocol.Error {
		return func() *protocol.Error {
			r := record()
			r.Conversation, r.ClientID, r.Text = conversation, clientID, text
			return chat.CheckRecord(r)
		}
	}
	edited := func(edit func(*chat.Record)) func() *protocol.Error {
		return func() *protocol.Error {
			r := record()
			edit(&r)
			return chat.CheckRecord(r)
		}
	}
	group := func(name string) func() *protocol.Error {
		return func() *protocol.Error { return chat.CheckGroupName(name) }
	}
	name := func(s string) func() *protocol.Error {
		return func() *protocol.Error { return chat.CheckName("with", s) }
	}
	password := func(n int) func() *protocol.Error {
		return func() *protocol.Error {
			return chat.CheckPassword(strings.Repeat("é", n/2) + strings.Repeat("x", n%2))
		}
	}
	for _, c := range []struct {
		name  string
		check func() *protocol.Error
		code  protocol.Code
		field string
	}{
		{"shortest message", send("c", "1", "x"), "", ""},
		{"longest message", send(strings.Repeat("c", 64), strings.Repeat("A", 64), strings.Repeat("x", 4096)), "", ""},
		{"text in many scripts", send("c", "1", "ключ 鍵 \U0001F511 \u0001"), "", ""},
		{"no text", send("c", "1", ""), protocol.CodeInvalidArgument, "text"},
		{"text a byte too long", send("c", "1", strings.Repeat("x", 4097)), protocol.CodeTooLarge, "text"},
		{"text of bytes", send("c", "1", "\xff"), protocol.CodeInvalidArgument, "text"},
		{"surrogate in text", send("c", "1", "\xed\xa0\x80"), protocol.CodeInvalidArgument, "text"},
		{"NUL in text", send("c", "1", "a\x00b"), protocol.CodeInvalidArgument, "text"},
		{"no client id", send("c", "", "x"), protocol.CodeInvalidArgument, "client_id"},
		{"client id too long", send("c", strings.Repeat("a", 65), "x"), protocol.CodeInvalidArgument, "client_id"},
		{"client id with space", send("c", "a b", "x"), protocol.CodeInvalidArgument, "client_id"},
		{"client id with letter", send("c", "é", "x"), protocol.CodeInvalidArgument, "client_id"},
		{"no conversation", send("", "1", "x"), protocol.CodeInvalidArgument, "conversation"},
		{"conversation with slash", send("a/b", "1", "x"), protocol.CodeInvalidArgument, "conversation"},
		{"client id of core", send("c", "recall.1", "x"), protocol.CodeInvalidArgument, "client_id"},
		{"reply to nothing", edited(func(r *chat.Record) { r.ReplyTo = -1 }), protocol.CodeInvalidArgument, "reply_to"},
		{"message with a target", edited(func(r *chat.Record) { r.Target = 1 }), protocol.CodeInvalidArgument, "kind"},
		{"unknown kind", edited(func(r *chat.Record) { r.Kind = "x" }), protocol.CodeInvalidArgument, "kind"},
		{"created by the log", edited(func(r *chat.Record) { r.Kind, r.Text = protocol.EventCreated, "" }), protocol.CodeInvalidArgument, "kind"},
		{"edit of nothing", edited(func(r *chat.Record) { r.Kind = protocol.EventEdited }), protocol.CodeInvalidArgument, "seq"},
		{"recall with text", edited(func(r *chat.Record) { r.Kind, r.Target = protocol.EventRecalled, 1 }), protocol.CodeInvalidArgument, "kind"},
		{"add nobody", edited(func(r *chat.Record) { r.Kind, r.Text = protocol.EventAdded, "" }), protocol.CodeInvalidArgument, "members"},
		{"remove two", edited(func(r *chat.Record) {
			r.Kind, r.Text, r.Members = protocol.EventRemoved, "", []chat.Member{{ID: "1", Name: "ann"}, {ID: "2", Name: "bob"}}
		}), protocol.CodeInvalidArgument, "members"},
		{"add no name", edited(func(r *chat.Record) {
			r.Kind, r.Text, r.Members = protocol.EventAdded, "", []chat.Member{{ID: "1", Name: "A"}}
		}), protocol.CodeInvalidArgument, "members"},
		{"group of spaces", group(" \u00a0"), protocol.CodeInvalidArgument, "name"},
		{"group with a line end", group("a\nb"), protocol.CodeInvalidArgument, "name"},
		{"group of bytes", group("\xff"), protocol.CodeInvalidArgument, "name"},
		{"group's name too long", group(strings.Repeat("x", 129)), protocol.CodeInvalidArgument, "name"},
		{"group in many scripts", group("昼食 🍜"), "", ""},
		{"shortest name", name("a.b"), "", ""},
		{"longest name", name(strings.Repeat("z", 32)), "", ""},
		{"name too short", name("ab"), protocol.CodeInvalidArgument, "with"},
		{"name too long", name(strings.Repeat("z", 33)), protocol.CodeInvalidArgument, "with"},
		{"name in capitals", name("Ann"), protocol.CodeInvalidArgument, "with"},
		{"shortest password", password(8), "", ""},
		{"longest password", password(72), "", ""},
		{"password too short", password(7), protocol.CodeInvalidArgument, "password"},
		{"password that bcrypt would cut", password(73), protocol.CodeInvalidArgument, "password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.check()
			if err == nil {
				if c.code != "" {
					t.Errorf("accepted, want %s", c.code)
				}
				return
			}
			if err.Code != c.code || err.Field != c.field || err.Temporary || !strings.Contains(err.Message, c.field) {
				t.Errorf("got %+v, want %s of %s", err, c.code, c.field)
			}
		})
	}
}

func record() chat.Record {
	return chat.Record{
		Conversation: "c1", ClientID: "m-1", SenderID: "u1", Sender: "ann", Text: "\"<ключ>\" \u2028",
		SentAt: time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC), TraceID: strings.Repeat("0a", 16),
	}
}

func TestRecordSurvivesTheLog(t *testing.T) {
	for _, r := range everyKind() {
		got, err := chat.DecodeRecord(chat.AppendRecord([]byte("x"), r)[1:])
		if diff := cmp.Diff(r, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", r.Kind, err, diff)
		}
	}
}

// everyKind is a record of each kind.
func everyKind() []chat.Record {
	of := func(kind protocol.EventKind, edit func(*chat.Record)) chat.Record {
		r := record()
		r.Kind, r.Text, r.ClientID = kind, "", string(kind)+".1"
		edit(&r)
		return r
	}
	members := []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u2", Name: "bob"}}
	reply := record()
	reply.ReplyTo = 7
	return []chat.Record{
		record(), reply,
		of(protocol.EventEdited, func(r *chat.Record) { r.Text, r.Target, r.ClientID = "x", 3, "e1" }),
		of(protocol.EventRecalled, func(r *chat.Record) { r.Target = 3 }),
		of(protocol.EventAdded, func(r *chat.Record) { r.Members = members }),
		of(protocol.EventRemoved, func(r *chat.Record) { r.Members = members[:1] }),
		of(protocol.EventRole, func(r *chat.Record) { r.Members, r.Role = members[:1], chat.RoleOwner }),
		of(protocol.EventRenamed, func(r *chat.Record) { r.Name = "昼食" }),
		of(protocol.EventReacted, func(r *chat.Record) { r.Target, r.Emoji = 3, "👨‍👩‍👧‍👦" }),
		of(protocol.EventUnreacted, func(r *chat.Record) { r.Target, r.Emoji = 3, "👍" }),
		of(protocol.EventOpened, func(*chat.Record) {}),
		of(protocol.EventClosed, func(*chat.Record) {}),
	}
}

// TestRecordFormat pins the versions: records of an older process must be readable.
func TestRecordFormat(t *testing.T) {
	const v1 = `{"v":1,"conversation":"c1","client_id":"m-1","sender_id":"u1","sender":"ann","text":"\"\u003cключ\u003e\" \u2028",` +
		`"sent_at_us":1767323045678901,"trace_id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}`
	if got := string(chat.AppendRecord(nil, record())); got != v1 {
		t.Errorf("got %s", got)
	}
	const v2 = `{"v":2,"conversation":"c1","client_id":"role.1","sender_id":"u1","sender":"ann","text":"","sent_at_us":1767323045678901,` +
		`"trace_id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","kind":"role","members":[{"id":"u1","name":"ann"}],"role":"owner"}`
	if got := string(chat.AppendRecord(nil, everyKind()[6])); got != v2 {
		t.Errorf("got %s", got)
	}
}

func TestDecodeRefusesWhatCannotBeStored(t *testing.T) {
	for name, edit := range map[string]func(*chat.Record){
		"no text":      func(r *chat.Record) { r.Text = "" },
		"no sender":    func(r *chat.Record) { r.Sender = "" },
		"no sender id": func(r *chat.Record) { r.SenderID = "" },
		"trace id":     func(r *chat.Record) { r.TraceID = "no id!" },
		"before 1970":  func(r *chat.Record) { r.SentAt = time.Unix(-1, 0) },
		"year 10000":   func(r *chat.Record) { r.SentAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		r := record()
		edit(&r)
		if _, err := chat.DecodeRecord(chat.AppendRecord(nil, r)); !errors.Is(err, chat.ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "null", "[]", `{"v":3}`, `{"v":2}`, `{"v":1}`, `{"v":0}`, "{", "\xff",
		`{"v":1,"conversation":"c","client_id":"1","sender_id":"u","sender":"ann","text":"x","sent_at_us":1,"reply_to":1}`,
		`{"v":2,"conversation":"c","client_id":"1","sender_id":"u","sender":"ann","text":"x","sent_at_us":1,"role":"owner"}`,
		`{"v":3,"conversation":"c","client_id":"reacted.1","sender_id":"u","sender":"ann","text":"","sent_at_us":1,"kind":"reacted","target":1,"emoji":"👍"}`,
		`{"v":4,"conversation":"c","client_id":"reacted.1","sender_id":"u","sender":"ann","text":"","sent_at_us":1,"kind":"reacted","target":1,"emoji":"ok"}`,
		`{"v":4,"conversation":"c","client_id":"reacted.1","sender_id":"u","sender":"ann","text":"","sent_at_us":1,"kind":"reacted","emoji":"👍"}`,
		`{"v":4,"conversation":"c","client_id":"opened.1","sender_id":"u","sender":"ann","text":"","sent_at_us":1,"kind":"opened"}`,
		`{"v":5,"conversation":"c","client_id":"opened.1","sender_id":"u","sender":"ann","text":"","sent_at_us":1,"kind":"opened","name":"x"}`,
		`{"v":4,"conversation":"c","client_id":"1","sender_id":"u","sender":"ann","text":"x","sent_at_us":1,"emoji":"👍"}`,
		`{"v":2,"conversation":"c","client_id":"1","sender_id":"u","sender":"ann","text":"","sent_at_us":1,"kind":"role","members":[{"id":"u","name":"ann"}],"role":"king"}`} {
		if _, err := chat.DecodeRecord([]byte(text)); !errors.Is(err, chat.ErrRecord) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzDecodeRecord: whatever is decoded can be encoded and decoded to the same.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range everyKind() {
		f.Add(chat.AppendRecord(nil, r))
	}
	f.Add([]byte(`{"v":1,"sent_at_us":99999999999999999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := chat.DecodeRecord(b)
		if err != nil {
			if !errors.Is(err, chat.ErrRecord) {
				t.Errorf("%v is no ErrRecord", err)
			}
			return
		}
		again, err := chat.DecodeRecord(chat.AppendRecord(nil, r))
		if diff := cmp.Diff(r, again); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// TestNumberIsGapFreeAndIdempotent cuts one history of records into overlapping batches
// at random, as crashes and rebalances do, and compares with storing it once.
func TestNumberIsGapFreeAndIdempotent(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var history []chat.Record
		for i := range 40 {
			history = append(history, chat.Record{
				Conversation: fmt.Sprintf("c%d", r.IntN(3)), SenderID: fmt.Sprintf("u%d", r.IntN(2)),
				ClientID: fmt.Sprint(r.IntN(i + 1)), Sender: "ann", Text: "x",
			})
		}
		once := newTable()
		once.store(history)
		cut := newTable()
		for at := 0; at < len(history); {
			from := at - r.IntN(min(at+1, 8)) // some come again
			to := min(at+1+r.IntN(8), len(history))
			cut.store(history[from:to])
			at = to
		}
		if diff := cmp.Diff(once.rows, cut.rows); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

// table is a store of maps.
type table struct {
	rows  map[string][]chat.Key // by conversation, in order of seq
	state chat.State
}

func newTable() *table {
	pair := chat.NewRoster(false, 0, []chat.Member{{ID: "u1", Name: "bob"}, {ID: "u0", Name: "ann"}})
	s := &table{rows: map[string][]chat.Key{}, state: chat.State{Standing: map[string]chat.Standing{}, Existing: map[chat.Key]int64{}}}
	for _, c := range []string{"c0", "c1", "c2"} {
		s.state.Standing[c] = chat.Standing{Roster: pair}
	}
	return s
}

func (s *table) store(batch []chat.Record) {
	for _, n := range chat.Number(batch, s.state) {
		if n.Refused != "" || n.Duplicate {
			continue
		}
		s.rows[n.Conversation] = append(s.rows[n.Conversation], n.Key())
		if int64(len(s.rows[n.Conversation])) != n.Seq {
			panic("gap")
		}
		s.state.Standing[n.Conversation] = chat.Standing{LastSeq: n.Seq, Roster: n.Roster}
		s.state.Existing[n.Key()] = n.Seq
	}
}

func TestNumberRefuses(t *testing.T) {
	s := newTable()
	got := chat.Number([]chat.Record{
		{Conversation: "c0", SenderID: "stranger", ClientID: "1"},
		{Conversation: "none", SenderID: "u0", ClientID: "1"},
		{Conversation: "c0", SenderID: "u0", ClientID: "1"},
	}, s.state)
	if got[0].Refused != chat.ReasonNotMember || got[1].Refused != chat.ReasonConversation || got[2].Seq != 1 {
		t.Errorf("got %+v", got)
	}
	known := map[chat.Reason]bool{}
	for _, r := range chat.Reasons() {
		known[r] = true
	}
	if !known[got[0].Refused] || !known[got[1].Refused] {
		t.Error("a reason is not on the list, so it has no counter")
	}
}

// TestPositionsDeliverOnceInOrder gives pushes that are lost, repeated and reordered to
// positions that read gaps from a store, and expects each message once and in order.
func TestPositionsDeliverOnceInOrder(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		const head = 50
		start := int64(r.IntN(10))
		p := chat.Positions{{Conversation: "c", Seq: start}}
		var got []int64
		catchUp := func() {
			p.Behind(map[string]chat.Span{"c": {Last: head}}, func(c string, after int64) {
				for seq := after + 1; seq <= head; seq++ {
					if p.Next(c, seq) != chat.Deliver {
						t.Fatalf("seed %d: the store's own next message is not delivered", seed)
					}
					got = append(got, seq)
				}
			})
		}
		for range 40 {
			seq := int64(1 + r.IntN(head))
			before := p.At("c")
			switch p.Next("c", seq) {
			case chat.Deliver:
				got = append(got, seq)
			case chat.Drop:
				if seq > before {
					t.Fatalf("seed %d: %d dropped at %d", seed, seq, before)
				}
			case chat.Gap:
				if seq <= before+1 || p.At("c") != before {
					t.Fatalf("seed %d: gap at %d by %d moved to %d", seed, before, seq, p.At("c"))
				}
				if r.IntN(3) == 0 {
					catchUp()
				}
			}
		}
		catchUp()
		for i, seq := range got {
			if seq != start+int64(i)+1 {
				t.Fatalf("seed %d: got %v", seed, got)
			}
		}
		if int64(len(got)) != head-start {
			t.Fatalf("seed %d: %d messages", seed, len(got))
		}
	}
}

// TestPositionsOfManyConversations moves positions at random, beside a map.
func TestPositionsOfManyConversations(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		var p chat.Positions
		want := map[string]int64{}
		for range 500 {
			c := fmt.Sprint(r.IntN(40))
			seq := want[c] + int64(r.IntN(4)) - 1
			got := p.Next(c, seq)
			switch {
			case seq <= want[c] && got != chat.Drop, seq == want[c]+1 && got != chat.Deliver, seq > want[c]+1 && got != chat.Gap:
				t.Fatalf("seed %d: %s: %d after %d is %v", seed, c, seq, want[c], got)
			case got == chat.Deliver:
				want[c] = seq
			}
		}
		for c, seq := range want {
			if p.At(c) != seq {
				t.Fatalf("seed %d: %s at %d, want %d", seed, c, p.At(c), seq)
			}
		}
		if !slices.IsSortedFunc(p, func(a, b chat.Position) int { return strings.Compare(a.Conversation, b.Conversation) }) || p.At("none") != 0 {
			t.Fatalf("seed %d: %v", seed, p)
		}
	}
}

func TestResumeSaysWhetherAllIsThere(t *testing.T) {
	heads := map[string]chat.Span{"a": {Last: 10}, "b": {After: 3, Last: 5}}
	for _, c := range []struct {
		name      string
		seen      map[string]int64
		sameEpoch bool
		want      chat.Positions
		recovered bool
	}{
		{"first connection", nil, true, chat.Positions{{"a", 10}, {"b", 5}}, true},
		{"first connection without epoch", nil, false, chat.Positions{{"a", 10}, {"b", 5}}, true},
		{"some missed", map[string]int64{"a": 7}, true, chat.Positions{{"a", 7}, {"b", 5}}, true},
		{"nothing seen, and not all to be seen", map[string]int64{"a": 0, "b": 0}, true, chat.Positions{{"a", 0}, {"b", 3}}, true},
		{"another epoch", map[string]int64{"a": 7}, false, chat.Positions{{"a", 10}, {"b", 5}}, false},
		{"seen what is no longer there", map[string]int64{"a": 11, "b": 4}, true, chat.Positions{{"a", 10}, {"b", 4}}, false},
		{"other people's conversation", map[string]int64{"x": 1}, true, chat.Positions{{"a", 10}, {"b", 5}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, recovered := chat.Resume(heads, c.seen, c.sameEpoch)
			if diff := cmp.Diff(c.want, got); diff != "" || recovered != c.recovered {
				t.Errorf("recovered %v %s", recovered, diff)
			}
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	r := record()
	buf := chat.AppendRecord(nil, r)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = chat.AppendRecord(buf[:0], r)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := chat.DecodeRecord(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
