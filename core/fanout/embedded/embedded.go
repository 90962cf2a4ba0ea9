// Package embedded runs a Redis in this process, for one machine: miniredis.
// `tracegate up` uses it; production uses servers of its own, and nothing but their
// address changes.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Promise says what the embedded Redis does not promise, for people who start it.
const Promise = "embedded Redis (miniredis): one process, nothing on disk, no cluster, no sharded channels; " +
	"it holds only who is connected and what is on its way, and sessions read what they missed from the database"

// Config says where it listens.
type Config struct {
	Listen   string // host:port; the port may be 0
	Password string
}

// DefaultConfig is Redis's own port on loopback. The password has no default.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:6379"} }

// Validate names the key that is wrong.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errors.New("listen: must be a loopback address, it is not encrypted")
	}
	if c.Password == "" {
		return errors.New("password: must not be empty")
	}
	return nil
}

// Run serves until ctx is done and calls ready with the address once it does.
func Run(ctx context.Context, cfg Config, ready func(addr string)) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("embedded redis config: %w", err)
	}
	m := miniredis.NewMiniRedis()
	m.RequireAuth(cfg.Password)
	if err := m.StartAddr(cfg.Listen); err != nil {
		return fmt.Errorf("start embedded redis on %s: %w", cfg.Listen, err)
	}
	defer m.Close()
	ready(m.Addr())
	// Its keys expire only when it is told that time has passed.
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			m.FastForward(now.Sub(last))
			last = now
		}
	}
}
