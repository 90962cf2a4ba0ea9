package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// TestCallPath counts what requests of one group cause, and nobody else's.
func TestCallPath(t *testing.T) {
	s, _, _ := open(t)
	begin := time.Now().Truncate(time.Second).Add(-time.Minute)
	var spans []store.Span
	served := func(of store.Span, service, pool, kind string) {
		of.Service, of.Kind, of.Traffic.Entry, of.Traffic.Service, of.Traffic.Pool = service, kind, false, "", pool
		spans = append(spans, of)
	}
	for i := range 4 {
		at := begin.Add(time.Duration(i) * time.Second)
		e := entry(1, "prod", "acme", "baseline", at, time.Millisecond, "Unset")
		spans = append(spans, e)
		served(e, "core", "baseline", "Server")
		served(e, "core", "baseline", "Client") // nobody serves it
		served(e, "core", "", "Server")         // of no pool
		for range 3 {
			served(e, "cart", "canary", "Server")
		}
		if i%2 == 0 {
			served(e, "mail", "baseline", "Server")
		}
		other := entry(1, "prod", "globex", "baseline", at, time.Millisecond, "Unset")
		spans = append(spans, other)
		served(other, "mail", "baseline", "Server")
	}
	before := entry(1, "prod", "acme", "baseline", begin.Add(-time.Minute), time.Millisecond, "Unset")
	served(before, "old", "baseline", "Server")
	if err := s.InsertSpans(t.Context(), "path", spans); err != nil {
		t.Fatal(err)
	}
	w := sli.Window{From: begin, To: begin.Add(time.Minute)}
	acme := group.Group{Color: 1, Env: "prod", Tenant: "acme"}
	got, err := s.CallPath(t.Context(), acme.ID(), w)
	if err != nil {
		t.Fatal(err)
	}
	want := []sli.Hop{{Service: "cart", Pool: "canary", PerRequest: 3}, {Service: "core", Pool: "baseline", PerRequest: 1}, {Service: "mail", Pool: "baseline", PerRequest: 0.5}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	nobody := group.Group{Color: 2, Env: "prod", Tenant: "acme"}
	if got, err := s.CallPath(t.Context(), nobody.ID(), w); err != nil || len(got) != 0 {
		t.Errorf("a group without requests: %v, %v", got, err)
	}
}
