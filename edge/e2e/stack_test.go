package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/wasm/module"
)

// testPolicy has a rule of each kind that the tests need.
const testPolicy = `
color:
  env: prod
  tenant: public
  cohorts:
    - {name: staff, env: prod, match: {claim: {name: role, exact: staff}}}
    - {name: canary, env: canary, match: {any: [{header: {name: x-env, exact: canary}}, {cookie: {name: env, exact: canary}}]}}
  tenants:
    - {name: search, match: {host: "search.*"}}
    - {claim: tenant}
failure: open
services:
  - name: core
    pools: [{name: baseline}, {name: canary}, {name: isolated}]
    routes:
      - {name: ws, path: /v1/ws, websocket: true}
      - {name: all, prefix: /}
cohortPools: {canary: canary, staff: canary}
`

// stack is one Envoy, its control plane, and an upstream in each pool.
type stack struct {
	root      *testing.T // whose end is the stack's
	t         *testing.T // the test that uses it now
	policy    string
	endpoints policy.Endpoints
	moves     map[group.ID]string
	home      map[group.ID]uint32
	sheds     map[group.ID]uint32
	retired   []string
	edge      plan.Edge
	boot      func(*bootstrap.Config) // changes Envoy's bootstrap; nil: does not
	key       ed25519.PrivateKey

	control *controlPlane
	envoy   *envoytest.Envoy
	pools   map[string]*upstream
	client  *http.Client
}

// newStack starts everything and returns when the edge has its first configuration;
// change, where not nil, sees the stack before that.
func newStack(t *testing.T, change func(*stack)) *stack {
	t.Helper()
	s := newStackNoWait(t, change)
	s.apply()
	s.envoy.WaitReady(t)
	return s
}

// newStackNoWait is for an edge that cannot take all of its configuration.
func newStackNoWait(t *testing.T, change func(*stack)) *stack {
	t.Helper()
	s := prepare(t)
	if change != nil {
		change(s)
	}
	s.control = startControlPlane(t, freeport.ForTest(t))
	s.control.Set(s.snapshot())
	s.startEnvoy(s.control.addr)
	return s
}

// prepare is all but the control plane and Envoy.
func prepare(t *testing.T) *stack {
	t.Helper()
	s := bare(t)
	s.edge.Wasm = filter(t)
	return s
}

// bare is an edge without filter, for what does not need one.
func bare(t *testing.T) *stack {
	t.Helper()
	envoytest.Binary(t)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &stack{
		root: t, t: t, policy: testPolicy, moves: map[group.ID]string{}, key: key,
		pools:  map[string]*upstream{},
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	t.Cleanup(s.client.CloseIdleConnections)
	for _, pool := range []string{semconv.PoolBaseline, semconv.PoolCanary, semconv.PoolIsolated} {
		s.pools[pool] = newUpstream(t, pool)
	}
	s.endpoints = policy.Endpoints{Services: map[string]map[string][]string{"core": {}}}
	for pool, u := range s.pools {
		s.endpoints.Services["core"][pool] = []string{u.addr()}
	}
	s.edge = plan.Edge{Listen: freeport.ForTest(t), Observe: freeport.ForTest(t), JWKS: jwks(key)}
	return s
}

func (s *stack) startEnvoy(xds string) {
	s.t.Helper()
	cfg := bootstrap.DefaultConfig()
	cfg.XDS = xds
	if s.boot != nil {
		s.boot(&cfg)
	}
	s.envoy = envoytest.StartADS(s.t, cfg)
}

// plan is what the control plane would make of the stack's state.
func (s *stack) plan() plan.Plan {
	s.t.Helper()
	p, err := policy.Parse([]byte(s.policy))
	if err != nil {
		s.t.Fatal(err)
	}
	pl, err := plan.Build(p, s.endpoints, plan.Groups{Pools: maps.Clone(s.moves), Home: s.home, Sheds: s.sheds}, s.edge)
	if err != nil {
		s.t.Fatal(err)
	}
	pl.Retired = slices.DeleteFunc(slices.Clone(s.retired), func(name string) bool {
		return slices.ContainsFunc(pl.Services, func(s plan.Service) bool { return s.Name == name })
	})
	return pl
}

func (s *stack) snapshot() *xds.Snapshot {
	s.t.Helper()
	snap, err := xds.Build(s.plan())
	if err != nil {
		s.t.Fatal(err)
	}
	return snap
}

// apply hands the stack's state to the edge and waits until it is acknowledged.
func (s *stack) apply() {
	s.t.Helper()
	s.control.set(s.t, s.snapshot())
}

// controlPlane is the project's xDS server on an address of its own, so that it can
// go away and come back.
type controlPlane struct {
	addr string
	*server.Server
	stop func()
}

func startControlPlane(t *testing.T, addr string) *controlPlane {
	t.Helper()
	return startSecured(t, addr, nil)
}

// startSecured is a control plane that edges must prove themselves to.
func startSecured(t *testing.T, addr string, secured *tls.Config) *controlPlane {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.TLS = secured
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	cp := &controlPlane{addr: addr, Server: server.New(cfg, prometheus.NewRegistry(), log)}
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- cp.Serve(ctx, lis) }()
	cp.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(cp.stop)
	return cp
}

// set waits until the one edge has acknowledged all of snap.
func (c *controlPlane) set(t *testing.T, snap *xds.Snapshot) {
	t.Helper()
	c.Set(snap)
	timeout := time.After(3 * time.Minute)
	for {
		edges := c.Edges()
		if len(edges) == 1 && edges[0].Connected && edges[0].InSync && edges[0].Version == snap.Version {
			return
		}
		select {
		case <-c.Changed():
		case <-timeout:
			t.Fatalf("the edge did not take version %s: %+v", snap.Version, edges)
		}
	}
}

// request is what a test sends; the zero value is GET / to the host "chat.test".
type request struct {
	host, path string
	header     http.Header
}

// answer is what the client saw.
type answer struct {
	StatusCode int
	Header     http.Header
}

// do returns the answer and, where the upstream gave it, what the upstream saw.
func (s *stack) do(r request) (answer, seen) {
	s.t.Helper()
	a, got, err := s.try(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return a, got
}

func (s *stack) try(r request) (answer, seen, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.edge.Listen+r.path, nil)
	if err != nil {
		return answer{}, seen{}, err
	}
	if r.header != nil {
		req.Header = r.header
	}
	if req.Host = r.host; req.Host == "" {
		req.Host = "chat.test"
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, seen{}, err
	}
	defer resp.Body.Close()
	var got seen
	if resp.StatusCode == http.StatusOK {
		err = json.NewDecoder(resp.Body).Decode(&got)
	}
	return answer{resp.StatusCode, resp.Header}, got, err
}

// token is a session of the product's form.
func (s *stack) token(claims jwt.MapClaims) string {
	s.t.Helper()
	claims["exp"] = time.Now().Add(time.Hour).Unix()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims).SignedString(s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func jwks(key ed25519.PrivateKey) string {
	x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","x":%q}]}`, x)
}

// counters that must stand still or move, as a test says.
type counters struct {
	listeners    envoy.Listeners
	ecds, routes uint64
}

func (s *stack) counters() counters {
	s.t.Helper()
	l, err := s.envoy.Admin().Listeners(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return counters{
		listeners: l,
		ecds:      s.stat(`^extension_config_discovery\..*\.config_reload$`),
		routes:    s.stat(`^http\.edge\.rds\..*\.config_reload$`),
	}
}

func (s *stack) stat(filter string) uint64 {
	s.t.Helper()
	n, err := s.envoy.Admin().Sum(s.t.Context(), filter)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// filter is the module the product builds or embeds, or the one that E2E_FILTER
// names.
func filter(t *testing.T) plan.Wasm {
	t.Helper()
	if path := os.Getenv("E2E_FILTER"); path != "" {
		return read(t, path)
	}
	modules.mu.Lock()
	defer modules.mu.Unlock()
	path, err := module.Ensure(t.Context(), modules.dir, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, path)
}

// modules are the compiled filters, in a folder that TestMain owns.
var modules struct {
	mu   sync.Mutex
	dir  string
	made map[string]plan.Wasm
}

// compiled is a filter that only tests have.
func compiled(t *testing.T, pkg string) plan.Wasm {
	t.Helper()
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m, ok := modules.made[pkg]; ok {
		return m
	}
	path := filepath.Join(modules.dir, fmt.Sprintf("%d.wasm", len(modules.made)))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", pkg, err, out)
	}
	modules.made[pkg] = read(t, path)
	return modules.made[pkg]
}

func read(t *testing.T, path string) plan.Wasm {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Wasm{Path: path, SHA256: fmt.Sprintf("%x", sha256.Sum256(code))}
}

func TestMain(m *testing.M) {
	if config := os.Getenv(controlPlaneEnv); config != "" {
		os.Exit(beControlPlane(config))
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	modules.dir, modules.made = dir, map[string]plan.Wasm{}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
