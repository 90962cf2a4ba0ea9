package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/group"
)

// edgeConfig is an Envoy whose filter comes by ECDS from a file, with one route per
// way to match what the filter writes.
const edgeConfig = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: {{admin}}}}}
node: {id: test, cluster: test}
static_resources:
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, port_value: {{edge}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          use_remote_address: true
          upgrade_configs: [{upgrade_type: websocket}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /, headers: [{name: x-traffic-group, string_match: {exact: "MOVED"}}]}
                route: {cluster: up}
                request_headers_to_add: [{header: {key: x-route, value: group}}]
              - match: {prefix: /, headers: [{name: traceparent, string_match: {prefix: "00-CANARY"}}]}
                route: {cluster: up}
                request_headers_to_add: [{header: {key: x-route, value: color}}]
              - match: {prefix: /}
                route: {cluster: up}
          http_filters:
          - name: traffic
            config_discovery:
              config_source: {path_config_source: {path: "ECDS", watched_directory: {path: "DIR"}}}
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm]
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: up
    type: STATIC
    load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: UPSTREAM}}}}]}]}
`

// edge is a running Envoy with the filter.
type edge struct {
	*envoytest.Envoy
	t      *testing.T
	dir    string
	module string
	n      int
	hold   chan struct{} // closed to let /hold end
}

func startEdge(t *testing.T, module, policy string) *edge {
	t.Helper()
	dir := t.TempDir()
	e := &edge{t: t, dir: dir, module: module, hold: make(chan struct{})}
	up := httptest.NewServer(http.HandlerFunc(e.echo))
	t.Cleanup(up.Close)
	e.policy(policy)
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	e.Envoy = envoytest.Start(t, strings.NewReplacer(
		"ECDS", filepath.Join(dir, "ecds.json"), "DIR", dir, "UPSTREAM", port,
		"CANARY", group.ColorOf("canary").String(), "MOVED", id("", "prod", "payment"),
	).Replace(edgeConfig))
	return e
}

// echo answers with the headers it got; /hold begins at once and ends when the test
// says so.
func (e *edge) echo(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hold" {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-e.hold:
		case <-r.Context().Done():
			return
		}
	}
	_ = json.NewEncoder(w).Encode(r.Header)
}

// policy hands Envoy a policy as a file that appears whole.
func (e *edge) policy(policy string) {
	e.t.Helper()
	e.n++
	raw, err := json.Marshal(map[string]any{
		"version_info": fmt.Sprint(e.n),
		"resources": []any{map[string]any{
			"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
			"name":  "traffic",
			"typed_config": map[string]any{
				"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
				"config": map[string]any{
					"name": "traffic", "root_id": "traffic", "failure_policy": "FAIL_OPEN",
					"configuration": map[string]any{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": policy},
					"vm_config": map[string]any{
						"vm_id": "traffic", "runtime": "envoy.wasm.runtime.v8",
						"code": map[string]any{"local": map[string]any{"filename": e.module}},
					},
				},
			},
		}},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	tmp := filepath.Join(e.dir, "new")
	if err := os.WriteFile(tmp, raw, 0o644); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(e.dir, "ecds.json")); err != nil {
		e.t.Fatal(err)
	}
}

// get sends a request and returns what the upstream got.
func (e *edge) get(headers ...[2]string) http.Header {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, "http://"+e.Addr("edge")+"/v1/me", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Host = "search.example.com"
	for _, h := range headers {
		if h[0] == ":authority" {
			req.Host = h[1]
			continue
		}
		req.Header.Add(h[0], h[1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	var got http.Header
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusOK {
		e.t.Fatalf("status %d: %v", resp.StatusCode, err)
	}
	return got
}

func (e *edge) stat(filter string) uint64 {
	e.t.Helper()
	n, err := e.Admin().Sum(e.t.Context(), filter)
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}

// eventually polls until ok, for at most half a minute.
func (e *edge) eventually(what string, ok func() bool) {
	e.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			e.t.Fatalf("not within half a minute: %s", what)
		case <-tick.C:
		}
	}
}

func TestEnvoyRequests(t *testing.T) {
	e := startEdge(t, wasmFile(t), policy)
	canary := group.ColorOf("canary").String()
	tests := []struct {
		name    string
		headers [][2]string
		want    map[string]string // patterns; "" means that there must be none
	}{
		{"nothing said", nil, map[string]string{
			"X-Traffic-Group": id("", "prod", "search"), "Traceparent": "00-00000000[0-9a-f]{24}-[0-9a-f]{16}-03",
			"Tracestate": "", "Baggage": "traffic.env=prod,traffic.tenant=search", "X-Route": "",
		}},
		{"a route by color", [][2]string{{"x-env", "canary"}}, map[string]string{
			"X-Route": "color", "X-Traffic-Group": id("canary", "canary", "search"), "Traceparent": "00-" + canary + ".*",
		}},
		{"a route by group", [][2]string{{":authority", "Payment.example.com:8080"}}, map[string]string{
			"X-Route": "group", "X-Traffic-Group": id("", "prod", "payment"),
		}},
		{"forged headers, each twice", [][2]string{
			{"x-traffic-group", "ffffff"}, {"x-traffic-group", "eeeeee"}, {"x-traffic-claims", "e30"}, {"x-traffic-claims", "e30"},
			{"traceparent", "00-" + clientTrace + "-" + clientSpan + "-01"}, {"traceparent", "00-" + canary + clientTrace[8:] + "-" + clientSpan + "-01"},
			{"baggage", "traffic.tenant=payment,k=v"}, {"baggage", "traffic.env=canary,l=w"},
			{"tracestate", "a=b"}, {"tracestate", "c=d"},
		}, map[string]string{
			"X-Traffic-Group": id("", "prod", "search"), "X-Traffic-Claims": "", "X-Route": "",
			"Traceparent": "00-00000000[0-9a-f]{24}-[0-9a-f]{16}-03", "Tracestate": "",
			"Baggage": "traffic.env=prod,traffic.tenant=search,k=v,l=w",
		}},
		{"lists in several headers", [][2]string{
			{"traceparent", "00-" + clientTrace + "-" + clientSpan + "-01"}, {"tracestate", "a=b"}, {"tracestate", "c=d"},
			{"cookie", "x=y"}, {"cookie", "env=canary"},
		}, map[string]string{
			"X-Route": "color", "Tracestate": "tg=" + clientTrace + "-" + clientSpan + ",a=b,c=d",
		}},
		{"no peer by X-Forwarded-For", [][2]string{
			{"x-forwarded-for", "10.1.2.3"}, {"traceparent", "00-" + clientTrace + "-" + clientSpan + "-01"},
		}, map[string]string{"Traceparent": "00-00000000.*"}},
		{"much of everything", [][2]string{
			{"baggage", strings.Repeat("k=v,", 2000)}, {"cookie", strings.Repeat("c=d; ", 1000)}, {"tracestate", strings.Repeat("a=b,", 500)},
			{"traceparent", strings.Repeat("0", 3000)},
		}, map[string]string{"X-Traffic-Group": id("", "prod", "search")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]string{}
			for k, v := range e.get(tt.headers...) {
				got[k] = strings.Join(v, " AND ")
			}
			check(t, got, tt.want)
		})
	}
	t.Run("stats", func(t *testing.T) {
		e.eventually("every request is counted", func() bool {
			return e.stat(`^wasmcustom\.traffic_(assigned|baseline)$`) == uint64(len(tests))
		})
		if n := e.stat(`^wasmcustom\.traffic_malformed_traceparent$`); n != 2 {
			t.Errorf("traffic_malformed_traceparent = %d, want 2", n)
		}
	})
}

func TestEnvoyPolicyUpdates(t *testing.T) {
	e := startEdge(t, wasmFile(t), policy)
	before, err := e.Admin().Listeners(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	// A stream that is open during all of it.
	held, err := http.Get("http://" + e.Addr("edge") + "/hold")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Body.Close()

	for i := range 20 {
		env := fmt.Sprintf("env%d", i)
		e.policy(fmt.Sprintf(`{"env": %q}`, env))
		e.eventually("policy "+env, func() bool {
			return strings.Contains(e.get().Get("Baggage"), "traffic.env="+env+",")
		})
	}

	// What is wrong is refused, with the reason, and the last good policy stays.
	e.policy(`{"env": "Not A Name"}`)
	e.eventually("rejection", func() bool { return e.stat(`^extension_config_discovery\..*\.update_rejected$`) == 1 })
	if n := e.stat(`^wasmcustom\.traffic_config_errors$`); n != 1 {
		t.Errorf("traffic_config_errors = %d, want 1", n)
	}
	if b := e.get().Get("Baggage"); !strings.Contains(b, "traffic.env=env19,") {
		t.Errorf("baggage %q after a refused policy", b)
	}
	e.policy(`{"env": "again"}`)
	e.eventually("the next good policy", func() bool { return strings.Contains(e.get().Get("Baggage"), "traffic.env=again,") })

	close(e.hold)
	var got http.Header
	if err := json.NewDecoder(held.Body).Decode(&got); err != nil || got.Get("X-Traffic-Group") != id("", "prod", "public") {
		t.Errorf("the held stream broke: %v %v", err, got)
	}
	after, err := e.Admin().Listeners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("listeners changed: %+v, then %+v", before, after)
	}
	if n := e.stat(`^wasm\.envoy\.wasm\.runtime\.v8\.active$`); n > 4 {
		t.Errorf("%d VMs after 20 updates", n)
	}
}
