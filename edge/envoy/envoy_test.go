package envoy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/edge/envoytest"
)

// proxy is an Envoy in front of one upstream.
const proxy = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: {{admin}}}}}
static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: 127.0.0.1, port_value: {{edge}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          upgrade_configs: [{upgrade_type: websocket}]
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: core.baseline}}]}
          http_filters:
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: core.baseline
    load_assignment:
      cluster_name: core.baseline
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: UPSTREAM}}}}]}]
`

func start(t *testing.T, h http.HandlerFunc) *envoytest.Envoy {
	t.Helper()
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	_, port, err := net.SplitHostPort(up.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return envoytest.Start(t, strings.ReplaceAll(proxy, "UPSTREAM", port))
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAdmin(t *testing.T) {
	e := start(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	if code, body := get(t, "http://"+e.Addr("edge")+"/"); code != 200 || body != "hello" {
		t.Fatalf("got %d %q", code, body)
	}
	stats, err := e.Admin().Stats(t.Context(), `^cluster\.core\.baseline\.upstream_rq_(total|200)$`)
	if err != nil {
		t.Fatal(err)
	}
	if len(stats) != 2 || stats["cluster.core.baseline.upstream_rq_total"] != 1 || stats["cluster.core.baseline.upstream_rq_200"] != 1 {
		t.Errorf("stats: %v", stats)
	}
	listeners, err := e.Admin().Listeners(t.Context())
	if err != nil || listeners != (envoy.Listeners{Added: 1, Active: 1}) {
		t.Errorf("listeners: %+v, %v", listeners, err)
	}
	dump, err := e.Admin().ConfigDump(t.Context())
	if err != nil || !strings.Contains(string(dump), "core.baseline") {
		t.Errorf("config dump: %d bytes, %v", len(dump), err)
	}
	if err := e.Admin().Post(t.Context(), "/no_such_command"); err == nil {
		t.Error("an unknown command succeeded")
	}
	if err := e.Admin().Post(t.Context(), "/healthcheck/fail"); err != nil {
		t.Fatal(err)
	}
	if err := e.Admin().Ready(t.Context()); !errors.Is(err, envoy.ErrNotReady) {
		t.Errorf("ready while draining: %v", err)
	}
}

// An open request ends well although Envoy was told to stop; then Envoy is gone.
func TestStopWaitsForOpenRequests(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	e := start(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		fmt.Fprint(w, "done")
	})
	type answer struct {
		code int
		body string
	}
	answered := make(chan answer, 1)
	go func() {
		code, body := get(t, "http://"+e.Addr("edge")+"/")
		answered <- answer{code, body}
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		stopped <- e.Stop(ctx)
	}()
	// Envoy has begun to drain and still holds the request.
	waitFor(t, func() bool { return errors.Is(e.Admin().Ready(t.Context()), envoy.ErrNotReady) })
	select {
	case err := <-stopped:
		t.Fatalf("stopped with an open request: %v", err)
	default:
	}
	close(release)
	if got := <-answered; got != (answer{200, "done"}) {
		t.Errorf("got %+v", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A request that never ends does not keep Envoy longer than the deadline.
func TestStopCutsAtDeadline(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	e := start(t, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	go func() {
		resp, err := http.Get("http://" + e.Addr("edge") + "/")
		if err == nil {
			resp.Body.Close()
		}
	}()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := e.Stop(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("took %s", took)
	}
}

func TestEndsWithReason(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name, bootstrap string
		is              error
		says            string
	}{
		{
			"port in use",
			fmt.Sprintf(`admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}`, taken.Addr().(*net.TCPAddr).Port),
			envoy.ErrPortInUse, taken.Addr().String(),
		},
		{"bad bootstrap", `no_such_key: 1`, nil, "no_such_key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := envoy.Start(envoy.Options{
				Binary: envoytest.Binary(t), Bootstrap: []byte(tt.bootstrap), Admin: "127.0.0.1:1", Dir: t.TempDir(), Concurrency: 1,
			}, slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Kill()
			err = p.WaitReady(t.Context())
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v that says %q", err, tt.is, tt.says)
			}
		})
	}
}

func TestKilledFromOutside(t *testing.T) {
	e := start(t, func(http.ResponseWriter, *http.Request) {})
	if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-e.Ended()
	if err := e.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
}

func TestFind(t *testing.T) {
	real := envoytest.Binary(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	fake := func(version string) string {
		path := filepath.Join(t.TempDir(), "envoy")
		script := "#!/bin/sh\necho\necho '" + path + "  version: 0123abc9.9.9/" + version + "/Clean/RELEASE/BoringSSL'\n"
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("named", func(t *testing.T) {
		if got, err := envoy.Find(t.Context(), real, "", log); err != nil || got != real {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("named, too old", func(t *testing.T) {
		if _, err := envoy.Find(t.Context(), fake("1.30.2"), "", log); err == nil || !strings.Contains(err.Error(), "is Envoy 1.30.2, need 1.40") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("named, not there", func(t *testing.T) {
		if _, err := envoy.Find(t.Context(), "/no/such/envoy", "", log); err == nil || !strings.HasPrefix(err.Error(), "edge.envoy: ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("named, not an envoy", func(t *testing.T) {
		echo, err := exec.LookPath("true")
		if err != nil {
			t.Skip(err)
		}
		if _, err := envoy.Find(t.Context(), echo, "", log); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("on PATH, fits", func(t *testing.T) {
		path := fake("1.40.7")
		t.Setenv("PATH", filepath.Dir(path)+":/bin:/usr/bin")
		if got, err := envoy.Find(t.Context(), "", "", log); err != nil || got != path {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("on PATH, does not fit", func(t *testing.T) {
		path := fake("1.31.0")
		t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
		if got, err := envoy.Find(t.Context(), "", "", log); err != nil || got == path {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
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
