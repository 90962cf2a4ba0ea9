package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
)

func TestDefaultPolicyIsValid(t *testing.T) {
	t.Parallel()
	p, err := Parse(Default)
	if err != nil {
		t.Fatal(err)
	}
	want := decide.DefaultPolicy()
	want.IgnoreRoutes = []string{"/v1/sessions", "/v1/users",
		"/tracegate.chat.v1.AccountService", "/tracegate.chat.v1.SubscriptionService", "/grpc.reflection.v1.ServerReflection"} // core's, and the default knows no service
	if diff := cmp.Diff(want, p.Decide); diff != "" {
		t.Errorf("the document says other than decide.DefaultPolicy (-code +document):\n%s", diff)
	}
	if p.Failure != FailOpen || p.CohortPools["canary"] != "canary" || len(p.Services) != 2 || p.Services[0].Instances != "core" || len(p.Color.Tenants) != 3 {
		t.Errorf("parsed: %+v", p)
	}
}

const services = "services: [{name: core, pools: [{name: baseline}], routes: [{prefix: /}]}]\n"

func TestParseFillsInDefaults(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(services))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Services[0].Routes[0]
	if r.Name != "/" || r.Timeout != DefaultTimeout || p.Failure != FailOpen || !cmp.Equal(p.Decide, decide.DefaultPolicy()) {
		t.Errorf("parsed: %+v", p)
	}
	p, err = Parse([]byte(services + "decide: {maxP95: 2s}\n"))
	if err != nil || p.Decide.MaxP95 != 2*time.Second || p.Decide.MinRequests != decide.DefaultPolicy().MinRequests {
		t.Errorf("parsed: %+v, %v", p.Decide, err)
	}
}

// TestParseNamesWhatIsWrong holds messages an operator can act on: the line, the
// key's path, and what would be right.
func TestParseNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ doc, want string }{
		"empty":               {"", "document is empty"},
		"only a comment":      {"# nothing\n", "document is empty"},
		"null":                {"~\n", "document is empty"},
		"no YAML":             {"a: [b", "line 1"},
		"instances of none":   {"services: [{name: a, instances: b, pools: [{name: baseline}], routes: [{prefix: /}]}]\n", `services[0].instances: "b" is no other service`},
		"instances of itself": {"services: [{name: a, instances: a, pools: [{name: baseline}], routes: [{prefix: /}]}]\n", `services[0].instances: "a" is no other service`},
		"unknown key":         {services + "fialure: open\n", `line 2: fialure: unknown key, did you mean "failure"?`},
		"unknown inner key":   {services + "decide:\n  maxp95: 1s\n", `line 3: decide.maxp95: unknown key, did you mean "maxP95"?`},
		"far from any key":    {services + "zzzzzzzzzzzz: 1\n", "line 2: zzzzzzzzzzzz: unknown key, known here: cohortPools, color, decide, failure, jwt, limits, services, tls"},
		"key twice":           {services + "failure: open\nfailure: open\n", "line 3"},
		"wrong type":          {services + "decide: {minRequests: many}\n", `line 2: decide.minRequests: expected a whole number that is not negative, found "many"`},
		"negative count":      {services + "decide: {minRequests: -1}\n", `line 2: decide.minRequests: expected a whole number that is not negative, found "-1"`},
		"no duration":         {services + "decide: {maxP95: 5}\n", `line 2: decide.maxP95: expected a duration such as "2s", found "5"`},
		"list for text":       {services + "failure: [open]\n", "line 2: failure: expected text, found a list"},
		"nothing for text":    {services + "failure:\n", "line 2: failure: expected text, found nothing"},
		"keys for list":       {"services: {name: core}\n", "line 1: services: expected a list, found keys"},
		"text for keys":       {services + "color: blue\n", `line 2: color: expected keys, found "blue"`},
		"anchor":              {services + "cohortPools: &a {}\n", "line 2: cohortPools: anchors and aliases are not supported"},
		"failure":             {services + "failure: ajar\n", `line 2: failure: "ajar" is neither "open" nor "closed"`},
		"no service":          {"failure: open\n", "services: no service: an edge without one would serve nothing"},
		"empty services":      {"services: []\n", "line 1: services: no service"},
		"service name":        {"services: [{name: Core.x, pools: [{name: baseline}], routes: [{prefix: /}]}]\n", `line 1: services[0].name: "Core.x" is not 1 to 40 lower-case letters`},
		"no baseline":         {"services:\n  - name: core\n    pools: [{name: blue}]\n    routes: [{prefix: /}]\n", `line 3: services[0].pools: no pool "baseline"`},
		"pool twice":          {"services: [{name: a, pools: [{name: baseline}, {name: baseline}], routes: [{prefix: /}]}]\n", `line 1: services[0].pools[1].name: pool "baseline" appears twice`},
		"no route":            {"services: [{name: a, pools: [{name: baseline}], routes: []}]\n", "services[0].routes: no route"},
		"route of nothing":    {"services: [{name: a, pools: [{name: baseline}], routes: [{name: x}]}]\n", "services[0].routes[0]: neither path nor prefix"},
		"route of both":       {"services: [{name: a, pools: [{name: baseline}], routes: [{path: /, prefix: /}]}]\n", "services[0].routes[0]: both path and prefix"},
		"path with query":     {"services: [{name: a, pools: [{name: baseline}], routes: [{path: '/a?b'}]}]\n", `services[0].routes[0].path: "/a?b" is not a path`},
		"shadowed":            {"services:\n  - name: a\n    pools: [{name: baseline}]\n    routes:\n      - {prefix: /v1}\n      - {path: /v1/x}\n", `line 6: services[0].routes[1]: never reached: "/v1" above takes its requests`},
		"shadowed service":    {services[:len(services)-2] + ", {name: b, pools: [{name: baseline}], routes: [{prefix: /b}]}]\n", `services[1].routes[0]: never reached: "/" above takes its requests`},
		"cohort of no name":   {services + "cohortPools: {gold: baseline}\n", "line 2: cohortPools.gold: no cohort of this name in color.cohorts"},
		"pool of no service":  {services + "color: {cohorts: [{name: gold, match: {host: x}}]}\ncohortPools: {gold: vip}\n", `line 3: cohortPools.gold: no service has a pool "vip"`},
		"color's own check":   {services + "color:\n  cohorts:\n    - {name: gold, match: {percent: {of: 200}}}\n", "line 4: color.cohorts[0].match.percent"},
		"trusted peer":        {services + "color: {trustedPeers: [10.0.0.0/99]}\n", "line 2: color.trustedPeers[0]"},
		"ignored, not there":  {services + "decide: {ignoreRoutes: [/, /v2]}\n", `line 2: decide.ignoreRoutes[1]: no service has a route or rule named "/v2"`},
		"a group twice":       {services + "decide:\n  groups:\n    - {name: a, env: prod, tenant: shop}\n    - {name: b, env: prod, tenant: shop}\n", `line 5: decide.groups[1].name: "b" is the same group, `},
		"decide's own check":  {services + "decide: {mode: auto}\n", `line 2: decide.mode: "auto" is none of "observe", "recommend" and "act"`},
		"too large":           {services + "# " + strings.Repeat("x", MaxSize), "document has"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Parse([]byte(c.doc))
			var invalid *Error
			if !errors.As(err, &invalid) || len(invalid.Problems) == 0 {
				t.Fatalf("error: %v", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v\nwant:  %s", err, c.want)
			}
			if diff := cmp.Diff(Policy{}, p); diff != "" {
				t.Errorf("a refused document gave a value:\n%s", diff)
			}
		})
	}
}

func TestParseReportsAllProblemsInOrder(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte("services: []\ndecide:\n  minRequests: 0\n  maxIsolated: 0\nfailure: x\n"))
	var invalid *Error
	if !errors.As(err, &invalid) || len(invalid.Problems) != 4 {
		t.Fatalf("error: %v", err)
	}
	for i, line := range []int{1, 3, 4, 5} {
		if invalid.Problems[i].Line != line {
			t.Errorf("problem %d is of line %d, want %d", i, invalid.Problems[i].Line, line)
		}
	}
}

func TestParseEndpoints(t *testing.T) {
	t.Parallel()
	e, err := ParseEndpoints([]byte("services: {core: {baseline: ['127.0.0.1:1', '[::1]:2'], canary: []}}\n"))
	if err != nil || len(e.Services["core"]["baseline"]) != 2 {
		t.Fatalf("parsed %+v, %v", e, err)
	}
	for name, c := range map[string]struct{ doc, want string }{
		"empty":          {"", "document is empty"},
		"no endpoint":    {"services: {core: {baseline: []}}\n", "line 1: services: no endpoint at all"},
		"a host name":    {"services:\n  core:\n    baseline: [localhost:1]\n", `line 3: services.core.baseline[0]: "localhost:1" is not an IP address and port`},
		"no port":        {"services: {core: {baseline: ['127.0.0.1:0']}}\n", "is not an IP address and port"},
		"endpoint twice": {"services: {core: {baseline: ['127.0.0.1:1', '127.0.0.1:1']}}\n", `services.core.baseline[1]: "127.0.0.1:1" appears twice`},
		"unknown key":    {"service: {}\n", `line 1: service: unknown key, did you mean "services"?`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := ParseEndpoints([]byte(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v\nwant:  %s", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Default)
	f.Add([]byte(services))
	f.Add([]byte("a: &a [*a, *a]"))
	f.Add([]byte("services: {core: {baseline: ['127.0.0.1:1']}}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if p, err := Parse(doc); err == nil {
			if len(p.Services) == 0 {
				t.Error("a policy without services is valid")
			}
			colors := map[group.Color]bool{}
			for _, c := range p.Color.Cohorts {
				if v := ColorOf(c); colors[v] || v == group.Baseline {
					t.Errorf("color %s of cohort %q is taken", v, c.Name)
				} else {
					colors[v] = true
				}
			}
		} else if len(err.Error()) == 0 {
			t.Error("an error without words")
		}
		if _, err := ParseEndpoints(doc); err != nil && len(err.Error()) == 0 {
			t.Error("an error without words")
		}
	})
}

func TestInstancesOf(t *testing.T) {
	t.Parallel()
	p, err := Parse(Default)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.InstancesOf(); len(got) != 1 || got["core-grpc"] != "core" {
		t.Errorf("instances that are another service's: %v", got)
	}
}
