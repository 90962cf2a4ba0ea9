package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/source"
)

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func issued(t *testing.T, host string) certificate.Pair {
	t.Helper()
	ca, err := certificate.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p, err := ca.Issue(certificate.Subject{Name: host, Hosts: []string{host}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCertificatesFolder goes through what happens to a certificate: written in two
// steps, renewed, spoiled, repaired, reached by a link that is swapped, taken away.
func TestCertificatesFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, seen := source.Certificates{Dir: dir}, new(source.CertificatesSeen)
	read := func(what, want string, wantErr string) {
		t.Helper()
		got := c.Read(seen)
		if want == "" && wantErr == "" {
			if len(got) != 0 {
				t.Fatalf("%s: %+v", what, got)
			}
			return
		}
		if len(got) != 1 || got[0].Name != "chat" {
			t.Fatalf("%s: %d updates: %+v", what, len(got), got)
		}
		switch err := got[0].Err; {
		case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
			t.Errorf("%s: error %v, want %q", what, err, wantErr)
		case wantErr == "" && (err != nil || got[0].Pair.Chain != want):
			t.Errorf("%s: error %v, or another chain", what, err)
		}
	}
	a, b := issued(t, "a.test"), issued(t, "b.test")
	read("nothing there", "", "")
	put(t, filepath.Join(dir, "chat"), map[string]string{"tls.crt": a.Chain})
	read("half written", "", "tls.crt without tls.key")
	read("still half written", "", "")
	put(t, filepath.Join(dir, "chat"), map[string]string{"tls.key": string(a.Key)})
	read("whole", a.Chain, "")
	read("unchanged", "", "")
	put(t, filepath.Join(dir, "chat"), map[string]string{"tls.key": string(b.Key)})
	read("another's key", "", "is not the key of the certificate")
	put(t, filepath.Join(dir, "chat"), map[string]string{"tls.crt": b.Chain})
	read("renewed", b.Chain, "")

	put(t, filepath.Join(dir, ".v2"), map[string]string{"tls.crt": a.Chain, "tls.key": string(a.Key)})
	if err := os.RemoveAll(filepath.Join(dir, "chat")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".v2", filepath.Join(dir, "chat")); err != nil {
		t.Fatal(err)
	}
	read("swapped", a.Chain, "")
	if err := os.Remove(filepath.Join(dir, "chat")); err != nil {
		t.Fatal(err)
	}
	if got := c.Read(seen); len(got) != 1 || got[0].Err != nil || got[0].Pair.HasKey() {
		t.Errorf("taken away: %+v", got)
	}
}
