package policy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const twoServices = `failure: open
services:
  - name: core
    pools: [{name: baseline}, {name: isolated}]
    rules: [{name: up, match: [{prefix: /up}], service: files}]
    routes: [{prefix: /v1}]
  - name: files
    pools: [{name: baseline}]
    routes: [{prefix: /files}]
  - name: search
    pools: [{name: baseline}]
    routes: [{prefix: /}]
`

func TestTouched(t *testing.T) {
	t.Parallel()
	old, err := Parse([]byte(twoServices))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		edit []string
		want []string
	}{
		"nothing":                      {nil, nil},
		"when groups are moved":        {[]string{"failure: open", "failure: open\ndecide: {maxP95: 1s}"}, nil},
		"a route":                      {[]string{"routes: [{prefix: /}]", "routes: [{prefix: /, timeout: 1s}]"}, []string{"search"}},
		"a rule that another serves":   {[]string{"prefix: /up", "prefix: /down"}, []string{"core", "files"}},
		"a rule that is gone":          {[]string{"rules: [{name: up, match: [{prefix: /up}], service: files}]", "rules: []"}, []string{"core", "files"}},
		"a service that is gone":       {[]string{"  - name: search\n    pools: [{name: baseline}]\n    routes: [{prefix: /}]\n", ""}, []string{"search"}},
		"who may be who":               {[]string{"failure: open", "failure: open\njwt: [{name: corp, issuer: x, jwksURL: 'https://a.test'}]"}, []string{"core", "files", "search"}},
		"what every request goes past": {[]string{"failure: open", "failure: closed"}, []string{"core", "files", "search"}},
	} {
		next, err := Parse([]byte(strings.NewReplacer(tc.edit...).Replace(twoServices)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, slices.Sorted(maps.Keys(next.Touched(&old)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
