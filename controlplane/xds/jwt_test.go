package xds

import (
	"maps"
	"slices"
	"testing"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/envoytest"
)

// TestRequirementsNameProvidersThatAreThere: Envoy refuses the whole filter otherwise. A rule
// that requires one that is gone has a requirement that the filter does not know, which
// Envoy answers 403.
func TestRequirementsNameProvidersThatAreThere(t *testing.T) {
	t.Parallel()
	p := readPlan(t, "testdata/jwt/plan.yaml")
	rules := slices.Clone(p.Services[0].Rules)
	rules[0].JWT = &policy.RuleJWT{Require: []string{"corp", "gone"}}
	p.Services = []plan.Service{p.Services[0]}
	p.Services[0].Rules = rules
	r, err := render(p)
	if err != nil {
		t.Fatal(err)
	}
	var filter jwtv3.JwtAuthentication
	for _, e := range r.extensions {
		if e.GetName() == RequireName {
			if err := e.GetTypedConfig().UnmarshalTo(&filter); err != nil {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff([]string{"corp", "partner", "partner?", "session", "session,corp"}, slices.Sorted(maps.Keys(filter.GetRequirementMap()))); diff != "" {
		t.Error(diff)
	}
	accepted(t, envoytest.Binary(t), p)
}
