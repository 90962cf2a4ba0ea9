package controlplane

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
)

func putCertificate(t *testing.T, cfg Config, name string, p certificate.Pair) {
	t.Helper()
	dir := filepath.Join(cfg.Certificates, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, certificate.KeyFile), string(p.Key))
	write(t, filepath.Join(dir, certificate.ChainFile), p.Chain)
}

// TestCertificates: what lies in the folder reaches an edge, its change does, what
// cannot be used changes nothing and is shown; a restart goes on without having kept
// a key anywhere.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, err := certificate.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(host string) certificate.Pair {
		p, err := ca.Issue(certificate.Subject{Name: host, Hosts: []string{host}}, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	cfg := testConfig(t)
	cfg.Certificates = filepath.Join(filepath.Dir(cfg.Policy), "certificates")
	cfg.Edge.TLS = plan.EdgeTLS{Listen: "127.0.0.1:8443"}
	first := issue("a.test")
	putCertificate(t, cfg, "default", first)
	p := run(t, cfg, newWorld())
	edge := servertest.Connect(t, p.xds, servertest.Options{})
	source := func(s ctlapi.Status) ctlapi.Source { return s.Sources["certificate default"] }
	st := p.status("programmed", acked)
	if s := source(st); s.Error != "" || !s.Expires.Equal(first.Expires) {
		t.Errorf("source: %+v", s)
	}
	old := edge.Has()[xds.Secrets]["default"]
	if old == "" {
		t.Fatalf("the edge has no certificate: %v", edge.Has())
	}
	second := issue("b.test")
	putCertificate(t, cfg, "default", second)
	eventually(t, "the renewed certificate", func() bool { v := edge.Has()[xds.Secrets]["default"]; return v != old && v != "" }, func() any { return edge.Has() })
	renewed := edge.Has()[xds.Secrets]["default"]
	write(t, filepath.Join(cfg.Certificates, "default", certificate.KeyFile), string(first.Key))
	st = p.status("the other's key is shown", func(s ctlapi.Status) bool {
		return strings.Contains(source(s).Error, "is not the key of the certificate")
	})
	if v := edge.Has()[xds.Secrets]["default"]; v != renewed || !source(st).Expires.Equal(second.Expires) {
		t.Errorf("a key that does not fit changed the edge to %s, source %+v", v, source(st))
	}
	has := edge.Has()
	edge.Close()
	p.stop()
	noKey(t, filepath.Dir(cfg.Policy), cfg.Certificates)

	again := run(t, cfg, newWorld()) // the folder is still spoiled
	edge = servertest.Connect(t, again.xds, servertest.Options{Has: has})
	again.status("programmed again", func(s ctlapi.Status) bool { return len(s.Edges) > 0 && s.Edges[0].Connected && source(s).Error != "" })
	if v := edge.Has()[xds.Secrets]["default"]; v != renewed {
		t.Errorf("the restart took the edge's certificate away: %q", v)
	}
}

// noKey looks for private keys in everything but the folder they belong in.
func noKey(t *testing.T, dir, but string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if path == but {
				return filepath.SkipDir
			}
			return err
		}
		files++
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte("PRIVATE KEY")) || bytes.Contains(raw, []byte("UFJJVkFURSBLRV")) {
			t.Errorf("%s has a private key", path)
		}
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("%d files looked at: %v", files, err)
	}
}
