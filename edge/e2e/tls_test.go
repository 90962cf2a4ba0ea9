package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/mesh/freeport"
)

const tlsPolicy = testPolicy + `
tls:
  hsts: {maxAge: 8760h, includeSubdomains: true}
  certificates:
    - {name: chat, hosts: [chat.test, "*.chat.test"]}
    - {name: shop, hosts: [shop.test]}
    - {name: default}
`

// secured is a stack whose edge has TLS.
type secured struct {
	*stack
	ca    certificate.Authority
	roots *x509.CertPool
}

// newSecured starts a stack with certificates chat, shop and default.
func newSecured(t *testing.T, change func(*stack)) *secured {
	t.Helper()
	ca, err := certificate.NewAuthority("e2e", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{ca: ca, roots: x509.NewCertPool()}
	s.roots.AppendCertsFromPEM([]byte(ca.Chain))
	s.stack = newStack(t, func(st *stack) {
		st.policy = tlsPolicy
		st.edge.TLS.Listen = freeport.ForTest(t)
		st.edge.Certificates = map[string]certificate.Pair{
			"chat":    s.issue(t, "chat.test", "*.chat.test"),
			"shop":    s.issue(t, "shop.test"),
			"default": s.issue(t, "any.test"),
		}
		if change != nil {
			change(st)
		}
	})
	return s
}

// unfiltered is for tests that are not about the filter, which takes time to compile.
func unfiltered(s *stack) { s.edge.Wasm = plan.Wasm{} }

func (s *secured) issue(t *testing.T, hosts ...string) certificate.Pair {
	t.Helper()
	p, err := s.ca.Issue(certificate.Subject{Name: hosts[0], Hosts: hosts}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// renew gives the edge another set of certificates; what plans share is not edited.
func (s *secured) renew(name string, p certificate.Pair) {
	s.t.Helper()
	next := maps.Clone(s.edge.Certificates)
	next[name] = p
	s.edge.Certificates = next
	s.apply()
}

// shake is a handshake for host, which is no more than that.
func (s *secured) shake(host string, change func(*tls.Config)) (tls.ConnectionState, error) {
	s.t.Helper()
	cfg := &tls.Config{RootCAs: s.roots, ServerName: host, NextProtos: []string{"h2", "http/1.1"}}
	if change != nil {
		change(cfg)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", s.edge.TLS.Listen, cfg)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

// serial is of the certificate that the edge shows for host.
func (s *secured) serial(host string) string {
	s.t.Helper()
	state, err := s.shake(host, func(c *tls.Config) { c.InsecureSkipVerify = true }) // who it is for is another test's
	if err != nil {
		s.t.Fatalf("handshake for %s: %v", host, err)
	}
	return state.PeerCertificates[0].SerialNumber.String()
}

func serialOf(t *testing.T, p certificate.Pair) string {
	t.Helper()
	leaf, err := certificate.Leaf([]byte(p.Chain))
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber.String()
}

// http is a client that comes to host by TLS.
func (s *secured) http(host string) *http.Client {
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: s.roots, ServerName: host},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.edge.TLS.Listen)
		},
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Timeout: 10 * time.Second, Transport: tr}
}

func (s *secured) get(host, path string) *http.Response {
	s.t.Helper()
	resp, err := s.http(host).Get("https://" + host + path)
	if err != nil {
		s.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// socket is a WebSocket by TLS that echoes until ctx is done; l counts.
func (s *secured) socket(ctx context.Context, host string, l *load) (ended <-chan struct{}) {
	s.t.Helper()
	dialer := websocket.Dialer{
		HandshakeTimeout: 5 * time.Second,
		TLSClientConfig:  &tls.Config{RootCAs: s.roots, ServerName: host},
		NetDialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.edge.TLS.Listen)
		},
	}
	conn, resp, err := dialer.DialContext(ctx, "wss://"+host+"/v1/ws", nil)
	if err != nil {
		s.t.Fatalf("socket of %s: %v", host, err)
	}
	resp.Body.Close()
	done := make(chan struct{})
	go func() { defer close(done); l.talk(ctx, conn) }()
	return done
}

func TestTLS(t *testing.T) {
	s := newSecured(t, unfiltered)
	run := func(name string, test func(*testing.T, *secured)) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			defer func() { s.t = s.root }()
			test(t, s)
		})
	}
	run("certificate by name", testSNI)
	run("versions and protocols", testTLSVersions)
	run("headers", testTLSHeaders)
	run("renewed without a drain", testRenewal)
	run("one comes and goes", testCertificateComesAndGoes)
	run("one that is not there", testCertificateMissing)
}

func testSNI(t *testing.T, s *secured) {
	for host, name := range map[string]string{
		"chat.test": "chat", "eu.chat.test": "chat", "shop.test": "shop", "other.test": "default", "": "default",
	} {
		if got := s.serial(host); got != serialOf(t, s.edge.Certificates[name]) {
			t.Errorf("%q is shown another certificate than %s", host, name)
		}
	}
	if _, err := s.shake("chat.test", nil); err != nil {
		t.Errorf("a client that checks: %v", err)
	}
}

func testTLSVersions(t *testing.T, s *secured) {
	for _, tt := range []struct {
		name     string
		min, max uint16
		suites   []uint16
		protos   []string
		want     string // protocol; empty: refused
	}{
		{"TLS 1.1", tls.VersionTLS10, tls.VersionTLS11, nil, []string{"h2"}, ""},
		{"TLS 1.2", tls.VersionTLS12, tls.VersionTLS12, nil, []string{"h2", "http/1.1"}, "h2"},
		{"TLS 1.2, not forward secret", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}, nil, ""},
		{"TLS 1.2, CBC", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, nil, ""},
		{"TLS 1.3", tls.VersionTLS13, tls.VersionTLS13, nil, []string{"h2", "http/1.1"}, "h2"},
		{"HTTP/1.1 only", tls.VersionTLS13, tls.VersionTLS13, nil, []string{"http/1.1"}, "http/1.1"},
	} {
		state, err := s.shake("chat.test", func(c *tls.Config) {
			c.MinVersion, c.MaxVersion, c.CipherSuites, c.NextProtos = tt.min, tt.max, tt.suites, tt.protos
		})
		if (err == nil) != (tt.want != "") || state.NegotiatedProtocol != tt.want {
			t.Errorf("%s: protocol %q, %v; want %q", tt.name, state.NegotiatedProtocol, err, tt.want)
		}
	}
}

func testTLSHeaders(t *testing.T, s *secured) {
	const hsts, want = "Strict-Transport-Security", "max-age=31536000; includeSubDomains"
	resp := s.get("chat.test", "/")
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || resp.Header.Get(hsts) != want {
		t.Errorf("status %d, HTTP/%d, hsts %q", resp.StatusCode, resp.ProtoMajor, resp.Header.Get(hsts))
	}
	if resp := s.get("chat.test", "/a%2fb"); resp.Header.Get(hsts) != want && resp.StatusCode != http.StatusOK {
		t.Errorf("the edge's own answer %d has hsts %q", resp.StatusCode, resp.Header.Get(hsts))
	}
	if a, _ := s.do(request{}); a.Header.Get(hsts) != "" {
		t.Error("hsts is sent unencrypted, where it means nothing (RFC 6797, 7.2)")
	}
	before := s.counters().listeners
	s.policy = strings.Replace(tlsPolicy, "maxAge: 8760h, includeSubdomains: true", "maxAge: 1m", 1)
	s.apply()
	defer func() { s.policy = tlsPolicy; s.apply() }()
	waitFor(t, "the new hsts", func() bool { return s.get("chat.test", "/").Header.Get(hsts) == "max-age=60" })
	if after := s.counters().listeners; after != before {
		t.Errorf("hsts touched a listener: %+v -> %+v", before, after)
	}
}

// testRenewal renews a certificate some times under sockets and requests.
func testRenewal(t *testing.T, s *secured) {
	before := s.counters().listeners
	ctx, stop := context.WithCancel(t.Context())
	var l load
	var ended []<-chan struct{}
	for _, host := range []string{"chat.test", "shop.test", "eu.chat.test"} {
		ended = append(ended, s.socket(ctx, host, &l))
	}
	for range 5 {
		next := s.issue(t, "chat.test", "*.chat.test")
		s.renew("chat", next)
		waitFor(t, "the renewed certificate", func() bool { return s.serial("chat.test") == serialOf(t, next) })
		if resp := s.get("chat.test", "/"); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	stop()
	for _, done := range ended {
		<-done
	}
	if l.dropped.Load() != 0 || l.messages.Load() == 0 {
		t.Errorf("%d sockets dropped, %d messages: %s", l.dropped.Load(), l.messages.Load(), l.firstTrouble)
	}
	if after := s.counters().listeners; after != before {
		t.Errorf("a renewal touched a listener: %+v -> %+v", before, after)
	}
}

// testCertificateComesAndGoes changes what certificates there are: sockets of others stay,
// beyond the time that a listener which drains would give them.
func testCertificateComesAndGoes(t *testing.T, s *secured) {
	ctx, stop := context.WithCancel(t.Context())
	var l load
	done := s.socket(ctx, "shop.test", &l)
	defer func() { s.policy = tlsPolicy; s.apply() }()
	next := maps.Clone(s.edge.Certificates)
	next["news"] = s.issue(t, "news.test")
	s.edge.Certificates = next
	s.policy = tlsPolicy + "    - {name: news, hosts: [news.test]}\n"
	s.apply()
	waitFor(t, "the added certificate", func() bool { return s.serial("news.test") == serialOf(t, next["news"]) })
	s.policy = tlsPolicy
	s.apply()
	waitFor(t, "its end", func() bool { return s.serial("news.test") == serialOf(t, next["default"]) })
	// Envoy drains what is gone for a second here (envoytest), and then closes it.
	waitFor(t, "the end of the drain", func() bool { return s.stat(`^listener_manager\.total_filter_chains_draining$`) == 0 })
	talked := l.messages.Load()
	waitFor(t, "the socket to go on", func() bool { return l.messages.Load() > talked+10 || l.dropped.Load() > 0 })
	stop()
	<-done
	if l.dropped.Load() != 0 {
		t.Errorf("the socket of another certificate was dropped: %s", l.firstTrouble)
	}
}

// testCertificateMissing: a certificate that never was good takes no other with it.
func testCertificateMissing(t *testing.T, s *secured) {
	s.policy = tlsPolicy + "    - {name: nowhere, hosts: [nowhere.test]}\n"
	defer func() { s.policy = tlsPolicy; s.apply() }()
	s.apply()
	waitFor(t, "the filter chain", func() bool {
		_, err := s.shake("nowhere.test", nil)
		return err != nil
	})
	if resp := s.get("chat.test", "/"); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	next := maps.Clone(s.edge.Certificates)
	next["nowhere"] = s.issue(t, "nowhere.test")
	s.edge.Certificates = next
	s.apply()
	waitFor(t, "the certificate", func() bool { _, err := s.shake("nowhere.test", nil); return err == nil })
}

func TestRedirectToTLS(t *testing.T) {
	s := newSecured(t, func(s *stack) { unfiltered(s); s.edge.TLS.Redirect = true })
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.edge.Listen+"/v1/x?q=1", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "chat.test:80"
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	_, port, _ := net.SplitHostPort(s.edge.TLS.Listen)
	if want := "https://chat.test:" + port + "/v1/x?q=1"; resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != want {
		t.Errorf("status %d to %q, want 308 to %q", resp.StatusCode, resp.Header.Get("Location"), want)
	}
	if resp := s.get("chat.test", "/"); resp.StatusCode != http.StatusOK {
		t.Errorf("by TLS: status %d", resp.StatusCode)
	}
}
