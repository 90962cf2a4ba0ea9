package anomaly

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/sli"
)

func TestSeriesOfStatistics(t *testing.T) {
	t.Parallel()
	minute := func(i int) sli.Window {
		return sli.Window{From: start.Add(time.Duration(i) * time.Minute), To: start.Add(time.Duration(i+1) * time.Minute)}
	}
	got := Of([]sli.Stats{
		{Group: "aaaaaa", Env: "prod", Tenant: "x", Pool: "baseline", Window: minute(0), Requests: 60, Errors: 3, P95: 100 * time.Millisecond},
		{Group: "aaaaaa", Env: "prod", Tenant: "x", Pool: "isolated", Window: minute(0), Requests: 30, Errors: 6, P95: time.Second},
		{Group: "bbbbbb", Env: "prod", Tenant: "y", Pool: "baseline", Window: minute(0), Requests: 6, P95: time.Millisecond},
		{Group: "aaaaaa", Env: "prod", Tenant: "x", Pool: "baseline", Window: minute(2), Requests: 120, P95: 50 * time.Millisecond},
	})
	want := map[Measure][]Point{
		Requests: {{start, 1.5, 90}, {start.Add(2 * time.Minute), 2, 120}},
		Errors:   {{start, 0.1, 90}, {start.Add(2 * time.Minute), 0, 120}},
		Latency:  {{start, 100, 90}, {start.Add(2 * time.Minute), 50, 120}},
	}
	if diff := cmp.Diff(want, got["aaaaaa"].Measures); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
	if len(got) != 2 || got["bbbbbb"].Tenant != "y" || len(got["bbbbbb"].Measures[Latency]) != 1 {
		t.Errorf("others: %+v", got)
	}
}
