package explain_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
)

// TestExplainTokens: what a rule requires is answered by the claims that are asked with;
// edge/e2e holds it to Envoy.
func TestExplainTokens(t *testing.T) {
	requiring := func(r policy.RuleJWT) func(*plan.Plan) {
		return func(p *plan.Plan) {
			p.JWT = []policy.JWTProvider{{Name: "corp", Issuer: "https://id.test", Audiences: []string{"chat"}}, {Name: "partner", Issuer: "partner"}}
			p.Services[0].Rules = slices.Clone(p.Services[0].Rules)
			p.Services[0].Rules[0].JWT = &r
		}
	}
	corp, either := policy.RuleJWT{Require: []string{"corp"}}, policy.RuleJWT{Require: []string{"corp", "partner", "session"}}
	of := func(iss string, aud any) map[string]any { return map[string]any{"iss": iss, "aud": aud} }
	for name, tt := range map[string]struct {
		rule   policy.RuleJWT
		claims map[string]any
		status int // 0: it is served
		why    string
	}{
		"none":                {corp, nil, 401, "the edge answers 401: the rule requires a token of corp, and there is none"},
		"theirs":              {corp, of("https://id.test", "chat"), 0, "the rule requires a token of corp, and the claims are of one of corp"},
		"for many":            {corp, of("https://id.test", []any{"mail", "chat"}), 0, "the rule requires a token of corp, and the claims are of one of corp"},
		"for others":          {corp, of("https://id.test", "mail"), 403, "the edge answers 403: the rule requires a token of corp, and the claim aud is another"},
		"a session":           {corp, map[string]any{"sub": "ann"}, 401, "the edge answers 401: the rule requires a token of corp, and the claim iss is another"},
		"any: a session":      {either, map[string]any{"sub": "ann"}, 0, "the rule requires a token of corp or partner or session, and the claims are of one of session"},
		"any: for whom ever":  {either, of("partner", nil), 0, "the rule requires a token of corp or partner or session, and the claims are of one of partner"},
		"optional: none":      {policy.RuleJWT{Require: []string{"corp"}, AllowMissing: true}, nil, 0, "the rule wants no token that is bad, and there is none"},
		"optional: of others": {policy.RuleJWT{Require: []string{"corp"}, AllowMissing: true}, of("https://id.test", "mail"), 403, "the edge answers 403: the rule requires a token of corp, and the claim aud is another"},
	} {
		got, err := explain.Explain(planOf(t, requiring(tt.rule)), explain.Request{Method: http.MethodGet, Host: "chat.test", Path: "/pin", Claims: tt.claims})
		if err != nil {
			t.Fatal(err)
		}
		if refused := got.Action == explain.Refuse; got.Status != tt.status || refused != (tt.status != 0) || !slices.Contains(got.Why, tt.why) {
			t.Errorf("%s: %+v, want %d and %q", name, got, tt.status, tt.why)
		}
	}
}
