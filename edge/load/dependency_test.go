package load

import (
	"net"
	"sync"
	"testing"
	"time"
)

// TestSlowDependencyMakesConnectsWait fills the queue: somebody's SYN must be dropped,
// and is sent again no sooner than a second later (RFC 6298).
func TestSlowDependencyMakesConnectsWait(t *testing.T) {
	addr, stop, err := slowDependency()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var slowest time.Duration
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			start := time.Now()
			conn, err := (&net.Dialer{Timeout: 30 * time.Second}).Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, time.Since(start))
		})
	}
	all.Wait()
	if slowest < time.Second {
		t.Errorf("the slowest of 12 connects took %v", slowest)
	}
	stop()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("it listens after its end")
	}
}
