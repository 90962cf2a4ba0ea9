// Package tlsdialtest makes what the servers and clients of a test show each other.
package tlsdialtest

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// Files are names of PEM files: an authority, and what it has signed.
type Files struct {
	CA                    string
	ServerCert, ServerKey string
	ClientCert, ClientKey string
}

// New makes files of a new authority in a folder of the test; the server is on loopback.
func New(tb testing.TB) Files {
	tb.Helper()
	f, err := In(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// In is New in a folder that may outlive a test.
func In(dir string) (Files, error) {
	f := Files{
		CA:         filepath.Join(dir, "ca.crt"),
		ServerCert: filepath.Join(dir, "server.crt"), ServerKey: filepath.Join(dir, "server.key"),
		ClientCert: filepath.Join(dir, "client.crt"), ClientKey: filepath.Join(dir, "client.key"),
	}
	return f, f.write("127.0.0.1", "localhost")
}

// Renew replaces all of them, by those of another authority.
func (f Files) Renew(tb testing.TB, hosts ...string) {
	tb.Helper()
	if err := f.write(hosts...); err != nil {
		tb.Fatal(err)
	}
}

func (f Files) write(hosts ...string) error {
	ca, err := certificate.NewAuthority("test", time.Now())
	if err != nil {
		return err
	}
	content := map[string]string{f.CA: ca.Chain}
	for name, s := range map[[2]string]certificate.Subject{
		{f.ServerCert, f.ServerKey}: {Name: "server", Hosts: hosts},
		{f.ClientCert, f.ClientKey}: {Name: "client"},
	} {
		pair, err := ca.Issue(s, time.Now(), time.Hour)
		if err != nil {
			return err
		}
		content[name[0]], content[name[1]] = pair.Chain, string(pair.Key)
	}
	for name, text := range content {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Client is the configuration of a client that has a certificate.
func (f Files) Client() tlsdial.Config {
	return tlsdial.Config{Enabled: true, CAFile: f.CA, CertFile: f.ClientCert, KeyFile: f.ClientKey}
}

// Server is a listener's that lets in whom the authority has signed, as the files are now.
func (f Files) Server(tb testing.TB) *tls.Config {
	tb.Helper()
	cert, err := tls.LoadX509KeyPair(f.ServerCert, f.ServerKey)
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := os.ReadFile(f.CA)
	if err != nil {
		tb.Fatal(err)
	}
	believed := x509.NewCertPool()
	believed.AppendCertsFromPEM(raw)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: believed}
}
