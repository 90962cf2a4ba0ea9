package xds

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/group"
)

// TestTenantInBaggage: what the filter writes is found, and so is what it leaves as a
// trusted peer has put it.
func TestTenantInBaggage(t *testing.T) {
	t.Parallel()
	re := regexp.MustCompile("^(?:" + isTenant("acme.eu").GetStringMatch().GetSafeRegex().GetRegex() + ")$")
	for baggage, want := range map[string]bool{
		"traffic.env=prod,traffic.tenant=acme.eu":                       true,
		"traffic.env=prod,traffic.tenant=acme.eu,user=1":                true,
		"user=1, traffic.tenant = acme.eu ;p=1, traffic.env=x":          true,
		"traffic.env=prod,traffic.tenant=acme-eu":                       false,
		"traffic.env=prod,traffic.tenant=acme.europe":                   false,
		"traffic.env=prod,traffic.tenant=public,a=acme.eu":              false,
		"traffic.env=prod,traffic.tenant=public;traffic.tenant=acme.eu": false,
		"traffic.env=prod,xtraffic.tenant=acme.eu":                      false,
		"": false,
	} {
		if got := re.MatchString(baggage); got != want {
			t.Errorf("%q is of the tenant: %v", baggage, got)
		}
	}
}

// TestCohortIsItsColor: the color that a policy fixes, else that of the name; the longest
// tenant is not too costly for Envoy.
func TestCohortIsItsColor(t *testing.T) {
	t.Parallel()
	p := build(t, `
color: {cohorts: [{name: beta, match: {path: /beta}}, {name: lab, color: 0a0b0c0d, match: {path: /lab}}]}
services:
  - name: core
    pools: [{name: baseline}]
    routes: [{prefix: /}]
    rules: [{name: a, match: [{cohort: beta, tenant: `+strings.Repeat("x", 64)+`}, {cohort: lab}]}]
`)
	if m := p.Services[0].Rules[0].Match; m[0].Color != group.ColorOf("beta") || m[1].Color != 0x0a0b0c0d {
		t.Errorf("colors %v", []policy.Match{m[0], m[1]})
	}
	accepted(t, envoytest.Binary(t), p)
}
