package signal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/fanout"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/signal"
)

// store keeps positions in a map; "c" has ann and bob, "large" three more.
type store struct {
	mu     sync.Mutex
	marks  map[string]chat.Mark // by conversation and user
	writes int
	rows   int
	down   error
	gone   string // a user who was removed meanwhile
}

func (s *store) Standing(_ context.Context, conversation string) (chat.Standing, error) {
	members := []chat.Member{{ID: "u1", Name: "ann"}, {ID: "u2", Name: "bob"}}
	switch conversation {
	case "large":
		members = append(members, chat.Member{ID: "u3"}, chat.Member{ID: "u4"}, chat.Member{ID: "u5"})
	case "c":
	default:
		return chat.Standing{}, chat.ErrNotFound
	}
	return chat.Standing{LastSeq: 1000, Roster: chat.NewRoster(true, 1, members), Count: len(members)}, nil
}

func (s *store) StandingOf(ctx context.Context, conversation, _ string) (chat.Standing, error) {
	return s.Standing(ctx, conversation)
}

func (s *store) Mark(_ context.Context, marks []chat.Mark) ([]chat.Mark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	s.writes++
	var out []chat.Mark
	for _, m := range marks {
		if m.UserID == s.gone {
			continue
		}
		s.rows++
		k := m.Conversation + " " + m.UserID
		m = m.With(s.marks[k])
		s.marks[k] = m
		out = append(out, m)
	}
	return out, nil
}

// pushes notes frames by user.
type pushes struct {
	mu            sync.Mutex
	local, remote map[string][]string
}

func (p *pushes) Signal(user string, frame []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.local[user] = append(p.local[user], string(frame))
}

func (p *pushes) Publish(list []fanout.Push) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, push := range list {
		if push.Seq != 0 || push.User == "" {
			panic("not a signal")
		}
		p.remote[push.User] = append(p.remote[push.User], string(push.Frame))
	}
}

var ann, bob = chat.User{ID: "u1", Name: "ann"}, chat.User{ID: "u2", Name: "bob"}

// run calls test with signals that run in a bubble of time.
func run(t *testing.T, test func(t *testing.T, s *signal.Signals, db *store, p *pushes, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db := &store{marks: map[string]chat.Mark{}}
		p := &pushes{local: map[string][]string{}, remote: map[string][]string{}}
		cfg := signal.DefaultConfig()
		cfg.Waiting, cfg.Shown = 2, 4
		s, err := signal.New(cfg, db, p, time.Now, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, p) }()
		stop := sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		defer stop()
		test(t, s, db, p, stop)
	})
}

type answer struct {
	receipt protocol.Receipt
	err     error
}

func mark(t *testing.T, s *signal.Signals, from chat.User, m protocol.Mark) <-chan answer {
	t.Helper()
	answers := make(chan answer, 2)
	s.Mark(t.Context(), from, m, func(r protocol.Receipt, err error) { answers <- answer{r, err} })
	return answers
}

func code(err error) (protocol.Code, string) {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e.Code, e.Field
	}
	return "", ""
}

func TestMarksAreCoalesced(t *testing.T) {
	run(t, func(t *testing.T, s *signal.Signals, db *store, p *pushes, _ func()) {
		var all []<-chan answer
		for seq := range int64(100) {
			all = append(all, mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 100 - seq, Delivered: seq}))
		}
		want := protocol.Receipt{Conversation: "c", User: "ann", Read: 100, Delivered: 100}
		for _, a := range all {
			if got := <-a; got.err != nil || got.receipt != want || len(a) != 0 {
				t.Fatalf("got %+v", got)
			}
		}
		if db.writes != 1 || db.rows != 1 {
			t.Errorf("%d writes, %d rows", db.writes, db.rows)
		}
		synctest.Wait()
		frame := `{"receipt":{"conversation":"c","user":"ann","read":100,"delivered":100}}`
		pushed := map[string][]string{"u1": {frame}, "u2": {frame}}
		if diff := cmp.Diff(pushed, p.local) + cmp.Diff(pushed, p.remote); diff != "" {
			t.Error(diff)
		}
		// a smaller one changes nothing, and is told what holds
		if got := <-mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 7}); got.receipt != want || got.err != nil {
			t.Errorf("got %+v", got)
		}
	})
}

func TestLargeConversationsHearOnlyThemselves(t *testing.T) {
	run(t, func(t *testing.T, s *signal.Signals, _ *store, p *pushes, _ func()) {
		<-mark(t, s, ann, protocol.Mark{Conversation: "large", Delivered: 5})
		if err := s.Typing(t.Context(), bob, "large"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		want := map[string][]string{"u1": {`{"receipt":{"conversation":"large","user":"ann","read":0,"delivered":5}}`}}
		if diff := cmp.Diff(want, p.remote); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMarksThatCannotBe(t *testing.T) {
	run(t, func(t *testing.T, s *signal.Signals, db *store, _ *pushes, _ func()) {
		for _, c := range []struct {
			name  string
			from  chat.User
			m     protocol.Mark
			code  protocol.Code
			field string
		}{
			{"no conversation", ann, protocol.Mark{Conversation: "none", Read: 1}, protocol.CodeNotFound, "conversation"},
			{"no id", ann, protocol.Mark{Conversation: "a b", Read: 1}, protocol.CodeInvalidArgument, "conversation"},
			{"other people's", chat.User{ID: "u9"}, protocol.Mark{Conversation: "c", Read: 1}, protocol.CodeNotFound, "conversation"},
			{"nothing", ann, protocol.Mark{Conversation: "c"}, protocol.CodeInvalidArgument, "read"},
			{"beyond the end", ann, protocol.Mark{Conversation: "c", Read: 1001}, protocol.CodeInvalidArgument, "read"},
			{"negative", ann, protocol.Mark{Conversation: "c", Read: 1, Delivered: -1}, protocol.CodeInvalidArgument, "delivered"},
		} {
			a := <-mark(t, s, c.from, c.m)
			if got, field := code(a.err); got != c.code || field != c.field {
				t.Errorf("%s: %v", c.name, a.err)
			}
		}
		db.down = errors.New("store is gone")
		a := <-mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 1})
		if got, _ := code(a.err); got != protocol.CodeUnavailable || !errors.Is(a.err, db.down) {
			t.Errorf("store down: %v", a.err)
		}
		db.down, db.gone = nil, "u1"
		gone, stays := mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 1}), mark(t, s, bob, protocol.Mark{Conversation: "c", Read: 1})
		if got, _ := code((<-gone).err); got != protocol.CodeNotFound {
			t.Errorf("removed meanwhile: %v", got)
		}
		if a := <-stays; a.err != nil {
			t.Error(a.err)
		}
	})
}

func TestWaitingMarksAreBoundedAndWrittenInTheEnd(t *testing.T) {
	run(t, func(t *testing.T, s *signal.Signals, db *store, _ *pushes, stop func()) {
		first, second := mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 1}), mark(t, s, bob, protocol.Mark{Conversation: "c", Read: 2})
		if got, _ := code((<-mark(t, s, ann, protocol.Mark{Conversation: "large", Read: 3})).err); got != protocol.CodeUnavailable {
			t.Errorf("third: %v", got)
		}
		more := mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 4}) // takes no room
		stop()
		for _, a := range []<-chan answer{first, second, more} {
			if got := <-a; got.err != nil {
				t.Error(got.err)
			}
		}
		if db.marks["c u1"].Read != 4 || db.marks["c u2"].Read != 2 {
			t.Errorf("got %+v", db.marks)
		}
		if got, _ := code((<-mark(t, s, ann, protocol.Mark{Conversation: "c", Read: 5})).err); got != protocol.CodeUnavailable {
			t.Errorf("after the end: %v", got)
		}
	})
}

// TestPositionsNeverGoBack moves positions of two users at random, while the store fails
// now and then; what was answered must hold from then on.
func TestPositionsNeverGoBack(t *testing.T) {
	for seed := range uint64(20) {
		run(t, func(t *testing.T, s *signal.Signals, db *store, _ *pushes, _ func()) {
			rnd := rand.New(rand.NewPCG(seed, 6))
			var wg sync.WaitGroup
			for _, u := range []chat.User{ann, bob} {
				r := rand.New(rand.NewPCG(seed, uint64(u.ID[1])))
				wg.Go(func() {
					var answered protocol.Receipt
					for range 50 {
						m := protocol.Mark{Conversation: "c", Read: int64(r.IntN(1000)), Delivered: int64(1 + r.IntN(1000))}
						a := <-mark(t, s, u, m)
						if a.err != nil {
							continue
						}
						if a.receipt.Read < max(m.Read, answered.Read) || a.receipt.Delivered < max(m.Delivered, answered.Delivered, a.receipt.Read) {
							t.Errorf("seed %d: %+v after %+v and %+v", seed, a.receipt, answered, m)
						}
						answered = a.receipt
						time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond) // of the bubble
					}
				})
			}
			for range 20 {
				db.mu.Lock()
				db.down = nil
				if rnd.IntN(3) == 0 {
					db.down = errors.New("down")
				}
				db.mu.Unlock()
				time.Sleep(100 * time.Millisecond) // of the bubble
			}
			db.mu.Lock()
			db.down = nil
			db.mu.Unlock()
			wg.Wait()
		})
	}
}

func TestTypingIsPassedOnAndLimited(t *testing.T) {
	run(t, func(t *testing.T, s *signal.Signals, _ *store, p *pushes, _ func()) {
		var codes []string
		for range 3 {
			c, _ := code(s.Typing(t.Context(), ann, "c"))
			codes = append(codes, string(c))
		}
		time.Sleep(time.Second) // of the bubble
		c, _ := code(s.Typing(t.Context(), ann, "c"))
		codes = append(codes, string(c))
		c, _ = code(s.Typing(t.Context(), chat.User{ID: "u9"}, "c"))
		codes = append(codes, string(c))
		if got := strings.Join(codes, " "); got != " rate_limited rate_limited  not_found" {
			t.Errorf("got %q", got)
		}
		synctest.Wait()
		frame := `{"typing":{"conversation":"c","user":"ann"}}`
		if diff := cmp.Diff(map[string][]string{"u2": {frame, frame}}, p.remote) + cmp.Diff(p.remote, p.local); diff != "" {
			t.Error(diff)
		}
	})
}

func TestConfigNamesTheKey(t *testing.T) {
	for want, edit := range map[string]func(*signal.Config){
		"every":   func(c *signal.Config) { c.Every = 0 },
		"waiting": func(c *signal.Config) { c.Waiting = 0 },
		"timeout": func(c *signal.Config) { c.Timeout = 0 },
		"shown":   func(c *signal.Config) { c.Shown = 1 },
		"typing":  func(c *signal.Config) { c.Typing = 0 },
	} {
		cfg := signal.DefaultConfig()
		edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

func BenchmarkMark(b *testing.B) {
	db := &store{marks: map[string]chat.Mark{}}
	p := &pushes{local: map[string][]string{}, remote: map[string][]string{}}
	cfg := signal.DefaultConfig()
	cfg.Every = time.Millisecond
	s, err := signal.New(cfg, db, p, time.Now, prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() { _ = s.Run(ctx, p) }()
	users := make([]chat.User, 2)
	for i := range users {
		users[i] = chat.User{ID: fmt.Sprintf("u%d", i+1), Name: "ann"}
	}
	var wg sync.WaitGroup
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		wg.Add(1)
		n++
		s.Mark(ctx, users[n%2], protocol.Mark{Conversation: "c", Read: int64(1 + n%1000)}, func(protocol.Receipt, error) { wg.Done() })
	}
	wg.Wait()
}
