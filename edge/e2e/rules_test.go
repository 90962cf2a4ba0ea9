package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tracegate/tracegate/observability/semconv"
)

// TestRules runs what rules of an operator promise, on one Envoy whose listener
// none of them may touch.
func TestRules(t *testing.T) {
	s := newStack(t, nil)
	before := s.counters()
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rules)
	}{
		{"matching", testRuleMatching},
		{"hosts", testRuleHosts},
		{"hosts come and go", testHostsComeAndGo},
		{"pools", testRulePools},
		{"canary", testCanary},
		{"canary of two pools", testCanaryTwoPools},
		{"mirror", testMirror},
		{"retries", testRetries},
		{"timeouts", testTimeouts},
		{"redirect and rewrite", testRewrite},
		{"headers", testRuleHeaders},
		{"cors", testCORS},
		{"rate limit", testRateLimit},
		{"fault", testFault},
		{"request size", testRequestSize},
		{"websocket", testRuleWebSocket},
		{"pool settings", testPoolSettings},
		{"load balancing", testLoadBalancing},
		{"hashing", testHashing},
		{"explain", testExplain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer := s.t
			s.t = t
			clear(s.moves)
			tt.run(t, &rules{stack: s})
			s.t = outer
		})
	}
	if after := s.counters(); after.listeners != before.listeners {
		t.Errorf("listeners were touched:\nbefore %+v\nafter  %+v", before.listeners, after.listeners)
	}
}

// rules is the stack with rules.
type rules struct {
	*stack
	version int
}

// set gives the edge these rules, one a line of YAML, and returns when they hold.
func (r *rules) set(lines ...string) {
	r.t.Helper()
	r.version++
	mark := fmt.Sprintf("%s %d", r.t.Name(), r.version)
	first := fmt.Sprintf("{name: mark, match: [{path: /mark}], directResponse: {status: 200, body: %q}}", mark)
	r.policy = withRules(append([]string{first}, lines...))
	r.apply()
	// Envoy acknowledges routes before its workers have them.
	waitFor(r.t, "the rules", func() bool { return r.ask(ask{path: "/mark"}).body == mark })
}

func withRules(lines []string) string {
	return strings.Replace(testPolicy, "    routes:\n", "    rules:\n      - "+strings.Join(lines, "\n      - ")+"\n    routes:\n", 1)
}

// ask is what is asked; the zero value is GET / of chat.test.
type ask struct {
	method, host, path, body string
	header                   http.Header
}

// told is the answer, with what the upstream saw where it was 200.
type told struct {
	status int
	header http.Header
	body   string
	seen   seen
	took   time.Duration
}

func (r *rules) ask(a ask) told {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), a.method, "http://"+r.edge.Listen+a.path, strings.NewReader(a.body))
	if err != nil {
		r.t.Fatal(err)
	}
	if a.header != nil {
		req.Header = a.header.Clone()
	}
	if req.Host = a.host; req.Host == "" {
		req.Host = "chat.test"
	}
	start := time.Now()
	resp, err := r.client.Transport.RoundTrip(req) // follows no redirect
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if body, err = io.ReadAll(resp.Body); err != nil {
			r.t.Fatal(err)
		}
	}
	out := told{status: resp.StatusCode, header: resp.Header, body: string(body), took: time.Since(start)}
	_ = json.Unmarshal(body, &out.seen) // not every answer is the upstream's
	return out
}

func testRuleMatching(t *testing.T, r *rules) {
	says := func(name, match string) string {
		return fmt.Sprintf("{name: %s, match: [%s], directResponse: {status: 200, body: %s}}", name, match, name)
	}
	r.set(
		says("exact", "{path: /exact}"),
		says("prefix", "{prefix: /pre/}"),
		says("regex", "{regex: '/users/[0-9]+'}"),
		says("method", "{path: /method, methods: [PUT, PATCH]}"),
		says("host", "{hosts: [one.test, two.test], path: /host}"),
		says("wildcard", "{hosts: ['*.wild.test'], path: /host}"),
		says("header", "{path: /header, headers: [{name: X-A, exact: '1'}, {name: x-b, prefix: be}]}"),
		says("present", "{path: /header, headers: [{name: x-c, present: true}]}"),
		says("absent", "{path: /absent, headers: [{name: x-c, present: true, not: true}]}"),
		says("other", "{path: /other, headers: [{name: x-c, exact: 'no', not: true}]}"),
		says("cookie", "{path: /cookie, cookies: [{name: A, exact: '1'}, {name: b, prefix: be}, {name: c, present: true}]}"),
		says("no cookie", "{path: /cookie, cookies: [{name: A, exact: '1', not: true}, {name: b, prefix: be, not: true}, {name: c, present: true, not: true}]}"),
		says("query", "{path: /query, query: [{name: a, exact: '1'}, {name: b, prefix: be}, {name: c, present: true}]}"),
		says("either", "{path: /either1}, {path: /either2}"),
		says("tenant", "{path: /tenant, tenant: search}"),
		says("long tenant", "{path: /tenant, tenant: "+strings.Repeat("acme.", 12)+"acme}"),
		says("cohort", "{path: /cohort, cohort: canary}"),
		says("both", "{path: /both, tenant: search, cohort: canary}"),
		says("trace", "{path: /trace, headers: [{name: tracestate, prefix: tg=4bf92f3577b34da6a3ce929d0e0e4736-}]}"),
		says("group", "{path: /group, headers: [{name: x-traffic-group, exact: "+string(canary.ID())+"}]}"),
	)
	const none = "" // no rule: the upstream answers
	for _, c := range []struct {
		ask  ask
		want string
	}{
		{ask{path: "/exact"}, "exact"},
		{ask{path: "/exact?q=1"}, "exact"},
		{ask{path: "/exact/"}, none},
		{ask{path: "/Exact"}, none},
		{ask{path: "/pre"}, "prefix"},
		{ask{path: "/pre/x"}, "prefix"},
		{ask{path: "/prefix"}, none},
		{ask{path: "/users/12"}, "regex"},
		{ask{path: "/users/12?x"}, "regex"},
		{ask{path: "/users/12/x"}, none},
		{ask{path: "/method", method: "PATCH"}, "method"},
		{ask{path: "/method", method: "POST"}, none},
		{ask{path: "/host", host: "two.test"}, "host"},
		{ask{path: "/host", host: "ONE.test:8080"}, "host"},
		{ask{path: "/host", host: "one.test.evil"}, none},
		{ask{path: "/host", host: "x.one.test"}, none},
		{ask{path: "/host", host: "a.b.wild.test:80"}, "wildcard"},
		{ask{path: "/host", host: "wild.test"}, none},
		{ask{path: "/host", host: "awild.test"}, none},
		{ask{path: "/header", header: header("X-A", "1", "X-B", "bee")}, "header"},
		{ask{path: "/header", header: header("X-A", "1")}, none},
		{ask{path: "/header", header: header("X-A", "1", "X-B", "a")}, none},
		{ask{path: "/header", header: header("X-C", "")}, "present"},
		{ask{path: "/absent"}, "absent"},
		{ask{path: "/absent", header: header("X-C", "1")}, none},
		{ask{path: "/other"}, "other"},
		{ask{path: "/other", header: header("X-C", "yes")}, "other"},
		{ask{path: "/other", header: header("X-C", "no")}, none},
		{ask{path: "/cookie", header: header("Cookie", "c=; b=bee; A=1")}, "cookie"},
		{ask{path: "/cookie", header: header("Cookie", "c=\xff; b=\"bee\"; A=1; A=2")}, "cookie"},
		{ask{path: "/cookie", header: header("Cookie", "c=; b=bee; A=2; A=1")}, none},
		{ask{path: "/cookie", header: header("Cookie", "c=; b=bee; A=1 ; d=")}, none},
		{ask{path: "/cookie", header: header("Cookie", "b=bee; A=1")}, none},
		{ask{path: "/cookie", header: header("Cookie", "c=1; b=bee; a=1")}, none},
		{ask{path: "/cookie", header: header("Cookie", "a=1; b=a")}, "no cookie"},
		{ask{path: "/cookie"}, "no cookie"},
		{ask{path: "/cookie", header: header("Cookie", "A=1")}, none},
		{ask{path: "/query?c&b=bee&a=1"}, "query"},
		{ask{path: "/query?a=1&b=bee"}, none},
		{ask{path: "/either1"}, "either"},
		{ask{path: "/either2"}, "either"},
		{ask{path: "/tenant", host: "search.test"}, "tenant"},
		{ask{path: "/tenant", host: "search.test", header: header("Baggage", "a=b,traffic.tenant=acme")}, "tenant"},
		{ask{path: "/tenant"}, none},
		{ask{path: "/tenant", header: header("Baggage", "traffic.env=prod,traffic.tenant=search")}, none}, // who says so himself
		{ask{path: "/tenant", header: header("Baggage", "a=traffic.tenant=search", "X-Traffic-Group", string(canary.ID()))}, none},
		{ask{path: "/cohort", header: header("X-Env", "canary")}, "cohort"},
		{ask{path: "/cohort", header: header("Traceparent", "00-"+canary.Color.String()+"00000000000000000000000a-b7ad6b7169203331-01")}, none},
		{ask{path: "/both", host: "search.test", header: header("X-Env", "canary")}, "both"},
		{ask{path: "/both", host: "search.test"}, none},
		{ask{path: "/both", header: header("X-Env", "canary")}, none},
		{ask{path: "/trace", header: header("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")}, "trace"},
		{ask{path: "/trace", header: header("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "Tracestate", "a=b")}, "trace"},
		{ask{path: "/trace", header: header("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-01")}, none},
		{ask{path: "/trace", header: header("Tracestate", "tg=4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7")}, none},
		{ask{path: "/trace"}, none},
		{ask{path: "/group", header: header("X-Env", "canary")}, "group"},
		{ask{path: "/group", header: header("X-Traffic-Group", string(canary.ID()))}, none}, // who says so himself
	} {
		got := r.ask(c.ask)
		if c.want == none && got.seen.Pool == "" || c.want != none && got.body != c.want {
			t.Errorf("%+v: %d %q, want rule %q", c.ask, got.status, got.body, c.want)
		}
	}
}

// testRulePools: groups and cohorts go on inside a rule, unless it pins.
func testRulePools(t *testing.T, r *rules) {
	set := func() {
		r.set(
			"{name: any, match: [{prefix: /any}], requestHeaders: {set: {x-rule: any}}}",
			"{name: pin, match: [{prefix: /pin}], pool: isolated}",
			"{name: pin the cohort, match: [{prefix: /cohort, cohort: canary}], pool: isolated, until: 2100-01-31T12:00:00Z}",
		)
	}
	check := func(when, group, path, want string) {
		t.Helper()
		h := http.Header{}
		if group != "" {
			h = header("X-Env", group)
		}
		got := r.ask(ask{path: path, header: h})
		if got.seen.Pool != want || got.header.Get(semconv.HeaderPool) != want {
			t.Errorf("%s: %s of %q is served by %q, want %q", when, path, group, got.seen.Pool, want)
		}
		if path == "/any" && got.seen.Header.Get("X-Rule") != "any" {
			t.Errorf("%s: the rule did not act", when)
		}
	}
	set()
	check("at home", "", "/any", "baseline")
	check("at home", "canary", "/any", "canary")
	check("at home", "", "/pin", "isolated")
	check("at home", "canary", "/pin", "isolated")
	check("at home", "", "/cohort", "baseline")
	check("at home", "canary", "/cohort", "isolated")
	r.moves[canary.ID()] = semconv.PoolIsolated
	set()
	check("moved", "canary", "/any", "isolated")
	check("moved", "canary", "/elsewhere", "isolated")
	check("moved", "", "/any", "baseline")
	// And a move alone, under rules that stay.
	delete(r.moves, canary.ID())
	r.apply()
	waitFor(t, "the way back", func() bool {
		return r.ask(ask{path: "/any", header: header("X-Env", "canary")}).seen.Pool == "canary"
	})
	// A pool without a healthy instance falls back to baseline here too.
	r.endpoints.Services["core"]["canary"] = nil
	r.apply()
	waitFor(t, "fall back", func() bool {
		return r.ask(ask{path: "/any", header: header("X-Env", "canary")}).seen.Pool == "baseline"
	})
	r.endpoints.Services["core"]["canary"] = []string{r.pools["canary"].addr()}
	r.apply()
	waitFor(t, "a healthy canary", func() bool {
		return r.ask(ask{path: "/any", header: header("X-Env", "canary")}).seen.Pool == "canary"
	})
}

func testMirror(t *testing.T, r *rules) {
	r.set("{name: mirror, match: [{path: /mirror}], mirror: {pool: isolated, percent: 100}}",
		"{name: none, match: [{path: /none}], mirror: {pool: isolated, percent: 0}}")
	before := r.pools["isolated"].requests.Load()
	const n = 50
	for range n {
		for _, path := range []string{"/mirror", "/none"} {
			if got := r.ask(ask{path: path, method: "POST", body: "x"}); got.seen.Pool != "baseline" {
				t.Fatalf("%s is answered by %q, %d", path, got.seen.Pool, got.status)
			}
		}
	}
	mirrored := func() int64 { return r.pools["isolated"].requests.Load() - before }
	waitFor(t, "copies", func() bool { return mirrored() >= n })
	if got := mirrored(); got != n {
		t.Errorf("%d copies of %d requests", got, n)
	}
	// Copies for a pool that is down are dropped, not sent to baseline.
	r.endpoints.Services["core"]["isolated"] = nil
	r.apply()
	waitFor(t, "the pool to be empty", func() bool {
		sent := r.stat(`^cluster\.core\.isolated\.mirror\.upstream_cx_none_healthy$`)
		r.ask(ask{path: "/mirror"})
		return r.stat(`^cluster\.core\.isolated\.mirror\.upstream_cx_none_healthy$`) > sent
	})
	served := r.pools["baseline"].requests.Load()
	for range n {
		r.ask(ask{path: "/mirror"})
	}
	if got := r.pools["baseline"].requests.Load() - served; got != n {
		t.Errorf("baseline has served %d requests of %d", got, n)
	}
	r.endpoints.Services["core"]["isolated"] = []string{r.pools["isolated"].addr()}
	r.apply()
	copies := mirrored()
	waitFor(t, "copies again", func() bool {
		r.ask(ask{path: "/mirror"})
		return mirrored() > copies
	})
}

func testRetries(t *testing.T, r *rules) {
	r.set(
		"{name: retry, match: [{path: /retry}], retries: {attempts: 2, on: [5xx]}}",
		"{name: code, match: [{path: /code}], retries: {attempts: 1, on: [retriable-status-codes], statusCodes: [503]}}",
		"{name: never, match: [{path: /never}], retries: {attempts: 0, on: []}}",
		"{name: slow, match: [{path: /slow}], timeout: 5s, retries: {attempts: 2, perTryTimeout: 200ms, on: [reset]}}",
		"{name: plain, match: [{path: /plain}]}",
		"{name: own, match: [{path: /own}], retries: {attempts: 2, on: [connect-failure]}}",
		"{name: limited, match: [{path: /limited}], rateLimit: {requestsPerSecond: 100}}",
	)
	u := r.pools["baseline"]
	defer u.dropping.Store(0)
	for _, c := range []struct {
		method, path string
		status       int
		attempts     int64
	}{
		// What the upstream has seen is repeated only where that does no harm.
		{"GET", "/plain", 200, 2},
		{"OPTIONS", "/plain", 200, 2},
		{"POST", "/plain", 503, 1},
		{"GET", "/limited", 200, 2},
		{"GET", "/no/rule", 200, 2},
		{"DELETE", "/no/rule", 503, 1},
		{"GET", "/own", 503, 1},
	} {
		before := u.requests.Load()
		u.dropping.Store(1)
		got := r.ask(ask{method: c.method, path: c.path, header: header("X-Envoy-Retry-On", "reset,5xx")})
		if n := u.requests.Load() - before; got.status != c.status || n != c.attempts {
			t.Errorf("%s %s without an answer: status %d after %d attempts, want %d after %d", c.method, c.path, got.status, n, c.status, c.attempts)
		}
		if got.seen.Header.Get("X-Envoy-Retry-On") != "" {
			t.Errorf("%s %s: the upstream sees what is for the edge: %v", c.method, c.path, got.seen.Header)
		}
	}
	u.dropping.Store(0)
	for _, c := range []struct {
		path     string
		failing  int64
		status   int
		attempts int64
	}{
		{"/retry", 2, 200, 3},
		{"/retry", 3, 503, 3},
		{"/code", 1, 200, 2},
		{"/never", 1, 503, 1},
		{"/plain", 1, 503, 1},
	} {
		before := u.requests.Load()
		u.failing.Store(c.failing)
		got := r.ask(ask{path: c.path, method: "POST"})
		if n := u.requests.Load() - before; got.status != c.status || n != c.attempts {
			t.Errorf("%s with %d failures: status %d after %d attempts, want %d after %d", c.path, c.failing, got.status, n, c.status, c.attempts)
		}
		u.failing.Store(0)
	}
	before := u.requests.Load()
	got := r.ask(ask{path: "/slow", header: header("X-Stay", "30s")})
	if n := u.requests.Load() - before; got.status != http.StatusGatewayTimeout || n != 3 || got.took > 25*time.Second {
		t.Errorf("slow: status %d after %d tries and %v", got.status, n, got.took)
	}
}

func testTimeouts(t *testing.T, r *rules) {
	r.set("{name: quick, match: [{path: /quick}], timeout: 200ms, retries: {attempts: 0, on: []}}",
		"{name: idle, match: [{path: /idle}], idleTimeout: 200ms, retries: {attempts: 0, on: []}}")
	for _, path := range []string{"/quick", "/idle"} {
		got := r.ask(ask{path: path, header: header("X-Stay", "30s")})
		if got.status != http.StatusGatewayTimeout || got.took < 150*time.Millisecond || got.took > 25*time.Second {
			t.Errorf("%s: status %d after %v", path, got.status, got.took)
		}
		if got := r.ask(ask{path: path}); got.status != http.StatusOK {
			t.Errorf("%s: status %d", path, got.status)
		}
	}
	if got := r.ask(ask{path: "/other", header: header("X-Stay", "300ms")}); got.status != http.StatusOK {
		t.Errorf("another path: status %d", got.status)
	}
}

func testRewrite(t *testing.T, r *rules) {
	r.set(
		"{name: prefix, match: [{prefix: /a/}], rewrite: {path: /x/y, host: inner.test}}",
		"{name: path, match: [{path: /b}], rewrite: {path: /c}}",
		"{name: away, match: [{prefix: /strip}], rewrite: {path: /}}",
		`{name: regex, match: [{regex: '/u/([0-9]+)/(\w+)'}], rewrite: {path: '/\2/of/\1'}}`,
		"{name: host, match: [{path: /h}], rewrite: {host: 'inner.test:99'}}",
		"{name: all, match: [{prefix: /, headers: [{name: x-all, present: true}]}], rewrite: {path: /all}}",
		"{name: to https, match: [{path: /secure}], redirect: {https: true, status: 308}}",
		"{name: to host, match: [{prefix: /old}], redirect: {host: 'new.test:81', path: /new}}",
		"{name: to path, match: [{path: /from}], redirect: {path: /to, status: 301, stripQuery: true}}",
		`{name: to regex, match: [{regex: '/n/([0-9]+)'}], redirect: {path: '/m/\1', status: 307}}`,
		"{name: gone, match: [{path: /gone}], directResponse: {status: 410, body: 'gone 100%'}, responseHeaders: {set: {cache-control: no-store}}}",
		"{name: down, match: [{path: /down}], directResponse: {status: 503, body: maintenance}}",
	)
	for _, c := range []struct {
		ask        ask
		path, host string
	}{
		{ask{path: "/a/b?q=1"}, "/x/y/b", "inner.test"},
		{ask{path: "/a"}, "/x/y", "inner.test"},
		{ask{path: "/b"}, "/c", "chat.test"},
		{ask{path: "/strip/d/e"}, "/d/e", "chat.test"},
		{ask{path: "/strip"}, "/", "chat.test"},
		{ask{path: "/u/7/name"}, "/name/of/7", "chat.test"},
		{ask{path: "/h"}, "/h", "inner.test:99"},
		{ask{path: "/z", header: header("X-All", "1")}, "/all/z", "chat.test"},
	} {
		if got := r.ask(c.ask); got.seen.Path != c.path || got.seen.Host != c.host {
			t.Errorf("%s: the upstream saw %s of %s, want %s of %s; status %d", c.ask.path, got.seen.Path, got.seen.Host, c.path, c.host, got.status)
		}
	}
	for _, c := range []struct {
		path     string
		status   int
		location string
	}{
		{"/secure?a=b", 308, "https://chat.test/secure?a=b"},
		{"/old/x?a=b", 302, "http://new.test:81/new/x?a=b"},
		{"/from?a=b", 301, "http://chat.test/to"},
		{"/n/42", 307, "http://chat.test/m/42"},
	} {
		if got := r.ask(ask{path: c.path}); got.status != c.status || got.header.Get("Location") != c.location {
			t.Errorf("%s: %d to %q, want %d to %q", c.path, got.status, got.header.Get("Location"), c.status, c.location)
		}
	}
	if got := r.ask(ask{path: "/gone"}); got.status != http.StatusGone || got.body != "gone 100%" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("direct response: %d %q %v", got.status, got.body, got.header)
	}
	// Errors of the edge have the shape of core's.
	if got := r.ask(ask{path: "/down"}); got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, `"message":"maintenance"`) {
		t.Errorf("direct error: %d %q", got.status, got.body)
	}
}

func testRuleHeaders(t *testing.T, r *rules) {
	r.set("{name: h, match: [{path: /h}], requestHeaders: {set: {x-a: '%REQ(host)% 5%'}, add: {x-b: two}, remove: [x-c]}, responseHeaders: {set: {x-d: d}, add: {x-e: e}, remove: [content-type]}}")
	got := r.ask(ask{path: "/h", header: header("X-A", "old", "X-B", "one", "X-C", "c")})
	up := got.seen.Header
	if v := up.Values("X-A"); len(v) != 1 || v[0] != "%REQ(host)% 5%" {
		t.Errorf("set: %q", v)
	}
	if v := strings.Join(up.Values("X-B"), ","); v != "one,two" {
		t.Errorf("add: %q", v)
	}
	if v, ok := up["X-C"]; ok {
		t.Errorf("remove: %q", v)
	}
	if got.header.Get("X-D") != "d" || got.header.Get("X-E") != "e" || got.header.Get("Content-Type") != "" {
		t.Errorf("response headers: %v", got.header)
	}
	if got.header.Get(semconv.HeaderGroup) == "" || got.header.Get(semconv.HeaderTraceresponse) == "" {
		t.Errorf("the edge's own headers are lost: %v", got.header)
	}
}

func testCORS(t *testing.T, r *rules) {
	r.set("{name: cors, match: [{path: /cors, methods: [POST], headers: [{name: x-need, present: true}]}], cors: {origins: ['https://app.test', 'https://*.apps.test'], methods: [POST], headers: [x-need], exposeHeaders: [traceresponse], maxAge: 10m, credentials: true}}")
	preflight := func(origin, method string) told {
		return r.ask(ask{method: "OPTIONS", path: "/cors", header: header("Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "x-need")})
	}
	for _, origin := range []string{"https://app.test", "https://a.apps.test"} {
		got := preflight(origin, "POST")
		h := got.header
		if got.status != http.StatusOK || got.seen.Pool != "" || h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Methods") != "POST" ||
			h.Get("Access-Control-Allow-Headers") != "x-need" || h.Get("Access-Control-Max-Age") != "600" || h.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("preflight of %s: %d %v", origin, got.status, h)
		}
		got = r.ask(ask{method: "POST", path: "/cors", header: header("Origin", origin, "X-Need", "1")})
		if h := got.header; got.seen.Pool != "baseline" || h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Expose-Headers") != "traceresponse" {
			t.Errorf("request of %s: %d %v", origin, got.status, h)
		}
	}
	for _, origin := range []string{"https://evil.test", "http://app.test", "https://app.test.evil", "https://apps.test"} {
		if got := preflight(origin, "POST"); got.header.Get("Access-Control-Allow-Origin") != "" || got.seen.Pool != "" {
			t.Errorf("preflight of %s: %d %v", origin, got.status, got.header)
		}
	}
	if got := preflight("https://app.test", "DELETE"); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of another method: %d %v", got.status, got.header)
	}
}

func testRateLimit(t *testing.T, r *rules) {
	r.set("{name: limited, match: [{prefix: /limited}], rateLimit: {requestsPerSecond: 1, burst: 5}}",
		"{name: group, match: [{prefix: /group, headers: [{name: x-traffic-group, exact: "+string(canary.ID())+"}]}], rateLimit: {requestsPerSecond: 1, burst: 5}}")
	for _, c := range []struct {
		path  string
		group bool
	}{{"/limited", false}, {"/group", true}} {
		passed := 0
		start := time.Now()
		for i := range 30 {
			a := ask{path: fmt.Sprintf("%s/%d", c.path, i), method: []string{"GET", "POST"}[i%2], header: header("X-Env", "canary")}
			switch got := r.ask(a); {
			case got.status == http.StatusOK:
				passed++
			case got.status != http.StatusTooManyRequests || !strings.Contains(got.body, `"code":"rate_limited"`):
				t.Fatalf("status %d %q", got.status, got.body)
			}
		}
		// Five at once, and one a second.
		if most := 6 + int(time.Since(start)/time.Second); passed < 5 || passed > most {
			t.Errorf("%s: %d passed, want 5 to %d", c.path, passed, most)
		}
		if c.group {
			for range 10 {
				if got := r.ask(ask{path: c.path}); got.status != http.StatusOK {
					t.Errorf("another group is limited: %d", got.status)
				}
			}
		}
	}
}

func testFault(t *testing.T, r *rules) {
	r.set(
		"{name: abort, match: [{path: /abort}], fault: {abort: {percent: 100, status: 418}}}",
		"{name: some, match: [{path: /some}], fault: {abort: {percent: 30, status: 418}}}",
		"{name: delay, match: [{path: /delay}], fault: {delay: {percent: 100, duration: 300ms}}}",
	)
	if got := r.ask(ask{path: "/abort"}); got.status != http.StatusTeapot {
		t.Errorf("abort: status %d", got.status)
	}
	if got := r.ask(ask{path: "/delay"}); got.status != http.StatusOK || got.took < 250*time.Millisecond { // Envoy's clock ticks coarsely
		t.Errorf("delay: status %d after %v", got.status, got.took)
	}
	aborted := 0
	const n = 500
	for range n {
		if r.ask(ask{path: "/some"}).status == http.StatusTeapot {
			aborted++
		}
	}
	if aborted < n*18/100 || aborted > n*42/100 { // six standard deviations
		t.Errorf("%d of %d aborted, want about 30%%", aborted, n)
	}
	if got := r.ask(ask{path: "/other"}); got.status != http.StatusOK {
		t.Errorf("another path: status %d", got.status)
	}
}

func testRequestSize(t *testing.T, r *rules) {
	r.set("{name: small, match: [{path: /small}], maxRequestBytes: 1000}",
		"{name: group, match: [{path: /group, headers: [{name: x-traffic-group, exact: "+string(canary.ID())+"}]}], maxRequestBytes: 1000}",
		"{name: other, match: [{path: /other}]}")
	large, fits := strings.Repeat("x", 200_000), strings.Repeat("x", 1000)
	for _, c := range []struct {
		path, env, body string
		status          int
	}{
		{"/small", "", large, http.StatusRequestEntityTooLarge},
		{"/small", "", fits, http.StatusOK},
		{"/group", "canary", large, http.StatusRequestEntityTooLarge},
		{"/group", "", large, http.StatusOK},
		{"/other", "", large, http.StatusOK},
		{"/no/rule", "", large, http.StatusOK},
	} {
		got := r.ask(ask{path: c.path, method: "POST", body: c.body, header: header("X-Env", c.env)})
		if got.status != c.status {
			t.Errorf("%s with %d bytes as %q: status %d, want %d", c.path, len(c.body), c.env, got.status, c.status)
		}
	}
}

// testRuleWebSocket: a socket through a rule outlives the rule's timeout, and more
// rules that come while it is open.
func testRuleWebSocket(t *testing.T, r *rules) {
	const socket = "{name: socket, match: [{path: /v1/ws, headers: [{name: x-env, present: true}]}], websocket: true, timeout: 500ms, requestHeaders: {set: {x-rule: socket}}}"
	r.set(socket, "{name: plain, match: [{path: /plain}]}")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var l load
	open := time.Now()
	conn := r.dial(request{header: header("X-Env", "canary")})
	talked := make(chan struct{})
	go func() { defer close(talked); l.talk(ctx, conn) }()
	waitFor(t, "the pool of the cohort", func() bool { return r.pools["canary"].sockets.Load() == 1 })
	r.set(socket, "{name: more, match: [{path: /more}], cors: {origins: ['*']}, rateLimit: {requestsPerSecond: 1}}")
	waitFor(t, "more than its timeout", func() bool { return time.Since(open) > 1500*time.Millisecond })
	n := l.messages.Load()
	waitFor(t, "messages", func() bool { return l.messages.Load() > n+3 || l.dropped.Load() > 0 })
	stop()
	<-talked
	if l.dropped.Load() != 0 {
		t.Errorf("the socket was dropped: %s", l.firstTrouble)
	}
	upgrade := header("Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	if got := r.ask(ask{path: "/more", header: upgrade}); got.status != http.StatusForbidden {
		t.Errorf("upgrade through a rule that allows none: status %d", got.status)
	}
}

// testPoolSettings: circuit breakers of a pool hold, and changing a pool's settings
// ends no socket that is open on it.
func testPoolSettings(t *testing.T, r *rules) {
	const pin = "{name: pin, match: [{path: /pin}], pool: canary, retries: {attempts: 0, on: []}}"
	r.set(pin)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var l load
	conn := r.dial(request{header: header("X-Env", "canary")})
	talked := make(chan struct{})
	go func() { defer close(talked); l.talk(ctx, conn) }()
	waitFor(t, "a socket in the pool", func() bool { return r.pools["canary"].sockets.Load() == 1 })

	r.policy = strings.Replace(r.policy, "{name: canary}, {name: isolated}", "{name: canary, circuitBreakers: {maxConnections: 1, maxPendingRequests: 1}, healthCheck: {interval: 100ms}, panicThreshold: 0}, {name: isolated}", 1)
	start := time.Now()
	r.apply()
	if took := time.Since(start); took > time.Minute {
		t.Errorf("applied after %v: the new cluster waited for endpoints that nobody sent", took)
	}
	crowd := func() (served, refused int64) {
		var ok, no atomic.Int64
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				switch got, _, _ := r.try(request{path: "/pin", header: header("X-Stay", "100ms")}); got.StatusCode {
				case http.StatusOK:
					ok.Add(1)
				case http.StatusServiceUnavailable:
					no.Add(1)
				}
			})
		}
		all.Wait()
		return ok.Load(), no.Load()
	}
	waitFor(t, "the circuit breaker", func() bool { served, refused := crowd(); return served > 0 && refused > 0 && served+refused == 10 })
	n := l.messages.Load()
	waitFor(t, "messages", func() bool { return l.messages.Load() > n+3 || l.dropped.Load() > 0 })
	stop()
	<-talked
	if l.dropped.Load() != 0 {
		t.Errorf("the socket was dropped: %s", l.firstTrouble)
	}
	r.set(pin)
	waitFor(t, "the breaker to be gone", func() bool { served, _ := crowd(); return served == 10 })
}

// testLoadBalancing: the two instances of a pool take turns, which no other way of
// balancing does for so long. They are told apart by the pools they are of besides.
func testLoadBalancing(t *testing.T, r *rules) {
	r.set("{name: pin, match: [{path: /pin}], pool: isolated}")
	r.policy = strings.Replace(r.policy, "{name: isolated}", "{name: isolated, loadBalancing: roundRobin}", 1)
	own := r.endpoints.Services["core"]["isolated"]
	r.endpoints.Services["core"]["isolated"] = []string{r.pools["canary"].addr(), r.pools["isolated"].addr()}
	r.apply()
	waitFor(t, "turns", func() bool {
		last := ""
		for range 32 {
			got := r.ask(ask{path: "/pin"}).seen.Pool
			if got == last {
				return false
			}
			last = got
		}
		return true
	})
	r.endpoints.Services["core"]["isolated"] = own
	r.apply()
}

// testHashing: whoever sends the same value gets the same instance of two, and not all get
// the same. A user is known by any token, and does not move where others' instance goes.
func testHashing(t *testing.T, r *rules) {
	const values = 32
	two := []string{r.pools["canary"].addr(), r.pools["isolated"].addr()}
	own := r.endpoints.Services["core"]["isolated"]
	user := func(i int, claims jwt.MapClaims) http.Header {
		claims["sub"] = "user-" + strconv.Itoa(i)
		return header("Authorization", "Bearer "+r.token(claims))
	}
	of := func(h http.Header) string { return r.ask(ask{path: "/pin", header: h}).seen.Pool }
	for _, tt := range []struct {
		name, by string
		header   func(i int) http.Header
	}{
		{"user", "[user, 'header:X-Room']", func(i int) http.Header { return user(i, jwt.MapClaims{}) }},
		{"header", "[user, 'header:X-Room']", func(i int) http.Header { return header("X-Room", strconv.Itoa(i)) }},
		{"cookie", "['cookie:visitor']", func(i int) http.Header { return header("Cookie", "a=b; visitor="+strconv.Itoa(i)) }},
		{"address", "[user, address]", func(int) http.Header { return nil }},
	} {
		for _, way := range []string{"ringHash", "maglev"} {
			r.endpoints.Services["core"]["isolated"] = two
			r.set("{name: pin, match: [{path: /pin}], pool: isolated}")
			r.policy = strings.Replace(r.policy, "{name: isolated}", "{name: isolated, loadBalancing: "+way+", hashBy: "+tt.by+"}", 1)
			r.apply()
			var at [values]string
			waitFor(t, "one instance for each "+tt.name+" by "+way, func() bool {
				used := map[string]bool{}
				for round := range 3 {
					for i := range at {
						pool := of(tt.header(i))
						if round > 0 && pool != at[i] {
							return false
						}
						at[i], used[pool] = pool, true
					}
				}
				return len(used) == 2 || tt.name == "address"
			})
			switch tt.name {
			case "address":
				for i := range at {
					if at[i] != at[0] {
						t.Errorf("%s: one address has two instances", way)
					}
				}
			case "user":
				for i := range at {
					if got := of(user(i, jwt.MapClaims{"name": "n", "tenant": "acme"})); got != at[i] {
						t.Errorf("%s: user %d has %s with another token, %s before", way, i, got, at[i])
					}
				}
				r.endpoints.Services["core"]["isolated"] = two[1:]
				r.apply()
				waitFor(t, "one instance to go", func() bool {
					for i := range at {
						if of(tt.header(i)) != "isolated" {
							return false
						}
					}
					return true
				})
				r.endpoints.Services["core"]["isolated"] = two
				r.apply()
				waitFor(t, "users of both to be where they were", func() bool {
					for i := range at {
						if of(tt.header(i)) != at[i] {
							return false
						}
					}
					return true
				})
			}
		}
	}
	r.endpoints.Services["core"]["isolated"] = own
	r.apply()
}
