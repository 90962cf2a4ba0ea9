// Package certificate holds what an edge shows to clients and to upstreams, checked: a
// certificate chain with its private key, and the authorities that a peer is checked
// against. It also makes the certificates of an authority for development.
//
// It reads no file and no clock; keys come from crypto/rand.
// controlplane/source reads the folder, controlplane/xds hands them to edges.
package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

// Files of one certificate's folder, as Kubernetes and cert-manager name them.
const (
	ChainFile = "tls.crt" // PEM, the leaf first
	KeyFile   = "tls.key" // PEM
	CAFile    = "ca.crt"  // PEM, optional
)

// MaxSize bounds each of these files, in bytes.
const MaxSize = 256 << 10

// Pair is a certificate that an edge can use. Either Chain and Key are both there or CA
// alone is.
type Pair struct {
	Chain string      `yaml:"chain,omitempty"`
	Key   secret.Text `yaml:"key,omitempty"`
	CA    string      `yaml:"ca,omitempty"`

	// Expires is when the first certificate of the chain does; zero without one.
	Expires time.Time `yaml:"-"`
	leaf    *x509.Certificate
}

// Parse checks the content of a certificate's files; nil is a file that is not there.
// It does not look at the time: an expired certificate is used, and shown. No error
// has a part of the key.
func Parse(chain, key, ca []byte) (Pair, error) {
	p := Pair{Chain: string(chain), Key: secret.Text(key), CA: string(ca)}
	switch {
	case len(chain) == 0 && len(key) == 0 && len(ca) == 0:
		return Pair{}, fmt.Errorf("neither %s and %s nor %s", ChainFile, KeyFile, CAFile)
	case len(chain) == 0 && len(key) > 0:
		return Pair{}, fmt.Errorf("%s without %s", KeyFile, ChainFile)
	case len(key) == 0 && len(chain) > 0:
		return Pair{}, fmt.Errorf("%s without %s", ChainFile, KeyFile)
	}
	if len(ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return Pair{}, fmt.Errorf("%s: no certificate in it", CAFile)
	}
	if len(chain) == 0 {
		return p, nil
	}
	leaf, err := Leaf(chain)
	if err != nil {
		return Pair{}, fmt.Errorf("%s: %w", ChainFile, err)
	}
	if err := usable(leaf.PublicKey); err != nil {
		return Pair{}, fmt.Errorf("%s: %w", ChainFile, err)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return Pair{}, fmt.Errorf("%s: %w", KeyFile, keyError(err))
	}
	p.leaf, p.Expires = leaf, leaf.NotAfter
	return p, nil
}

// Leaf is the first certificate of a chain in PEM.
func Leaf(chain []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("does not begin with a PEM certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("first certificate: %w", err)
	}
	return leaf, nil
}

// usable holds what Envoy's BoringSSL takes, so that no edge has to refuse it.
func usable(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("RSA key of %d bits, less than 2048", k.N.BitLen())
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
		return fmt.Errorf("curve %s is none of P-256, P-384 and P-521", k.Curve.Params().Name)
	default:
		return errors.New("key is neither RSA nor ECDSA, which is what edges take")
	}
}

// keyError is what is wrong with a key, in words that cannot hold a part of it.
func keyError(err error) error {
	if strings.Contains(err.Error(), "does not match") {
		return fmt.Errorf("is not the key of the certificate in %s", ChainFile)
	}
	return errors.New("is no private key in PEM that can be read")
}

// HasKey says whether p can be shown to a peer.
func (p Pair) HasKey() bool { return p.Chain != "" }

// Equal compares what edges are given.
func (p Pair) Equal(o Pair) bool { return p.Chain == o.Chain && p.Key == o.Key && p.CA == o.CA }

// Covers says why a client that asks for host, which may be *.suffix, would refuse p.
func (p Pair) Covers(host string) error {
	if p.leaf == nil {
		return nil
	}
	name := host
	if rest, wild := strings.CutPrefix(host, "*."); wild {
		name = "any." + rest
	}
	if p.leaf.VerifyHostname(name) != nil {
		return fmt.Errorf("is not for %s, only for %s", host, strings.Join(p.names(), ", "))
	}
	return nil
}

func (p Pair) names() []string {
	out := p.leaf.DNSNames
	for _, ip := range p.leaf.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		return []string{"nothing"}
	}
	return out
}
