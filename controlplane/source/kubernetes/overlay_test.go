package kubernetes

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/deploy"
	"github.com/tracegate/tracegate/mesh/group"
)

func newRoute(t *testing.T, name, spec string) resource {
	t.Helper()
	r := &v1alpha1.Route{}
	if err := yaml.UnmarshalStrict([]byte(spec), &r.Spec); err != nil {
		t.Fatal(err)
	}
	r.Name = name
	return route(r)
}

func newCohort(t *testing.T, name, spec string) resource {
	t.Helper()
	c := &v1alpha1.Cohort{}
	if err := yaml.UnmarshalStrict([]byte(spec), &c.Spec); err != nil {
		t.Fatal(err)
	}
	c.Name = name
	return cohort(c)
}

func rules(p policy.Policy) (names []string) {
	for _, r := range p.Services[1].Rules {
		names = append(names, r.Name)
	}
	return names
}

func TestOverlay(t *testing.T) {
	rs := []resource{
		newRoute(t, "search", `{service: core, match: [{prefix: /v1/search, methods: [GET], headers: [{name: x-beta, exact: "1"}]}],
			canary: {cookie: user_id, pools: [{pool: canary, percent: 5}]}, timeout: 5s, retries: {attempts: 2, perTryTimeout: 1s500ms, retryOn: [reset]}}`),
		newRoute(t, "gone", `{service: core, match: [{prefix: /v0}], directResponse: {status: 410, body: use /v1}}`),
		newRoute(t, "nowhere", `{service: other, match: [{prefix: /x}], websocket: true}`),
		newRoute(t, "pool", `{service: core, match: [{prefix: /y}], pool: unknown}`),
		newCohort(t, "beta", `{env: beta, pool: canary, any: [{header: {name: x-env, exact: beta}}, {cookie: {name: env, exact: beta}}]}`),
		newCohort(t, "canary", `{env: again, pool: canary, any: [{host: x.example.org}]}`), // the default policy has one
	}
	p, raw, refused, err := overlay(policy.Parse, policy.Default, rs)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rules(p), " "); got != "gone search" {
		t.Errorf("rules %q", got)
	}
	r := p.Services[1].Rules[1]
	if r.Timeout != 5*time.Second || r.Retries.PerTryTimeout != 1500*time.Millisecond || r.Retries.On[0] != "reset" || r.Canary.Pools[0].Percent != 5 || r.Match[0].Headers[0].Exact != "1" {
		t.Errorf("rule %+v", r)
	}
	if p.CohortPools["beta"] != "canary" || len(p.Color.Cohorts) != 2 || p.Color.Cohorts[1].Match.Any[0].Header.Name != "x-env" {
		t.Errorf("cohorts %+v %v", p.Color.Cohorts, p.CohortPools)
	}
	for name, want := range map[string]string{
		"Route/nowhere": `the policy has no service "other"`, "Route/pool": "unknown", "Cohort/canary": "a cohort of this name",
	} {
		if err := refused[name]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if len(refused) != 3 {
		t.Errorf("refused %v", refused)
	}
	if again, err := policy.Parse(raw); err != nil || len(again.Services[1].Rules) != 2 {
		t.Errorf("the document that is handed on: %v", err)
	}
}

func newGroup(t *testing.T, name, age, spec string) resource {
	t.Helper()
	tg := &v1alpha1.TrafficGroup{}
	if err := yaml.UnmarshalStrict([]byte(spec), &tg.Spec); err != nil {
		t.Fatal(err)
	}
	created, err := time.Parse(time.RFC3339, age+"T00:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	tg.Name, tg.CreationTimestamp = name, metav1.NewTime(created)
	return trafficGroup(tg)
}

// TestGroupsInThePolicy: which of several counts, and what they say.
func TestGroupsInThePolicy(t *testing.T) {
	shop := group.Group{Env: "prod", Tenant: "shop"}.ID()
	canary := group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "shop"}.ID()
	base := string(policy.Default) + "\n  groups:\n    - {name: night, id: 012345, maxP95: 5s}\n"
	rs := []resource{
		newGroup(t, "a-younger", "2026-02-02", `{selector: {id: "`+string(shop)+`"}, mode: Observe}`),
		newGroup(t, "shop", "2026-02-01", `{selector: {env: prod, tenant: shop}, objectives: {maxErrorRatio: 5m, maxP95Milliseconds: 250, maxP99Milliseconds: 900}, mode: Act}`),
		newGroup(t, "canaries", "2026-02-03", `{selector: {env: canary, tenant: shop, color: "`+group.ColorOf("canary").String()+`"}, objectives: {maxErrorRatio: "1"}}`),
		newGroup(t, "mine", "2026-01-01", `{selector: {id: "012345"}, mode: Act}`), // the policy has it
		newGroup(t, "night", "2026-01-01", `{selector: {id: "0123ff"}}`),           // the policy has the name
	}
	p, raw, refused, err := overlay(policy.Parse, []byte(base), rs)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id       group.ID
		p95, p99 time.Duration
		errors   float64
		mode     decide.Mode
	}{
		{shop, 250 * time.Millisecond, 900 * time.Millisecond, 0.005, decide.ModeAct},
		{canary, p.Decide.MaxP95, 0, 1, p.Decide.Mode},
		{"012345", 5 * time.Second, 0, p.Decide.MaxErrorRatio, p.Decide.Mode},
		{"0123ff", p.Decide.MaxP95, 0, p.Decide.MaxErrorRatio, p.Decide.Mode},
	} {
		if of := p.Decide.For(tt.id); of.MaxP95 != tt.p95 || of.MaxP99 != tt.p99 || of.MaxErrorRatio != tt.errors || of.Mode != tt.mode {
			t.Errorf("%s goes by %s, %s, %v, %s", tt.id, of.MaxP95, of.MaxP99, of.MaxErrorRatio, of.Mode)
		}
	}
	for name, want := range map[string]string{
		"TrafficGroup/a-younger": `group ` + string(shop) + ` is that of TrafficGroup "shop" already`,
		"TrafficGroup/mine":      `group 012345 is that of "night" in the policy already`,
		"TrafficGroup/night":     `group "night" appears twice`,
	} {
		if err := refused[name]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if len(refused) != 3 {
		t.Errorf("refused %v", refused)
	}
	if again, err := policy.Parse(raw); err != nil || len(again.Decide.Groups) != 3 {
		t.Errorf("the document that is handed on: %v", err)
	}
	// With the older one gone it is the younger's turn.
	p, _, refused, err = overlay(policy.Parse, policy.Default, rs[:1])
	if err != nil || len(refused) > 0 || p.Decide.For(shop).Mode != decide.ModeObserve {
		t.Errorf("alone: %v %v %+v", err, refused, p.Decide.Groups)
	}
}

// TestDocumentsStayAsTheyWereWritten also where a scalar looks like a number.
func TestDocumentsStayAsTheyWereWritten(t *testing.T) {
	base := "services: [{name: core, pools: [{name: baseline}], routes: [{prefix: /}]}]\n" +
		"color: {cohorts: [{name: '1e3', color: 00000012, env: 1.10, match: {any: [{host: x}]}}]} # mine\ncohortPools:\n"
	raw, err := merge([]byte(base), []resource{newCohort(t, "007", `{pool: baseline, any: [{host: y}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(raw)
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	if c := p.Color.Cohorts; len(c) != 2 || c[0].Name != "1e3" || c[0].Color != "00000012" || c[0].Env != "1.10" || c[1].Name != "007" || p.CohortPools["007"] != "baseline" {
		t.Errorf("%+v %v\n%s", c, p.CohortPools, raw)
	}
}

// TestSamplesFitTheDefaultPolicy keeps the samples true.
func TestSamplesFitTheDefaultPolicy(t *testing.T) {
	var rs []resource
	for name, add := range map[string]func([]byte) resource{
		"route": func(data []byte) resource {
			r := &v1alpha1.Route{}
			if err := yaml.UnmarshalStrict(data, r); err != nil {
				t.Fatal(err)
			}
			return route(r)
		},
		"trafficgroup": func(data []byte) resource {
			tg := &v1alpha1.TrafficGroup{}
			if err := yaml.UnmarshalStrict(data, tg); err != nil {
				t.Fatal(err)
			}
			return trafficGroup(tg)
		},
		"cohort": func(data []byte) resource {
			c := &v1alpha1.Cohort{}
			if err := yaml.UnmarshalStrict(data, c); err != nil {
				t.Fatal(err)
			}
			return cohort(c)
		},
	} {
		data, err := deploy.Samples.ReadFile("samples/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, add(data))
	}
	if _, _, refused, err := overlay(policy.Parse, policy.Default, rs); err != nil || len(refused) > 0 {
		t.Error(err, refused)
	}
}

// TestABrokenDocumentIsAnErrorOfItsOwn also where resources are fine.
func TestABrokenDocumentIsAnErrorOfItsOwn(t *testing.T) {
	rs := []resource{newRoute(t, "gone", `{service: core, match: [{prefix: /v0}], directResponse: {status: 410}}`)}
	if _, _, refused, err := overlay(policy.Parse, []byte("services: []\n"), rs); err == nil || len(refused) > 0 {
		t.Error(err, refused)
	}
}
