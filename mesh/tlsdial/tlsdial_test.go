package tlsdial_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/tlsdial"
	"github.com/tracegate/tracegate/mesh/tlsdial/tlsdialtest"
)

// serve greets whoever has come by TLS, by the version that was spoken.
func serve(t *testing.T, c *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if own := conn.(*tls.Conn); own.Handshake() == nil {
					_, _ = own.Write([]byte(tls.VersionName(own.ConnectionState().Version)))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// greeted is what a server said, or why it did not: one that refuses a client's
// certificate says so with the first bytes.
func greeted(t *testing.T, d *tlsdial.Dialer, addr string) (string, error) {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	return string(said), err
}

func dialer(t *testing.T, c tlsdial.Config) *tlsdial.Dialer {
	t.Helper()
	d, err := tlsdial.New(c, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWhoIsConnectedTo(t *testing.T) {
	t.Parallel()
	files, others := tlsdialtest.New(t), tlsdialtest.New(t)
	named := tlsdialtest.New(t)
	named.Renew(t, "kafka.example")
	old := files.Server(t)
	old.MaxVersion = tls.VersionTLS12
	older := files.Server(t)
	older.MinVersion, older.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for name, tc := range map[string]struct {
		server *tls.Config
		client tlsdial.Config
		said   string // by the server; empty: they do not come together
		failed string // what the error has then
	}{
		"both have proven who they are": {server: files.Server(t), client: files.Client(), said: "TLS 1.3"},
		"an old server":                 {server: old, client: files.Client(), said: "TLS 1.2"},
		"a server that is too old":      {server: older, client: files.Client(), failed: "by tls: remote error: tls: protocol version not supported"},
		"another authority":             {server: others.Server(t), client: files.Client(), failed: "by tls: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"the system's authorities":      {server: files.Server(t), client: tlsdial.Config{Enabled: true}, failed: "failed to verify certificate"},
		"a client without a certificate": {
			server: files.Server(t), client: tlsdial.Config{Enabled: true, CAFile: files.CA}, // the server's word may be lost with the connection
		},
		"a certificate of another host": {server: named.Server(t), client: named.Client(), failed: "doesn't contain any IP SANs"},
		"the name it must have": {
			server: named.Server(t), said: "TLS 1.3",
			client: tlsdial.Config{Enabled: true, CAFile: named.CA, CertFile: named.ClientCert, KeyFile: named.ClientKey, ServerName: "kafka.example"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, err := greeted(t, dialer(t, tc.client), serve(t, tc.server))
			if said != tc.said || (err == nil) != (tc.said != "") || err != nil && !strings.Contains(err.Error(), tc.failed) {
				t.Errorf("said %q, %v; want %q, %q", said, err, tc.said, tc.failed)
			}
		})
	}
}

// TestRenewed: the next connection goes by the files as they are then, and spoiled ones
// leave the last good ones in place.
func TestRenewed(t *testing.T) {
	t.Parallel()
	files := tlsdialtest.New(t)
	d := dialer(t, files.Client())
	before := serve(t, files.Server(t))
	if _, err := greeted(t, d, before); err != nil {
		t.Fatal(err)
	}
	files.Renew(t, "127.0.0.1")
	after := serve(t, files.Server(t))
	if _, err := greeted(t, d, after); err != nil {
		t.Errorf("renewed: %v", err)
	}
	if _, err := greeted(t, d, before); err == nil {
		t.Error("the authority that is gone is believed")
	}
	for _, file := range []string{files.CA, files.ClientKey} {
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := greeted(t, d, after); err != nil {
			t.Errorf("spoiled %s: %v", file, err)
		}
	}
}

func TestNewNamesTheKeyOfTheFile(t *testing.T) {
	t.Parallel()
	spoiled := tlsdialtest.New(t)
	for _, file := range []string{spoiled.CA, spoiled.ClientKey} {
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, c := range map[string]tlsdial.Config{
		"read tls.ca_file: open nowhere":            {Enabled: true, CAFile: "nowhere"},
		"read tls.ca_file: no certificate in ":      {Enabled: true, CAFile: spoiled.CA},
		"read tls.cert_file and tls.key_file: ":     {Enabled: true, CertFile: "nowhere", KeyFile: "nowhere"},
		"read tls.cert_file and tls.key_file: tls:": {Enabled: true, CertFile: spoiled.ClientCert, KeyFile: spoiled.ClientKey},
	} {
		if _, err := tlsdial.New(c, time.Minute); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]tlsdial.Config{
		"enabled: ":   {CAFile: "ca.crt"},
		"key_file: ":  {Enabled: true, CertFile: "tls.crt"},
		"cert_file: ": {Enabled: true, KeyFile: "tls.key"},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for _, c := range []tlsdial.Config{{}, {Enabled: true}, {Enabled: true, CAFile: "ca.crt", CertFile: "tls.crt", KeyFile: "tls.key", ServerName: "kafka.example"}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestTimeout: a server that takes a connection and says nothing.
func TestTimeout(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := tlsdial.New(tlsdial.Config{Enabled: true}, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.DialContext(t.Context(), "tcp", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "by tls: ") {
		t.Errorf("got %v", err)
	}
}
