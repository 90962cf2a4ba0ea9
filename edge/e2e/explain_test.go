package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/controlplane/explain"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/observability/semconv"
)

// testExplain holds controlplane/explain to what Envoy does: random rules, random
// requests, and the same answer from both.
func testExplain(t *testing.T, r *rules) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	taken := map[string]int{}
	for range 6 {
		clear(r.moves)
		if rnd.IntN(2) == 0 {
			r.moves[canary.ID()] = one(rnd, "isolated", "baseline")
		}
		lines := randomRules(rnd, 12)
		r.set(lines...)
		p := r.plan()
		for range 150 {
			a := randomAsk(rnd)
			want, err := explain.Explain(p, explain.Request{Method: a.method, Host: a.host, Path: a.path, Header: a.header})
			if err != nil {
				t.Fatalf("%+v: %v", a, err)
			}
			taken[want.Action]++
			if got := r.outcome(a); got != visible(a, want) {
				t.Errorf("%+v:\nEnvoy   %+v\nexplain %+v\nof\n%s", a, got, want, strings.Join(lines, "\n"))
			}
		}
	}
	for _, action := range []string{explain.Serve, explain.Redirect, explain.Respond, explain.Refuse} {
		if taken[action] == 0 {
			t.Errorf("no request came to %s: %v", action, taken)
		}
	}
}

// one picks a word.
func one(rnd *rand.Rand, words ...string) string { return words[rnd.IntN(len(words))] }

// some picks each of the parts by chance.
func some(rnd *rand.Rand, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(string) bool { return rnd.IntN(3) > 0 }), ", ")
}

// randomRules leaves out what a policy may not have, such as a rule that another
// makes unreachable.
func randomRules(rnd *rand.Rand, n int) (lines []string) {
	for len(lines) < n {
		more := append(slices.Clone(lines), randomRule(rnd, fmt.Sprintf("r%d", len(lines))))
		if _, err := policy.Parse([]byte(withRules(more))); err == nil {
			lines = more
		}
	}
	return lines
}

func randomRule(rnd *rand.Rand, name string) string {
	path := one(rnd, "path: /a", "prefix: /a", "prefix: /a/b/", "prefix: /", "path: /a/b", "regex: '/a/[a-c]+'")
	match := "{" + strings.TrimSuffix(path+", "+some(rnd,
		"hosts: ["+one(rnd, "one.test", "'*.one.test'", "'*.test', two.test")+"]",
		"methods: ["+one(rnd, "GET", "POST, PUT")+"]",
		"headers: [{name: X-A, "+one(rnd, "exact: '1'", "prefix: b", "present: true")+one(rnd, "", ", not: true")+"}]",
		"headers: [{name: x-traffic-group, exact: "+string(canary.ID())+"}]",
		one(rnd, "tenant: search", "cohort: canary", "cohort: canary, tenant: public"),
		"cookies: [{name: k, "+one(rnd, "exact: '1'", "prefix: b", "present: true")+one(rnd, "", ", not: true")+"}]",
		"query: [{name: q, "+one(rnd, "exact: '1'", "prefix: b", "present: true")+"}]",
	), ", ") + "}"
	then := one(rnd,
		"pool: isolated", "pool: canary", "websocket: true", "timeout: 3s",
		"canary: {header: X-User, pools: [{pool: canary, percent: 40}, {pool: isolated, percent: 25.5}]}",
		"canary: {cookie: user, pools: [{pool: isolated, percent: 50}]}",
		"directResponse: {status: 203, body: "+name+"}",
		"redirect: {host: else.where, status: 307}, responseHeaders: {set: {x-answer: "+name+"}}",
		"cors: {origins: ['https://one.test'], methods: [GET]}",
	)
	if !strings.Contains(then, "directResponse") && !strings.Contains(then, "redirect") {
		then += ", requestHeaders: {set: {x-rule: " + name + "}}"
	}
	return fmt.Sprintf("{name: %s, match: [%s], %s}", name, match, then)
}

func randomAsk(rnd *rand.Rand) ask {
	a := ask{
		method: one(rnd, "GET", "GET", "POST", "PUT", "OPTIONS"),
		host:   one(rnd, "one.test", "ONE.test:8080", "x.one.test", "two.test", "search.test"),
		path:   one(rnd, "/", "/a", "/a/", "/a/b", "/a/bc", "/ab", "/a//b", "/a/./b", "/a/x/../b", "/A", "/v1/ws") + one(rnd, "", "?q=1", "?p=2&q=bee", "?q", "?q=", "?q=x&q=1"),
		header: http.Header{},
	}
	for _, kv := range [][2]string{
		{"X-A", one(rnd, "1", "bee", "x")}, {"X-Env", "canary"}, {"X-User", fmt.Sprintf("u%d", rnd.IntN(1000))}, {"Cookie", fmt.Sprintf("a=b; user=u%d", rnd.IntN(1000)) + one(rnd, "", "; k=1", ";k=\"bee\"; k=1", "; k=", "; K=1", "; k", "; k=\"1", "; k =1", "; k= 1", "; k=1 ; x=y", "; k=b=1", "; k=\"", "; k=\"\"")},
		{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"X-Traffic-Group", "abcdef"},
		{"Baggage", one(rnd, "traffic.tenant=search", "a=b, traffic.env=canary, traffic.tenant = search;c", "traffic.tenants=search,a=b")}, {"X-Traffic-Pool", "canary"},
	} {
		if rnd.IntN(3) == 0 {
			a.header.Set(kv[0], kv[1])
		}
	}
	if a.method == "OPTIONS" && rnd.IntN(2) == 0 {
		a.header.Set("Origin", one(rnd, "https://one.test", "https://evil.test"))
		a.header.Set("Access-Control-Request-Method", one(rnd, "GET", "PUT"))
	}
	if a.method == "GET" && rnd.IntN(4) == 0 {
		for _, kv := range [][2]string{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-Websocket-Version", "13"}, {"Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}} {
			a.header.Set(kv[0], kv[1])
		}
	}
	return a
}

// outcome is as much of an explanation as a client and an upstream can see.
type outcome struct {
	group  string
	action string
	status int
	rule   string
	pool   string
}

func visible(a ask, o explain.Outcome) outcome {
	out := outcome{string(o.Group), o.Action, o.Status, o.Rule, o.Pool}
	switch {
	case o.Action == explain.Serve && a.header.Get("Upgrade") != "":
		out.rule = ""
	case o.Action == explain.Refuse:
		out.group, out.rule = "", ""
	case o.Status == http.StatusOK: // a preflight
		out.group, out.rule = "", ""
	}
	return out
}

func (r *rules) outcome(a ask) outcome {
	r.t.Helper()
	got := r.ask(a)
	out := outcome{group: got.header.Get(semconv.HeaderGroup), pool: got.seen.Pool}
	switch {
	case got.status == http.StatusSwitchingProtocols:
		out.action, out.pool = explain.Serve, got.header.Get(semconv.HeaderPool)
	case got.seen.Pool != "":
		out.action, out.rule = explain.Serve, got.seen.Header.Get("X-Rule")
	case got.status == http.StatusTemporaryRedirect:
		out.action, out.status, out.rule = explain.Redirect, got.status, got.header.Get("X-Answer")
	case got.status == http.StatusNonAuthoritativeInfo:
		out.action, out.status, out.rule = explain.Respond, got.status, got.body
	case got.status == http.StatusOK: // a preflight
		out.action, out.status = explain.Respond, got.status
	default:
		out.action, out.status, out.group = explain.Refuse, got.status, ""
	}
	return out
}
