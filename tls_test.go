package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
)

// TestFirstCertificate is made once, renewed when it is nearly over, and never over one
// that somebody else has signed.
func TestFirstCertificate(t *testing.T) {
	cfg := defaultConfig()
	cfg.Data = t.TempDir()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	file := filepath.Join(cfg.certificates(), "default", certificate.ChainFile)
	made := func(at time.Time) string {
		t.Helper()
		if err := makeFirstCertificate(cfg, at); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(file)
		if err != nil && cfg.Edge.TLS.Listen != "" {
			t.Fatal(err)
		}
		return string(raw)
	}
	if got := made(now); got != "" {
		t.Error("made although nothing is encrypted")
	}
	cfg.Edge.TLS.Listen = "127.0.0.1:8443"
	first := made(now)
	leaf, err := certificate.Leaf([]byte(first))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(cfg.caFile())
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "search.localhost", "127.0.0.1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, private := range []string{cfg.caKey(), filepath.Join(filepath.Dir(file), certificate.KeyFile)} {
		if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", private, info, err)
		}
	}
	if made(now.Add(300*24*time.Hour)) != first {
		t.Error("made anew while it is good")
	}
	if made(now.Add(380*24*time.Hour)) == first {
		t.Error("not renewed although it is nearly over")
	}
	other := cfg
	other.Data = t.TempDir()
	if err := makeFirstCertificate(other, now); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other.certificates(), "default", certificate.ChainFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	if made(now.Add(390*24*time.Hour)) != string(foreign) {
		t.Error("a certificate of another authority was replaced")
	}
}
