package explain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/wasm/color"
)

const document = `
color:
  env: prod
  tenant: public
  trustedPeers: [10.0.0.0/8]
  cohorts:
    - {name: staff, match: {claim: {name: role, exact: staff}}}
    - {name: canary, env: canary, match: {header: {name: x-env, exact: canary}}}
  tenants:
    - {claim: tenant}
cohortPools: {canary: canary, staff: empty}
services:
  - name: core
    pools: [{name: baseline}, {name: canary}, {name: isolated}, {name: empty}]
    routes: [{name: ws, path: /ws, websocket: true}, {name: all, prefix: /v1}]
    rules:
      - {name: pinned, match: [{prefix: /pin}], pool: isolated, until: 2100-01-31T12:00:00Z}
      - {name: customer, match: [{prefix: /for, tenant: acme, cohort: staff}], pool: isolated}
      - {name: users, match: [{prefix: /users}], canary: {header: X-User, pools: [{pool: canary, percent: 30}, {pool: isolated, percent: 30}]}}
      - {name: away, match: [{hosts: [old.test]}], redirect: {host: new.test, status: 301}}
      - {name: busy, match: [{path: /busy}], mirror: {pool: canary, percent: 10}, rateLimit: {requestsPerSecond: 5}, maxRequestBytes: 9}
      - {name: group, match: [{path: /ws2, headers: [{name: x-traffic-group, exact: ` + canaryID + `}]}], websocket: true}
`

const canaryID = "2f69c3"

func userPlace() uint32 { return group.Place(canaryID, "ann") }

// releasing makes p one in which a share of the canary group is back home.
func releasing(t *testing.T, p *plan.Plan, share uint32) {
	t.Helper()
	var c color.Policy
	if err := json.Unmarshal([]byte(p.Filter), &c); err != nil {
		t.Fatal(err)
	}
	c.Releasing = []group.ID{canaryID}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p.Filter, p.Moves = string(raw), []plan.Move{{Group: canaryID, Pool: "isolated", Home: share}}
}

func planOf(t *testing.T, change func(*plan.Plan)) plan.Plan {
	t.Helper()
	p, err := policy.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	one := []string{"127.0.0.1:1"}
	endpoints := policy.Endpoints{Services: map[string]map[string][]string{"core": {"baseline": one, "canary": one, "isolated": one}}}
	edge := plan.Edge{Listen: "127.0.0.1:2", Observe: "127.0.0.1:3", Wasm: plan.Wasm{Path: "/filter.wasm", SHA256: strings.Repeat("0", 64)}}
	out, err := plan.Build(p, endpoints, plan.Groups{}, edge)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&out)
	}
	return out
}

func TestExplain(t *testing.T) {
	canary := http.Header{"X-Env": {"canary"}}
	upgrade := http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}
	trusted := explain.Request{Path: "/v1", Peer: netip.MustParseAddr("10.1.2.3"), Header: http.Header{"Traceparent": {"00-1a93b59c000000000000000000000001-0000000000000001-01"}}}
	for name, tt := range map[string]struct {
		change func(*plan.Plan)
		ask    explain.Request
		want   explain.Outcome // its Why must be among those given
	}{
		"baseline": {ask: explain.Request{Path: "/v1/me"}, want: explain.Outcome{
			Group: "0a2a8d", Env: "prod", Tenant: "public", Action: explain.Serve, Service: "core", Route: "all", Pool: "baseline",
			Why: []string{"no cohort matches, so the color is baseline's, 00000000", "pool baseline of core serves: neither the group nor its cohort has another"},
		}},
		"a cohort": {ask: explain.Request{Path: "/v1/me", Header: canary}, want: explain.Outcome{
			Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Serve, Service: "core", Route: "all", Pool: "canary",
			Why: []string{"pool canary of core serves: cohort canary has it"},
		}},
		"a claim, and a pool without instances": {ask: explain.Request{Path: "/v1", Claims: map[string]any{"role": "staff", "tenant": "acme"}}, want: explain.Outcome{
			Group: group.Group{Color: group.ColorOf("staff"), Env: "prod", Tenant: "acme"}.ID(), Env: "prod", Tenant: "acme", Cohort: "staff",
			Action: explain.Serve, Service: "core", Route: "all", Pool: "baseline", Why: []string{"pool empty has no instance, so baseline serves"},
		}},
		"a moved group": {
			change: func(p *plan.Plan) { p.Moves = []plan.Move{{Group: canaryID, Pool: "isolated"}} },
			ask:    explain.Request{Path: "/v1", Header: canary},
			want: explain.Outcome{
				Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Serve, Service: "core", Route: "all", Pool: "isolated",
				Why: []string{"pool isolated of core serves: the group was moved there"},
			},
		},
		"a user who is back": {
			change: func(p *plan.Plan) { releasing(t, p, userPlace()+1) },
			ask:    explain.Request{Path: "/v1", Header: canary, Claims: map[string]any{"sub": "ann"}},
			want: explain.Outcome{
				Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Serve, Service: "core", Route: "all", Pool: "canary",
				Why: []string{fmt.Sprintf("pool canary of core serves: the group was moved to isolated and is released step by step, and the user's place %02d is below %d; cohort canary has it", userPlace(), userPlace()+1)},
			},
		},
		"a user who is not yet": {
			change: func(p *plan.Plan) { releasing(t, p, userPlace()) },
			ask:    explain.Request{Path: "/v1", Header: canary, Claims: map[string]any{"sub": "ann"}},
			want: explain.Outcome{
				Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Serve, Service: "core", Route: "all", Pool: "isolated",
				Why: []string{fmt.Sprintf("pool isolated of core serves: the group was moved there; %d%% of its users are back already, and this is none of them", userPlace())},
			},
		},
		"a pin": {ask: explain.Request{Path: "/pin/x", Header: canary}, want: explain.Outcome{
			Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Serve, Service: "core", Rule: "pinned", Route: "pinned", Pool: "isolated",
			Why: []string{"it does so until 2100-01-31 12:00:00 UTC"},
		}},
		"a pin of a tenant": {ask: explain.Request{Path: "/for", Claims: map[string]any{"role": "staff", "tenant": "acme"}}, want: explain.Outcome{
			Group: group.Group{Color: group.ColorOf("staff"), Env: "prod", Tenant: "acme"}.ID(), Env: "prod", Tenant: "acme", Cohort: "staff",
			Action: explain.Serve, Service: "core", Rule: "customer", Route: "customer", Pool: "isolated",
		}},
		"who says so himself": {ask: explain.Request{Path: "/for", Header: http.Header{"Baggage": {"traffic.tenant=acme"}, "X-Env": {"canary"}}}, want: explain.Outcome{
			Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Refuse, Status: 404,
		}},
		"a stranger to a canary by user": {ask: explain.Request{Path: "/users"}, want: explain.Outcome{
			Group: "0a2a8d", Env: "prod", Tenant: "public", Action: explain.Serve, Service: "core", Rule: "users", Route: "users", Pool: "baseline",
			Why: []string{"pool baseline of core serves: there is no header X-User to know the user by"},
		}},
		"a redirect": {ask: explain.Request{Path: "/x", Host: "OLD.test:8080"}, want: explain.Outcome{
			Group: "0a2a8d", Env: "prod", Tenant: "public", Action: explain.Redirect, Status: 301, Service: "core", Rule: "away", Route: "away",
		}},
		"what else a rule does": {ask: explain.Request{Path: "/busy"}, want: explain.Outcome{
			Group: "0a2a8d", Env: "prod", Tenant: "public", Action: explain.Serve, Service: "core", Rule: "busy", Route: "busy", Pool: "baseline",
			Why: []string{"10% of such requests are copied to pool canary", "above 5 requests a second of this rule the edge answers 429", "a body above 9 bytes gets 413"},
		}},
		"nothing matches": {ask: explain.Request{Path: "/v2"}, want: explain.Outcome{
			Group: "0a2a8d", Env: "prod", Tenant: "public", Action: explain.Refuse, Status: 404, Why: []string{"the edge answers 404: no rule and no route matches"},
		}},
		"a WebSocket": {ask: explain.Request{Path: "/ws", Header: upgrade}, want: explain.Outcome{
			Group: "0a2a8d", Env: "prod", Tenant: "public", Action: explain.Serve, Service: "core", Route: "ws", Pool: "baseline",
		}},
		"a WebSocket by group": {ask: explain.Request{Path: "/ws2", Header: http.Header{"Upgrade": {"websocket"}, "X-Env": {"canary"}}}, want: explain.Outcome{
			Group: canaryID, Env: "canary", Tenant: "public", Cohort: "canary", Action: explain.Refuse, Status: 403,
			Why: []string{"the edge answers 403: a WebSocket is not allowed by what takes the request while it has no group: nothing"},
		}},
		"a trusted peer's color": {ask: trusted, want: explain.Outcome{
			Group: group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "public"}.ID(), Env: "canary", Tenant: "public", Cohort: "canary",
			Action: explain.Serve, Service: "core", Route: "all", Pool: "canary", Why: []string{"the peer is trusted, so the color 1a93b59c of its trace is kept"},
		}},
		"no filter, closed": {
			change: func(p *plan.Plan) { p.Edge.Wasm, p.FailClosed = plan.Wasm{}, true },
			ask:    explain.Request{Path: "/v1", Header: http.Header{"X-Traffic-Group": {"abcdef"}}},
			want:   explain.Outcome{Action: explain.Refuse, Status: 503, Why: []string{"header x-traffic-group is the edge's own and removed"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.ask.Method == "" {
				tt.ask.Method = http.MethodGet
			}
			if tt.ask.Host == "" {
				tt.ask.Host = "chat.test"
			}
			got, err := explain.Explain(planOf(t, tt.change), tt.ask)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range tt.want.Why {
				if !slices.Contains(got.Why, w) {
					t.Errorf("does not say %q:\n%s", w, strings.Join(got.Why, "\n"))
				}
			}
			if len(got.Why) == 0 {
				t.Error("says nothing")
			}
			tt.want.Color, tt.want.Why = got.Color, got.Why // the color is in the group
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExplainRefusesWhatIsNoRequest(t *testing.T) {
	good := explain.Request{Method: "GET", Host: "x", Path: "/"}
	for field, change := range map[string]func(*explain.Request){
		"method": func(r *explain.Request) { r.Method = "get" },
		"host":   func(r *explain.Request) { r.Host = "" },
		"path":   func(r *explain.Request) { r.Path = "x" },
		"header": func(r *explain.Request) { r.Header = http.Header{"A_b": {"c"}} },
		"claims": func(r *explain.Request) { r.Claims = map[string]any{"a": func() {}} },
	} {
		r := good
		change(&r)
		var e *protocol.Error
		if _, err := explain.Explain(planOf(t, nil), r); !errors.As(err, &e) || e.Field != field || e.Code != protocol.CodeInvalidArgument {
			t.Errorf("%s: %v", field, err)
		}
	}
}
