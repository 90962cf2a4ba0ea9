package fanout_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/fanout"
)

// TestTakeIsSharedByProcesses: however many ask at once, a bucket gives its burst and what
// it is filled with, and buckets do not touch each other.
func TestTakeIsSharedByProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		nodes := []*node{start(t, cfg, "a"), start(t, cfg, "b")}
		for _, n := range nodes {
			eventually(t, "healthy", n.Healthy)
		}
		begun := time.Now()
		var taken atomic.Int64
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				ok, err := nodes[i%2].Take(t.Context(), "login:ann", 1, 10)
				if err != nil {
					t.Error(err)
				}
				if ok {
					taken.Add(1)
				}
			})
		}
		wg.Wait()
		most := 10 + int64(time.Since(begun).Seconds()) + 1
		if n := taken.Load(); n < 10 || n > most {
			t.Errorf("%d were let in, want 10 to %d", n, most)
		}
		if ok, err := nodes[0].Take(t.Context(), "login:bob", 1, 10); !ok || err != nil {
			t.Errorf("another bucket: %v %v", ok, err)
		}
		eventually(t, "filled again", func() bool {
			ok, err := nodes[1].Take(t.Context(), "login:ann", 1, 10)
			return ok && err == nil
		})
	})
}

func TestTakeWithoutServer(t *testing.T) {
	cfg := fanout.DefaultConfig()
	cfg.Addrs, cfg.Timeout = []string{"127.0.0.1:1"}, time.Minute
	n := start(t, cfg, "a")
	begun := time.Now()
	if _, err := n.Take(t.Context(), "x", 1, 1); err == nil || time.Since(begun) > cfg.Timeout/2 {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

// TestSharedRateIsReplaced: a shared bucket that is filled faster than before does not
// remember how long it would have taken.
func TestSharedRateIsReplaced(t *testing.T) {
	onEach(t, func(t *testing.T, cfg fanout.Config) {
		n := start(t, cfg, "a")
		eventually(t, "healthy", n.Healthy)
		for i, want := range []bool{true, false} {
			if ok, err := n.Take(t.Context(), "x", 0.0001, 1); err != nil || ok != want {
				t.Fatalf("take %d of one in hours: %v, %v", i, ok, err)
			}
		}
		eventually(t, "a tenth of a second has gone by", func() bool {
			ok, err := n.Take(t.Context(), "x", 10, 1)
			return ok && err == nil
		})
	})
}
