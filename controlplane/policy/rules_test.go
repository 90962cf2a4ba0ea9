package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// withRules is a policy of two services whose first has the rules, one a line from
// line 6 on, and lines of a second service.
func withRules(rules ...string) string {
	return "services:\n  - name: core\n    pools: [{name: baseline}, {name: canary}, {name: isolated}]\n    routes: [{prefix: /}]\n    rules:\n      - " +
		strings.Join(rules, "\n      - ") + "\n  - {name: files, pools: [{name: baseline}], routes: [{prefix: /files}]}\n"
}

// shadowless has the second service first, whose route the first would take.
func shadowless(doc string) string {
	return strings.Replace(doc, "routes: [{prefix: /}]", "routes: [{prefix: /core}]", 1)
}

func TestParseRulesFillsInDefaults(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(shadowless(withRules(
		"{name: a, match: [{prefix: /a}], rateLimit: {requestsPerSecond: 5}}",
		"{name: b, service: files, pool: baseline, until: 2030-01-02T03:04:05Z, match: [{path: /b}]}",
		"{name: c, match: [{path: /c}], redirect: {https: true}}",
	))))
	if err != nil {
		t.Fatal(err)
	}
	rules := p.Services[0].Rules
	if r := rules[0]; r.Service != "core" || r.Timeout != DefaultTimeout || r.RateLimit.Burst != 5 {
		t.Errorf("parsed: %+v", r)
	}
	if r := rules[1]; r.Service != "files" || !r.Until.Equal(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("parsed: %+v", r)
	}
	if r := rules[2]; r.Redirect.Status != 302 {
		t.Errorf("parsed: %+v", r)
	}
}

func TestParseNamesWhatIsWrongWithARule(t *testing.T) {
	t.Parallel()
	const m = "match: [{path: /x}]"
	for name, c := range map[string]struct{ rule, want string }{
		"unknown key":               {"{name: a, " + m + ", retrys: {}}", `line 6: services[0].rules[0].retrys: unknown key, did you mean "retries"?`},
		"unknown inner key":         {"{name: a, match: [{pth: /x}]}", `services[0].rules[0].match[0].pth: unknown key, did you mean "path"?`},
		"no name":                   {"{" + m + "}", "services[0].rules[0].name: \"\" is not 1 to 64"},
		"no match":                  {"{name: a, match: []}", "services[0].rules[0].match: 0 matches"},
		"empty match":               {"{name: a, match: [{}]}", "services[0].rules[0].match[0]: no condition"},
		"two paths":                 {"{name: a, match: [{path: /x, regex: /y}]}", "services[0].rules[0].match[0]: more than one of path, prefix and regex"},
		"no path":                   {"{name: a, match: [{path: x}]}", `services[0].rules[0].match[0].path: "x" is not a path`},
		"no RE2":                    {"{name: a, match: [{regex: '/(?=x)'}]}", "services[0].rules[0].match[0].regex"},
		"costly regex":              {"{name: a, match: [{regex: '/[a-z]{300}'}]}", "is too costly"},
		"host with port":            {"{name: a, match: [{hosts: ['a.test:80']}]}", "services[0].rules[0].match[0].hosts[0]"},
		"host with inner star":      {"{name: a, match: [{hosts: ['a.*.test']}]}", "services[0].rules[0].match[0].hosts[0]"},
		"method":                    {"{name: a, match: [{methods: [get]}]}", `services[0].rules[0].match[0].methods[0]: "get" is not a method`},
		"pseudo header":             {"{name: a, match: [{headers: [{name: ':path', present: true}]}]}", "services[0].rules[0].match[0].headers[0].name"},
		"header with no test":       {"{name: a, match: [{headers: [{name: x}]}]}", "services[0].rules[0].match[0].headers[0]: wants one of exact, prefix and present, has 0"},
		"cookie with no name":       {"{name: a, match: [{cookies: [{present: true}]}]}", `services[0].rules[0].match[0].cookies[0].name: "" is not a cookie name`},
		"cookie with no test":       {"{name: a, match: [{cookies: [{name: x, not: true}]}]}", "services[0].rules[0].match[0].cookies[0]: wants one of exact, prefix and present, has 0"},
		"tenant":                    {"{name: a, match: [{tenant: Acme}]}", `services[0].rules[0].match[0].tenant: "Acme" is not 1 to 64`},
		"cohort":                    {"{name: a, match: [{path: /x, cohort: gold}]}", `services[0].rules[0].match[0].cohort: no cohort "gold" in color.cohorts`},
		"query with two tests":      {"{name: a, match: [{query: [{name: x, exact: a, prefix: b}]}]}", "services[0].rules[0].match[0].query[0]: wants one of"},
		"service":                   {"{name: a, service: other, " + m + "}", `services[0].rules[0].service: no service "other"`},
		"pool":                      {"{name: a, pool: gold, " + m + "}", `services[0].rules[0].pool: service "core" has no pool "gold"`},
		"pool of another":           {"{name: a, service: files, pool: canary, " + m + "}", `services[0].rules[0].pool: service "files" has no pool "canary"`},
		"until without pool":        {"{name: a, until: 2030-01-01T00:00:00Z, " + m + "}", "services[0].rules[0].until: says when a pin ends"},
		"until no time":             {"{name: a, pool: canary, until: tomorrow, " + m + "}", `services[0].rules[0].until: expected a time such as "2030-01-31T12:00:00Z", found "tomorrow"`},
		"canary by nothing":         {"{name: a, canary: {pools: [{pool: canary, percent: 1}]}, " + m + "}", "services[0].rules[0].canary: wants cookie or header"},
		"canary and pin":            {"{name: a, pool: canary, canary: {cookie: u, pools: [{pool: canary, percent: 1}]}, " + m + "}", "services[0].rules[0].canary: the rule also pins"},
		"canary to baseline":        {"{name: a, canary: {cookie: u, pools: [{pool: baseline, percent: 1}]}, " + m + "}", "services[0].rules[0].canary.pools[0].pool"},
		"canary beyond all":         {"{name: a, canary: {cookie: u, pools: [{pool: canary, percent: 60}, {pool: isolated, percent: 41}]}, " + m + "}", "services[0].rules[0].canary.pools: together 101 percent"},
		"canary share":              {"{name: a, canary: {cookie: u, pools: [{pool: canary, percent: .nan}]}, " + m + "}", "services[0].rules[0].canary.pools[0].percent: NaN is not between 0 and 100"},
		"canary step":               {"{name: a, canary: {cookie: u, pools: [{pool: canary, percent: 0.001}]}, " + m + "}", "services[0].rules[0].canary.pools[0].percent: 0.001 is not in steps of 0.01"},
		"mirror":                    {"{name: a, mirror: {pool: gold, percent: 1}, " + m + "}", "services[0].rules[0].mirror.pool"},
		"two answers":               {"{name: a, redirect: {https: true}, directResponse: {status: 200}, " + m + "}", "services[0].rules[0]: both redirect and directResponse"},
		"answer and pool":           {"{name: a, directResponse: {status: 200}, pool: canary, " + m + "}", "services[0].rules[0].pool: the edge answers these requests itself"},
		"answer and timeout":        {"{name: a, directResponse: {status: 200}, timeout: 1s, " + m + "}", "services[0].rules[0].timeout: the edge answers"},
		"response status":           {"{name: a, directResponse: {status: 99}, " + m + "}", "services[0].rules[0].directResponse.status: 99 is not"},
		"redirect nowhere":          {"{name: a, redirect: {status: 301}, " + m + "}", "services[0].rules[0].redirect: to where it comes from"},
		"redirect status":           {"{name: a, redirect: {https: true, status: 304}, " + m + "}", "services[0].rules[0].redirect.status: 304"},
		"rewrite of nothing":        {"{name: a, rewrite: {}, " + m + "}", "services[0].rules[0].rewrite: neither path nor host"},
		"rewrite without path":      {"{name: a, rewrite: {path: /y}, match: [{hosts: [a]}]}", "services[0].rules[0].rewrite.path: match[0] names no path"},
		"rewrite group":             {`{name: a, rewrite: {path: '/\2'}, match: [{regex: '/(a)'}]}`, "services[0].rules[0].rewrite.path"},
		"timeout":                   {"{name: a, timeout: 2h, " + m + "}", "services[0].rules[0].timeout: 2h0m0s is not between"},
		"retry condition":           {"{name: a, retries: {attempts: 1, on: [always]}, " + m + "}", `services[0].rules[0].retries.on[0]: "always" is none of 5xx`},
		"retry codes":               {"{name: a, retries: {attempts: 1, on: [5xx], statusCodes: [429]}, " + m + "}", "services[0].rules[0].retries.statusCodes"},
		"retry attempts":            {"{name: a, retries: {attempts: 21, on: [5xx]}, " + m + "}", "services[0].rules[0].retries.attempts: 21"},
		"our header":                {"{name: a, requestHeaders: {set: {X-Traffic-Group: a}}, " + m + "}", `services[0].rules[0].requestHeaders.set.X-Traffic-Group: "X-Traffic-Group" belongs to the edge`},
		"trace header":              {"{name: a, requestHeaders: {remove: [traceparent]}, " + m + "}", "services[0].rules[0].requestHeaders.remove[0]"},
		"trace response header":     {"{name: a, responseHeaders: {add: {Traceresponse: a}}, " + m + "}", "services[0].rules[0].responseHeaders.add.Traceresponse"},
		"header with new line":      {`{name: a, requestHeaders: {set: {x-a: "a\nb"}}, ` + m + "}", "services[0].rules[0].requestHeaders.set.x-a"},
		"CORS with no origin":       {"{name: a, cors: {origins: []}, " + m + "}", "services[0].rules[0].cors.origins: no origin"},
		"CORS origin":               {"{name: a, cors: {origins: [a.test]}, " + m + "}", "services[0].rules[0].cors.origins[0]"},
		"CORS any and secrets":      {"{name: a, cors: {origins: ['*'], credentials: true}, " + m + "}", "services[0].rules[0].cors.origins[0]: any origin may not"},
		"no rate":                   {"{name: a, rateLimit: {}, " + m + "}", "services[0].rules[0].rateLimit.requestsPerSecond: 0 is not"},
		"two buckets":               {"{name: a, rateLimit: {requestsPerSecond: 1}, match: [{path: /x}, {path: /y}]}", "services[0].rules[0].rateLimit: each match and host"},
		"a limit that is not there": {"{name: a, limits: [few], " + m + "}", `line 6: services[0].rules[0].limits[0]: no limit "few"`},
		"limit of an answer":        {"{name: a, directResponse: {status: 200}, limits: [few], " + m + "}", "services[0].rules[0].limits: the edge answers"},
		"addresses of nobody":       {"{name: a, addresses: {}, " + m + "}", "services[0].rules[0].addresses: 0 addresses"},
		"address":                   {"{name: a, addresses: {allow: [10.0.0.1/8]}, " + m + "}", `services[0].rules[0].addresses.allow[0]: "10.0.0.1/8" is neither`},
		"limit twice":               {"{name: a, " + m + "}\nlimits: [{name: few, requests: 1}, {name: few, requests: 2}]", "limits[1].name: limit \"few\" appears twice"},
		"limit of nothing":          {"{name: a, " + m + "}\nlimits: [{name: few}]", "limits[0].requests: 0 is not between"},
		"limit per nothing known":   {"{name: a, " + m + "}\nlimits: [{name: few, requests: 1, per: [users]}]", `limits[0].per[0]: "users" is none of user`},
		"limit per no header":       {"{name: a, " + m + "}\nlimits: [{name: few, requests: 1, per: ['header:a b']}]", "limits[0].per[0]"},
		"limit in no unit":          {"{name: a, " + m + "}\nlimits: [{name: few, requests: 1, unit: week}]", `limits[0].unit: "week" is none`},
		"fault of nothing":          {"{name: a, fault: {}, " + m + "}", "services[0].rules[0].fault: neither delay nor abort"},
		"fault percent":             {"{name: a, fault: {abort: {percent: 101, status: 500}}, " + m + "}", "services[0].rules[0].fault.abort.percent"},
		"body of a socket":          {"{name: a, websocket: true, maxRequestBytes: 1, " + m + "}", "services[0].rules[0].maxRequestBytes: cannot be held"},
		"body":                      {"{name: a, maxRequestBytes: 99999999, " + m + "}", "services[0].rules[0].maxRequestBytes: 99999999 is more"},
		"negative body":             {"{name: a, maxRequestBytes: -1, " + m + "}", "services[0].rules[0].maxRequestBytes: expected a whole number that is not negative"},
		"twice":                     {"{name: a, " + m + "}\n      - {name: a, match: [{path: /y}]}", `line 7: services[0].rules[1].name: rule "a" appears twice`},
		"shadowed":                  {"{name: a, " + m + "}\n      - {name: b, match: [{path: /y}, {path: /x}]}", `line 7: services[0].rules[1].match[1]: never reached: rule "a" above`},
		"too many matches":          {"{name: a, match: [" + strings.Repeat("{path: /x},", 65) + "]}", "services[0].rules[0].match: 65 matches, not 1 to 64"},
		"pool's circuit breaker": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, circuitBreakers: {maxRetries: 3, retryBudget: {percent: 120}}}]\n    routes: [{prefix: /more}]",
			"services[1].pools[0].circuitBreakers.retryBudget.percent: 120"},
		"pool's health check": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, healthCheck: {timeout: 2s}}]\n    routes: [{prefix: /more}]",
			"services[1].pools[0].healthCheck.timeout: 2s is not between 10ms and 1s"},
		"pool's outliers": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, outlierDetection: {baseEjectionTime: 9s, maxEjectionTime: 1s}}]\n    routes: [{prefix: /more}]",
			"services[1].pools[0].outlierDetection.maxEjectionTime"},
		"pool's load balancing": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, loadBalancing: least}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].loadBalancing: "least" is none of "leastRequest", "roundRobin", "random", "ringHash" and "maglev"`},
		"hash of nothing": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, loadBalancing: ringHash}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].hashBy: goes with "ringHash" and "maglev", which want it`},
		"hash for nobody": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, hashBy: [user]}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].hashBy: goes with "ringHash"`},
		"hash by what": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, loadBalancing: maglev, hashBy: [user, group]}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].hashBy[1]: "group" is none of user, address, header:NAME and cookie:NAME`},
		"hash by no cookie": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, loadBalancing: maglev, hashBy: ['cookie:a b']}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].hashBy[0]: "a b" is not a cookie name`},
		"hash twice": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, loadBalancing: maglev, hashBy: [user, user]}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].hashBy[1]: "user" appears twice`},
		"hash in each zone": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, loadBalancing: maglev, hashBy: [user], zones: {prefer: true}}]\n    routes: [{prefix: /more}]",
			`services[1].pools[0].zones.prefer: a hash knows no zone`},
		"pool's panic": {"{name: a, " + m + "}\n  - name: more\n    pools: [{name: baseline, panicThreshold: 101}]\n    routes: [{prefix: /more}]",
			"services[1].pools[0].panicThreshold: 101"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule, limits, _ := strings.Cut(c.rule, "\nlimits: ")
			doc := shadowless(withRules(rule))
			if limits != "" {
				doc += "limits: " + limits
			}
			p, err := Parse([]byte(doc))
			var invalid *Error
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error: %v\nwant:  %s", err, c.want)
			}
			if diff := cmp.Diff(Policy{}, p); diff != "" {
				t.Errorf("a refused document gave a value:\n%s", diff)
			}
		})
	}
}

// TestRuleBounds: as many rules as are allowed fit into a document and are read in
// a moment, one more is refused.
func TestRuleBounds(t *testing.T) {
	t.Parallel()
	many := func(n int, rule string) []byte {
		rules := make([]string, n)
		for i := range rules {
			rules[i] = strings.ReplaceAll(rule, "#", fmt.Sprint(i))
		}
		return []byte(shadowless(withRules(rules...)))
	}
	for _, c := range []struct {
		most        int
		rule, small string
		want        string
	}{
		{maxRules, "{name: rule-#, match: [{prefix: /api/v1/something/#}], timeout: 30s, requestHeaders: {set: {x-a: a}}, retries: {attempts: 2, on: [5xx]}}", "{}", "10001 rules, more than 10000"},
		{maxCanaries, "{name: rule-#, match: [{prefix: /#}], canary: {cookie: u, pools: [{pool: canary, percent: 5}]}}", "{canary: {}}", "101 rules with a canary, more than 100"},
	} {
		doc := many(c.most, c.rule)
		start := time.Now()
		p, err := Parse(doc)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d rules, %d KiB, read in %v", len(p.Services[0].Rules), len(doc)>>10, time.Since(start).Round(time.Millisecond))
		if _, err := Parse(many(c.most+1, c.small)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error: %v, want %s", err, c.want)
		}
	}
}

func TestPinsEnd(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(shadowless(withRules(
		"{name: a, pool: canary, until: 2030-01-01T00:00:00Z, match: [{path: /a}]}",
		"{name: b, pool: isolated, until: 2030-01-02T00:00:00Z, match: [{path: /b}]}",
		"{name: c, pool: canary, match: [{path: /c}]}",
	))))
	if err != nil {
		t.Fatal(err)
	}
	first, second := p.Services[0].Rules[0].Until, p.Services[0].Rules[1].Until
	for _, c := range []struct {
		now, next time.Time
		pools     string
	}{
		{first.Add(-1), first, "canary isolated canary"},
		{first, second, " isolated canary"},
		{second.Add(-1), second, " isolated canary"},
		{second, time.Time{}, "  canary"},
	} {
		got, next := p.At(c.now)
		var pools []string
		for _, r := range got.Services[0].Rules {
			pools = append(pools, r.Pool)
		}
		if s := strings.Join(pools, " "); s != c.pools || !next.Equal(c.next) {
			t.Errorf("at %v: pools %q, next %v; want %q, %v", c.now, s, next, c.pools, c.next)
		}
	}
	if p.Services[0].Rules[0].Pool != "canary" {
		t.Error("the policy itself was changed")
	}
}
