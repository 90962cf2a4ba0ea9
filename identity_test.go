package main

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/mesh/identity"
)

// TestIdentities: every part of this machine gets one, once; an edge elsewhere gets one
// that the same authority has signed; what another authority made is left alone.
func TestIdentities(t *testing.T) {
	dir := t.TempDir()
	cfg := defaultConfig()
	cfg.Data, cfg.Identity = filepath.Join(dir, "data"), filepath.Join(dir, "identity")
	now := time.Now()
	if err := makeIdentities(cfg, now); err != nil {
		t.Fatal(err)
	}
	shown := func(dir string, p identity.Part) *x509.Certificate {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, string(p), identity.ChainFile))
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := certificate.Leaf(raw)
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	first := map[identity.Part]string{}
	for _, p := range identity.Parts() {
		if _, err := identity.Load(cfg.Identity, p); err != nil {
			t.Error(err)
		}
		first[p] = shown(cfg.Identity, p).SerialNumber.String()
	}
	if got := shown(cfg.Identity, identity.Edge).URIs[0].String(); got != "spiffe://tracegate/edge/edge-1" {
		t.Errorf("the edge is %s", got)
	}
	if err := makeIdentities(cfg, now); err != nil {
		t.Fatal(err)
	}
	for p, serial := range first {
		if shown(cfg.Identity, p).SerialNumber.String() != serial {
			t.Errorf("%s got another one at the second start", p)
		}
	}

	elsewhere := filepath.Join(dir, "edge-7")
	var out, errOut bytes.Buffer
	cmd := newCommand(&out, &errOut)
	cmd.SetArgs([]string{"identity", "edge-7", "--data", cfg.Data, "--out", elsewhere})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	roots, err := identity.Roots(cfg.Identity)
	if err != nil {
		t.Fatal(err)
	}
	leaf := shown(elsewhere, identity.Edge)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || leaf.URIs[0].String() != "spiffe://tracegate/edge/edge-7" {
		t.Errorf("%v: %v", leaf.URIs, err)
	}
	if !strings.Contains(out.String(), "spiffe://tracegate/edge/edge-7") {
		t.Errorf("printed %q", out.String())
	}

	foreign := cfg
	foreign.Data = filepath.Join(dir, "other")
	if err := os.RemoveAll(filepath.Join(cfg.Identity, "core")); err != nil {
		t.Fatal(err)
	}
	if err := makeIdentities(foreign, now); err == nil || !strings.Contains(err.Error(), "identity of core") || !strings.Contains(err.Error(), "is not this machine's authority") {
		t.Errorf("signed beside another authority: %v", err)
	}
}
