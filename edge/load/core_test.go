package load

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/core"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/observability/semconv"
)

// router stands where the edge does: it colors as the default policy does, and sends
// each group to the pool that the placement says.
type router struct {
	mu    sync.Mutex
	place placement.Placement
	moved chan struct{} // closed and replaced with every placement
	pools map[string]*httputil.ReverseProxy
}

func newRouter() *router {
	return &router{
		place: placement.Placement{
			Version: 1, Groups: map[group.ID]string{},
			Cohorts: map[string]string{group.ColorOf("canary").String(): semconv.PoolCanary},
		},
		moved: make(chan struct{}), pools: map[string]*httputil.ReverseProxy{},
	}
}

func (e *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := group.Group{Env: "prod", Tenant: strings.TrimSuffix(r.Host, ".localhost")}
	if c, err := r.Cookie("env"); err == nil && c.Value == "canary" {
		g.Env, g.Color = "canary", group.ColorOf("canary")
	}
	var id [20]byte
	_, _ = rand.Read(id[:])
	ids := hex.EncodeToString(id[:])
	r.Header.Set(semconv.HeaderTraceparent, "00-"+g.Color.String()+ids[:24]+"-"+ids[24:]+"-03")
	r.Header.Set(semconv.HeaderBaggage, semconv.Env+"="+g.Env+","+semconv.Tenant+"="+g.Tenant)
	r.Header.Set(semconv.HeaderGroup, string(g.ID()))
	w.Header().Set(semconv.HeaderGroup, string(g.ID()))
	e.mu.Lock()
	proxy := e.pools[e.place.Pool(g)]
	e.mu.Unlock()
	proxy.ServeHTTP(w, r)
}

func (e *router) move(g group.Group, pool string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := placement.Placement{Version: e.place.Version + 1, Cohorts: e.place.Cohorts, Groups: map[group.ID]string{}}
	if pool != "" {
		next.Groups[g.ID()] = pool
	}
	e.place = next
	close(e.moved)
	e.moved = make(chan struct{})
}

// WatchPlacement is core's view of it.
func (e *router) WatchPlacement(ctx context.Context, each func(placement.Placement)) error {
	for {
		e.mu.Lock()
		p, moved := e.place, e.moved
		e.mu.Unlock()
		each(p)
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// newRealProduct is a product whose core is the real one: a process for each pool (in
// this one), Kafka, Redis and the store shared, behind a router instead of an Envoy.
func newRealProduct(t *testing.T) (p *product, edge string) {
	t.Helper()
	p = newProduct(t)
	kafka, redis := make(chan string, 1), make(chan string, 1)
	runtest.Background(t, func(ctx context.Context) error {
		return queueembedded.Run(ctx, queueembedded.Config{Listen: "127.0.0.1:0"}, func(a string) { kafka <- a }, quiet())
	})
	runtest.Background(t, func(ctx context.Context) error {
		return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: "127.0.0.1:0", Password: labToken}, func(a string) { redis <- a })
	})
	brokers, nodes, e := []string{<-kafka}, []string{<-redis}, newRouter()
	_, key, _ := ed25519.GenerateKey(nil)
	dir := t.TempDir()
	for _, pool := range []string{semconv.PoolBaseline, semconv.PoolCanary, semconv.PoolIsolated} {
		cfg := core.DefaultConfig()
		cfg.Pool, cfg.Node, cfg.Listen, cfg.Admin, cfg.Token = pool, pool+"-1", "127.0.0.1:0", "127.0.0.1:0", labToken
		cfg.Account.BcryptCost = 4
		cfg.Store.URL = "sqlite:" + filepath.Join(dir, "core.db")
		cfg.Queue.Brokers, cfg.Fanout.Addrs, cfg.Fanout.Password = brokers, nodes, labToken
		cfg.LameDuck, cfg.DrainSpread, cfg.DrainGrace = 0, 0, 100*time.Millisecond
		ready := make(chan [2]string, 1)
		runtest.Background(t, func(ctx context.Context) error {
			return core.Run(ctx, cfg, core.Deps{
				Key: key, Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(), Placements: e,
				Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
				Ready:      func(listen, admin string) { ready <- [2]string{listen, admin} },
			}, quiet())
		})
		addresses := <-ready
		e.pools[pool] = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addresses[0]})
		e.pools[pool].ErrorLog = log.New(io.Discard, "", 0) // of clients that go away at the end
		if pool == semconv.PoolCanary {
			p.onFault = passOn(t, "http://"+addresses[1]+"/v1/fault")
		}
	}
	p.onMove = e.move
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return p, s.URL
}

// passOn gives a fault to the real core.
func passOn(t *testing.T, address string) func(*http.Request, faultRequest) {
	t.Helper()
	return func(r *http.Request, f faultRequest) {
		b, _ := json.Marshal(f)
		req, err := http.NewRequestWithContext(r.Context(), r.Method, address, bytes.NewReader(b))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header
		resp, err := (&http.Client{}).Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Errorf("%s %s: %s", r.Method, address, resp.Status)
		}
	}
}

// The whole circle with the real core: what the ledger says of it is true of its log,
// its store, its fan-out and its moves of sockets.
func TestCircleOnRealCore(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some ten seconds")
	}
	p, edge := newRealProduct(t)
	p.decideAfter, p.releaseAfter = 700*time.Millisecond, time.Second
	cfg := p.config()
	cfg.Edge, cfg.Duration, cfg.ReleaseWait, cfg.Settle = edge, 5*time.Second, 5*time.Second, 30*time.Second
	cfg.FaultLatency = 300 * time.Millisecond
	cfg.Rate = 8 // SQLite in Go under the race detector is slow
	var out bytes.Buffer
	r, err := Circle(deadline(t), cfg, &out, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	if broken := brokenKeys(r.Promises); broken != nil {
		t.Errorf("broken promises: %v", broken)
	}
	for _, g := range r.Groups {
		if g.Messages.Accepted < 15 {
			t.Errorf("group %s: only %d messages", g.Name, g.Messages.Accepted)
		}
	}
}
