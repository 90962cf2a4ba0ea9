package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/store"
)

// planEdge is what the configuration says of every edge.
func (c Config) planEdge() plan.Edge {
	return plan.Edge{
		Listen: c.Edge.Listen, Observe: c.Observe.OTLP, Identity: c.Identity, RateLimit: c.RateLimit.Listen, TrustedHops: uint32(c.Edge.TrustedHops), //nolint:gosec // checked
		TLS: plan.EdgeTLS{Listen: c.Edge.TLS.Listen, Redirect: c.Edge.TLS.Redirect, HTTP3: c.Edge.TLS.HTTP3},
	}
}

// encrypt is what --tls sets, where nothing else is set.
func (o *options) encrypt() {
	const key = "edge.tls.listen"
	if _, ok := o.set[key]; ok {
		return
	}
	if cfg, err := o.load(); err == nil && cfg.Edge.TLS.Listen != "" {
		return
	}
	if o.set == nil {
		o.set = map[string]string{}
	}
	o.set[key] = "127.0.0.1:8443"
}

// The authority of this machine, for development: whoever trusts caFile trusts what
// `up` made, and nothing else was signed by it.
func (c Config) caFile() string { return filepath.Join(c.Data, "ca", "ca.crt") }
func (c Config) caKey() string  { return filepath.Join(c.Data, "ca", "ca.key") }

// makeFirstCertificate gives the edge a certificate to begin with, for this machine's
// names, signed by an authority of its own. One that is there is left alone until it has
// less than a month left, and one that somebody else has signed for ever.
func makeFirstCertificate(c Config, now time.Time) error {
	if c.Edge.TLS.Listen == "" {
		return nil
	}
	chain, err := os.ReadFile(filepath.Join(c.certificates(), policy.DefaultCertificate, certificate.ChainFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read first certificate: %w", err)
	}
	if err == nil && !c.expiring(chain, now) {
		return nil
	}
	return renewFirstCertificate(c, now)
}

// renewFirstCertificate puts a new one in the place of the one of this machine.
func renewFirstCertificate(c Config, now time.Time) error {
	dir := filepath.Join(c.certificates(), policy.DefaultCertificate)
	chainFile, keyFile := filepath.Join(dir, certificate.ChainFile), filepath.Join(dir, certificate.KeyFile)
	ca, err := c.authority(now)
	if err != nil {
		return err
	}
	pair, err := ca.Issue(certificate.Subject{Name: "tracegate on this machine", Hosts: localNames(c.Edge.TLS.Listen)}, now, certificate.LeafLife)
	if err != nil {
		return fmt.Errorf("make first certificate: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder of first certificate: %w", err)
	}
	return errors.Join(replaceFile(keyFile, []byte(pair.Key)), replaceFile(chainFile, []byte(pair.Chain)))
}

// expiring says whether a certificate is of this machine's authority and soon over.
func (c Config) expiring(chain []byte, now time.Time) bool {
	leaf, err := certificate.Leaf(chain)
	if err != nil || now.Add(30*24*time.Hour).Before(leaf.NotAfter) {
		return false
	}
	raw, err := os.ReadFile(c.caFile())
	if err != nil {
		return false
	}
	ca, err := certificate.Leaf(raw)
	return err == nil && leaf.CheckSignatureFrom(ca) == nil
}

// authority reads the one of this machine, or makes it.
func (c Config) authority(now time.Time) (certificate.Authority, error) {
	chain, err := os.ReadFile(c.caFile())
	if err == nil {
		key, err := os.ReadFile(c.caKey())
		if err != nil {
			return certificate.Authority{}, fmt.Errorf("read authority: %w", err)
		}
		return certificate.ParseAuthority(chain, key)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return certificate.Authority{}, fmt.Errorf("read authority: %w", err)
	}
	ca, err := certificate.NewAuthority("tracegate, made for "+hostname(), now)
	if err != nil {
		return certificate.Authority{}, fmt.Errorf("make authority: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.caFile()), 0o700); err != nil {
		return certificate.Authority{}, fmt.Errorf("make authority's folder: %w", err)
	}
	return ca, errors.Join(replaceFile(c.caKey(), []byte(ca.Key)), replaceFile(c.caFile(), []byte(ca.Chain)))
}

func hostname() string {
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "this machine"
}

// localNames are those by which clients of this machine come.
func localNames(listen string) []string {
	names := []string{"localhost", "*.localhost", "127.0.0.1", "::1"}
	if name := hostname(); name != "localhost" {
		names = append(names, name)
	}
	if host, _, err := net.SplitHostPort(listen); err == nil && net.ParseIP(host) != nil && !net.ParseIP(host).IsUnspecified() && host != "127.0.0.1" && host != "::1" {
		names = append(names, host)
	}
	return names
}

// replaceFile writes a file whole or not at all, for its owner only.
func replaceFile(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	return os.Rename(file+".new", file)
}

// edgeURL is where clients of this machine reach the edge, and how.
func (c Config) edgeURL() string {
	if c.Edge.TLS.Redirect {
		return "https://" + c.Edge.TLS.Listen
	}
	return "http://" + c.Edge.Listen
}

// url is where ClickHouse answers, and how.
func (c ClickHouseConfig) url() string {
	return store.Config{Addr: c.Addr, TLS: c.TLS}.URL()
}

// edgeClient trusts what the machine trusts, and this machine's authority.
func (c Config) edgeClient(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: c.edgeTrust()}}
}

func (c Config) edgeTrust() *tls.Config {
	raw, err := os.ReadFile(c.caFile())
	if err != nil {
		return nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM(raw)
	return &tls.Config{RootCAs: roots}
}

// tlsLine tells the user where TLS is; empty where it is not.
func (c Config) tlsLine() string {
	if c.Edge.TLS.Listen == "" {
		return ""
	}
	line := "https://" + c.Edge.TLS.Listen + "/"
	if c.Edge.TLS.HTTP3 {
		line += "   (and HTTP/3)"
	}
	if _, err := os.Stat(c.caFile()); err == nil {
		line += "   trust: " + c.caFile()
	}
	return line
}
