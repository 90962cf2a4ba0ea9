package e2e

import (
	"crypto/tls"
	"sync"
	"testing"

	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/identity/identitytest"
)

// TestIdentity programs an Envoy by mutual TLS, and renews its certificate: the next
// connection shows the new one, without a restart of Envoy.
func TestIdentity(t *testing.T) {
	s := prepare(t)
	ca, dir := identitytest.NewAuthority(t), t.TempDir()
	identitytest.Put(t, dir, ca, identity.ControlPlane, "")
	first := identitytest.Put(t, dir, ca, identity.Edge, "edge-7")
	var mu sync.Mutex
	shown := map[string]bool{}
	server := identitytest.Load(t, dir, identity.ControlPlane).Server(true)
	config := server.GetConfigForClient
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := config(h)
		if err == nil {
			c.VerifyConnection = func(state tls.ConnectionState) error {
				mu.Lock()
				defer mu.Unlock()
				shown[state.PeerCertificates[0].SerialNumber.String()] = true
				return nil
			}
		}
		return c, err
	}
	has := func(serial string) bool {
		mu.Lock()
		defer mu.Unlock()
		return shown[serial]
	}
	addr := freeport.ForTest(t)
	unfiltered(s)
	s.control = startSecured(t, addr, server)
	s.control.Set(s.snapshot())
	cfg := bootstrap.DefaultConfig()
	cfg.XDS, cfg.ID = addr, "edge-7"
	s.envoy = envoytest.StartIdentified(t, cfg, dir)
	s.apply()
	s.envoy.WaitReady(t)
	if got, _ := s.do(request{}); got.StatusCode != 200 || !has(serialOf(t, first)) {
		t.Errorf("status %d, shown %v", got.StatusCode, shown)
	}

	second := identitytest.Put(t, dir, ca, identity.Edge, "edge-7")
	waitFor(t, "the renewed identity", func() bool {
		s.control.stop() // edges come again with what they have now
		s.control = startSecured(t, addr, server)
		s.control.Set(s.snapshot())
		s.apply()
		return has(serialOf(t, second))
	})
	if got, _ := s.do(request{}); got.StatusCode != 200 {
		t.Errorf("status %d", got.StatusCode)
	}
}
