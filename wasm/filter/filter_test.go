package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/proxytest"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/wasm/color"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // proxytest logs each call
	enginetest.Main(m)
}

const policy = `{
	"env": "prod", "tenant": "public",
	"trustedPeers": ["10.0.0.0/8"],
	"cohorts": [
		{"name": "canary", "env": "canary", "match": {"any": [
			{"header": {"name": "X-Env", "exact": "canary"}},
			{"cookie": {"name": "env", "exact": "canary"}}]}}
	],
	"tenants": [
		{"name": "search", "match": {"host": "search.*"}},
		{"name": "payment", "match": {"host": "payment.*"}},
		{"claim": "tenant"}
	]
}`

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
)

// start runs a plugin with a configuration and returns its host.
func start(t *testing.T, vm types.VMContext, config string, o *proxytest.EmulatorOption) proxytest.HostEmulator {
	t.Helper()
	host, reset := proxytest.NewHostEmulator(o.WithVMContext(vm).WithPluginConfiguration([]byte(config)))
	t.Cleanup(reset)
	if status := host.StartVM(); status != types.OnVMStartStatusOK {
		t.Fatal("vm does not start")
	}
	return host
}

// send returns the headers that a request leaves the filter with.
func send(t *testing.T, host proxytest.HostEmulator, headers ...[2]string) map[string]string {
	t.Helper()
	all := append([][2]string{{":path", "/v1/me"}, {":method", "GET"}}, headers...)
	if !slices.ContainsFunc(headers, func(h [2]string) bool { return h[0] == ":authority" }) {
		all = append(all, [2]string{":authority", "search.example.com"})
	}
	id := host.InitializeHttpContext()
	if action := host.CallOnRequestHeaders(id, all, true); action != types.ActionContinue {
		t.Fatalf("action %v", action)
	}
	got := map[string]string{}
	for _, h := range host.GetCurrentRequestHeaders(id) {
		got[strings.Clone(h[0])] = strings.Clone(h[1]) // a host copies what a filter hands it; this one does not
	}
	return got
}

func jwt(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }

func id(cohort, env, tenant string) string {
	g := group.Group{Env: env, Tenant: tenant}
	if cohort != "" {
		g.Color = group.ColorOf(cohort)
	}
	return string(g.ID())
}

func TestRequests(t *testing.T) {
	canary := group.ColorOf("canary").String()
	tests := []struct {
		name    string
		headers [][2]string
		// want are patterns of headers; "" means that there must be none.
		want map[string]string
	}{
		{"nothing said", nil, map[string]string{
			"x-traffic-group": id("", "prod", "search"),
			"traceparent":     "00-00000000[0-9a-f]{24}-[0-9a-f]{16}-03",
			"tracestate":      "",
			"baggage":         "traffic.env=prod,traffic.tenant=search",
		}},
		{"a cohort by header", [][2]string{{"x-env", "canary"}}, map[string]string{
			"x-traffic-group": id("canary", "canary", "search"),
			"traceparent":     "00-" + canary + "[0-9a-f]{24}-[0-9a-f]{16}-03",
			"baggage":         "traffic.env=canary,traffic.tenant=search",
		}},
		{"a cohort by cookie", [][2]string{{"cookie", "a=b; env=canary"}}, map[string]string{
			"x-traffic-group": id("canary", "canary", "search"),
		}},
		{"a client's trace", [][2]string{
			{"traceparent", "00-" + clientTrace + "-" + clientSpan + "-00"}, {"tracestate", "vendor=1,tg=forged"},
		}, map[string]string{
			"traceparent": "00-00000000[0-9a-f]{24}-[0-9a-f]{16}-02",
			"tracestate":  "tg=" + clientTrace + "-" + clientSpan + ",vendor=1",
		}},
		{"a malformed trace", [][2]string{{"traceparent", "00-zz"}, {"tracestate", "vendor=1"}}, map[string]string{
			"traceparent": "00-00000000[0-9a-f]{24}-[0-9a-f]{16}-03",
			"tracestate":  "",
		}},
		{"a forged group", [][2]string{{"x-traffic-group", "ffffff"}, {"baggage", "traffic.tenant=payment,k=v"}}, map[string]string{
			"x-traffic-group": id("", "prod", "search"),
			"baggage":         "traffic.env=prod,traffic.tenant=search,k=v",
		}},
		{"a tenant by claim", [][2]string{{":authority", "chat.example.com"}, {"x-traffic-claims", jwt(`{"sub":"u1","tenant":"acme"}`)}}, map[string]string{
			"x-traffic-group":  id("", "prod", "acme"),
			"x-traffic-claims": "",
		}},
		{"claims that no rule needs", [][2]string{{"x-traffic-claims", jwt(`{"sub":"u1"}`)}}, map[string]string{
			"x-traffic-claims": "",
		}},
	}
	for _, way := range vms {
		t.Run(way.name, func(t *testing.T) {
			host := start(t, way.vm(t), policy, proxytest.NewEmulatorOption())
			if host.StartPlugin() != types.OnPluginStartStatusOK {
				t.Fatal(host.GetCriticalLogs())
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					check(t, send(t, host, tt.headers...), tt.want)
				})
			}
		})
	}
}

func check(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, pattern := range want {
		switch v, there := got[name]; {
		case pattern == "" && there:
			t.Errorf("%s: %q is still there", name, v)
		case pattern != "" && !regexp.MustCompile("^"+pattern+"$").MatchString(v):
			t.Errorf("%s = %q, want %q", name, v, pattern)
		}
	}
}

func TestTrustedPeer(t *testing.T) {
	for _, way := range vms {
		t.Run(way.name, func(t *testing.T) {
			o := proxytest.NewEmulatorOption().WithProperty([]string{"source", "address"}, []byte("10.1.2.3:4711"))
			host := start(t, way.vm(t), policy, o)
			host.StartPlugin()
			trace := "00-" + clientTrace + "-" + clientSpan + "-01"
			got := send(t, host, [2]string{"traceparent", trace}, [2]string{"tracestate", "a=b"}, [2]string{"baggage", "traffic.env=stage,traffic.tenant=acme,k=v"})
			check(t, got, map[string]string{
				"traceparent":     trace,
				"tracestate":      "a=b",
				"baggage":         "traffic.env=stage,traffic.tenant=acme,k=v",
				"x-traffic-group": string(group.Group{Color: 0x0af76519, Env: "stage", Tenant: "acme"}.ID()),
			})
		})
	}
}

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile("../../mesh/group/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Name, TraceID, Env, Tenant, Group string }
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, way := range vms {
		t.Run(way.name, func(t *testing.T) {
			o := proxytest.NewEmulatorOption().WithProperty([]string{"source", "address"}, []byte("10.1.2.3:4711"))
			host := start(t, way.vm(t), policy, o)
			host.StartPlugin()
			tested := 0
			for _, v := range vectors {
				if v.Env == "" || v.Tenant == "" {
					continue // no request can have an empty one
				}
				tested++
				got := send(t, host,
					[2]string{"traceparent", "00-" + v.TraceID + "-" + clientSpan + "-01"},
					[2]string{"baggage", "traffic.env=" + v.Env + ",traffic.tenant=" + v.Tenant})
				if got["x-traffic-group"] != v.Group {
					t.Errorf("%s: group %s, want %s", v.Name, got["x-traffic-group"], v.Group)
				}
			}
			if tested < 5 {
				t.Errorf("only %d vectors", tested)
			}
		})
	}
}

func TestCountersAreHandedOverByTheTick(t *testing.T) {
	for _, way := range vms {
		t.Run(way.name, func(t *testing.T) {
			host := start(t, way.vm(t), policy, proxytest.NewEmulatorOption())
			host.StartPlugin()
			before := map[string]uint64{} // a VM that had a plugin before has handed over its counts
			for _, name := range names() {
				before[name], _ = host.GetCounterMetric(name)
			}
			if got := host.GetTickPeriod(); got != flushMillis {
				t.Errorf("tick period %d", got)
			}
			send(t, host)
			send(t, host, [2]string{"x-env", "canary"}, [2]string{"traceparent", "bad"})
			send(t, host, [2]string{"x-env", "canary"}, [2]string{"baggage", "=,"})
			if n, _ := host.GetCounterMetric("traffic_assigned"); n != before["traffic_assigned"] {
				t.Errorf("%d before the tick", n)
			}
			host.Tick()
			host.Tick()
			for name, want := range map[string]uint64{
				"traffic_baseline": 1, "traffic_assigned": 2, "traffic_malformed_traceparent": 1,
				"traffic_baggage_cut": 1, "traffic_value_rejected": 0, "traffic_config_errors": 0,
			} {
				if got, err := host.GetCounterMetric(name); err != nil || got-before[name] != want {
					t.Errorf("%s grew by %d (%v), want %d", name, got-before[name], err, want)
				}
			}
			send(t, host)
			host.FinishVM()
			if got, _ := host.GetCounterMetric("traffic_baseline"); got-before["traffic_baseline"] != 2 {
				t.Errorf("traffic_baseline = %d at the end, want 2", got)
			}
		})
	}
}

func TestPolicyIsRefused(t *testing.T) {
	tests := map[string]struct{ config, says string }{
		"no JSON":          {"{", "read policy"},
		"an unknown field": {`{"cohort": []}`, `unknown field "cohort"`},
		"two documents":    {"{}{}", "something follows"},
		"a wrong rule":     {`{"cohorts":[{"name":"a","match":{"all":[{"path":"x"}]}}]}`, "cohorts[0].match.all[0].path"},
	}
	for _, way := range vms {
		for name, tt := range tests {
			t.Run(way.name+"/"+name, func(t *testing.T) {
				host := start(t, way.vm(t), tt.config, proxytest.NewEmulatorOption())
				if host.StartPlugin() != types.OnPluginStartStatusFailed {
					t.Fatal("accepted")
				}
				if logs := strings.Join(host.GetCriticalLogs(), "\n"); !strings.Contains(logs, tt.says) {
					t.Errorf("log %q does not say %q", logs, tt.says)
				}
				if n, _ := host.GetCounterMetric("traffic_config_errors"); n != 1 {
					t.Errorf("traffic_config_errors = %d", n)
				}
			})
		}
	}
}

func TestPolicyMayBeEmpty(t *testing.T) {
	for _, way := range vms {
		t.Run(way.name, func(t *testing.T) {
			host := start(t, way.vm(t), "", proxytest.NewEmulatorOption())
			if host.StartPlugin() != types.OnPluginStartStatusOK {
				t.Fatal(host.GetCriticalLogs())
			}
			check(t, send(t, host), map[string]string{"x-traffic-group": id("", color.DefaultEnv, color.DefaultTenant)})
		})
	}
}

func TestCounterNamesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for i, name := range names() {
		if name == "" || seen[name] {
			t.Errorf("counter %d is named %q", i, name)
		}
		seen[name] = true
	}
	var c counters
	c.events(^color.Events(0))
	want := [countersEnd]uint64{trustedRequests: 1, malformedTraceparents: 1, tracestatesCut: 1, baggagesCut: 1, valuesRejected: 1, claimsRejected: 1}
	if diff := cmp.Diff(want, c.pending); diff != "" {
		t.Error(diff)
	}
}

// panicking is the filter, panicking at each request after it has named the group.
type panicking struct{ types.DefaultVMContext }

func (*panicking) NewPluginContext(uint32) types.PluginContext { return &panickingPlugin{} }

type panickingPlugin struct{ plugin }

func (p *panickingPlugin) NewHttpContext(uint32) types.HttpContext {
	return &panickingStream{stream: stream{plugin: &p.plugin}}
}

type panickingStream struct{ stream }

func (s *panickingStream) OnHttpRequestHeaders(n int, end bool) types.Action {
	defer func() { s.plugin.OnPanic(recover()) }() // as wasm/stockgo does
	s.stream.OnHttpRequestHeaders(n, end)
	panic("asked to")
}

// TestPanic: a request at which the filter panics carries nothing of it, is counted, and
// only the first is logged.
func TestPanic(t *testing.T) {
	host := start(t, &panicking{}, policy, proxytest.NewEmulatorOption())
	if host.StartPlugin() != types.OnPluginStartStatusOK {
		t.Fatal("the plugin does not start")
	}
	for range 3 {
		got := send(t, host, [2]string{"x-traffic-claims", jwt(`{"tenant":"acme"}`)})
		for _, name := range []string{"x-traffic-group", "x-traffic-place", "x-traffic-claims"} {
			if value, ok := got[name]; ok {
				t.Errorf("%s: %s is left", name, value)
			}
		}
	}
	host.Tick()
	if n, err := host.GetCounterMetric("traffic_panics"); err != nil || n != 3 {
		t.Errorf("%d panics are counted, %v", n, err)
	}
	if logs := host.GetCriticalLogs(); len(logs) != 1 || !strings.Contains(logs[0], "asked to") {
		t.Errorf("logs: %q", logs)
	}
}
