package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/mesh/local"
)

// TestUpScalesCore has the rate of a pool start processes, and its end stop them. Sockets
// that were open on them move, and none is lost.
func TestUpScalesCore(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole product")
	}
	p := newProduct(t, func(c *Config) {
		c.Core.Pools[0].Max, c.Core.Pools[0].QPS, c.Core.ScaleIn = 3, 20, 3*time.Second
		c.Search.Enabled, c.Probe.Enabled = false, false
	})
	up := p.up(t)

	var load sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer load.Wait()
	defer stop()
	load.Go(func() { ask(ctx, "http://"+p.cfg.Edge.Listen+"/v1/me") })
	processes(t, p, 3)

	// What is open now is spread over three processes, and two of them will go.
	sessions := connect(t, p, 12)
	stop()
	processes(t, p, 1)
	var moved, lost int64
	for _, s := range sessions {
		st := s.Stats()
		moved, lost = moved+st.Moved, lost+st.Lost
	}
	t.Log(len(sessions), "sockets,", moved, "moves")
	if lost != 0 || moved == 0 {
		t.Errorf("%d sockets were lost, %d moved", lost, moved)
	}
	up.stop(t)
}

// ask sends a hundred requests a second until ctx is done; their answers do not matter.
func ask(ctx context.Context, url string) {
	web := &http.Client{Timeout: 5 * time.Second}
	defer web.CloseIdleConnections()
	var open sync.WaitGroup
	defer open.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		open.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				return
			}
			if resp, err := web.Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
}

// processes waits until baseline has n processes that are ready, and no other.
func processes(t *testing.T, p product, n int) {
	t.Helper()
	deadline, tick := time.NewTimer(3*time.Minute), time.NewTicker(50*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		st, err := local.ReadStatus(p.cfg.statusFile())
		if err != nil {
			t.Fatal(err)
		}
		running, all := 0, 0
		for _, part := range st.Parts {
			if strings.HasPrefix(part.Name, corePart("baseline")) {
				all++
				if part.State == local.Running {
					running++
				}
			}
		}
		if running == n && all == n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d of %d processes run, want %d", running, all, n)
		}
	}
}

// connect opens sockets of users of their own, which stay open until the test ends.
func connect(t *testing.T, p product, n int) []*client.Session {
	t.Helper()
	cfg := client.DefaultConfig()
	cfg.Address, cfg.Timeout = "http://"+p.cfg.Edge.Listen, 30*time.Second
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var out []*client.Session
	for i := range n {
		name, password := fmt.Sprintf("mover%d", i), "correct horse battery staple"
		if _, _, err := c.Register(t.Context(), name, password); err != nil {
			t.Fatal(err)
		}
		u, _, err := c.Login(t.Context(), name, password)
		if err != nil {
			t.Fatal(err)
		}
		opened := make(chan struct{}, 1)
		s := u.Session(client.SessionConfig{OnEvent: func(e client.Event) {
			if e.Kind == client.Opened {
				select {
				case opened <- struct{}{}:
				default:
				}
			}
		}})
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		select {
		case <-opened:
		case <-time.After(time.Minute):
			t.Fatal("socket did not open")
		}
		out = append(out, s)
	}
	return out
}
