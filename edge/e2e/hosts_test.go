package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/controlplane/server"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/observability/semconv"
)

// testRuleHosts: the rules of a host, of the wildcards above it and of no host are
// one list, whichever virtual host Envoy has put them in.
func testRuleHosts(t *testing.T, r *rules) {
	says := func(name, match string) string {
		return fmt.Sprintf("{name: %s, match: [%s], directResponse: {status: 200, body: %s}}", name, match, name)
	}
	r.set(
		says("first", "{path: /first}"),
		says("one", "{hosts: [one.wild.test], prefix: /one}"),
		says("wild", "{hosts: ['*.wild.test'], prefix: /one}, {hosts: ['*.wild.test', other.test], path: /wild}"),
		says("deep", "{hosts: ['*.deep.wild.test'], prefix: /one}"),
		says("closed", "{hosts: [closed.test], path: /x}, {hosts: [closed.test], prefix: /}"),
		says("beaten", "{hosts: [closed.test, one.wild.test], path: /late}"),
		says("last", "{path: /last}"),
	)
	const none = "" // no rule: the upstream answers
	for _, c := range []struct{ host, path, want string }{
		{"one.wild.test", "/first", "first"},
		{"one.wild.test", "/one/x", "one"},
		{"ONE.wild.TEST:81", "/one", "one"},
		{"one.wild.test", "/wild", "wild"},
		{"one.wild.test", "/late", "beaten"},
		{"one.wild.test", "/last", "last"},
		{"one.wild.test", "/none", none},
		{"two.wild.test:80", "/one", "wild"},
		{"a.deep.Wild.test", "/one", "wild"}, // deep is more specific and stands behind
		{"a.deep.wild.test", "/wild", "wild"},
		{"a.deep.wild.test", "/last", "last"},
		{"other.test", "/wild", "wild"},
		{"other.test", "/one", none},
		{"closed.test", "/first", "first"},
		{"closed.test", "/late", "closed"},
		{"closed.test", "/last", "closed"},
		{"wild.test", "/one", none},
		{"nobody.test", "/last", "last"},
	} {
		got := r.ask(ask{host: c.host, path: c.path})
		if c.want == none && got.seen.Pool == "" || c.want != none && got.body != c.want {
			t.Errorf("%s%s: %d %q, want rule %q", c.host, c.path, got.status, got.body, c.want)
		}
		if got.header.Get(semconv.HeaderGroup) == "" {
			t.Errorf("%s%s: no group in the answer", c.host, c.path)
		}
	}

	// Groups go on inside a host's rules; a host whose rules go is like any other.
	h := header("X-Env", "canary")
	r.set("{name: served, match: [{hosts: [one.wild.test], prefix: /}], requestHeaders: {set: {x-rule: served}}}")
	for _, want := range []string{"canary", "isolated", "canary"} {
		waitFor(t, want, func() bool {
			got := r.ask(ask{host: "one.wild.test", path: "/", header: h})
			return got.seen.Pool == want && got.seen.Header.Get("X-Rule") == "served"
		})
		r.toggleMove()
		r.apply()
	}
	clear(r.moves)
	r.set()
	waitFor(t, "the host's rules to go", func() bool {
		got := r.ask(ask{host: "one.wild.test", path: "/"})
		return got.status == http.StatusOK && got.seen.Header.Get("X-Rule") == ""
	})
}

// testHostsComeAndGo adds and removes services with hosts of their own under
// requests: nobody gets an error, and nobody the answer of a host that is gone.
func testHostsComeAndGo(t *testing.T, r *rules) {
	service := func(i int) string {
		return fmt.Sprintf("  - name: s%d\n    pools: [{name: baseline}]\n    routes: [{name: none, path: /s%d/none}]\n    rules: [{name: s%d, match: [{hosts: [s%d.test], prefix: /}], requestHeaders: {set: {x-rule: s%d}}}]\n", i, i, i, i, i)
	}
	set := func(services ...int) {
		text := "services:\n"
		for _, i := range services {
			name := fmt.Sprintf("s%d", i)
			text += service(i)
			r.endpoints.Services[name] = map[string][]string{"baseline": {r.pools["baseline"].addr()}}
		}
		r.policy = strings.Replace(testPolicy, "services:\n", text, 1)
	}
	defer func() {
		for i := range 4 {
			delete(r.endpoints.Services, fmt.Sprintf("s%d", i))
		}
		r.retired = nil
	}()
	before := r.stat(`^http\.edge\.vhds\..*\.update_rejected$|^http\.edge\.rds\..*\.update_rejected$`)
	for _, services := range [][]int{{0}, {0, 1}, {1, 2}, {3}, {}, {2}, {}} {
		set(services...)
		r.retired = []string{"s0", "s1", "s2", "s3"}
		r.apply()
		has := func(i int) bool {
			for _, s := range services {
				if s == i {
					return true
				}
			}
			return false
		}
		for i := range 4 {
			want := ""
			if has(i) {
				want = fmt.Sprintf("s%d", i)
			}
			waitFor(t, fmt.Sprintf("host %d of %v", i, services), func() bool {
				got := r.ask(ask{host: fmt.Sprintf("s%d.test", i), path: "/x"})
				if got.status != http.StatusOK {
					t.Fatalf("host %d of %v: status %d", i, services, got.status)
				}
				return got.seen.Header.Get("X-Rule") == want
			})
		}
	}
	if after := r.stat(`^http\.edge\.vhds\..*\.update_rejected$|^http\.edge\.rds\..*\.update_rejected$`); after != before {
		t.Errorf("%d updates were rejected: %+v", after-before, nacks(r.control.Edges()))
	}
}

func nacks(edges []server.Edge) []server.Nack {
	var out []server.Nack
	for _, e := range edges {
		for _, n := range e.Nacks {
			if n.Type == xds.Routes || n.Type == xds.VirtualHosts {
				out = append(out, n)
			}
		}
	}
	return out
}
