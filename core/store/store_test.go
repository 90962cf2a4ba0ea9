package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/store"
)

var at = time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC)

func open(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func person(t testing.TB, s *store.Store, name string) chat.User {
	t.Helper()
	u := chat.User{ID: "u-" + name, Name: name, Tenant: "public"}
	if err := s.CreateUser(t.Context(), u, "hash of "+name, at); err != nil {
		t.Fatal(err)
	}
	return u
}

func direct(t testing.TB, s *store.Store, id string, a, b chat.User) chat.Conversation {
	t.Helper()
	c, err := s.Direct(t.Context(), id, a, b, 100, at)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func record(conversation string, from chat.User, clientID string) chat.Record {
	return chat.Record{
		Conversation: conversation, ClientID: clientID, SenderID: from.ID, Sender: from.Name,
		Text: "text " + clientID, SentAt: at, TraceID: strings.Repeat("ab", 16),
	}
}

func seqs(list []chat.Numbered) []int64 {
	var out []int64
	for _, n := range list {
		out = append(out, n.Seq)
	}
	return out
}

func TestUsers(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann := person(t, s, "ann")
		got, hash, err := s.Credentials(t.Context(), "ann")
		if err != nil || hash != "hash of ann" || got != ann {
			t.Errorf("got %v, %q, %v", got, hash, err)
		}
		if _, err := s.User(t.Context(), "bob"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("unknown user: %v", err)
		}
		err = s.CreateUser(t.Context(), chat.User{ID: "other", Name: "ann"}, "h", at)
		if !errors.Is(err, chat.ErrExists) {
			t.Errorf("taken name: %v", err)
		}
	})
}

func TestDirectConversationIsOneForAPair(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		var wg sync.WaitGroup
		ids := make([]string, 16)
		for i := range ids {
			wg.Go(func() {
				a, b := ann, bob
				if i%2 == 0 {
					a, b = bob, ann
				}
				c, err := s.Direct(t.Context(), fmt.Sprintf("c%d", i), a, b, 100, at)
				if err != nil {
					t.Error(err)
				}
				ids[i] = c.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] || id == "" {
				t.Fatalf("several conversations: %v", ids)
			}
		}
		want := chat.Conversation{ID: ids[0], Members: []chat.User{ann, bob}, Count: 2}
		got, err := s.Conversation(t.Context(), ann.ID, ids[0])
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		other := direct(t, s, "other", cid, ann)
		list, err := s.Conversations(t.Context(), ann.ID, "", 100)
		if diff := cmp.Diff([]chat.Conversation{got, other}, list); diff != "" || err != nil {
			t.Errorf("list: %v %s", err, diff)
		}
		if _, err := s.Conversation(t.Context(), ann.ID, "none"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("unknown conversation: %v", err)
		}
		if _, err := s.Direct(t.Context(), "x", bob, cid, 1, at); !errors.Is(err, chat.ErrLimit) {
			t.Errorf("over the limit: %v", err)
		}
		if list, err := s.Conversations(t.Context(), cid.ID, "", 100); err != nil || len(list) != 1 {
			t.Errorf("a refused conversation left something behind: %v %v", list, err)
		}
	})
}

func TestAppendNumbersWithoutGaps(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob, cid := person(t, s, "ann"), person(t, s, "bob"), person(t, s, "cid")
		direct(t, s, "ab", ann, bob)
		direct(t, s, "bc", bob, cid)
		first, err := s.Append(t.Context(), []chat.Record{
			record("ab", ann, "1"), record("bc", bob, "1"), record("ab", bob, "1"), record("ab", ann, "1"),
			record("none", ann, "1"), record("ab", cid, "1"), record("ab", ann, "2"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int64{1, 1, 2, 1, 0, 0, 3}, seqs(first)); diff != "" {
			t.Error(diff)
		}
		if first[4].Refused != chat.ReasonConversation || first[5].Refused != chat.ReasonNotMember {
			t.Errorf("refused: %q, %q", first[4].Refused, first[5].Refused)
		}
		again, err := s.Append(t.Context(), []chat.Record{record("ab", bob, "1"), record("ab", bob, "2"), record("bc", bob, "1")})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int64{2, 4, 1}, seqs(again)); diff != "" {
			t.Error(diff)
		}
		if !again[0].Duplicate || again[1].Duplicate || !again[2].Duplicate {
			t.Errorf("duplicates: %+v", again)
		}
		heads, err := s.Heads(t.Context(), ann.ID, bob.ID, "nobody")
		want := map[string]map[string]chat.Span{ann.ID: {"ab": {Last: 4}}, bob.ID: {"ab": {Last: 4}, "bc": {Last: 1}}}
		if diff := cmp.Diff(want, heads); diff != "" || err != nil {
			t.Errorf("heads: %v %s", err, diff)
		}
	})
}

func TestMessagesPageInOrder(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		direct(t, s, "ab", ann, bob)
		awkward := record("ab", ann, "awkward")
		awkward.Text = "\"'`$1 \\u0000 \x01\t\n<b>& \u2028 \U0001F600 \U0001FFFE ключ"
		batch := []chat.Record{awkward}
		for i := range 9 {
			batch = append(batch, record("ab", bob, fmt.Sprint(i)))
		}
		if _, err := s.Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		page, err := s.Messages(t.Context(), ann.ID, "ab", 0, 1)
		want := []protocol.Message{{
			Conversation: "ab", Seq: 1, ClientID: "awkward", Sender: "ann", Text: awkward.Text, SentAt: at, TraceID: awkward.TraceID,
		}}
		if diff := cmp.Diff(want, page); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		page, err = s.Messages(t.Context(), ann.ID, "ab", 7, 100)
		if err != nil || len(page) != 3 || page[0].Seq != 8 || page[2].Seq != 10 {
			t.Errorf("%v %+v", err, page)
		}
		if page, err := s.Messages(t.Context(), ann.ID, "ab", 10, 100); err != nil || len(page) != 0 {
			t.Errorf("after the head: %v %+v", err, page)
		}
	})
}

func TestBatchIsStoredWholeOrNotAtAll(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		direct(t, s, "ab", ann, bob)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Append(ctx, []chat.Record{record("ab", ann, "1")}); err == nil {
			t.Fatal("a canceled append succeeded")
		}
		got, err := s.Append(t.Context(), []chat.Record{record("ab", ann, "2")})
		if err != nil || got[0].Seq != 1 {
			t.Errorf("%v %+v", err, got)
		}
	})
}

// TestProcessesShareADatabase appends through several connections, each as a process
// of its own would, with overlapping records as after a rebalance.
func TestProcessesShareADatabase(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		const processes, batches, size = 3, 12, 7
		s := open(t, cfg)
		ann, bob := person(t, s, "ann"), person(t, s, "bob")
		direct(t, s, "ab", ann, bob)
		direct(t, s, "xy", bob, person(t, s, "cid"))
		var wg sync.WaitGroup
		for p := range processes {
			own := open(t, cfg)
			wg.Go(func() {
				for b := range batches {
					var batch []chat.Record
					for i := range size {
						// every other batch is the same in all processes
						id := fmt.Sprintf("%d-%d", b, i)
						if b%2 == 1 {
							id = fmt.Sprintf("p%d-%s", p, id)
						}
						batch = append(batch, record("ab", ann, id), record("xy", bob, id))
					}
					if _, err := own.Append(t.Context(), batch); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		want := int64(batches / 2 * size * (processes + 1))
		for _, conversation := range []string{"ab", "xy"} {
			list, err := s.Messages(t.Context(), bob.ID, conversation, 0, 10000)
			if err != nil || int64(len(list)) != want {
				t.Fatalf("%s: %v, %d messages, want %d", conversation, err, len(list), want)
			}
			ids := map[string]bool{}
			for i, m := range list {
				if m.Seq != int64(i+1) || ids[m.ClientID] {
					t.Fatalf("%s: message %d has seq %d, client id %s", conversation, i, m.Seq, m.ClientID)
				}
				ids[m.ClientID] = true
			}
		}
	})
}

func TestReopenKeepsEpochAndRefusesNewerSchema(t *testing.T) {
	onEach(t, func(t *testing.T, cfg store.Config) {
		epochs := make([]string, 4)
		var wg sync.WaitGroup
		for i := range epochs { // processes that start together
			wg.Go(func() {
				s, err := store.Open(t.Context(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				epochs[i] = s.Epoch()
				if err := s.Ping(t.Context()); err != nil {
					t.Error(err)
				}
				_ = s.Close()
			})
		}
		wg.Wait()
		for _, e := range epochs {
			if e == "" || e != epochs[0] {
				t.Fatalf("epochs %q", epochs)
			}
		}
		s := open(t, cfg)
		s.SetSchemaVersion(t, 99)
		if _, err := store.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "schema version 99") {
			t.Errorf("newer schema: %v", err)
		}
	})
}

func TestConfigNamesTheKey(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*store.Config)
		want string
	}{
		{"no scheme", func(c *store.Config) { c.URL = "core.db" }, "url"},
		{"no file", func(c *store.Config) { c.URL = "sqlite:" }, "url"},
		{"no connections", func(c *store.Config) { c.Conns = 0 }, "conns"},
		{"negative timeout", func(c *store.Config) { c.BusyTimeout = -1 }, "busy_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := store.DefaultConfig()
			c.edit(&cfg)
			if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want+":") {
				t.Errorf("got %v", err)
			}
		})
	}
	redacted := store.Config{URL: "postgres://u:p@ss@host/db?password=secret"}.Redacted()
	if redacted != "postgres://...@host/db" {
		t.Errorf("redacted: %s", redacted)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		for _, engine := range []struct {
			name string
			cfg  func(testing.TB) store.Config
		}{{"sqlite", sqliteConfig}, {"postgres", postgresConfig}} {
			b.Run(fmt.Sprintf("%s/%d", engine.name, size), func(b *testing.B) {
				s := open(b, engine.cfg(b))
				ann, bob := person(b, s, "ann"), person(b, s, "bob")
				direct(b, s, "ab", ann, bob)
				n := 0
				b.ReportAllocs()
				for b.Loop() {
					batch := make([]chat.Record, size)
					for i := range batch {
						n++
						batch[i] = record("ab", ann, fmt.Sprint(n))
						batch[i].LoggedAt = at
					}
					if _, err := s.Append(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}
