package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/policy"
)

const instancesPolicy = `
services:
  - name: core
    pools: [{name: baseline, tls: {serverName: core.internal, ca: edge, certificate: edge}}]
    routes:
      - {name: ws, path: /v1/ws, websocket: true}
      - {name: all, prefix: /}
`

// secretUpstream is an instance that speaks to nobody without a certificate of its
// authority, and says whose certificate the last handshake showed.
type secretUpstream struct {
	*upstream
	shown atomic.Pointer[x509.Certificate]
}

func newSecretUpstream(t *testing.T, ca certificate.Authority, believes *x509.CertPool) *secretUpstream {
	t.Helper()
	pair, err := ca.Issue(certificate.Subject{Name: "core.internal", Hosts: []string{"core.internal"}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair([]byte(pair.Chain), []byte(pair.Key))
	if err != nil {
		t.Fatal(err)
	}
	u := &secretUpstream{upstream: &upstream{pool: "baseline"}}
	u.Server = httptest.NewUnstartedServer(u)
	u.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	u.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: believes,
		SessionTicketsDisabled: true, // each connection shows its certificate
		VerifyConnection: func(state tls.ConnectionState) error {
			u.shown.Store(state.PeerCertificates[0])
			return nil
		},
	}
	u.StartTLS()
	t.Cleanup(u.Close)
	t.Cleanup(u.CloseClientConnections)
	return u
}

// showed says whether the last handshake showed a pair.
func (u *secretUpstream) showed(t *testing.T, p certificate.Pair) bool {
	c := u.shown.Load()
	return c != nil && c.SerialNumber.String() == serialOf(t, p)
}

func authority(t *testing.T) (certificate.Authority, *x509.CertPool) {
	t.Helper()
	ca, err := certificate.NewAuthority("e2e", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.Chain))
	return ca, roots
}

// TestTLSToInstances: both prove themselves; who cannot is not spoken to, which the answer,
// Envoy's counters and the instance say; a renewed certificate of the edge is shown by the
// next connections, and ends none that is open.
func TestTLSToInstances(t *testing.T) {
	ca, roots := authority(t)
	foreign, foreignRoots := authority(t)
	own := func(by certificate.Authority, believes certificate.Authority) certificate.Pair {
		p, err := by.Issue(certificate.Subject{Name: "edge-1", Hosts: []string{"edge-1.internal"}}, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		p.CA = believes.Chain
		return p
	}
	good := newSecretUpstream(t, ca, roots)
	first := own(ca, ca)
	s := newStack(t, func(s *stack) {
		unfiltered(s)
		s.policy = instancesPolicy
		s.endpoints = at(good)
		s.edge.Certificates = map[string]certificate.Pair{"edge": first}
	})
	give := func(p certificate.Pair, u *secretUpstream) {
		t.Helper()
		s.edge.Certificates = maps.Clone(s.edge.Certificates)
		s.edge.Certificates["edge"] = p
		s.endpoints = at(u)
		s.apply()
	}
	get := func() (int, string) {
		resp, err := s.client.Get("http://" + s.edge.Listen + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}

	if code, body := get(); code != http.StatusOK || !good.showed(t, first) {
		t.Fatalf("status %d %s; the instance saw %v", code, body, good.shown.Load())
	}

	// Renewed, under a socket.
	ctx, stop := context.WithCancel(t.Context())
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+s.edge.Listen+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var l load
	done := make(chan struct{})
	go func() { defer close(done); l.talk(ctx, conn) }()
	before := s.counters().listeners
	for range 3 {
		next := own(ca, ca)
		give(next, good)
		waitFor(t, "the renewed certificate at the instance", func() bool {
			code, body := get()
			if code != http.StatusOK {
				t.Fatalf("status %d %s while the certificate is renewed", code, body)
			}
			good.CloseClientConnections() // but for the socket, which is hijacked; the next request needs a handshake
			return good.showed(t, next)
		})
	}
	talked := l.messages.Load()
	waitFor(t, "the socket to go on", func() bool { return l.messages.Load() > talked+10 || l.dropped.Load() > 0 })
	stop()
	<-done
	if l.dropped.Load() != 0 {
		t.Errorf("the socket was dropped: %s", l.firstTrouble)
	}
	if after := s.counters().listeners; after != before {
		t.Errorf("a renewal touched a listener: %+v -> %+v", before, after)
	}

	for name, c := range map[string]struct {
		pair     certificate.Pair
		instance *secretUpstream
		counter  string // of Envoy
	}{
		"an instance of another authority": {own(ca, ca), newSecretUpstream(t, foreign, roots), `^cluster\.core\.baseline\.ssl\.fail_verify_error$`},
		"an edge of another authority":     {own(foreign, ca), newSecretUpstream(t, ca, roots), `^cluster\.core\.baseline\.(ssl\.connection_error|upstream_cx_destroy_remote|health_check\.network_failure)$`},
		"an instance that believes others": {own(ca, ca), newSecretUpstream(t, ca, foreignRoots), `^cluster\.core\.baseline\.(ssl\.connection_error|upstream_cx_destroy_remote|health_check\.network_failure)$`},
	} {
		refused := s.stat(c.counter)
		give(c.pair, c.instance)
		var body string
		waitFor(t, name+" is refused", func() bool {
			var code int
			code, body = get()
			return code == http.StatusServiceUnavailable && s.stat(c.counter) > refused
		})
		if !strings.Contains(body, `"code":"unavailable"`) || c.instance.requests.Load() > 0 {
			t.Errorf("%s: body %s, %d requests at the instance", name, body, c.instance.requests.Load())
		}
		t.Logf("%s: %s", name, body)
	}
	give(own(ca, ca), good)
	waitFor(t, "what is right again", func() bool { code, _ := get(); return code == http.StatusOK })
}

func at(u *secretUpstream) policy.Endpoints {
	return policy.Endpoints{Services: map[string]map[string][]string{"core": {"baseline": {u.Listener.Addr().String()}}}}
}
