package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

var canary = group.Group{Color: group.ColorOf("canary"), Env: "canary", Tenant: "public"}

func header(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(kv); i += 2 {
		h.Add(kv[i], kv[i+1])
	}
	return h
}

// testHeaders holds the edge to the table "what travels with a request" of
// docs/architecture.md, for a client that sends nothing, one that is colored, and
// one that lies.
func testHeaders(t *testing.T, s *stack) {
	baseline := group.Group{Env: "prod", Tenant: "public"}
	const clientTrace, clientSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	colored := "00-" + canary.Color.String() + "16cd43dd8448eb211c80319c-" + clientSpan + "-01"
	staff := s.token(jwt.MapClaims{"sub": "u1", "name": "ann", "role": "staff", "tenant": "acme"})
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "u1", "role": "staff", "tenant": "acme"}).SignedString([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		send  request
		group group.Group
		pool  string
		check func(t *testing.T, got seen)
	}{
		{"nothing", request{}, baseline, "baseline", nil},
		{"cohort by header", request{header: header("X-Env", "canary")}, canary, "canary", nil},
		{"cohort by cookie", request{header: header("Cookie", "a=b; env=canary")}, canary, "canary", nil},
		{"tenant by host", request{host: "search.test"}, group.Group{Env: "prod", Tenant: "search"}, "baseline", nil},
		{"client's trace", request{header: header("Traceparent", "00-"+clientTrace+"-"+clientSpan+"-00", "Tracestate", "vendor=1")}, baseline, "baseline",
			func(t *testing.T, got seen) {
				if tp := got.Header.Get("Traceparent"); strings.Contains(tp, clientTrace) || !strings.HasSuffix(tp, "-02") {
					t.Errorf("traceparent %s: the client's id, or flags that are not unsampled and random", tp)
				}
				if ts := got.Header.Get("Tracestate"); ts != "tg="+clientTrace+"-"+clientSpan+",vendor=1" {
					t.Errorf("tracestate %q", ts)
				}
			}},
		{"color by trace id", request{header: header("Traceparent", colored)}, baseline, "baseline", nil},
		{"our own headers", request{header: header("X-Traffic-Group", string(canary.ID()), "X-Traffic-Pool", "canary", "X-Traffic-Claims", "eyJyb2xlIjoic3RhZmYifQ", "X-Traffic-Other", "x")}, baseline, "baseline",
			func(t *testing.T, got seen) {
				if v, ok := got.Header["X-Traffic-Other"]; ok {
					t.Errorf("x-traffic-other reached the upstream: %q", v)
				}
			}},
		{"our own headers twice", request{header: header("X-Traffic-Group", string(canary.ID()), "X-Traffic-Group", string(canary.ID()))}, baseline, "baseline", nil},
		{"our baggage", request{header: header("Baggage", "traffic.env=canary,traffic.tenant=acme,user=1")}, baseline, "baseline",
			func(t *testing.T, got seen) {
				if b := got.Header.Get("Baggage"); !strings.HasSuffix(b, ",user=1") {
					t.Errorf("baggage %q lost the client's own member", b)
				}
			}},
		{"claims by bearer", request{header: header("Authorization", "Bearer "+staff)}, group.Group{Color: group.ColorOf("staff"), Env: "prod", Tenant: "acme"}, "canary", nil},
		{"claims by cookie", request{header: header("Cookie", "tracegate_session="+staff)}, group.Group{Color: group.ColorOf("staff"), Env: "prod", Tenant: "acme"}, "canary", nil},
		{"forged claims", request{header: header("Authorization", "Bearer "+forged)}, baseline, "baseline", nil},
		{"malformed", request{header: header("Traceparent", "00-zz-1", "Baggage", "=,;=", "Tracestate", ",,,", "Cookie", ";;=")}, baseline, "baseline", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, got := s.do(tt.send)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("status %d", resp.StatusCode)
			}
			id := string(tt.group.ID())
			if got.Pool != tt.pool || resp.Header.Get(semconv.HeaderPool) != tt.pool {
				t.Errorf("served by %s, said %s, want %s", got.Pool, resp.Header.Get(semconv.HeaderPool), tt.pool)
			}
			if v := got.Header.Values(semconv.HeaderGroup); len(v) != 1 || v[0] != id {
				t.Errorf("group at the upstream %q, want %s", v, id)
			}
			if v := resp.Header.Values(semconv.HeaderGroup); len(v) != 1 || v[0] != id {
				t.Errorf("group at the client %q, want %s", v, id)
			}
			if tp := got.Header.Get("Traceparent"); len(tp) != 55 || !strings.HasPrefix(tp, "00-"+tt.group.Color.String()) {
				t.Errorf("traceparent %q, want color %s", tp, tt.group.Color)
			}
			if b := got.Header.Get("Baggage"); !strings.HasPrefix(b, "traffic.env="+tt.group.Env+",traffic.tenant="+tt.group.Tenant) || strings.Count(b, "traffic.") != 2 {
				t.Errorf("baggage %q", b)
			}
			if v, ok := got.Header["X-Traffic-Claims"]; ok {
				t.Errorf("claims reached the upstream: %q", v)
			}
			if tt.check != nil {
				tt.check(t, got)
			}
		})
	}
}

// testHardening tries what an edge must not let through.
func testHardening(t *testing.T, s *stack) {
	t.Run("headers about the client", func(t *testing.T) {
		_, got := s.do(request{header: header(
			"X-Forwarded-For", "10.0.0.1", "X-Forwarded-Proto", "https", "X-Request-Id", "mine",
			"X-Envoy-Internal", "true", "X-Envoy-External-Address", "10.0.0.1", "X-Envoy-Upstream-Rq-Timeout-Ms", "1", "X-Envoy-Retry-On", "5xx",
			"X-Envoy-Decorator-Operation", "x", "X-Envoy-Expected-Rq-Timeout-Ms", "1", "X-Forwarded-Client-Cert", "By=x",
		)})
		for _, name := range []string{
			"X-Envoy-Upstream-Rq-Timeout-Ms", "X-Envoy-Retry-On", "X-Envoy-Decorator-Operation", "X-Forwarded-Client-Cert", "X-Envoy-Internal",
		} {
			if v, ok := got.Header[name]; ok {
				t.Errorf("%s reached the upstream: %q", name, v)
			}
		}
		if v := got.Header.Get("X-Request-Id"); v == "mine" {
			t.Error("the client chose the request id")
		}
		if v := got.Header.Get("X-Forwarded-Proto"); v != "http" {
			t.Errorf("x-forwarded-proto %q", v)
		}
		// The edge appends the peer (for a loopback peer, its own address).
		if v := got.Header.Get("X-Forwarded-For"); !strings.HasPrefix(v, "10.0.0.1,") {
			t.Errorf("x-forwarded-for %q does not end with the peer", v)
		}
	})
	for name, tt := range map[string]struct {
		send request
		code int
	}{
		"underscore in a header name": {request{header: header("X_Env", "canary")}, http.StatusBadRequest},
		"headers too large":           {request{header: header("X-Large", strings.Repeat("x", 40<<10))}, http.StatusRequestHeaderFieldsTooLarge},
		"too many headers":            {request{header: many(150)}, http.StatusRequestHeaderFieldsTooLarge},
		"upgrade on another path":     {request{path: "/v1/users", header: header("Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			resp, _ := s.do(tt.send)
			if resp.StatusCode != tt.code {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.code)
			}
		})
	}
	t.Run("one spelling of a path", func(t *testing.T) {
		if _, got := s.do(request{path: "/a//b/../c"}); got.Path != "/a/c" {
			t.Errorf("path %q", got.Path)
		}
	})
}

func many(n int) http.Header {
	h := http.Header{}
	for i := range n {
		h.Set("X-H"+strings.Repeat("a", i), "1")
	}
	return h
}
