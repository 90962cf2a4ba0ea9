package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

// Authority signs certificates for one machine or one installation: those of clients'
// connections in development, and the identities of parts. An installation that has an
// authority of its own (cert-manager, Vault, step-ca) needs none of this.
type Authority struct {
	Chain string      // PEM, what peers check against
	Key   secret.Text // PEM, PKCS #8
	cert  *x509.Certificate
	key   crypto.Signer
}

// Lifetimes of what an [Authority] makes. Clients of Apple's systems refuse server
// certificates of more than 398 days.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	LeafLife      = 397 * 24 * time.Hour
)

// NewAuthority makes a key and a certificate for it.
func NewAuthority(name string, now time.Time) (Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Authority{}, fmt.Errorf("make key: %w", err)
	}
	t, err := template(name, now, AuthorityLife)
	if err != nil {
		return Authority{}, err
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	chain, pemKey, err := sign(t, t, key, key)
	if err != nil {
		return Authority{}, err
	}
	return ParseAuthority(chain, pemKey)
}

// ParseAuthority is the inverse of the fields Chain and Key.
func ParseAuthority(chain, key []byte) (Authority, error) {
	cert, err := Leaf(chain)
	if err != nil {
		return Authority{}, fmt.Errorf("authority: %w", err)
	}
	block, _ := pem.Decode(key)
	if block == nil {
		return Authority{}, errors.New("authority: key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Authority{}, errors.New("authority: key is not PKCS #8")
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok || !cert.IsCA {
		return Authority{}, errors.New("authority: cannot sign certificates")
	}
	return Authority{Chain: string(chain), Key: secret.Text(key), cert: cert, key: signer}, nil
}

// Subject is what a certificate is for.
type Subject struct {
	Name  string   // common name
	Hosts []string // DNS names, *.suffix among them, and IP addresses
	ID    string   // URI such as spiffe://tracegate/edge/edge-1; empty: none
	// Organizations, which are the groups of a user of Kubernetes; nil: tracegate.
	Organizations []string
}

// Issue makes a certificate with a key of its own, for servers and clients. The pair
// has the authority as its CA.
func (a Authority) Issue(s Subject, now time.Time, life time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	t, err := template(s.Name, now, life)
	if err != nil {
		return Pair{}, err
	}
	if s.Organizations != nil {
		t.Subject.Organization = s.Organizations
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range s.Hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if s.ID != "" {
		id, err := url.Parse(s.ID)
		if err != nil {
			return Pair{}, fmt.Errorf("id: %w", err)
		}
		t.URIs = []*url.URL{id}
	}
	chain, pemKey, err := sign(t, a.cert, key, a.key)
	if err != nil {
		return Pair{}, err
	}
	return Parse(chain, pemKey, []byte(a.Chain))
}

func template(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"tracegate"}},
		NotBefore:    now.Add(-5 * time.Minute), // clocks differ
		NotAfter:     now.Add(life),
	}, nil
}

func sign(t, parent *x509.Certificate, key, by crypto.Signer) (chain, pemKey []byte, err error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	var c, k bytes.Buffer
	if err := errors.Join(pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&k, &pem.Block{Type: "PRIVATE KEY", Bytes: raw})); err != nil {
		return nil, nil, fmt.Errorf("encode certificate: %w", err)
	}
	return c.Bytes(), k.Bytes(), nil
}
