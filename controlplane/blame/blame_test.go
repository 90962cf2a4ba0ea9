package blame

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/xds"
)

const before = `services:
  - name: core
    pools: [{name: baseline}, {name: canary}]
    rules:
      - {name: plain, match: [{prefix: /plain}]}
      - {name: beta, match: [{hosts: [beta.test], regex: '/beta/[a-z]+'}]}
      - {name: wide, match: [{hosts: ["*.test"], path: /wide}]}
    routes: [{prefix: /}]
`

const after = `services:
  - name: core
    pools: [{name: baseline}, {name: canary}]
    rules:
      - {name: plain, match: [{prefix: /plain}]}
      - name: beta
        match:
          - {hosts: [beta.test], regex: '/beta/[a-z]+'}
        timeout: 3s
      - {name: wide, match: [{hosts: ["*.test"], path: /wide}]}
      - {name: other, match: [{regex: '/other/[0-9]+'}]}
      - {name: more, match: [{path: /more}]}
    routes: [{prefix: /}]
color: {env: prod}
`

func TestPlaces(t *testing.T) {
	t.Parallel()
	parse := func(doc string) policy.Policy {
		p, err := policy.Parse([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := parse(before)
	d := Documents{
		PolicyFile: "policy.yaml", EndpointsFile: "endpoints.yaml", RawPolicy: []byte(after), Policy: parse(after), Good: &good,
		RawEndpoints: []byte("services:\n  core:\n    baseline: ['127.0.0.1:1']\n    canary: ['127.0.0.1:2']\n"),
	}
	for name, c := range map[string]struct {
		typ              xds.Type
		resource, reason string
		first            bool // no policy was good before
		want             string
	}{
		"a host's changed rule":        {xds.VirtualHosts, "edge/beta.test", "no", false, "policy.yaml:6: services[0].rules[1] (rule beta of core)"},
		"a host whose rules are old":   {xds.VirtualHosts, "edge/*.test", "no", false, "policy.yaml:11: services[0].rules[3] (rule other of core)|policy.yaml:12: services[0].rules[4] (rule more of core)"},
		"rules of no host":             {xds.Routes, "edge", "no", false, "policy.yaml:11: services[0].rules[3] (rule other of core)|policy.yaml:12: services[0].rules[4] (rule more of core)"},
		"the one that Envoy quotes":    {xds.Routes, "edge", "regex '/other/[0-9]+' is too large", false, "policy.yaml:11: services[0].rules[3] (rule other of core)"},
		"the first policy of all":      {xds.VirtualHosts, "edge/beta.test", "/beta/[a-z]+ is too large", true, "policy.yaml:6: services[0].rules[1] (rule beta of core)"},
		"a pool":                       {xds.Clusters, "core.canary", "no", false, "policy.yaml:3: services[0].pools[1] (pool canary of core)"},
		"a pool that copies go to":     {xds.Clusters, "core.canary.mirror", "no", false, "policy.yaml:3: services[0].pools[1] (pool canary of core)"},
		"endpoints":                    {xds.Endpoints, "core.canary", "no", false, "endpoints.yaml:4: services.core.canary (endpoints of pool canary of core)"},
		"endpoints that are not there": {xds.Endpoints, "core.gone", "no", false, "endpoints.yaml:3: services.core.gone (endpoints of pool gone of core)"},
		"the filter":                   {xds.Extensions, "traffic", "no", false, "policy.yaml:14: color (cohorts and tenants)"},
		"the listener":                 {xds.Listeners, "edge", "cannot bind", false, ""},
		"what is no host":              {xds.VirtualHosts, "nonsense", "no", false, "policy.yaml:13: services[0].routes (routes of core)"},
	} {
		d := d
		if c.first {
			d.Good = nil
		}
		var got []string
		for _, p := range Places(d, c.typ, c.resource, c.reason) {
			got = append(got, p.String())
		}
		if diff := cmp.Diff(c.want, strings.Join(got, "|")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestPlacesAreBounded: a refusal of a route configuration with thousands of rules is
// still something to read.
func TestPlacesAreBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("services:\n  - name: core\n    pools: [{name: baseline}]\n    routes: [{prefix: /}]\n    rules:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "      - {name: r%d, match: [{path: /%d}]}\n", i, i)
	}
	p, err := policy.Parse([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(Places(Documents{RawPolicy: []byte(b.String()), Policy: p}, xds.Routes, "edge", "no")); n != maxPlaces {
		t.Errorf("%d places", n)
	}
}
