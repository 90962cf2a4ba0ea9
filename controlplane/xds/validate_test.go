package xds

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/envoytest"
)

// accepted fails the test where the real Envoy does not take the plan.
func accepted(t *testing.T, binary string, p plan.Plan) {
	t.Helper()
	if out, err := validate(t, binary, withKeys(t, p)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// validate asks the real Envoy whether it takes the resources.
func validate(t *testing.T, binary string, p plan.Plan) ([]byte, error) {
	t.Helper()
	s, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	js, err := Static(s)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, js, 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), binary, "--mode", "validate", "-l", "warning", "-c", file).CombinedOutput()
}

func TestEnvoyAcceptsGoldenPlans(t *testing.T) {
	t.Parallel()
	binary := envoytest.Binary(t)
	cases, err := filepath.Glob("testdata/*/plan.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("cases: %v, %v", cases, err)
	}
	for _, in := range cases {
		t.Run(filepath.Base(filepath.Dir(in)), func(t *testing.T) {
			t.Parallel()
			accepted(t, binary, readPlan(t, in))
		})
	}
}

// withKeys puts certificates that can be used where a plan has words for them.
func withKeys(t *testing.T, p plan.Plan) plan.Plan {
	t.Helper()
	if p.TLS == nil {
		return p
	}
	ca, err := certificate.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range p.Secrets {
		if p.Secrets[i].Pair, err = ca.Issue(certificate.Subject{Name: s.Name}, time.Now(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// build makes a plan of a policy whose service core has all pools.
func build(t *testing.T, doc string) plan.Plan {
	t.Helper()
	p, err := policy.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.ParseEndpoints([]byte("services: {core: {baseline: ['127.0.0.1:9101'], canary: ['127.0.0.1:9102'], isolated: ['127.0.0.1:9103']}}"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := plan.Build(p, e, plan.Groups{}, plan.Edge{
		Listen: "127.0.0.1:8080", Observe: "127.0.0.1:4317", TLS: plan.EdgeTLS{Listen: "127.0.0.1:8443", HTTP3: true},
		Certificates: map[string]certificate.Pair{"chat": {Chain: "x"}, "default": {Chain: "x"}, "edge": {Chain: "x", CA: "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEnvoyAcceptsWhatThePolicyDoes holds the bounds of controlplane/policy to what
// Envoy takes: each rule is as large as the policy lets it be.
func TestEnvoyAcceptsWhatThePolicyDoes(t *testing.T) {
	t.Parallel()
	binary := envoytest.Binary(t)
	long := func(n int) string { return strings.Repeat("a", n) }
	var rules []string
	add := func(rule string) { rules = append(rules, fmt.Sprintf("{name: r%d, %s}", len(rules), rule)) }
	add("match: [{hosts: [" + long(60) + "." + long(59) + ", '*." + long(58) + "." + long(59) + "']}]")
	for _, expr := range []string{
		"/" + long(180), "/[^/]+/x", "/.*", "/(?i)" + long(150), "/[a-z]{100}", "/(a|b|c){20}", `/\d+/\w+/[^/]*`, "/[é-ü]+", "/..........", "/(?P<id>[0-9]+)",
	} {
		add("match: [{regex: '" + expr + "'}], rewrite: {path: '/x/\\0'}")
	}
	add("match: [{prefix: /" + long(119) + "}], rewrite: {path: /}")
	add("match: [{prefix: /" + long(255) + "}], redirect: {path: /" + long(255) + "}")
	add("match: [{path: /direct}], directResponse: {status: 200, body: '" + long(4096) + "'}")
	add("match: [{path: /limit}], rateLimit: {requestsPerSecond: 1000000, burst: 1}")
	add("match: [{path: /buffer}], maxRequestBytes: 16777216")
	add("match: [{path: /canary}], canary: {cookie: a.b-c_d, pools: [{pool: canary, percent: 0}, {pool: isolated, percent: 100}]}")
	add("match: [{path: /fault}], fault: {delay: {percent: 0, duration: 1ns}, abort: {percent: 100, status: 599}}")
	add("match: [{path: /percent}], requestHeaders: {set: {x-a: '%REQ(x)% 100%'}}, responseHeaders: {add: {x-b: '%'}}")
	add("match: [{path: /cors}], cors: {origins: ['*', 'http://*." + long(60) + ".test:80']}")
	accepted(t, binary, build(t, "services:\n  - name: core\n    pools: [{name: baseline}, {name: canary}, {name: isolated}]\n    routes: [{prefix: /}]\n    rules:\n      - "+strings.Join(rules, "\n      - ")+"\n"))
}

// TestEnvoyRefuses makes sure that the oracle says no.
func TestEnvoyRefuses(t *testing.T) {
	t.Parallel()
	binary := envoytest.Binary(t)
	p := readPlan(t, "testdata/rules/plan.yaml")
	p.Services[0].Rules[0].Match[1].Regex = "/[a-z]{500}"
	if out, err := validate(t, binary, p); err == nil || !strings.Contains(string(out), "program size") {
		t.Errorf("accepted: %v\n%s", err, out)
	}
}
