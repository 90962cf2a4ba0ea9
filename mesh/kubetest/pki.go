package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
)

// issue makes a certificate for a user in groups that may also serve under names.
func issue(by certificate.Authority, user string, groups []string, names ...string) (certificate.Pair, error) {
	if groups == nil {
		groups = []string{} // none, not the usual one
	}
	p, err := by.Issue(certificate.Subject{Name: user, Hosts: names, Organizations: groups}, time.Now(), 24*time.Hour)
	if err != nil {
		return p, fmt.Errorf("certificate of %s: %w", user, err)
	}
	return p, nil
}

// accountKey is what service accounts' tokens are signed with, PEM.
func accountKey() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make key of service accounts: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode key of service accounts: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), nil
}

// writePKI makes what the API server and the controllers need in dir.
func (c *Cluster) writePKI() error {
	dir := filepath.Join(c.dir, "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if c.ca, err = certificate.NewAuthority("kubernetes", time.Now()); err != nil {
		return err
	}
	front, err := certificate.NewAuthority("front-proxy", time.Now())
	if err != nil {
		return err
	}
	server, err := issue(c.ca, "kube-apiserver", nil, "127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc")
	if err != nil {
		return err
	}
	proxy, err := issue(front, "front-proxy-client", nil)
	if err != nil {
		return err
	}
	accounts, err := accountKey()
	if err != nil {
		return err
	}
	for name, data := range map[string]string{
		"ca.crt": c.ca.Chain, "ca.key": string(c.ca.Key), "front.crt": front.Chain, "server.crt": server.Chain, "server.key": string(server.Key),
		"proxy.crt": proxy.Chain, "proxy.key": string(proxy.Key), "accounts.key": accounts,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			return err
		}
	}
	return nil
}
