package edge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tracegate/tracegate/edge"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// The control plane here is go-control-plane's own server, so that the bootstrap is
// tested against one that the project has not written.

func TestRunServesAndDrains(t *testing.T) {
	cfg := config(t)
	controlPlane(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	log := newLog(t)
	ended := run(ctx, cfg, log)
	get(t, cfg.Listen[0], "hello")

	// Restarted, it is given the same configuration again.
	pid, err := strconv.Atoi(log.value("pid="))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a killed envoy: %v", err)
	}
	ended = run(ctx, cfg, log)
	get(t, cfg.Listen[0], "hello")

	stop()
	if err := <-ended; err != nil {
		t.Errorf("drained: %v", err)
	}
	if l, err := net.Listen("tcp", cfg.Listen[0]); err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else {
		l.Close()
	}
}

// Without a control plane an edge is not ready, and says so; it does not end.
func TestRunWaitsForControlPlane(t *testing.T) {
	cfg := config(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := run(ctx, cfg, newLog(t))
	admin := envoy.NewAdmin(cfg.Bootstrap.Admin)
	waitFor(t, func() bool { return errors.Is(admin.Ready(t.Context()), envoy.ErrNotReady) })
	controlPlane(t, cfg)
	waitFor(t, func() bool { return admin.Ready(t.Context()) == nil })
	get(t, cfg.Listen[0], "hello")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		set  func(*edge.Config)
		is   error
		says string
	}{
		{"admin port", func(c *edge.Config) { c.Bootstrap.Admin = taken.Addr().String() }, envoy.ErrPortInUse, taken.Addr().String()},
		{"client port", func(c *edge.Config) { c.Listen = []string{taken.Addr().String()} }, envoy.ErrPortInUse, taken.Addr().String()},
		{"no such address", func(c *edge.Config) { c.Listen = []string{"192.0.2.1:1"} }, nil, "listen on 192.0.2.1:1"},
		{"folder", func(c *edge.Config) { c.Dir = filepath.Join(file, "x") }, nil, file},
		{"binary", func(c *edge.Config) { c.Envoy = file }, nil, "edge.envoy: "},
		{"configuration", func(c *edge.Config) { c.Concurrency = -1 }, nil, "concurrency: -1 is negative"},
		{"bootstrap", func(c *edge.Config) { c.Bootstrap.ID = "" }, nil, "id: is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t)
			tt.set(&cfg)
			err := edge.Run(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.says)
			}
		})
	}
}

func config(t *testing.T) edge.Config {
	t.Helper()
	cfg := edge.DefaultConfig()
	cfg.Envoy = envoytest.Binary(t)
	cfg.Dir = t.TempDir()
	cfg.Bootstrap.Admin = freeport.ForTest(t)
	cfg.Bootstrap.XDS = freeport.ForTest(t)
	cfg.Listen = []string{freeport.ForTest(t)}
	cfg.Concurrency = 1
	cfg.Drain = time.Second
	return cfg
}

func run(ctx context.Context, cfg edge.Config, log *log) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- edge.Run(ctx, cfg, slog.New(slog.NewTextHandler(log, nil))) }()
	return ended
}

// controlPlane serves one listener that answers hello, by delta ADS.
func controlPlane(t *testing.T, cfg edge.Config) {
	t.Helper()
	_, port, err := net.SplitHostPort(cfg.Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: "edge",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
					Status: 200, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "hello"}},
				}},
			}},
		}}}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})}}},
	}
	listener := &listenerv3.Listener{
		Name: "edge",
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
		}}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(hcm)},
		}}}},
	}
	snapshot, err := cache.NewSnapshot("1", map[resource.Type][]types.Resource{resource.ListenerType: {listener}})
	if err != nil {
		t.Fatal(err)
	}
	snapshots := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	if err := snapshots.SetSnapshot(t.Context(), cfg.Bootstrap.ID, snapshot); err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", cfg.Bootstrap.XDS)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(t.Context(), snapshots, nil))
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// get waits until the address answers, and checks what.
func get(t *testing.T, addr, want string) {
	t.Helper()
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var got string
	waitFor(t, func() bool {
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		got = string(body)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

// log keeps what is written and passes it to the test.
type log struct {
	t  *testing.T
	mu sync.Mutex
	b  strings.Builder
}

func newLog(t *testing.T) *log { return &log{t: t} }

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	return l.t.Output().Write(p)
}

// value is what follows the last key, up to a space.
func (l *log) value(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, after, _ := strings.Cut(l.b.String()[strings.LastIndex(l.b.String(), key):], key)
	v, _, _ := strings.Cut(after, " ")
	return v
}
