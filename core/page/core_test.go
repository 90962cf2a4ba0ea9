package page_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/core"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/core/file"
	"github.com/tracegate/tracegate/core/page"
	"github.com/tracegate/tracegate/core/protocol"
	queueembedded "github.com/tracegate/tracegate/core/queue/embedded"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/placement"
	"github.com/tracegate/tracegate/mesh/runtest"
	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
	"github.com/tracegate/tracegate/observability/semconv"
)

// circle is two real core processes (in this one) behind a proxy that routes as the
// edge does: by the group that it makes of the cookie env.
type circle struct {
	*httptest.Server
	pools map[string]*url.URL
	watch []chan placement.Placement

	mu    sync.Mutex
	place placement.Placement
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newCircle(t *testing.T, pools ...string) *circle {
	t.Helper()
	return newCircleWith(t, func(*testing.T, *core.Config) {}, pools...)
}

// newCircleWith lets a test change what the processes have in common.
func newCircleWith(t *testing.T, with func(*testing.T, *core.Config), pools ...string) *circle {
	t.Helper()
	c := &circle{pools: map[string]*url.URL{}, place: placement.Placement{
		Version: 1, Cohorts: map[string]string{group.ColorOf("canary").String(): "canary"}, Groups: map[group.ID]string{},
	}}
	log := slog.New(slog.DiscardHandler)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	kafka, redis := make(chan string, 1), make(chan string, 1)
	runtest.Background(t, func(ctx context.Context) error {
		return queueembedded.Run(ctx, queueembedded.Config{Listen: "127.0.0.1:0"}, func(a string) { kafka <- a }, log)
	})
	runtest.Background(t, func(ctx context.Context) error {
		return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: "127.0.0.1:0", Password: password}, func(a string) { redis <- a })
	})
	cfg := core.DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Token = "127.0.0.1:0", "127.0.0.1:0", "0123456789abcdef0123456789abcdef"
	cfg.Account.BcryptCost = 4
	cfg.Store.URL = "sqlite:" + filepath.Join(t.TempDir(), "core.db")
	cfg.Queue.Brokers, cfg.Queue.Partitions, cfg.Queue.Linger = []string{<-kafka}, 4, time.Millisecond
	cfg.Fanout.Addrs, cfg.Fanout.Password = []string{<-redis}, password
	cfg.FilePlace = file.Place{Folder: t.TempDir(), Key: password + password}
	cfg.LameDuck, cfg.DrainSpread, cfg.DrainGrace = 10*time.Millisecond, 10*time.Millisecond, 200*time.Millisecond
	with(t, &cfg)
	for _, pool := range pools {
		cfg.Pool, cfg.Node = pool, "core-"+pool
		c.start(t, cfg, key, log)
	}
	c.Server = httptest.NewServer(&httputil.ReverseProxy{Rewrite: c.route, ModifyResponse: func(r *http.Response) error {
		r.Header.Set(semconv.HeaderGroup, r.Request.Header.Get(semconv.HeaderGroup))
		return nil
	}})
	t.Cleanup(c.Close)
	t.Cleanup(c.CloseClientConnections)
	return c
}

func (c *circle) start(t *testing.T, cfg core.Config, key ed25519.PrivateKey, log *slog.Logger) {
	t.Helper()
	changes := make(chan placement.Placement, 8)
	c.watch = append(c.watch, changes)
	ready, failed := make(chan string, 1), make(chan error, 1)
	deps := core.Deps{
		Key: key, Registry: prometheus.NewRegistry(), Tracing: sdktrace.NewTracerProvider(), Placements: placements(changes), Page: page.Handler(),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		Ready:      func(listen, _ string) { ready <- listen },
	}
	runtest.Background(t, func(ctx context.Context) error {
		err := core.Run(ctx, cfg, deps, log)
		failed <- err
		return err
	})
	select {
	case listen := <-ready:
		c.pools[cfg.Pool] = &url.URL{Scheme: "http", Host: listen}
	case err := <-failed:
		t.Fatalf("core did not start: %v", err)
	}
}

func (c *circle) route(r *httputil.ProxyRequest) {
	g := groupOf(r.In)
	c.mu.Lock()
	pool := c.place.Pool(g)
	c.mu.Unlock()
	var random [20]byte
	_, _ = rand.Read(random[:]) // never fails
	r.SetURL(c.pools[pool])
	r.Out.Host = r.In.Host
	r.Out.Header.Set(semconv.HeaderGroup, string(g.ID()))
	r.Out.Header.Set(semconv.HeaderTraceparent, fmt.Sprintf("00-%s%x-%x-03", g.Color, random[:12], random[12:]))
	r.Out.Header.Set(semconv.HeaderBaggage, fmt.Sprintf("%s=%s,%s=%s", semconv.Env, g.Env, semconv.Tenant, g.Tenant))
}

// move changes the routes first and then tells core, as the control plane does.
func (c *circle) move(id group.ID, pool string) {
	c.mu.Lock()
	c.place.Version++
	c.place.Groups = map[group.ID]string{id: pool}
	place := c.place
	c.mu.Unlock()
	for _, w := range c.watch {
		w <- place
	}
}

// placements is a control plane in memory.
type placements chan placement.Placement

func (p placements) WatchPlacement(ctx context.Context, each func(placement.Placement)) error {
	for {
		select {
		case change := <-p:
			each(change)
		case <-ctx.Done():
			return nil
		}
	}
}

// TestRealCore is the page against what it is for: two people write to each other
// while their group is moved to another pool and back.
func TestRealCore(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircle(t, "baseline", "canary", "isolated")
	bob := enter(t, b, c.URL, "bob", browsertest.Desktop())
	ada := enter(t, b, c.URL, "ada", browsertest.Phone())
	ada.Type("#with", "bob")
	ada.Press("\r")
	ada.UntilText("#peer", "bob")
	send(ada, "hello bob")
	bob.UntilText("#conversations", "ada")
	bob.Click("#conversations button")
	untilCount(bob, 1)
	want := []string{"hello bob"}
	prod := group.Group{Env: "prod", Tenant: "public"}.ID()
	for _, pool := range []string{"isolated", "baseline"} {
		c.move(prod, pool)
		for i := range 5 {
			for name, tab := range map[string]*browsertest.Tab{"ada": ada, "bob": bob} {
				text := fmt.Sprintf("%s to %s %d", name, pool, i)
				send(tab, text)
				want = append(want, text)
				// The order between two senders is the log's: one after the other, to know it.
				untilCount(tab, len(want))
			}
		}
		ada.UntilText("#served-pool", pool)
		bob.UntilText("#served-pool", pool)
		untilCount(ada, len(want))
		untilCount(bob, len(want))
	}
	for name, tab := range map[string]*browsertest.Tab{"ada": ada, "bob": bob} {
		if diff := cmp.Diff(want, texts(tab)); diff != "" {
			t.Errorf("%s sees (-want +got):\n%s", name, diff)
		}
	}
	bob.Click("#cohort")
	bob.UntilText("#served-pool", "canary")
	send(bob, "from the canary")
	untilCount(ada, len(want)+1)
	ada.Click("#back")
	ada.Open(c.URL + "/")
	ada.UntilText("#conversations", "from the canary")
	ada.Screenshot("chat-real-core")
}

// TestGroupOnThePage: the page shows a group, what changes in it, edits and recalls, as
// they come and after a reload.
func TestGroupOnThePage(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircle(t, "baseline")
	bob := enter(t, b, c.URL, "bob", browsertest.Desktop())
	cfg := client.DefaultConfig()
	cfg.Address = c.URL
	sdk, err := client.New(cfg)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	defer sdk.Close()
	ctx := t.Context()
	_, _, err = sdk.Register(ctx, "ann", password)
	must(err)
	ann, _, err := sdk.Login(ctx, "ann", password)
	must(err)
	g, _, err := ann.CreateGroup(ctx, "g1", "lunch", "bob")
	must(err)
	bob.UntilText("#conversations", "lunch")
	bob.Click("#conversations button")
	bob.UntilText("#messages", "ann created lunch")
	for _, text := range []string{"one", "two"} {
		_, _, err = ann.Send(ctx, protocol.Send{Conversation: g.ID, ClientID: text, Text: text})
		must(err)
	}
	untilCount(bob, 2)
	_, _, err = ann.Edit(ctx, protocol.Edit{Conversation: g.ID, Seq: 2, ClientID: "e1", Text: "first"})
	must(err)
	_, _, err = ann.Recall(ctx, protocol.Recall{Conversation: g.ID, Seq: 3})
	must(err)
	_, _, err = ann.Rename(ctx, g.ID, "dinner")
	must(err)
	bob.UntilText("#messages", "ann renamed the group to dinner")
	bob.UntilText("#peer", "dinner")
	want := []string{"first", "Message recalled"}
	if diff := cmp.Diff(want, texts(bob)); diff != "" {
		t.Error(diff)
	}
	bob.Open(c.URL + "/")
	bob.UntilText("#conversations", "dinner")
	bob.Click("#conversations button")
	untilCount(bob, 2)
	if diff := cmp.Diff(want, texts(bob)); diff != "" {
		t.Errorf("after a reload: %s", diff)
	}
	bob.Screenshot("chat-group")
}
