package color

import (
	"fmt"
	"strings"
	"testing"
)

func TestHeadersThatComeSeveralTimes(t *testing.T) {
	a, err := Compile(Policy{Cohorts: []Cohort{{Name: "a", Match: Match{Header: &Value{Name: "x-any"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	all := [][2]string{
		{"cookie", "a=b"}, {"x-any", "1"}, {"baggage", "k=v"}, {"x-other", "no"}, {"cookie", "c=d"}, {"x-any", ""}, {"x-any", "2"}, {"baggage", "l=w"}, {"x-any", "3"},
	}
	added, loaded := a.NewRequest(), a.NewRequest()
	for _, h := range all {
		added.Add(h[0], h[1])
	}
	raw := pairs(all)
	kept := string(raw)
	loaded.Load(raw)
	for name, r := range map[string]*Request{"added": added, "loaded": loaded} {
		if got := r.get(slotCookie); got != "a=b; c=d" {
			t.Errorf("%s: cookie %q", name, got)
		}
		if got := r.get(slotBaggage); got != "k=v,l=w" {
			t.Errorf("%s: baggage %q", name, got)
		}
		if got := r.get(slotClaims + 1); got != "1,2,3" {
			t.Errorf("%s: x-any %q", name, got)
		}
	}
	if string(raw) != kept {
		t.Error("Load wrote into its argument")
	}
}

func TestHeadersThatComeTooOften(t *testing.T) {
	a, err := Compile(Policy{})
	if err != nil {
		t.Fatal(err)
	}
	r := a.NewRequest()
	for range 1000 {
		r.Add("baggage", strings.Repeat("k", 1000))
	}
	if n := len(r.get(slotBaggage)); n > maxJoined {
		t.Errorf("%d bytes", n)
	}
}

func TestRequestsLeaveNothingToTheNext(t *testing.T) {
	a, err := Compile(fuzzPolicy())
	if err != nil {
		t.Fatal(err)
	}
	r := a.NewRequest()
	r.Load(pairs([][2]string{
		{":authority", "SEARCH.x"}, {"x-env", "canary"}, {"traceparent", "00-" + traceID + "-" + spanID + "-01"},
		{"tracestate", "a=b"}, {"baggage", "k=v"}, {"x-traffic-claims", encode(`{"sub":"u","tenant":"t"}`)},
	}))
	a.Assign(r, &Random{1})
	r.Load(pairs(nil))
	got := a.Assign(r, &Random{1})
	fresh := a.Assign(a.NewRequest(), &Random{1})
	if got.Group != fresh.Group || got.Baggage() != fresh.Baggage() || got.Tracestate() != "" || got.Kept != fresh.Kept || got.Events != 0 || got.Claims {
		t.Errorf("after another request: %+v, %q, %q", got.Group, got.Baggage(), got.Tracestate())
	}
}

func TestGroupsAreRememberedByValueNotByMemory(t *testing.T) {
	a, err := Compile(Policy{Tenants: []Tenant{{Header: "x-tenant"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := a.NewRequest()
	raw := pairs([][2]string{{"x-tenant", "acme"}})
	r.Load(raw)
	first := a.Assign(r, &Random{}).Group
	clear(raw) // the host's memory is used again
	if first.Tenant != "acme" || first.baggage != "traffic.env=default,traffic.tenant=acme" {
		t.Errorf("group %+v changed with the request's memory", first)
	}
	r.Load(pairs([][2]string{{"x-tenant", "acme"}}))
	if again := a.Assign(r, &Random{}).Group; again != first {
		t.Error("the group was named twice")
	}
}

func TestInventedTenantsAreForgotten(t *testing.T) {
	a, err := Compile(Policy{Tenants: []Tenant{{Header: "x-tenant"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := a.NewRequest()
	for i := range 3 * maxGroups {
		r.Reset()
		r.Add("x-tenant", fmt.Sprint("t", i))
		a.Assign(r, &Random{})
	}
	if n := len(a.groups); n > maxGroups {
		t.Errorf("%d groups are remembered", n)
	}
}

func TestAssignDoesNotAllocate(t *testing.T) {
	a, err := Compile(fuzzPolicy())
	if err != nil {
		t.Fatal(err)
	}
	r := a.NewRequest()
	raw := pairs([][2]string{
		{":authority", "search.example.com:8080"}, {":path", "/v1/me?x=y"}, {"cookie", "a=b; env=stable"},
		{"traceparent", "00-" + traceID + "-" + spanID + "-01"}, {"tracestate", "a=b,c=d"}, {"baggage", "k=v;p=q,l=w"},
	})
	if n := testing.AllocsPerRun(1000, func() {
		r.Load(raw)
		a.Assign(r, &Random{1})
	}); n != 0 {
		t.Errorf("%v allocations for each request", n)
	}
}
