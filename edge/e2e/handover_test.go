package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/observability/sli"
)

// noTraffic is a store that knows of no traffic.
type noTraffic struct{}

func (noTraffic) GroupStats(context.Context, sli.Window, ...string) ([]sli.Stats, error) {
	return nil, nil
}
func (noTraffic) Watermark(context.Context) (time.Time, error)        { return time.Time{}, nil }
func (noTraffic) SaveDecision(context.Context, decide.Decision) error { return nil }

// TestHandover upgrades Envoy under people who chat over WebSockets, with the real control
// plane and the real core: core learns from the control plane which Envoy serves and asks
// the sockets of the one before to come back, before that ends. Nothing is missed or comes
// twice, no socket is cut, and no request fails.
func TestHandover(t *testing.T) {
	s := newChatStack(t, 1)
	crowd := newChatters(t, s.url, 8)
	asked := pressREST(t, s.url)
	for n := range uint64(2) {
		before := crowd.moved.Load()
		crowd.chat(t, 10)
		s.upgrade <- struct{}{}
		waitFor(t, "the next envoy, and every socket on it", func() bool {
			stats, err := s.admin.Stats(t.Context(), "^(server.hot_restart_epoch|server.parent_connections)$")
			return err == nil && stats["server.hot_restart_epoch"] == n+1 && crowd.moved.Load() >= before+int64(len(crowd.sessions))
		})
		crowd.chat(t, 10)
		waitFor(t, "the end of the one before", func() bool {
			stats, err := s.admin.Stats(t.Context(), "^server.live$")
			return err == nil && stats["server.live"] == 1 && !crowd.behind()
		})
	}
	crowd.check(t)
	if total, failed := asked(); failed != 0 || total < 50 {
		t.Errorf("%d of %d requests failed", failed, total)
	}
}

// pressREST asks by connections of its own; what it returns stops it and counts.
func pressREST(t *testing.T, url string) func() (total, failed int64) {
	var total, failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/sessions", nil)
				resp, err := http.DefaultClient.Do(req)
				if ctx.Err() != nil {
					return
				}
				total.Add(1)
				if err != nil {
					failed.Add(1)
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusUnauthorized { // of core: nobody is logged in here
					failed.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) { stop(); wg.Wait(); return total.Load(), failed.Load() }
}

// chatters are pairs of people; each member of a pair hears what the other says.
type chatters struct {
	sessions []*client.Session
	talks    []string // conversation of each session
	sent     []atomic.Int64
	heard    []atomic.Int64
	wrong    []atomic.Int64 // not the next one of the conversation
	last     []int64
	moved    atomic.Int64
	lost     atomic.Int64
}

func newChatters(t *testing.T, url string, n int) *chatters {
	t.Helper()
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Host = url, "payment.localhost"
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	g := &chatters{sent: make([]atomic.Int64, n), heard: make([]atomic.Int64, n), wrong: make([]atomic.Int64, n), last: make([]int64, n)}
	users := make([]*client.User, n)
	for i := range n {
		name := fmt.Sprintf("person%d", i)
		if _, _, err := c.Register(t.Context(), name, "correct horse"); err != nil {
			t.Fatal(err)
		}
		if users[i], _, err = c.Login(t.Context(), name, "correct horse"); err != nil {
			t.Fatal(err)
		}
	}
	for i, u := range users {
		talk, _, err := u.Open(t.Context(), fmt.Sprintf("person%d", i^1))
		if err != nil {
			t.Fatal(err)
		}
		g.talks = append(g.talks, talk.ID)
		s := u.Session(client.SessionConfig{
			Positions: map[string]int64{talk.ID: 0},
			OnMessage: func(m protocol.Message) {
				if m.Seq != g.last[i]+1 {
					g.wrong[i].Add(1)
				}
				g.last[i] = m.Seq
				g.heard[i].Add(1)
			},
			OnEvent: func(e client.Event) {
				switch e.Kind {
				case client.Moved:
					g.moved.Add(1)
				case client.Lost:
					g.lost.Add(1)
				}
			},
		})
		g.sessions = append(g.sessions, s)
		runtest.Background(t, func(ctx context.Context) error { _ = s.Run(ctx); return nil })
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// chat has everyone say n things.
func (g *chatters) chat(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, s := range g.sessions {
		wg.Go(func() {
			for range n {
				id := g.sent[i].Add(1)
				if _, _, err := s.Send(t.Context(), protocol.Send{Conversation: g.talks[i], ClientID: fmt.Sprintf("%d-%d", i, id), Text: "hello"}); err != nil {
					t.Errorf("person %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// behind says whether someone has not heard everything of a conversation yet.
func (g *chatters) behind() bool {
	for i := range g.sessions {
		if g.heard[i].Load() < g.sent[i].Load()+g.sent[i^1].Load() {
			return true
		}
	}
	return false
}

func (g *chatters) check(t *testing.T) {
	t.Helper()
	for i := range g.sessions {
		if want := g.sent[i].Load() + g.sent[i^1].Load(); g.heard[i].Load() != want || g.wrong[i].Load() != 0 {
			t.Errorf("person %d heard %d of %d, %d out of order", i, g.heard[i].Load(), want, g.wrong[i].Load())
		}
	}
	if g.lost.Load() != 0 {
		t.Errorf("%d sockets were cut, want each to move by itself", g.lost.Load())
	}
}
