package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// TestEdgeStats counts entries of the edges' own spans, by edge and route.
func TestEdgeStats(t *testing.T) {
	s, _, _ := open(t)
	var spans []store.Span
	add := func(edge, route, status string, start time.Time, change func(*store.Span)) {
		sp := entry(1, "prod", "search", "baseline", start, time.Millisecond, status)
		sp.Service, sp.Traffic.Route, sp.Resource = "edge", route, map[string]string{"node_name": edge}
		if change != nil {
			change(&sp)
		}
		spans = append(spans, sp)
	}
	for i := range 10 {
		status := "Unset"
		if i < 3 {
			status = "Error"
		}
		add("edge-1", "a", status, at(time.Duration(i)*time.Second), nil)
		add("edge-2", "a", "Unset", at(time.Duration(i)*time.Second), nil)
	}
	add("edge-1", "b", "Error", at(time.Second), nil)
	add("edge-1", "b", "Error", at(10*time.Second), nil) // the end does not belong
	add("edge-1", "b", "Error", at(-time.Nanosecond), nil)
	add("edge-1", "b", "Error", at(time.Second), func(s *store.Span) { s.Traffic.Entry = false })
	add("core-1", "b", "Error", at(time.Second), func(s *store.Span) { s.Service = "core" })
	add("", "b", "Error", at(time.Second), func(s *store.Span) { s.Resource = nil })
	if err := s.InsertSpans(t.Context(), "edges", spans); err != nil {
		t.Fatal(err)
	}
	got, err := s.EdgeStats(t.Context(), sli.Window{From: at(0), To: at(10 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	want := []sli.EdgeStats{
		{Edge: "edge-1", Service: "core", Route: "a", Requests: 10, Errors: 3},
		{Edge: "edge-1", Service: "core", Route: "b", Requests: 1, Errors: 1},
		{Edge: "edge-2", Service: "core", Route: "a", Requests: 10},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
