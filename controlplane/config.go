package controlplane

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/trial"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/secret"
)

// Config is the control plane's.
type Config struct {
	Dir            string        // last good configuration, state and journal; created when missing
	LastGoodKey    string        // file of the key that signs it, made where missing; empty: in Dir
	Policy         string        // file
	Endpoints      string        // file
	Certificates   string        // folder of certificates, one folder each; may be missing
	Settings       string        // folder of settings documents of services; may be missing
	Etcd           Etcd          // where the policy comes from instead of the file
	XDSAddress     string        // gRPC for edges; loopback where there is no Identity
	ControlAddress string        // HTTP for people and parts; beyond loopback HTTPS, with Identity
	Token          secret.Text   // of the control API, for operators
	UpdateSecret   secret.Text   // of signed updates, as webhook.NewSecret makes one; empty: there are none
	ViewerToken    secret.Text   // for who may only look; empty: nobody
	Tokens         string        // file of more of them, with names (controlplane/access); empty: there are none
	DNSRefresh     time.Duration // between two look-ups of a name in endpoints
	DNSTimeout     time.Duration // of one
	Edge           plan.Edge     // what is not policy
	Server         server.Config
	Notify         notify.Config

	// Identity is how this process proves who it is; nil: it does not, and everything is
	// loopback. With it edges must prove who they are.
	Identity *identity.Identity

	Evaluate     time.Duration // between two evaluations
	StatsTimeout time.Duration // of one query
	// AckTimeout is how long a placement waits for edges that do not answer. Then it
	// is published without them, which status shows.
	AckTimeout time.Duration
	// Trial is how a policy is tried on one edge before the others get it.
	Trial trial.Config
}

// Etcd is where policies, and settings of services, are kept for many control planes; see
// [source.Etcd] and [source.EtcdDocuments].
type Etcd struct {
	Endpoints []string // host:port; empty: the policy is the file
	Username  string
	Password  secret.Text
	Prefix    string   // "/config"
	Labels    []string // of this control plane: "env=staging", the most important first
	Version   string   // that it runs; empty: none
}

func (e Etcd) validate() error {
	if len(e.Endpoints) == 0 {
		return nil
	}
	if !strings.HasPrefix(e.Prefix, "/") || path.Clean(e.Prefix) != e.Prefix {
		return fmt.Errorf("etcd prefix: %q is not a clean path from /", e.Prefix)
	}
	for i, l := range e.Labels {
		if key, value, ok := strings.Cut(l, "="); !ok || key == "" || value == "" || strings.Contains(l, "/") {
			return fmt.Errorf("etcd labels[%d]: %q is not key=value", i, l)
		}
	}
	if strings.Contains(e.Version, "/") {
		return fmt.Errorf("etcd version: %q has a slash", e.Version)
	}
	return nil
}

// DefaultConfig needs Token, Edge.Wasm and Edge.JWKS to be filled in.
func DefaultConfig() Config {
	return Config{
		Dir:            filepath.Join(".tracegate", "controlplane"),
		Policy:         filepath.Join(".tracegate", "policy.yaml"),
		Endpoints:      filepath.Join(".tracegate", "endpoints.yaml"),
		Certificates:   filepath.Join(".tracegate", "certificates"),
		Settings:       filepath.Join(".tracegate", "settings"),
		Etcd:           Etcd{Prefix: "/config"},
		XDSAddress:     "127.0.0.1:18000",
		ControlAddress: "127.0.0.1:18001",
		Edge:           plan.Edge{Listen: "127.0.0.1:8080", Observe: "127.0.0.1:4317"},
		DNSRefresh:     500 * time.Millisecond,
		DNSTimeout:     2 * time.Second,
		Server:         server.DefaultConfig(),
		Evaluate:       250 * time.Millisecond,
		StatsTimeout:   time.Second,
		AckTimeout:     3 * time.Second,
		Trial:          trial.Config{Answer: 30 * time.Second}, // above the 15 s that Envoy may take for a cluster
	}
}

// minToken is what a generated token has at least; a short one can be guessed.
const minToken = 16

// Validate names the key that cannot be used.
func (c Config) Validate() error {
	for key, v := range map[string]string{"dir": c.Dir, "policy": c.Policy, "endpoints": c.Endpoints, "settings": c.Settings} {
		if v == "" {
			return fmt.Errorf("%s: missing", key)
		}
	}
	for key, v := range map[string]string{"xdsAddress": c.XDSAddress, "controlAddress": c.ControlAddress} {
		ap, err := netip.ParseAddrPort(v)
		if err != nil {
			return fmt.Errorf("%s: %q is not an IP address and port", key, v)
		}
		if !ap.Addr().IsLoopback() && c.Identity == nil {
			return fmt.Errorf("%s: %s is not on loopback, and without an identity nothing is encrypted", key, v)
		}
	}
	switch {
	case len(c.Token) < minToken:
		return fmt.Errorf("token: shorter than %d characters", minToken)
	case c.ViewerToken != "" && (len(c.ViewerToken) < minToken || c.ViewerToken == c.Token):
		return fmt.Errorf("viewerToken: shorter than %d characters, or the operator's", minToken)
	case c.Evaluate < 50*time.Millisecond || c.Evaluate > 10*time.Second:
		return fmt.Errorf("evaluate: %v is not between 50ms and 10s", c.Evaluate)
	case c.DNSRefresh <= 0 || c.DNSTimeout <= 0:
		return errors.New("dnsRefresh, dnsTimeout: not above 0")
	case c.StatsTimeout <= 0:
		return errors.New("statsTimeout: not above 0")
	case c.AckTimeout <= 0:
		return errors.New("ackTimeout: not above 0")
	case c.Trial.Watch < 0 || c.Trial.Watch > time.Hour:
		return fmt.Errorf("trial.watch: %v is not between 0 and 1h", c.Trial.Watch)
	case c.Trial.Watch > 0 && c.Trial.Answer <= 0:
		return errors.New("trial.answer: not above 0")
	}
	if err := errors.Join(c.Edge.Validate(), c.Etcd.validate()); err != nil {
		return err
	}
	if err := c.Server.Validate(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
