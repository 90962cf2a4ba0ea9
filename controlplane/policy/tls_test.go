package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// withTLS has the keys of tls, one a line, from line 2 on.
func withTLS(keys ...string) string {
	return "tls:\n  " + strings.Join(keys, "\n  ") + "\nservices: [{name: core, pools: [{name: baseline}], routes: [{prefix: /}]}]\n"
}

func TestParseTLS(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(withTLS("minVersion: '1.3'", "hsts: {maxAge: 1h}", "certificates:", "  - {name: chat, hosts: [chat.test, '*.chat.test']}", "  - {name: rest}")))
	if err != nil {
		t.Fatal(err)
	}
	want := TLS{MinVersion: "1.3", HSTS: &HSTS{MaxAge: time.Hour}, Certificates: []Certificate{{"chat", []string{"chat.test", "*.chat.test"}}, {"rest", nil}}}
	if diff := cmp.Diff(want, p.TLS); diff != "" {
		t.Errorf("tls (-want +got):\n%s", diff)
	}
	p, err = Parse([]byte("services: [{name: core, pools: [{name: baseline}], routes: [{prefix: /}]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Certificate{{Name: "default"}}, p.TLS.Shown()); diff != "" {
		t.Errorf("where nothing is said (-want +got):\n%s", diff)
	}
}

func TestParseNamesWhatIsWrongWithTLS(t *testing.T) {
	t.Parallel()
	pool := func(keys string) string {
		return "services:\n  - name: core\n    pools:\n      - {name: baseline, " + keys + "}\n    routes: [{prefix: /}]\n"
	}
	route := func(keys string) string {
		return "services:\n  - name: core\n    pools: [{name: baseline}]\n    routes:\n      - {prefix: /, " + keys + "}\n"
	}
	for name, c := range map[string]struct{ doc, want string }{
		"unknown key":         {withTLS("certs: []"), `line 2: tls.certs: unknown key`},
		"a file in place":     {withTLS("certificates:", "  - {name: a, key: /etc/x}"), `line 3: tls.certificates[0].key: unknown key`},
		"no name":             {withTLS("certificates:", "  - {hosts: [a.test]}"), `line 3: tls.certificates[0].name: "" is not 1 to 40`},
		"a path as name":      {withTLS("certificates:", "  - {name: ../../etc}"), `line 3: tls.certificates[0].name`},
		"a name twice":        {withTLS("certificates:", "  - {name: a}", "  - {name: a, hosts: [a.test]}"), `line 4: tls.certificates[1].name: certificate "a" appears twice`},
		"two for everyone":    {withTLS("certificates:", "  - {name: a}", "  - {name: b}"), `line 4: tls.certificates[1]: no hosts: "a" is for everyone already`},
		"a host twice":        {withTLS("certificates:", "  - {name: a, hosts: [a.test]}", "  - {name: b, hosts: [b.test, a.test]}"), `line 4: tls.certificates[1].hosts[1]: "a.test" has certificate "a" already`},
		"a host with port":    {withTLS("certificates:", "  - {name: a, hosts: ['a.test:1']}"), `line 3: tls.certificates[0].hosts[0]`},
		"old version":         {withTLS("minVersion: '1.0'"), `line 2: tls.minVersion: "1.0" is neither`},
		"preload too early":   {withTLS("hsts: {maxAge: 1h, preload: true}"), "line 2: tls.hsts.preload: browsers' lists want"},
		"age":                 {withTLS("hsts: {maxAge: -1s}"), "line 2: tls.hsts.maxAge"},
		"protocol":            {pool("protocol: http3"), `line 4: services[0].pools[0].protocol: "http3" is none of`},
		"gRPC with a path":    {pool("protocol: grpc, healthCheck: {path: /x}"), "line 4: services[0].pools[0].healthCheck.path: gRPC instances"},
		"nobody in mind":      {pool("tls: {ca: a}"), "line 4: services[0].pools[0].tls.serverName: missing"},
		"no authority":        {pool("tls: {serverName: a.test}"), "line 4: services[0].pools[0].tls.ca"},
		"gRPC by WebSocket":   {route("grpc: true, websocket: true"), "line 5: services[0].routes[0].grpc: a WebSocket is no gRPC call"},
		"gRPC held in memory": {withRules("{name: a, match: [{prefix: /a}], grpc: true, maxRequestBytes: 1}"), "line 6: services[0].rules[0].maxRequestBytes: cannot be held"},
	} {
		if _, err := Parse([]byte(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant: %s", name, err, c.want)
		}
	}
}
