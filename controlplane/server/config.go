package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/xds"
)

// Config bounds the server.
type Config struct {
	// MaxEdges bounds the streams open at one time; more are refused.
	MaxEdges int
	// MaxClients bounds the streams of gRPC clients likewise.
	MaxClients int
	// Warmup is how long routes wait after a cluster that is new to an edge has been
	// acknowledged: Envoy acknowledges a cluster before its first health check has
	// ended, and answers 503 for it until then (envoyproxy/envoy#5174).
	Warmup time.Duration
	// RetryMin and RetryMax bound the back-off with which a rejected resource is
	// offered again while it stays the desired one.
	RetryMin, RetryMax time.Duration
	// TLS makes edges prove who they are (mesh/identity): a node id must be the name in
	// the certificate. nil: streams are not encrypted, which is for loopback.
	TLS *tls.Config
}

// DefaultConfig is for a few dozen edges.
func DefaultConfig() Config {
	return Config{
		MaxEdges:   256,
		MaxClients: 1024,
		Warmup:     xds.HealthTimeout + 100*time.Millisecond,
		RetryMin:   time.Second,
		RetryMax:   30 * time.Second,
	}
}

// Validate names the key that cannot be used.
func (c Config) Validate() error {
	switch {
	case c.MaxEdges < 1:
		return fmt.Errorf("maxEdges: %d is not above 0", c.MaxEdges)
	case c.MaxClients < 1:
		return fmt.Errorf("maxClients: %d is not above 0", c.MaxClients)
	case c.Warmup < 0:
		return fmt.Errorf("warmup: %v is negative", c.Warmup)
	case c.RetryMin <= 0:
		return fmt.Errorf("retryMin: %v is not above 0", c.RetryMin)
	case c.RetryMax < c.RetryMin:
		return errors.New("retryMax: below retryMin")
	}
	return nil
}
