package controlplane

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/mesh/secret"
)

// Config is the control plane's.
type Config struct {
	Dir            string      // last good configuration, state and journal; created when missing
	Policy         string      // file
	Endpoints      string      // file
	XDSAddress     string      // gRPC for edges; no TLS yet, so loopback only
	ControlAddress string      // HTTP for people and parts; loopback only
	Token          secret.Text // of the control API, for operators
	ViewerToken    secret.Text // for who may only look; empty: nobody
	Edge           plan.Edge   // what is not policy
	Server         server.Config
	Notify         notify.Config

	Evaluate     time.Duration // between two evaluations
	StatsTimeout time.Duration // of one query
	// AckTimeout is how long a placement waits for edges that do not answer. Then it
	// is published without them, which status shows.
	AckTimeout time.Duration
}

// DefaultConfig needs Token, Edge.Wasm and Edge.JWKS to be filled in.
func DefaultConfig() Config {
	return Config{
		Dir:            filepath.Join(".tracegate", "controlplane"),
		Policy:         filepath.Join(".tracegate", "policy.yaml"),
		Endpoints:      filepath.Join(".tracegate", "endpoints.yaml"),
		XDSAddress:     "127.0.0.1:18000",
		ControlAddress: "127.0.0.1:18001",
		Edge:           plan.Edge{Listen: "127.0.0.1:8080", Observe: "127.0.0.1:4317"},
		Server:         server.DefaultConfig(),
		Evaluate:       250 * time.Millisecond,
		StatsTimeout:   time.Second,
		AckTimeout:     3 * time.Second,
	}
}

// minToken is what a generated token has at least; a short one can be guessed.
const minToken = 16

// Validate names the key that cannot be used.
func (c Config) Validate() error {
	for key, v := range map[string]string{"dir": c.Dir, "policy": c.Policy, "endpoints": c.Endpoints} {
		if v == "" {
			return fmt.Errorf("%s: missing", key)
		}
	}
	for key, v := range map[string]string{"xdsAddress": c.XDSAddress, "controlAddress": c.ControlAddress} {
		ap, err := netip.ParseAddrPort(v)
		if err != nil {
			return fmt.Errorf("%s: %q is not an IP address and port", key, v)
		}
		if !ap.Addr().IsLoopback() {
			return fmt.Errorf("%s: %s is not on loopback, and there is no TLS yet", key, v)
		}
	}
	switch {
	case len(c.Token) < minToken:
		return fmt.Errorf("token: shorter than %d characters", minToken)
	case c.ViewerToken != "" && (len(c.ViewerToken) < minToken || c.ViewerToken == c.Token):
		return fmt.Errorf("viewerToken: shorter than %d characters, or the operator's", minToken)
	case c.Evaluate < 50*time.Millisecond || c.Evaluate > 10*time.Second:
		return fmt.Errorf("evaluate: %v is not between 50ms and 10s", c.Evaluate)
	case c.StatsTimeout <= 0:
		return errors.New("statsTimeout: not above 0")
	case c.AckTimeout <= 0:
		return errors.New("ackTimeout: not above 0")
	}
	if err := c.Edge.Validate(); err != nil {
		return err
	}
	if err := c.Server.Validate(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
