package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/client/coretest"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

func config(s *coretest.Server) client.Config {
	cfg := client.DefaultConfig()
	cfg.Address = s.URL
	// Where half of the sends are refused, 12 attempts are not enough for one in 4,096;
	// 50 are, for all that a computer will ever run.
	cfg.Retry = client.Retry{Attempts: 50, Base: time.Millisecond, Max: 20 * time.Millisecond}
	cfg.Timeout = 2 * time.Second
	return cfg
}

// person is a user with a running session that notes what it is told.
type person struct {
	*client.User
	*client.Session
	mu     sync.Mutex
	got    []protocol.Message
	events []client.Event
	ended  chan error
}

func login(t *testing.T, cfg client.Config, name string) *client.User {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, _, err := c.Register(t.Context(), name, "secret"); err != nil {
		t.Fatal(err)
	}
	u, _, err := c.Login(t.Context(), name, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func connect(t *testing.T, u *client.User, positions map[string]int64) *person {
	t.Helper()
	p := &person{User: u, ended: make(chan error, 1)}
	p.Session = u.Session(client.SessionConfig{
		Positions: positions,
		OnMessage: func(m protocol.Message) { p.mu.Lock(); p.got = append(p.got, m); p.mu.Unlock() },
		OnEvent:   func(e client.Event) { p.mu.Lock(); p.events = append(p.events, e); p.mu.Unlock() },
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { p.ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-p.ended:
		case <-time.After(time.Minute):
			t.Error("Run did not return")
		}
	})
	if err := p.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *person) received() []protocol.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]protocol.Message(nil), p.got...)
}

func (p *person) count(kind client.EventKind) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// talk is two connected people and their conversation.
func talk(t *testing.T, s *coretest.Server) (alice, bob *person, conversation string) {
	t.Helper()
	a, b := login(t, config(s), "alice"), login(t, config(s), "bob")
	c, _, err := a.Open(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	from := map[string]int64{c.ID: 0}
	return connect(t, a, from), connect(t, b, from), c.ID
}

// Every accepted message reaches both members once and in order, whatever the
// network does to connections and pushes.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for _, tt := range []struct {
		name  string
		chaos func(r *rand.Rand) coretest.Chaos
		check func(t *testing.T, alice, bob *person)
	}{
		{"calm", func(*rand.Rand) coretest.Chaos { return coretest.Chaos{} }, func(t *testing.T, a, b *person) {
			t.Helper()
			if st := b.Stats(); st != (client.Stats{Opened: 1}) {
				t.Errorf("stats = %+v, want one connection and nothing else", st)
			}
		}},
		{"connections cut before and after a message is taken", func(r *rand.Rand) coretest.Chaos {
			return coretest.Chaos{Send: func(int) coretest.Verdict {
				return []coretest.Verdict{coretest.Take, coretest.Take, coretest.Take, coretest.DropOld, coretest.DropNew}[r.IntN(5)]
			}}
		}, func(t *testing.T, a, b *person) {
			t.Helper()
			if a.Stats().Lost+b.Stats().Lost == 0 {
				t.Error("no connection was lost: the test proves nothing")
			}
		}},
		{"temporary errors", func(r *rand.Rand) coretest.Chaos {
			return coretest.Chaos{Send: func(int) coretest.Verdict {
				return []coretest.Verdict{coretest.Take, coretest.Refuse}[r.IntN(2)]
			}}
		}, nil},
		{"pushes doubled", func(*rand.Rand) coretest.Chaos {
			return coretest.Chaos{Push: func(m protocol.Message) []protocol.Message { return []protocol.Message{m, m} }}
		}, func(t *testing.T, a, b *person) {
			t.Helper()
			if b.Stats().Duplicates == 0 {
				t.Error("no duplicate was seen: the test proves nothing")
			}
		}},
		{"pushes lost", func(r *rand.Rand) coretest.Chaos {
			return coretest.Chaos{Push: func(m protocol.Message) []protocol.Message {
				if m.Text != "last" && r.IntN(4) == 0 {
					return nil
				}
				return []protocol.Message{m}
			}}
		}, func(t *testing.T, a, b *person) {
			t.Helper()
			if a.Stats().Repairs+b.Stats().Repairs == 0 {
				t.Error("nothing was repaired: the test proves nothing")
			}
		}},
		{"pushes reordered", func(*rand.Rand) coretest.Chaos {
			var held []protocol.Message
			return coretest.Chaos{Push: func(m protocol.Message) []protocol.Message {
				if m.Seq%4 == 1 && m.Text != "last" {
					held = append(held, m)
					return nil
				}
				out := append([]protocol.Message{m}, held...)
				held = nil
				return out
			}}
		}, nil},
		{"handshakes refused and replays cut", func(r *rand.Rand) coretest.Chaos {
			return coretest.Chaos{
				Send: func(int) coretest.Verdict {
					return []coretest.Verdict{coretest.Take, coretest.Take, coretest.DropNew}[r.IntN(3)]
				},
				Open: func(int) int { return []int{0, http.StatusServiceUnavailable, http.StatusNotFound}[r.IntN(3)] },
				Cut:  func(int) int { return r.IntN(4) - 2 },
			}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := coretest.New()
			defer s.Close()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			alice, bob, conversation := talk(t, s)
			s.Misbehave(tt.chaos(rand.New(rand.NewPCG(seed, 1))))

			const each = 60
			var wg sync.WaitGroup
			for _, p := range []*person{alice, bob} {
				wg.Go(func() {
					for i := range each {
						m := protocol.Send{Conversation: conversation, ClientID: fmt.Sprint(p.Profile().Name, i), Text: "hi"}
						if i%5 == 4 {
							if _, _, err := p.User.Send(t.Context(), m); err != nil {
								t.Errorf("send by REST: %v", err)
							}
						} else if _, _, err := p.Session.Send(t.Context(), m); err != nil {
							t.Errorf("send: %v", err)
						}
					}
				})
			}
			wg.Wait()
			s.Misbehave(coretest.Chaos{})
			last := protocol.Send{Conversation: conversation, ClientID: "last", Text: "last"}
			if _, _, err := alice.Session.Send(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			want := s.Messages(conversation)
			if len(want) != 2*each+1 {
				t.Fatalf("server has %d messages, want %d", len(want), 2*each+1)
			}
			for _, p := range []*person{alice, bob} {
				eventually(t, "all messages received", func() bool { return len(p.received()) >= len(want) })
				if diff := cmp.Diff(want, p.received()); diff != "" {
					t.Errorf("%s received (-want +got):\n%s", p.Profile().Name, diff)
				}
			}
			if tt.check != nil {
				tt.check(t, alice, bob)
			}
		})
	}
}

func TestReconnectIsMakeBeforeBreak(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	alice, bob, conversation := talk(t, s)
	hello, _ := bob.Hello()

	stop := make(chan struct{})
	var wg sync.WaitGroup
	sent := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent++
			m := protocol.Send{Conversation: conversation, ClientID: fmt.Sprint(sent), Text: "hi"}
			if _, _, err := alice.Session.Send(t.Context(), m); err != nil {
				t.Errorf("send: %v", err)
			}
		}
	})
	for i, pool := range []string{semconv.PoolIsolated, "", semconv.PoolIsolated} {
		want := pool
		if want == "" {
			want = semconv.PoolBaseline
		}
		s.Move(group.ID(hello.Group), pool, protocol.Reconnect{DelayMS: 5, GraceMS: 10_000, Resume: "token"})
		for _, p := range []*person{alice, bob} {
			eventually(t, "moved to "+want, func() bool {
				h, ok := p.Hello()
				return ok && h.Pool == want && p.count(client.Moved) == i+1
			})
		}
		eventually(t, "old connections closed", func() bool { return s.Sockets() == 2 })
	}
	close(stop)
	wg.Wait()
	want := s.Messages(conversation)
	eventually(t, "all received", func() bool { return len(bob.received()) >= len(want) })
	if diff := cmp.Diff(want, bob.received()); diff != "" {
		t.Errorf("bob received (-want +got):\n%s", diff)
	}
	for _, p := range []*person{alice, bob} {
		if st := p.Stats(); st.Moved != 3 || st.Lost != 0 || st.Opened != 1 {
			t.Errorf("%s: stats %+v, want 3 moves and no loss", p.Profile().Name, st)
		}
	}
}

// A server that closes before the successor is open makes a loss, not a stall.
func TestReconnectAfterGrace(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	alice, _, _ := talk(t, s)
	hello, _ := alice.Hello()
	s.Move(group.ID(hello.Group), semconv.PoolIsolated, protocol.Reconnect{DelayMS: 30_000})
	s.CloseSockets(protocol.CloseMoved)
	eventually(t, "connected to the isolated pool", func() bool {
		h, ok := alice.Hello()
		return ok && h.Pool == semconv.PoolIsolated
	})
	if st := alice.Stats(); st.Lost != 1 || st.Opened != 2 || st.Moved != 0 {
		t.Errorf("stats = %+v, want one loss and two connections", st)
	}
}

func TestCloseCodes(t *testing.T) {
	for _, tt := range []struct {
		code  int
		final bool
	}{
		{protocol.CloseShutdown, false},
		{protocol.CloseSlow, false},
		{protocol.CloseStale, false},
		{protocol.CloseExpired, true},
		{protocol.CloseProtocol, true},
	} {
		t.Run(fmt.Sprint(tt.code), func(t *testing.T) {
			s := coretest.New()
			defer s.Close()
			alice := connect(t, login(t, config(s), "alice"), nil)
			s.EndTokens(tt.final)
			s.CloseSockets(tt.code)
			if !tt.final {
				eventually(t, "connected again", func() bool { return alice.Stats().Opened == 2 })
				return
			}
			select {
			case err := <-alice.ended:
				alice.ended <- nil
				var closed *client.CloseError
				if !errors.As(err, &closed) || closed.Code != tt.code {
					t.Fatalf("Run = %v, want close code %d", err, tt.code)
				}
			case <-time.After(time.Minute):
				t.Fatal("Run goes on")
			}
			if _, _, err := alice.Session.Send(t.Context(), protocol.Send{}); !errors.Is(err, client.ErrEnded) {
				t.Errorf("Send = %v, want ErrEnded", err)
			}
		})
	}
}

func TestRefusedHandshakeIsFinal(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	u := login(t, config(s), "alice")
	other := coretest.New() // does not know the token
	defer other.Close()
	cfg := config(other)
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = u.At(c).Session(client.SessionConfig{}).Run(t.Context())
	var closed *client.CloseError
	if !errors.As(err, &closed) {
		t.Fatalf("Run = %v, want a CloseError", err)
	}
}

func TestEpochChange(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	alice, bob, conversation := talk(t, s)
	send := func(id string) {
		t.Helper()
		if _, _, err := alice.Session.Send(t.Context(), protocol.Send{Conversation: conversation, ClientID: id, Text: "hi"}); err != nil {
			t.Fatal(err)
		}
	}
	send("1")
	eventually(t, "received", func() bool { return len(bob.received()) == 1 })
	s.SetEpoch("epoch-2")
	s.CloseSockets(protocol.CloseShutdown)
	send("2")
	eventually(t, "both again", func() bool { return len(bob.received()) == 3 })
	if n := bob.count(client.Reset); n != 1 {
		t.Errorf("%d resets told, want 1", n)
	}
}

// A store that was restored from a backup gives out seqs again, under the same epoch.
func TestRestoredBackup(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	alice, bob, conversation := talk(t, s)
	both := func(what string, ok func(p *person) bool) {
		t.Helper()
		eventually(t, what, func() bool { return ok(alice) && ok(bob) })
	}
	send := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			if _, _, err := alice.Session.Send(t.Context(), protocol.Send{Conversation: conversation, ClientID: text, Text: text}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send("1")
	restore := s.Backup()
	send("2", "3")
	both("received", func(p *person) bool { return len(p.received()) == 3 })
	restore()
	s.CloseSockets(protocol.CloseShutdown)
	both("connected again", func(p *person) bool { return p.Stats().Opened == 2 })
	send("4", "5")
	both("all from the first on", func(p *person) bool { return len(p.received()) == 6 })
	for _, p := range []*person{alice, bob} {
		var got []string
		for _, m := range p.received() {
			got = append(got, m.Text)
		}
		if diff := cmp.Diff([]string{"1", "2", "3", "1", "4", "5"}, got); diff != "" {
			t.Errorf("%s received (-want +got):\n%s", p.Profile().Name, diff)
		}
		if n := p.count(client.Reset); n != 1 {
			t.Errorf("%s was told of %d resets, want 1", p.Profile().Name, n)
		}
	}
}

// A repair that is refused ends neither the session nor what it follows, but for
// conversations that core says are none of the user's.
func TestRefusedRepair(t *testing.T) {
	const old, young, never = "d-alice-bob", "d-alice-alice", "d-bob-cid"
	for _, tt := range []struct {
		name    string
		status  int // by the edge, of the first read of a history
		restore bool
		follows []string
	}{
		{"new epoch", 0, false, []string{young, old}},
		{"restored backup", 0, true, []string{old}},
		{"edge forbids", http.StatusForbidden, false, []string{young, old, never}},
		{"edge has no routes", http.StatusNotFound, false, []string{young, old, never}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := coretest.New()
			defer s.Close()
			u := login(t, config(s), "alice")
			login(t, config(s), "bob")
			open := func(with string) {
				t.Helper()
				if _, _, err := u.Open(t.Context(), with); err != nil {
					t.Fatal(err)
				}
			}
			send := func(id string) {
				t.Helper()
				if _, _, err := u.Send(t.Context(), protocol.Send{Conversation: old, ClientID: id, Text: id}); err != nil {
					t.Fatal(err)
				}
			}
			open("bob")
			send("1")
			restore := s.Backup()
			send("2")
			open("alice")
			alice := connect(t, u, map[string]int64{old: 0, young: 0, never: 3})
			s.Misbehave(coretest.Chaos{History: func(n int) int { return map[int]int{1: tt.status}[n] }})
			if tt.restore {
				restore()
			} else {
				s.SetEpoch("epoch-2")
			}
			s.CloseSockets(protocol.CloseShutdown)
			eventually(t, "connected again", func() bool { return alice.Stats().Opened == 2 })
			send("3")
			want := s.Messages(old)
			eventually(t, "all from the first on", func() bool { return len(alice.received()) == 2+len(want) })
			if diff := cmp.Diff(want, alice.received()[2:]); diff != "" {
				t.Errorf("received again (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.follows, slices.Sorted(maps.Keys(alice.Positions()))); diff != "" {
				t.Errorf("follows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSendOutcome(t *testing.T) {
	for _, tt := range []struct {
		name    string
		verdict coretest.Verdict
		unknown bool
		stored  int
	}{
		{"refused for good", coretest.Deny, false, 0},
		{"refused until given up", coretest.Refuse, true, 0},
		{"taken, reply lost each time", coretest.DropNew, true, 1},
	} {
		for _, by := range []string{"rest", "ws"} {
			t.Run(tt.name+" by "+by, func(t *testing.T) {
				s := coretest.New()
				defer s.Close()
				alice, _, conversation := talk(t, s)
				s.Misbehave(coretest.Chaos{Send: func(int) coretest.Verdict { return tt.verdict }})
				send := alice.User.Send
				if by == "ws" {
					send = alice.Session.Send
				}
				_, _, err := send(t.Context(), protocol.Send{Conversation: conversation, ClientID: "1", Text: "hi"})
				if err == nil || errors.Is(err, client.ErrUnknownOutcome) != tt.unknown {
					t.Errorf("Send = %v, want an error with outcome unknown = %v", err, tt.unknown)
				}
				if n := len(s.Messages(conversation)); n != tt.stored {
					t.Errorf("%d messages stored, want %d", n, tt.stored)
				}
			})
		}
	}
}

func TestSendGivesUpWithItsContext(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	alice, _, conversation := talk(t, s)
	s.SetFault(semconv.PoolBaseline, coretest.Fault{Latency: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := alice.Session.Send(ctx, protocol.Send{Conversation: conversation, ClientID: "1"})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrUnknownOutcome) {
		t.Errorf("Send = %v, want deadline exceeded with unknown outcome", err)
	}
	if took := time.Since(start); took > 30*time.Second { // the answer takes a minute
		t.Errorf("took %v", took)
	}
}

// A connection on which nothing comes back is given up.
func TestSilentConnection(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	gate := newGate(t, s.Listener.Addr().String())
	cfg := config(s)
	cfg.Address = "http://" + gate.addr()
	cfg.Ping = 400 * time.Millisecond // given up after a second
	alice := connect(t, login(t, cfg, "alice"), nil)
	idle := gate.passed()
	eventually(t, "pings pass", func() bool { return gate.passed() >= idle+32 }) // 8 bytes each with its pong: past that second
	if n := alice.Stats().Lost; n != 0 {
		t.Fatalf("%d connections lost while pings pass", n)
	}
	gate.freeze()
	eventually(t, "given up and opened again", func() bool { return alice.Stats().Lost == 1 && alice.Stats().Opened == 2 })
}
