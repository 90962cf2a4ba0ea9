package plan

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// EdgeTLS is how edges listen for encrypted connections.
type EdgeTLS struct {
	Listen string `yaml:"listen"` // IP address and port; empty: nothing is encrypted
	// Redirect answers everything that comes unencrypted with the way to the same by TLS.
	Redirect bool `yaml:"redirect,omitempty"`
	// HTTP3 listens for QUIC too, on the same port of UDP, and says so to clients.
	HTTP3 bool `yaml:"http3,omitempty"`
}

// TLS is what clients' encrypted connections get.
type TLS struct {
	Certificates []policy.Certificate `yaml:"certificates"` // of Secrets
	MinVersion   string               `yaml:"minVersion,omitempty"`
	HSTS         *policy.HSTS         `yaml:"hsts,omitempty"`
}

// Secret is what the plan uses of a certificate's folder. A name that the plan uses and
// that no secret has was never good: edges keep what they have of it.
type Secret struct {
	Name string           `yaml:"name"`
	Pair certificate.Pair `yaml:"pair"` // without what is not used
}

// encrypted is nil where the edge has no address for it.
func encrypted(t policy.TLS, edge Edge) *TLS {
	if edge.TLS.Listen == "" {
		return nil
	}
	return &TLS{Certificates: t.Shown(), MinVersion: t.MinVersion, HSTS: t.HSTS}
}

// secrets are those that the plan names, sorted by name.
func (p Plan) secrets() []Secret {
	shown, checked := map[string]bool{}, map[string]bool{}
	if p.TLS != nil {
		for _, c := range p.TLS.Certificates {
			shown[c.Name] = true
		}
	}
	for _, s := range p.Services {
		for _, pool := range s.Pools {
			if pool.TLS != nil {
				checked[pool.TLS.CA] = true
				shown[pool.TLS.Certificate] = true // empty: none is named so
			}
		}
	}
	var out []Secret
	for _, name := range slices.Sorted(maps.Keys(p.Edge.Certificates)) {
		pair, used := p.Edge.Certificates[name], certificate.Pair{}
		if shown[name] {
			used.Chain, used.Key, used.Expires = pair.Chain, pair.Key, pair.Expires
		}
		if checked[name] {
			used.CA = pair.CA
		}
		if used.HasKey() || used.CA != "" {
			out = append(out, Secret{name, used})
		}
	}
	return out
}

func (t EdgeTLS) validate(plain string) error {
	if t.Listen == "" {
		if t.Redirect || t.HTTP3 {
			return errors.New("edge tls listen: missing, and redirect and http3 need it")
		}
		return nil
	}
	if ap, err := netip.ParseAddrPort(t.Listen); err != nil || ap.Port() == 0 {
		return fmt.Errorf("edge tls listen: %q is not an IP address and port", t.Listen)
	}
	if t.Listen == plain {
		return fmt.Errorf("edge tls listen: %s is taken by what is not encrypted", t.Listen)
	}
	return nil
}
