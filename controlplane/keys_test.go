package controlplane

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

// identityProvider shows a key by TLS, with a certificate of its own authority.
type identityProvider struct {
	key  ed25519.PrivateKey
	jwks atomic.Pointer[string]
}

// rotate makes another key, and shows it.
func (p *identityProvider) rotate(t *testing.T) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	p.key = key
	p.jwks.Store(&shown)
}

func (p *identityProvider) token(t *testing.T) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"iss": "corp", "exp": time.Now().Add(time.Hour).Unix()}).SignedString(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (p *identityProvider) start(t *testing.T, addr string, pair certificate.Pair) *httptest.Server {
	t.Helper()
	cert, err := tls.X509KeyPair([]byte(pair.Chain), []byte(pair.Key))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, *p.jwks.Load()) }))
	s.Listener.Close()
	s.Listener, s.Config.ErrorLog = l, log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestIdentityProviderAtRealEnvoy: a provider that is away at the start costs its own users
// only, and heals when it comes; a key that it rotates is picked up; what it showed last goes
// on while it is away again, over a restart of the control plane and a change of the policy.
func TestIdentityProviderAtRealEnvoy(t *testing.T) {
	envoytest.Binary(t)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(semconv.HeaderPool, semconv.PoolBaseline)
	}))
	t.Cleanup(up.Close)
	ca, err := certificate.NewAuthority("provider", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(certificate.Subject{Name: "provider", Hosts: []string{"localhost"}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	addr := freeport.ForTest(t)
	_, port, _ := net.SplitHostPort(addr)
	withRule := func(more string) string {
		return `
jwt: [{name: corp, issuer: corp, jwksURL: "https://localhost:` + port + `/keys", ca: corp, refresh: 1s}]
services:
  - name: core
    pools: [{name: baseline}]
    rules: [{name: inside, match: [{prefix: /inside}], jwt: {require: [corp]}}` + more + `]
    routes: [{prefix: /}]
`
	}
	cfg := testConfig(t)
	cfg.AckTimeout = 5 * time.Second
	cfg.Edge.Listen = freeport.ForTest(t)
	cfg.Certificates = filepath.Join(filepath.Dir(cfg.Policy), "certificates")
	if err := os.MkdirAll(filepath.Join(cfg.Certificates, "corp"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(cfg.Certificates, "corp", certificate.CAFile), ca.Chain)
	write(t, cfg.Policy, withRule(""))
	write(t, cfg.Endpoints, "services: {core: {baseline: ['"+strings.TrimPrefix(up.URL, "http://")+"']}}\n")
	w := newWorld()
	p := run(t, cfg, w)
	boot := bootstrap.DefaultConfig()
	boot.XDS = p.xds
	envoytest.StartADS(t, boot).WaitReady(t)
	p.status("programmed", acked)

	ask := func(path, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+cfg.Edge.Listen+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := up.Client().Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	passes := func(what, token string, want int) {
		t.Helper()
		last := 0
		eventually(t, what, func() bool { last = ask("/inside", token); return last == want }, func() any { return last })
	}
	away := func(s ctlapi.Status) bool { return strings.Contains(s.Sources["jwt corp"].Error, "ask for keys") }
	provider := &identityProvider{}
	provider.rotate(t)
	first := provider.token(t)

	st := p.status("that the provider is away", away)
	if src := st.Sources["jwt corp"]; src.File != "https://localhost:"+port+"/keys" || !src.Loaded.IsZero() {
		t.Errorf("source: %+v", src)
	}
	if a, b, c := ask("/", ""), ask("/", first), ask("/inside", first); a != 200 || b != 200 || c != 401 {
		t.Errorf("while the provider is away: %d without a token, %d with one, %d where it is required", a, b, c)
	}
	server := provider.start(t, addr, pair)
	passes("the provider came", first, 200)
	p.status("that the provider is there", func(s ctlapi.Status) bool {
		return s.Sources["jwt corp"].Error == "" && !s.Sources["jwt corp"].Loaded.IsZero()
	})

	provider.rotate(t)
	second := provider.token(t)
	passes("the new key", second, 200)
	passes("the old key is gone", first, 401)

	server.Close()
	p.status("that the provider is away again", away)
	passes("the last keys go on", second, 200)

	xdsAddress := p.xds
	p.stop()
	l, err := net.Listen("tcp", xdsAddress)
	if err != nil {
		t.Fatal(err)
	}
	p = runOn(t, cfg, w, l)
	p.status("back", func(s ctlapi.Status) bool { return acked(s) && away(s) })
	write(t, cfg.Policy, withRule(", {name: new, match: [{path: /new}], directResponse: {status: 204}}"))
	eventually(t, "the new rule", func() bool { return ask("/new", "") == 204 }, func() any { return nil })
	if a, b := ask("/inside", second), ask("/inside", first); a != 200 || b != 401 {
		t.Errorf("after a restart without the provider: %d with its key, %d with the one before", a, b)
	}
}

// TestKeys: what is asked for, what changes edges, what is kept and what is forgotten.
func TestKeys(t *testing.T) {
	t.Parallel()
	signing, path := make([]byte, 32), filepath.Join(t.TempDir(), keysFile)
	m := newMetrics(prometheus.NewRegistry())
	k := newKeys(m, slog.New(slog.DiscardHandler))
	k.load(path, signing)
	a := policy.JWTProvider{Name: "a", JWKSURL: "https://a.test", Refresh: time.Minute}
	b := policy.JWTProvider{Name: "b", JWKSURL: "https://b.test", CA: "b", Refresh: time.Minute}
	inline := policy.JWTProvider{Name: "c", JWKS: "{}"}
	both := &policy.Policy{JWT: []policy.JWTProvider{a, b, inline}}

	want, changed := k.aim(nil, both, nil, both)
	if diff := cmp.Diff([]source.KeySet{{URL: a.JWKSURL, Refresh: time.Minute}}, want); diff != "" || !changed {
		t.Errorf("without the authority, changed %v: %s", changed, diff)
	}
	shown := map[string]ctlapi.Source{}
	k.show(both.JWT, shown)
	if shown["jwt a"].Error != "not asked yet" || shown["jwt b"].Error != "no ca.crt in the folder of certificate b" || len(shown) != 2 {
		t.Errorf("shown: %+v", shown)
	}
	authorities := map[string]certificate.Pair{"b": {CA: "pem"}}
	if want, changed = k.aim(authorities, both); !changed || len(want) != 2 || want[1].CA != "pem" {
		t.Errorf("with the authority: %+v, %v", want, changed)
	}
	if _, changed = k.aim(authorities, both); changed {
		t.Error("the same again is a change")
	}
	now := time.Now()
	for i, tt := range []struct {
		update source.KeyUpdate
		change bool
	}{
		{source.KeyUpdate{URL: a.JWKSURL, Keys: "1"}, true},
		{source.KeyUpdate{URL: a.JWKSURL, Keys: "1"}, false},
		{source.KeyUpdate{URL: a.JWKSURL, Err: errors.New("away")}, false},
		{source.KeyUpdate{URL: b.JWKSURL, Keys: "2"}, true},
		{source.KeyUpdate{URL: "https://gone.test", Keys: "3"}, false},
	} {
		if got := k.read(tt.update, now); got != tt.change {
			t.Errorf("answer %d changes edges: %v", i, got)
		}
	}
	if diff := cmp.Diff(map[string]string{a.JWKSURL: "1", b.JWKSURL: "2"}, k.good); diff != "" {
		t.Error(diff)
	}
	again := newKeys(m, slog.New(slog.DiscardHandler))
	again.load(path, signing)
	if diff := cmp.Diff(k.good, again.good); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	forged := newKeys(m, slog.New(slog.DiscardHandler))
	forged.load(path, append(make([]byte, 31), 1))
	if len(forged.good) != 0 {
		t.Errorf("keys that somebody else wrote: %v", forged.good)
	}
	if _, changed = k.aim(authorities, &policy.Policy{JWT: []policy.JWTProvider{b}}); !changed {
		t.Error("one less is no change")
	}
	if diff := cmp.Diff(map[string]string{b.JWKSURL: "2"}, k.good); diff != "" {
		t.Errorf("what nobody names is kept: %s", diff)
	}
}
