package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/proxytest"

	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/plan"
	policyfile "github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
)

const agreeDocument = `
color:
  env: prod
  tenant: public
  trustedPeers: [10.0.0.0/8]
  cohorts:
    - {name: staff, env: stage, match: {claim: {name: role, exact: staff}}}
    - {name: canary, env: canary, match: {any: [{header: {name: x-env, exact: canary}}, {cookie: {name: env, exact: canary}}]}}
    - {name: share, match: {percent: {of: 30}}}
  tenants:
    - {name: search, match: {host: "search.*"}}
    - {claim: tenant}
    - {header: x-tenant}
services:
  - name: core
    pools: [{name: baseline}, {name: canary}, {name: isolated}]
    routes: [{name: all, prefix: /}]
`

// agreeing is one request and what everyone makes of it.
type agreeing struct {
	host, traceparent, env, tenant, claims, user string
	cookie                                       bool
	trusted                                      bool
}

func drawRequest(rnd *rand.Rand) agreeing {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	r := agreeing{
		host: pick("chat.example.com", "search.example.com", "SEARCH.example.com:8080", "[::1]:80"),
		env:  pick("", "", "canary", "Canary"), tenant: pick("", "acme", "ACME", "a|b", strings.Repeat("t", 70)),
		claims: pick("", "", `{"sub":%q}`, `{"sub":%q,"role":"staff"}`, `{"sub":%q,"tenant":"bank"}`, `{"sub":%q,"tenant":"\u00e9"}`, `{"sub":%q,"tenant":7}`),
		user:   fmt.Sprintf("user-%d", rnd.IntN(1000)), cookie: rnd.IntN(5) == 0, trusted: rnd.IntN(2) == 0,
	}
	switch rnd.IntN(4) {
	case 0:
		r.traceparent = "00-zz"
	case 1, 2:
		r.traceparent = fmt.Sprintf("00-%016x%016x-%016x-01", rnd.Uint64(), rnd.Uint64()|1, rnd.Uint64()|1)
	}
	if r.claims != "" {
		r.claims = fmt.Sprintf(r.claims, r.user)
	}
	return r
}

func (r agreeing) headers() [][2]string {
	out := [][2]string{{":authority", r.host}}
	add := func(name, value string) {
		if value != "" {
			out = append(out, [2]string{name, value})
		}
	}
	add("traceparent", r.traceparent)
	add("x-env", r.env)
	add("x-tenant", r.tenant)
	if r.cookie {
		add("cookie", "a=b; env=canary")
	}
	if r.claims != "" {
		add("x-traffic-claims", jwt(r.claims))
	}
	return out
}

// asked is the request as `tracegate ctl explain` has it.
func (r agreeing) asked(t *testing.T) explain.Request {
	t.Helper()
	out := explain.Request{Method: http.MethodGet, Host: r.host, Path: "/v1/me", Header: http.Header{}, Peer: r.peer()}
	for _, h := range r.headers()[1:] {
		if h[0] != "x-traffic-claims" {
			out.Header.Set(h[0], h[1])
		}
	}
	if r.claims != "" {
		if err := json.Unmarshal([]byte(r.claims), &out.Claims); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func (r agreeing) peer() netip.Addr {
	if r.trusted {
		return netip.MustParseAddr("10.1.2.3")
	}
	return netip.MustParseAddr("192.0.2.1")
}

// TestAllAgree draws requests and asks four for their group: the filter's Go code, the
// module that Envoy gets (in wazero), what `tracegate ctl explain` says, and the ClickHouse
// expression over the trace, env and tenant that the filter wrote.
func TestAllAgree(t *testing.T) {
	p := agreePlan(t)
	rnd := rand.New(rand.NewPCG(41, 2))
	var requests []agreeing
	var said []explain.Outcome
	groups := map[group.ID]int{}
	for i := range 400 {
		r := drawRequest(rnd)
		o, err := explain.Explain(p, r.asked(t))
		if err != nil {
			t.Fatalf("request %d, %+v: %v", i, r, err)
		}
		requests, said = append(requests, r), append(said, o)
		groups[o.Group]++
	}
	if len(groups) < 15 {
		t.Errorf("only %d groups were drawn: %v", len(groups), groups)
	}
	var traces, envs, tenants, want []string
	for _, way := range vms {
		for _, trusted := range []bool{true, false} { // one host at a time is all there can be
			t.Run(fmt.Sprint(way.name, ", trusted ", trusted), func(t *testing.T) {
				o := proxytest.NewEmulatorOption().WithProperty([]string{"source", "address"}, []byte(agreeing{trusted: trusted}.peer().String()+":4711"))
				host := start(t, way.vm(t), p.Filter, o)
				host.StartPlugin()
				for i, r := range requests {
					if r.trusted != trusted {
						continue
					}
					got := send(t, host, r.headers()...)
					if got["x-traffic-group"] != string(said[i].Group) {
						t.Fatalf("request %d, %+v: the filter says group %q, explain %q of %q and %q", i, r, got["x-traffic-group"], said[i].Group, said[i].Env, said[i].Tenant)
					}
					trace := got["traceparent"][3:35]
					if c, ok := group.OfTrace(trace); !ok || c != said[i].Color {
						t.Fatalf("request %d, %+v: the filter writes trace %s, explain says color %s", i, r, trace, said[i].Color)
					}
					env, tenant := inBaggage(got["baggage"])
					if env != said[i].Env || tenant != said[i].Tenant {
						t.Fatalf("request %d, %+v: the filter writes baggage %s, explain says env %q and tenant %q", i, r, got["baggage"], said[i].Env, said[i].Tenant)
					}
					traces, envs, tenants, want = append(traces, trace), append(envs, env), append(tenants, tenant), append(want, string(said[i].Group))
				}
			})
		}
	}
	if len(traces) != 2*len(requests) {
		t.Fatalf("%d traces of %d requests", len(traces), len(requests))
	}
	for i, got := range inClickHouse(t, traces, envs, tenants) {
		if got != want[i] {
			t.Fatalf("trace %s, env %q, tenant %q: ClickHouse says group %s, the filter %s", traces[i], envs[i], tenants[i], got, want[i])
		}
	}
}

func agreePlan(t *testing.T) plan.Plan {
	t.Helper()
	doc, err := policyfile.Parse([]byte(agreeDocument))
	if err != nil {
		t.Fatal(err)
	}
	one := []string{"127.0.0.1:1"}
	endpoints := policyfile.Endpoints{Services: map[string]map[string][]string{"core": {"baseline": one, "canary": one, "isolated": one}}}
	edge := plan.Edge{Listen: "127.0.0.1:2", Observe: "127.0.0.1:3", Wasm: plan.Wasm{Path: "/filter.wasm", SHA256: strings.Repeat("0", 64)}}
	p, err := plan.Build(doc, endpoints, plan.Groups{}, edge)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func inBaggage(text string) (env, tenant string) {
	for member := range strings.SplitSeq(text, ",") {
		switch k, v, _ := strings.Cut(member, "="); k {
		case "traffic.env":
			env = v
		case "traffic.tenant":
			tenant = v
		}
	}
	return env, tenant
}

// inClickHouse asks the engine for the groups of all rows at once, over its HTTP interface.
func inClickHouse(t *testing.T, traces, envs, tenants []string) []string {
	t.Helper()
	e := enginetest.Start(t)
	var sql strings.Builder
	fmt.Fprintf(&sql, "SELECT %s FROM VALUES('At UInt32, TraceId String, Env String, Tenant String'", fmt.Sprintf(group.ClickHouseID, "Env", "Tenant"))
	for i := range traces {
		fmt.Fprintf(&sql, ", (%d, '%s', '%s', '%s')", i, traces[i], envs[i], tenants[i]) // names have no quotes
	}
	sql.WriteString(") ORDER BY At FORMAT TSV")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.Addr+"/?max_query_size=10000000", strings.NewReader(sql.String()))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(enginetest.User, enginetest.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	out := strings.Fields(string(body))
	if err != nil || resp.StatusCode != http.StatusOK || len(out) != len(traces) {
		t.Fatalf("%d rows of %d, %s, %v: %.300s", len(out), len(traces), resp.Status, err, body)
	}
	return out
}
