package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/store"
)

func TestGroupMetrics(t *testing.T) {
	g := newGroupMetrics()
	span := func(id, status string, d time.Duration, entry bool) store.Span {
		return store.Span{Status: status, Duration: d, Traffic: store.Traffic{
			Group: group.ID(id), Env: "prod", Tenant: "search", Service: "core", Pool: "baseline", Entry: entry,
		}}
	}
	g.count([]store.Span{
		span("aaaaaa", "Ok", 20*time.Millisecond, true),
		span("aaaaaa", "Error", 300*time.Millisecond, true),
		span("aaaaaa", "Error", time.Hour, false), // a span within a request
		span("bbbbbb", "Unset", time.Minute, true),
	})
	want := `
# HELP traffic_group_requests_total Requests of a group, as its users see them: entry spans.
# TYPE traffic_group_requests_total counter
traffic_group_requests_total{env="prod",group="aaaaaa",pool="baseline",service="core",tenant="search"} 2
traffic_group_requests_total{env="prod",group="bbbbbb",pool="baseline",service="core",tenant="search"} 1
`
	if err := testutil.CollectAndCompare(g.requests, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if n := testutil.ToFloat64(g.errors.WithLabelValues("aaaaaa", "prod", "search", "core", "baseline")); n != 1 {
		t.Errorf("%v errors", n)
	}
	for i := range maxSeries + 5 {
		g.count([]store.Span{span(fmt.Sprintf("%06x", i), "Ok", 0, true)})
	}
	if n, left := testutil.CollectAndCount(g.requests), testutil.ToFloat64(g.rest); n != maxSeries || left != 7 {
		t.Errorf("%d series, %v requests without one", n, left)
	}
}
