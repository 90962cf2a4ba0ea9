package certificate_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func authority(t *testing.T) certificate.Authority {
	t.Helper()
	a, err := certificate.NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a certificate.Authority, s certificate.Subject) certificate.Pair {
	t.Helper()
	p, err := a.Issue(s, now, certificate.LeafLife)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIssuedCertificateIsTrusted(t *testing.T) {
	t.Parallel()
	a := authority(t)
	again, err := certificate.ParseAuthority([]byte(a.Chain), []byte(a.Key))
	if err != nil {
		t.Fatal(err)
	}
	p := issue(t, again, certificate.Subject{Name: "chat", Hosts: []string{"chat.test", "*.chat.test", "127.0.0.1"}, ID: "spiffe://tracegate/edge/edge-1"})
	pair, err := tls.X509KeyPair([]byte(p.Chain), []byte(p.Key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(p.CA)) {
		t.Fatal("no authority in the pair")
	}
	for _, host := range []string{"chat.test", "eu.chat.test", "127.0.0.1"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{
			DNSName: host, Roots: roots, CurrentTime: now.Add(24 * time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if len(pair.Leaf.URIs) != 1 || pair.Leaf.URIs[0].String() != "spiffe://tracegate/edge/edge-1" {
		t.Errorf("ids %v", pair.Leaf.URIs)
	}
	if !p.Expires.Equal(now.Add(certificate.LeafLife)) {
		t.Errorf("expires %v", p.Expires)
	}
	if other := authority(t); other.Chain == a.Chain || other.Key == a.Key {
		t.Error("two authorities are the same")
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	a := authority(t)
	p, other := issue(t, a, certificate.Subject{Name: "a"}), issue(t, a, certificate.Subject{Name: "b"})
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rare, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edChain, edKey := selfSigned(t, ed.Public(), ed)
	weakChain, weakKey := selfSigned(t, weak.Public(), weak)
	rareChain, rareKey := selfSigned(t, rare.Public(), rare)
	for name, tt := range map[string]struct{ chain, key, ca, want string }{
		"nothing":                {"", "", "", "neither tls.crt and tls.key nor ca.crt"},
		"no key":                 {p.Chain, "", "", "tls.crt without tls.key"},
		"no chain":               {"", string(p.Key), "", "tls.key without tls.crt"},
		"another key":            {p.Chain, string(other.Key), "", "tls.key: is not the key of the certificate in tls.crt"},
		"no PEM":                 {"x", string(p.Key), "", "tls.crt: does not begin with a PEM certificate"},
		"key in the wrong place": {string(p.Key), p.Chain, "", "tls.crt: does not begin with a PEM certificate"},
		"no certificate":         {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", string(p.Key), "", "tls.crt: first certificate"},
		"key that is none":       {p.Chain, "secret words", "", "tls.key: is no private key"},
		"authority that is none": {p.Chain, string(p.Key), "x", "ca.crt: no certificate in it"},
		"Ed25519":                {edChain, edKey, "", "neither RSA nor ECDSA"},
		"short RSA":              {weakChain, weakKey, "", "RSA key of 1024 bits"},
		"rare curve":             {rareChain, rareKey, "", "P-224"},
	} {
		_, err := certificate.Parse([]byte(tt.chain), []byte(tt.key), []byte(tt.ca))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret words") {
			t.Errorf("%s: the error has the key: %v", name, err)
		}
	}
}

func selfSigned(t *testing.T, public, private any) (chain, key string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func TestCovers(t *testing.T) {
	t.Parallel()
	p := issue(t, authority(t), certificate.Subject{Name: "x", Hosts: []string{"chat.test", "*.eu.test", "10.0.0.1"}})
	for host, ok := range map[string]bool{"chat.test": true, "*.eu.test": true, "a.eu.test": true, "*.test": false, "a.b.eu.test": false, "other.test": false} {
		if err := p.Covers(host); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := p.Covers("other.test"); err == nil || !strings.Contains(err.Error(), "only for chat.test, *.eu.test, 10.0.0.1") {
		t.Errorf("reason %v", err)
	}
}

// TestKeyDoesNotPrint: a pair may end in a log by accident; its key must not.
func TestKeyDoesNotPrint(t *testing.T) {
	t.Parallel()
	p := issue(t, authority(t), certificate.Subject{Name: "x"})
	for _, s := range []string{fmt.Sprint(p), fmt.Sprintf("%+v", p), fmt.Sprintf("%#v", p)} {
		if strings.Contains(s, "PRIVATE KEY") {
			t.Errorf("printed: %s", s)
		}
	}
}
