package client_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/client/coretest"
)

// TestAccessTokenIsRenewed: whether core says so or the clock, a token that ends is replaced
// once for all calls, copies and connections, and nobody notices.
func TestAccessTokenIsRenewed(t *testing.T) {
	for _, by := range []string{"core says so", "the clock says so"} {
		t.Run(by, func(t *testing.T) {
			s := coretest.New()
			defer s.Close()
			cfg := config(s)
			var mu sync.Mutex
			refreshes, faults := 0, 0
			cfg.OnAttempt = func(a client.Attempt) {
				mu.Lock()
				defer mu.Unlock()
				if a.Op == "refresh" {
					refreshes++
				}
				if a.Fault() {
					faults++
				}
			}
			if by == "the clock says so" {
				s.TokenTTL = time.Minute / 60
			}
			alice := connect(t, login(t, cfg, "alice"), nil)
			eventually(t, "open", func() bool { return alice.Stats().Opened == 1 })
			before := 0
			if by == "core says so" {
				s.EndTokens(false)
			} else {
				time.Sleep(900 * time.Millisecond) // into the last fifth of the token's second
				mu.Lock()
				before = refreshes
				mu.Unlock()
				s.TokenTTL = time.Hour
			}
			again := alice.At(mustClient(t, cfg))
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() {
					u := alice.User
					if i%2 == 0 {
						u = again
					}
					if _, _, err := u.Me(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			s.CloseSockets(protocol.CloseExpired)
			eventually(t, "open again", func() bool { return alice.Stats().Opened == 2 })
			mu.Lock()
			defer mu.Unlock()
			if n := refreshes - before; n < 1 || n > 2 || faults != 0 { // 3500 asks once more
				t.Errorf("%d refreshes, %d faults", n, faults)
			}
		})
	}
}

// TestEndedSessionIsFinal: no new token is to be had, so calls fail and the session ends.
func TestEndedSessionIsFinal(t *testing.T) {
	s := coretest.New()
	defer s.Close()
	alice := connect(t, login(t, config(s), "alice"), nil)
	eventually(t, "open", func() bool { return alice.Stats().Opened == 1 })
	s.EndTokens(true)
	_, _, err := alice.Me(t.Context())
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeUnauthenticated {
		t.Errorf("got %v", err)
	}
	s.CloseSockets(protocol.CloseShutdown)
	select {
	case err := <-alice.ended:
		alice.ended <- nil
		if _, ok := errors.AsType[*client.CloseError](err); !ok {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run goes on")
	}
}

func mustClient(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
