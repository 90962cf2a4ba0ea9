package identity_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/identity/identitytest"
)

// shake connects both and returns what each thinks of the other.
func shake(t *testing.T, server, client *tls.Config) (atServer tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	type result struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan result, 1)
	go func() {
		conn := tls.Server(a, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		done <- result{conn.ConnectionState(), err}
		a.Close()
	}()
	conn := tls.Client(b, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1)) // TLS 1.3: a refusal comes with the first read
	}
	b.Close()
	r := <-done
	return r.state, r.err, clientErr
}

func TestBothProveThemselves(t *testing.T) {
	t.Parallel()
	a, dir := identitytest.NewAuthority(t), t.TempDir()
	identitytest.Put(t, dir, a, identity.ControlPlane, "")
	identitytest.Put(t, dir, a, identity.Edge, "edge-7")
	identitytest.Put(t, dir, a, identity.Observe, "")
	server := identitytest.Load(t, dir, identity.ControlPlane).Server(true)
	state, serverErr, clientErr := shake(t, server, identitytest.Load(t, dir, identity.Edge).Client(identity.ControlPlane))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if p, name, err := identity.Of(state); p != identity.Edge || name != "edge-7" || err != nil {
		t.Errorf("the edge is %s %q, %v", p, name, err)
	}

	other := t.TempDir()
	identitytest.Put(t, other, identitytest.NewAuthority(t), identity.Edge, "edge-7")
	if _, err, _ := shake(t, server, identitytest.Load(t, other, identity.Edge).Client(identity.ControlPlane)); err == nil {
		t.Error("an edge of another authority was let in")
	}
	if _, err, _ := shake(t, server, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}); err == nil {
		t.Error("somebody without a certificate was let in")
	}
	if _, _, err := shake(t, identitytest.Load(t, dir, identity.Observe).Server(true), identitytest.Load(t, dir, identity.Edge).Client(identity.ControlPlane)); !errors.Is(err, identity.ErrOtherPart) {
		t.Errorf("another part in the control plane's place: %v", err)
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	if _, err, _ := shake(t, server, old); err == nil {
		t.Error("TLS 1.2 between parts")
	}
}

// TestRenewed: files are read again, and a spoiled one leaves the last good one in place.
func TestRenewed(t *testing.T) {
	t.Parallel()
	a, dir := identitytest.NewAuthority(t), t.TempDir()
	identitytest.Put(t, dir, a, identity.ControlPlane, "")
	identitytest.Put(t, dir, a, identity.Edge, "edge-1")
	server, edge := identitytest.Load(t, dir, identity.ControlPlane).Server(true), identitytest.Load(t, dir, identity.Edge)
	name := func() string {
		t.Helper()
		state, serverErr, clientErr := shake(t, server, edge.Client(identity.ControlPlane))
		if serverErr != nil || clientErr != nil {
			t.Fatal(serverErr, clientErr)
		}
		_, name, _ := identity.Of(state)
		return name
	}
	if got := name(); got != "edge-1" {
		t.Errorf("name %q", got)
	}
	identitytest.Put(t, dir, a, identity.Edge, "edge-2")
	if got := name(); got != "edge-2" {
		t.Errorf("renewed: name %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "edge", identity.KeyFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "edge-2" {
		t.Errorf("spoiled: name %q", got)
	}
	if _, err := identity.Load(dir, identity.Edge); err == nil || !strings.Contains(err.Error(), "identity of edge: read tls.crt and tls.key") {
		t.Errorf("load: %v", err)
	}
}
