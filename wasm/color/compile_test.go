package color

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
)

func always() Match { return Match{Path: "/"} }

func TestCompileNamesTheField(t *testing.T) {
	deep := Match{Path: "/"}
	for range maxDepth + 1 {
		deep = Match{Not: &deep}
	}
	many := Match{}
	for i := range maxHeaders {
		many.Any = append(many.Any, Match{Header: &Value{Name: fmt.Sprintf("x-%d", i)}})
	}
	cohort := func(m Match) Policy { return Policy{Cohorts: []Cohort{{Name: "a", Match: m}}} }
	tests := map[string]struct {
		policy Policy
		field  string
		says   string
	}{
		"env":                       {Policy{Env: "Prod"}, "env", `"Prod"`},
		"tenant too long":           {Policy{Tenant: strings.Repeat("a", 65)}, "tenant", "64"},
		"peer without a mask":       {Policy{TrustedPeers: []string{"10.0.0.0/8", "10.1.2.3"}}, "trustedPeers[1]", "10.1.2.3/32"},
		"peer":                      {Policy{TrustedPeers: []string{"localhost"}}, "trustedPeers[0]", "network"},
		"cohort without a name":     {Policy{Cohorts: []Cohort{{Match: always()}}}, "cohorts[0].name", "empty"},
		"cohort named baseline":     {Policy{Cohorts: []Cohort{{Name: "baseline"}}}, "cohorts[0].name", "no cohort claims"},
		"cohort's name":             {Policy{Cohorts: []Cohort{{Name: "a b"}}}, "cohorts[0].name", `"a b"`},
		"cohort twice":              {Policy{Cohorts: []Cohort{{Name: "a"}, {Name: "b"}, {Name: "a"}}}, "cohorts[2].name", "cohorts[0]"},
		"cohort's env":              {Policy{Cohorts: []Cohort{{Name: "a", Env: "é"}}}, "cohorts[0].env", ""},
		"color":                     {Policy{Cohorts: []Cohort{{Name: "a", Color: "CAFE"}}}, "cohorts[0].color", "hex"},
		"color of baseline":         {Policy{Cohorts: []Cohort{{Name: "a", Color: "00000000"}}}, "cohorts[0].color", "baseline"},
		"color twice":               {Policy{Cohorts: []Cohort{{Name: "a", Color: "0000cafe"}, {Name: "b", Color: "0000cafe"}}}, "cohorts[1].color", "cohorts[0] (a)"},
		"color of another's name":   {Policy{Cohorts: []Cohort{{Name: "a"}, {Name: "b", Color: group.ColorOf("a").String()}}}, "cohorts[1].color", "cohorts[0] (a)"},
		"two conditions in one":     {cohort(Match{Host: "a", Path: "/"}), "cohorts[0].match", "exactly one"},
		"an empty condition inside": {cohort(Match{Any: []Match{always(), {}}}), "cohorts[0].match.any[1]", "empty"},
		"not nothing":               {cohort(Match{Not: &Match{}}), "cohorts[0].match.not", "empty"},
		"depth":                     {cohort(deep), "cohorts[0].match" + strings.Repeat(".not", maxDepth+1), "deep"},
		"host with a port":          {cohort(Match{Host: "a.example:80"}), "cohorts[0].match.host", "port"},
		"host with a star inside":   {cohort(Match{Host: "a.*.b"}), "cohorts[0].match.host", "prefix"},
		"every host":                {cohort(Match{Host: "*"}), "cohorts[0].match.host", ""},
		"every suffix":              {cohort(Match{Host: "*."}), "cohorts[0].match.host", ""},
		"path":                      {cohort(Match{Path: "v1"}), "cohorts[0].match.path", `"/"`},
		"path with a query":         {cohort(Match{Path: "/v1?a"}), "cohorts[0].match.path", "query"},
		"header's name":             {Policy{Cohorts: []Cohort{{Name: "a", Match: always()}, {Name: "b", Match: Match{Any: []Match{{Header: &Value{Name: "x env"}}}}}}}, "cohorts[1].match.any[0].header.name", "x env"},
		"header without a name":     {cohort(Match{Header: &Value{}}), "cohorts[0].match.header.name", ""},
		"header's name is too long": {cohort(Match{Header: &Value{Name: strings.Repeat("a", maxHeaderName)}}), "cohorts[0].match.header.name", "longer"},
		"too many headers":          {cohort(many), fmt.Sprintf("cohorts[0].match.any[%d].header.name", maxHeaders-7), "different headers"},
		"header that is removed":    {cohort(Match{Header: &Value{Name: "X-Traffic-Group"}}), "cohorts[0].match.header.name", "never reaches"},
		"exact and prefix":          {cohort(Match{Header: &Value{Name: "a", Exact: "b", Prefix: "c"}}), "cohorts[0].match.header", "not both"},
		"cookie's name":             {cohort(Match{Cookie: &Value{Name: "a;b"}}), "cohorts[0].match.cookie.name", "cookie"},
		"claim's name":              {cohort(Match{Claim: &Value{}}), "cohorts[0].match.claim.name", "empty"},
		"percentage above":          {cohort(Match{Percent: &Percent{Of: 100.5}}), "cohorts[0].match.percent.of", "100.5"},
		"percentage below":          {cohort(Match{Percent: &Percent{Of: -1}}), "cohorts[0].match.percent.of", "-1"},
		"percentage too fine":       {cohort(Match{Percent: &Percent{Of: 0.005}}), "cohorts[0].match.percent.of", "0.01"},
		"percentage that is none":   {cohort(Match{Percent: &Percent{Of: math.NaN()}}), "cohorts[0].match.percent.of", "NaN"},
		"percentage by what":        {cohort(Match{Percent: &Percent{Of: 1, By: "ip"}}), "cohorts[0].match.percent.by", `"ip"`},
		"percentage by no claim":    {cohort(Match{Percent: &Percent{Of: 1, By: "claim:"}}), "cohorts[0].match.percent.by", "claim:NAME"},
		"percentage by no header":   {cohort(Match{Percent: &Percent{Of: 1, By: "header:a b"}}), "cohorts[0].match.percent.by", "a b"},
		"tenant rule of nothing":    {Policy{Tenants: []Tenant{{}}}, "tenants[0]", "exactly one"},
		"tenant rule of two":        {Policy{Tenants: []Tenant{{Name: "a", Claim: "b"}}}, "tenants[0]", "exactly one"},
		"tenant's name":             {Policy{Tenants: []Tenant{{Name: "A"}}}, "tenants[0].name", `"A"`},
		"tenant's header":           {Policy{Tenants: []Tenant{{Header: "a b"}}}, "tenants[0].header", "a b"},
		"tenant's condition":        {Policy{Tenants: []Tenant{{Name: "a", Match: &Match{All: []Match{{Path: "x"}}}}}}, "tenants[0].match.all[0].path", "x"},
		"too many cohorts":          {Policy{Cohorts: make([]Cohort, maxCohorts+1)}, "cohorts", "1024"},
		"too many tenants":          {Policy{Tenants: make([]Tenant, maxTenants+1)}, "tenants", "1024"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := Compile(tt.policy)
			var field *FieldError
			if a != nil || !errors.As(err, &field) {
				t.Fatalf("compiled: %v, %v", a, err)
			}
			if field.Field != tt.field || !strings.Contains(field.Problem, tt.says) {
				t.Errorf("error %q, want field %s and %q", err, tt.field, tt.says)
			}
		})
	}
}

func TestCompileCountsDifferentHeaders(t *testing.T) {
	one := func(name string) Match { return Match{Header: &Value{Name: name, Exact: "x"}} }
	var all []Match
	for i := range maxHeaders - len(newLayout().names) {
		all = append(all, one("h-"+strconv.Itoa(i)))
	}
	full := Policy{Cohorts: []Cohort{{Name: "a", Match: Match{Any: all}}, {Name: "b", Match: one("H-0")}}}
	if _, err := Compile(full); err != nil {
		t.Errorf("a header that is known already is counted again: %v", err)
	}
	full.Cohorts[1].Match = one("another")
	if _, err := Compile(full); err == nil || !strings.Contains(err.Error(), "cohorts[1].match.header") {
		t.Errorf("one header too many: %v", err)
	}
}

func TestCompileTellsAllProblemsAtOnce(t *testing.T) {
	_, err := Compile(Policy{Env: "A", Tenant: "B", Cohorts: []Cohort{{Name: "c", Match: Match{Path: "d"}}}})
	got := strings.Split(err.Error(), "\n")
	if len(got) != 3 || !strings.HasPrefix(got[2], "cohorts[0].match.path: ") {
		t.Errorf("problems %q", got)
	}
}

func TestCompileAccepts(t *testing.T) {
	for name, p := range map[string]Policy{
		"nothing":                    {},
		"a cohort that none matches": {Cohorts: []Cohort{{Name: "a"}}},
		"no share and all":           {Cohorts: []Cohort{{Name: "a", Match: Match{Percent: &Percent{}}}, {Name: "b", Match: Match{Percent: &Percent{Of: 100}}}}},
		"a hundredth of a percent":   {Cohorts: []Cohort{{Name: "a", Match: Match{Percent: &Percent{Of: 0.07}}}}},
		"colors by hand":             {Cohorts: []Cohort{{Name: "a", Color: "0000cafe"}, {Name: "b"}}},
		"an IPv6 host":               {Cohorts: []Cohort{{Name: "a", Match: Match{Host: "[::1]"}}}},
		"a pseudo header":            {Cohorts: []Cohort{{Name: "a", Match: Match{Header: &Value{Name: ":method", Exact: "POST"}}}}},
	} {
		if _, err := Compile(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// headers is a request in a test.
type headers map[string]string

func assign(t *testing.T, p Policy, h headers) *Assignment {
	t.Helper()
	a, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	r := a.NewRequest()
	for k, v := range h {
		r.Add(k, v)
	}
	return a.Assign(r, &Random{7, 7, 7, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8})
}

func TestConditions(t *testing.T) {
	claims := func(json string) headers { return headers{"x-traffic-claims": encode(json)} }
	tests := map[string]struct {
		match Match
		yes   []headers
		no    []headers
	}{
		"host": {Match{Host: "API.example.com"},
			[]headers{{":authority": "api.example.com"}, {":authority": "API.Example.Com:8080"}, {":authority": "api.example.com."}},
			[]headers{{}, {":authority": "xapi.example.com"}, {":authority": "api.example.com.evil"}, {":authority": "api.example.co"}}},
		"host by suffix": {Match{Host: "*.example.com"},
			[]headers{{":authority": "a.example.com"}, {":authority": "a.b.example.com:1"}},
			[]headers{{":authority": "example.com"}, {":authority": ".example.com"}, {":authority": "aexample.com"}}},
		"host by prefix": {Match{Host: "search.*"},
			[]headers{{":authority": "search.example.com"}, {":authority": "SEARCH.x"}},
			[]headers{{":authority": "search"}, {":authority": "searchx.com"}, {":authority": "a.search.com"}}},
		"IPv6 host": {Match{Host: "[::1]"},
			[]headers{{":authority": "[::1]"}, {":authority": "[::1]:80"}},
			[]headers{{":authority": "[::2]:80"}, {":authority": "::1"}}},
		"path": {Match{Path: "/v1/"},
			[]headers{{":path": "/v1/"}, {":path": "/v1/x?y=/z"}},
			[]headers{{":path": "/v1"}, {":path": "/v2/"}, {":path": "/?/v1/"}, {}}},
		"header": {Match{Header: &Value{Name: "X-Env", Exact: "canary"}},
			[]headers{{"x-env": "canary"}},
			[]headers{{"x-env": "canary2"}, {"x-env": "Canary"}, {"x-en": "canary"}, {}}},
		"header by prefix": {Match{Header: &Value{Name: "user-agent", Prefix: "Bot/"}},
			[]headers{{"user-agent": "Bot/1"}, {"user-agent": "Bot/"}},
			[]headers{{"user-agent": "A Bot/1"}, {}}},
		"header at all": {Match{Header: &Value{Name: "x-any"}},
			[]headers{{"x-any": "0"}},
			[]headers{{"x-any": ""}, {}}},
		"cookie": {Match{Cookie: &Value{Name: "env", Exact: "canary"}},
			[]headers{{"cookie": "env=canary"}, {"cookie": "a=b; env=canary; c=d"}, {"cookie": "a=b;env=canary"}, {"cookie": `env="canary"`}, {"cookie": "env=canary; env=other"}},
			[]headers{{"cookie": "env=canary2"}, {"cookie": "xenv=canary"}, {"cookie": "env=other; env=canary"}, {"cookie": "a=env=canary"}, {"cookie": "env"}, {"cookie": ";=;"}, {}}},
		"claim": {Match{Claim: &Value{Name: "role", Exact: "staff"}},
			[]headers{claims(`{"role":"staff"}`), claims(` { "a" : [1,{"role":"x"}] , "role" : "staff" } `), claims(`{"role":"st\u0061ff"}`)},
			[]headers{claims(`{"role":"user"}`), claims(`{"a":{"role":"staff"}}`), claims(`{"role":["staff"]}`), claims(`{"role":"staff"`), claims(``), {"x-traffic-claims": "!"}, {}}},
		"claim of another type": {Match{Claim: &Value{Name: "level", Exact: "7"}},
			[]headers{claims(`{"level":7}`), claims(`{"level":"7"}`)},
			[]headers{claims(`{"level":null}`), claims(`{"level":77}`)}},
		"any": {Match{Any: []Match{{Path: "/a"}, {Path: "/b"}}},
			[]headers{{":path": "/a"}, {":path": "/b"}}, []headers{{":path": "/c"}}},
		"all": {Match{All: []Match{{Path: "/a"}, {Host: "h"}}},
			[]headers{{":path": "/a", ":authority": "h"}}, []headers{{":path": "/a"}, {":authority": "h"}}},
		"not": {Match{Not: &Match{Path: "/a"}},
			[]headers{{":path": "/b"}, {}}, []headers{{":path": "/a"}}},
		"nothing": {Match{}, nil, []headers{{}, {":path": "/"}}},
		"no share": {Match{Percent: &Percent{By: "header:u"}},
			nil, []headers{{"u": "1"}, {}}},
		"the whole share, of those with a key": {Match{Percent: &Percent{Of: 100, By: "header:u"}},
			[]headers{{"u": "1"}, {"u": "2"}}, []headers{{}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := Policy{Cohorts: []Cohort{{Name: "yes", Match: tt.match}}}
			for _, h := range tt.yes {
				if got := assign(t, p, h); got.Cohort != "yes" {
					t.Errorf("%v does not match", h)
				}
			}
			for _, h := range tt.no {
				if got := assign(t, p, h); got.Cohort != "" {
					t.Errorf("%v matches", h)
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	policy := Policy{
		Env: "prod", Tenant: "public",
		Cohorts: []Cohort{
			{Name: "first", Match: Match{Header: &Value{Name: "c", Prefix: "1"}}},
			{Name: "second", Env: "stage", Match: Match{Header: &Value{Name: "c"}}},
			{Name: "owned", Env: "own", Tenant: "owner", Match: Match{Header: &Value{Name: "o"}}},
		},
		Tenants: []Tenant{
			{Name: "search", Match: &Match{Host: "search.*"}},
			{Claim: "tenant"},
			{Header: "X-Tenant", Match: &Match{Path: "/tenants/"}},
			{Name: "last", Match: &Match{Path: "/last"}},
		},
	}
	tests := map[string]struct {
		h      headers
		want   group.Group
		cohort string
		events Events
	}{
		"nothing":                 {headers{}, group.Group{Env: "prod", Tenant: "public"}, "", 0},
		"the first cohort":        {headers{"c": "1"}, group.Group{Color: group.ColorOf("first"), Env: "prod", Tenant: "public"}, "first", 0},
		"a cohort's env":          {headers{"c": "2"}, group.Group{Color: group.ColorOf("second"), Env: "stage", Tenant: "public"}, "second", 0},
		"a cohort's tenant":       {headers{"o": "1", ":authority": "search.x"}, group.Group{Color: group.ColorOf("owned"), Env: "own", Tenant: "owner"}, "owned", 0},
		"a tenant by host":        {headers{":authority": "search.x", "x-traffic-claims": encode(`{"tenant":"acme"}`)}, group.Group{Env: "prod", Tenant: "search"}, "", 0},
		"a tenant by claim":       {headers{"x-traffic-claims": encode(`{"tenant":"acme"}`)}, group.Group{Env: "prod", Tenant: "acme"}, "", 0},
		"a tenant by header":      {headers{"x-tenant": "acme", ":path": "/tenants/1"}, group.Group{Env: "prod", Tenant: "acme"}, "", 0},
		"a header elsewhere":      {headers{"x-tenant": "acme"}, group.Group{Env: "prod", Tenant: "public"}, "", 0},
		"an impossible claim":     {headers{"x-traffic-claims": encode(`{"tenant":"Acme"}`), "x-tenant": "acme", ":path": "/tenants/1"}, group.Group{Env: "prod", Tenant: "public"}, "", ValueRejected},
		"claims that are garbage": {headers{"x-traffic-claims": "%", ":path": "/last"}, group.Group{Env: "prod", Tenant: "last"}, "", ClaimsRejected},
		"a name too long":         {headers{"x-tenant": strings.Repeat("a", 65), ":path": "/tenants/1"}, group.Group{Env: "prod", Tenant: "public"}, "", ValueRejected},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := assign(t, policy, tt.h)
			if diff := cmp.Diff(tt.want, got.Group.Group); diff != "" {
				t.Error(diff)
			}
			if got.ID != tt.want.ID() || got.Cohort != tt.cohort || got.Events != tt.events {
				t.Errorf("id %s, cohort %q, events %b; want %s, %q, %b", got.ID, got.Cohort, got.Events, tt.want.ID(), tt.cohort, tt.events)
			}
			if want := "traffic.env=" + tt.want.Env + ",traffic.tenant=" + tt.want.Tenant; got.Baggage() != want {
				t.Errorf("baggage %q, want %q", got.Baggage(), want)
			}
		})
	}
}
