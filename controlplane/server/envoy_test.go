package server_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"

	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// TestIntegrationResources pushes go-control-plane's own integration resources
// (pkg/test/resource: HTTP, scoped, VHDS and TCP listeners, runtimes, TLS by SDS) through
// this server into a real Envoy, one version after the other, as its integration test does:
// everything is acknowledged, and every listener serves. Its extension configurations are
// left out: none of its listeners refers to one, so no Envoy asks for them.
func TestIntegrationResources(t *testing.T) {
	t.Parallel()
	envoytest.Binary(t)
	for name, encrypted := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up") }))
			t.Cleanup(up.Close)
			base, err := freeport.Row("127.0.0.1", 8, 1)
			if err != nil {
				t.Fatal(err)
			}
			const scoped, vhds, plain, tcp, runtimes = 2, 2, 2, 2, 2
			snapshot := resourcev3.TestSnapshot{
				Xds: resourcev3.DeltaAds, UpstreamPort: port(t, up.Listener.Addr().String()), BasePort: uint32(base),
				NumClusters: 3, NumHTTPListeners: plain, NumScopedHTTPListeners: scoped, NumVHDSHTTPListeners: vhds, NumTCPListeners: tcp,
				NumRuntimes: runtimes, TLS: encrypted,
			}
			c := start(t, func(c *server.Config) { c.Warmup = 0 })
			boot := bootstrap.DefaultConfig()
			boot.XDS = c.addr
			envoytest.StartEdited(t, boot, func(js []byte) []byte { return withTheirs(t, js, runtimes) })
			for version := range 4 {
				snapshot.Version = fmt.Sprint("v", version)
				s := converted(t, snapshot.Generate())
				c.Set(s)
				if e := c.inSync(s); len(e.Nacks) > 0 {
					t.Fatalf("%s: refused: %+v", snapshot.Version, e.Nacks)
				}
				for i := range uint32(scoped + vhds + plain + tcp) {
					answers(t, encrypted, fmt.Sprintf("127.0.0.1:%d", snapshot.BasePort+i))
				}
			}
		})
	}
}

// withTheirs adds to our bootstrap what theirs has: a cluster for access logs, which
// nobody listens behind, and layers of runtime that are discovered.
func withTheirs(t *testing.T, js []byte, runtimes int) []byte {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal(js, &b); err != nil {
		t.Fatal(err)
	}
	static := b["static_resources"].(map[string]any)
	static["clusters"] = append(static["clusters"].([]any), map[string]any{
		"name": resourcev3.AlsCluster, "connect_timeout": "1s", "type": "STATIC", "http2_protocol_options": map[string]any{},
		"load_assignment": map[string]any{"cluster_name": resourcev3.AlsCluster},
	})
	layered := b["layered_runtime"].(map[string]any)
	for i := range runtimes {
		name := fmt.Sprint("runtime-", i)
		layered["layers"] = append(layered["layers"].([]any), map[string]any{"name": name, "rtds_layer": map[string]any{
			"name": name, "rtds_config": map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"},
		}})
	}
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func converted(t *testing.T, s *cache.Snapshot) *xds.Snapshot {
	t.Helper()
	var out [xds.NumTypes][]xds.Resource
	for i := range types.UnknownType {
		url, err := cache.GetResponseTypeURL(i)
		if err != nil {
			t.Fatal(err)
		}
		for name, r := range s.GetResources(url) {
			typ, ok := xds.TypeOf(url)
			if !ok {
				t.Fatalf("type %s is not served", url)
			}
			resource, err := xds.NewResource(name, r)
			if err != nil {
				t.Fatal(err)
			}
			out[typ] = append(out[typ], resource)
		}
	}
	return xds.NewSnapshot(out)
}

// answers asks until the listener serves: an acknowledged listener still warms.
func answers(t *testing.T, encrypted bool, addr string) {
	t.Helper()
	scheme := "http"
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if encrypted {
		scheme = "https"
	}
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get(scheme + "://" + addr + "/")
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if last = fmt.Sprint(resp.StatusCode, " ", string(body)); last == "200 up" {
			return
		}
	}
	t.Fatalf("%s does not serve: %s", addr, last)
}

func port(t *testing.T, addr string) uint32 {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
