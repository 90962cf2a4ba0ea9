package e2e

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// TestUpgrade replaces Envoy by another process twice, under requests and sockets: no
// request fails, the sockets stay with the process that has them until its time is over,
// and new ones come to the next. The second time the control plane is away.
func TestUpgrade(t *testing.T) {
	s := prepare(t)
	unfiltered(s)
	s.control = startControlPlane(t, freeport.ForTest(t))
	s.control.Set(s.snapshot())
	cfg := edge.DefaultConfig()
	cfg.Envoy, cfg.Dir, cfg.Concurrency, cfg.Drain = envoytest.Binary(t), filepath.Join(t.TempDir(), "edge"), 1, 3*time.Second
	cfg.Bootstrap.XDS, cfg.Bootstrap.Admin = s.control.addr, freeport.ForTest(t)
	cfg.Listen = []string{s.edge.Listen}
	upgrade := make(chan struct{})
	cfg.Upgrade = upgrade
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- edge.Run(ctx, cfg, slog.New(slog.NewTextHandler(t.Output(), nil))) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	admin := envoy.NewAdmin(cfg.Bootstrap.Admin)
	epoch := func() uint64 {
		stats, err := admin.Stats(t.Context(), "^server.hot_restart_epoch$")
		if err != nil || admin.Ready(t.Context()) != nil {
			return 99
		}
		return stats["server.hot_restart_epoch"]
	}
	waitFor(t, "the first envoy", func() bool { return epoch() == 0 && s.asked() })

	pressed := &load{}
	asking, quiet := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() { pressed.ask(asking, s, request{}) })
	}
	for n := range uint64(2) {
		var sockets sync.WaitGroup
		talking, hush := context.WithCancel(t.Context())
		old := &load{}
		for range 10 {
			conn := s.dial(request{})
			sockets.Go(func() { old.talk(talking, conn) })
		}
		if n == 1 { // the next one has no configuration for a while, so the one before serves
			s.control.stop()
		}
		upgrade <- struct{}{}
		if n == 1 {
			asked := pressed.requests.Load()
			waitFor(t, "the next envoy to wait", func() bool { return errors.Is(admin.Ready(t.Context()), envoy.ErrNotReady) })
			waitFor(t, "requests meanwhile", func() bool { return pressed.requests.Load() > asked+200 })
			s.control = startControlPlane(t, s.control.addr)
			s.control.Set(s.snapshot())
		}
		waitFor(t, "the next envoy", func() bool { return epoch() == n+1 })
		said := old.messages.Load()
		waitFor(t, "sockets of the one before to go on", func() bool { return old.messages.Load() > said+100 || old.dropped.Load() > 0 })
		if old.dropped.Load() != 0 {
			t.Errorf("upgrade %d: sockets were dropped while the old process had its time: %s", n, old.firstTrouble)
		}
		hush()
		sockets.Wait()
		conn := s.dial(request{}) // of the next one: it stays when the one before ends
		stays, leave := context.WithCancel(t.Context())
		var fresh sync.WaitGroup
		after := &load{}
		fresh.Go(func() { after.talk(stays, conn) })
		waitFor(t, "the end of the one before", func() bool {
			stats, err := admin.Stats(t.Context(), "^server.(total_connections|parent_connections)$")
			return err == nil && stats["server.parent_connections"] == 0
		})
		said = after.messages.Load()
		waitFor(t, "the new socket", func() bool { return after.messages.Load() > said+10 || after.dropped.Load() > 0 })
		leave()
		fresh.Wait()
		if after.dropped.Load() != 0 {
			t.Errorf("upgrade %d: a socket of the next process was dropped: %s", n, after.firstTrouble)
		}
	}
	quiet()
	askers.Wait()
	if pressed.bad.Load()+pressed.failed.Load() != 0 || pressed.requests.Load() < 100 {
		t.Errorf("%d of %d requests failed, %d had an error: %s", pressed.failed.Load(), pressed.requests.Load(), pressed.bad.Load(), pressed.firstTrouble)
	}
}

// asked says whether the edge serves.
func (s *stack) asked() bool {
	resp, err := s.client.Get("http://" + s.edge.Listen + "/")
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
