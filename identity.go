package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/mesh/identity"
)

// identityOf is how a part proves who it is; nil where nothing is encrypted.
func identityOf(cfg Config, p identity.Part) (*identity.Identity, error) {
	if cfg.Identity == "" {
		return nil, nil
	}
	return identity.Load(cfg.Identity, p)
}

// toObserve is how a part speaks to the telemetry receiver; nil: unencrypted.
func toObserve(cfg Config, p identity.Part) (*tls.Config, error) {
	own, err := identityOf(cfg, p)
	if own == nil {
		return nil, err
	}
	return own.Client(identity.Observe), nil
}

func credentialsOf(c *tls.Config) credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(c)
}

// newControlClient is HTTPS where the control API is beyond loopback.
func newControlClient(cfg Config, token string) (*ctlapi.Client, error) {
	if ap, err := netip.ParseAddrPort(cfg.ControlPlane.API); err != nil || ap.Addr().IsLoopback() {
		return ctlapi.NewClient(cfg.ControlPlane.API, token), nil
	}
	if _, err := identity.Roots(cfg.Identity); err != nil {
		return nil, err
	}
	return ctlapi.NewTLSClient(cfg.ControlPlane.API, token, identity.Trust(cfg.Identity, identity.ControlPlane)), nil
}

// makeIdentities gives the parts of this machine what they prove themselves with, where
// the folder does not have it: signed by this machine's authority, whose certificate the
// folder then names.
func makeIdentities(c Config, now time.Time) error {
	if c.Identity == "" {
		return nil
	}
	for _, p := range identity.Parts() {
		name := ""
		if p == identity.Edge {
			name = c.Edge.ID
		}
		if err := c.issue(c.Identity, p, name, now); err != nil {
			return fmt.Errorf("identity of %s: %w", p, err)
		}
	}
	return nil
}

// issue writes the identity of a part, where there is none or where it was this
// machine's authority that signed one that has less than a month left.
func (c Config) issue(dir string, p identity.Part, name string, now time.Time) error {
	own := filepath.Join(dir, string(p))
	chain, err := os.ReadFile(filepath.Join(own, identity.ChainFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !c.expiring(chain, now) {
		return nil
	}
	ca, err := c.authority(now)
	if err != nil {
		return err
	}
	believed := filepath.Join(dir, identity.CAFile)
	if raw, err := os.ReadFile(believed); err == nil && string(raw) != ca.Chain {
		return fmt.Errorf("%s is missing, and %s is not this machine's authority, which could make it", filepath.Join(own, identity.ChainFile), believed)
	}
	pair, err := ca.Issue(certificate.Subject{Name: "tracegate " + string(p), ID: identity.URI(p, name)}, now, certificate.LeafLife)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	return errors.Join(
		replaceFile(believed, []byte(ca.Chain)),
		replaceFile(filepath.Join(own, identity.KeyFile), []byte(pair.Key)),
		replaceFile(filepath.Join(own, identity.ChainFile), []byte(pair.Chain)),
	)
}

func identityCommand(opts *options) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "identity EDGE", Short: "make what an edge on another machine proves who it is with", Args: cobra.ExactArgs(1),
		Long: "Writes ca.crt, edge/tls.crt and edge/tls.key into a folder, signed by the authority of this data folder. Copy it to the\n" +
			"machine of the edge, whose configuration names it: identity: FOLDER, edge: {id: EDGE}, and the addresses of\n" +
			"controlplane.xds and observe.otlp. The key is made here; an authority of your own can sign certificates with the same URI.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := opts.load()
			if err != nil {
				return err
			}
			if !edgeID.MatchString(args[0]) {
				return fmt.Errorf("%q is not 1 to 64 letters, digits, dots and hyphens", args[0])
			}
			if err := cfg.issue(dir, identity.Edge, args[0], time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", dir, identity.URI(identity.Edge, args[0]))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "out", "identity", "folder to write into")
	return cmd
}
