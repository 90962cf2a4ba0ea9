package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// Config bounds the server.
type Config struct {
	// MaxEdges bounds the streams open at one time; more are refused.
	MaxEdges int
	// Warmup is how long routes wait after a cluster that is new to an edge has been
	// acknowledged: Envoy acknowledges a cluster before its first health check has
	// ended, and answers 503 for it until then (envoyproxy/envoy#5174).
	Warmup time.Duration
	// RetryMin and RetryMax bound the back-off with which a rejected resource is
	// offered again while it stays the desired one.
	RetryMin, RetryMax time.Duration
}

// DefaultConfig is for a few dozen edges.
func DefaultConfig() Config {
	return Config{
		MaxEdges: 256,
		Warmup:   xds.HealthTimeout + 100*time.Millisecond,
		RetryMin: time.Second,
		RetryMax: 30 * time.Second,
	}
}

// Validate names the key that cannot be used.
func (c Config) Validate() error {
	switch {
	case c.MaxEdges < 1:
		return fmt.Errorf("maxEdges: %d is not above 0", c.MaxEdges)
	case c.Warmup < 0:
		return fmt.Errorf("warmup: %v is negative", c.Warmup)
	case c.RetryMin <= 0:
		return fmt.Errorf("retryMin: %v is not above 0", c.RetryMin)
	case c.RetryMax < c.RetryMin:
		return errors.New("retryMax: below retryMin")
	}
	return nil
}
