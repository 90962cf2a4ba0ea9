package anomaly

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
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

// TestLook: what is read day by day is looked at as if it had come at once, and groups
// without a past are not known.
func TestLook(t *testing.T) {
	t.Parallel()
	now := start.AddDate(0, 0, 5)
	read := func(from, to time.Time) (out []sli.Stats) {
		for at := from; at.Before(to); at = at.Add(time.Minute) {
			s := sli.Stats{Group: "aaaaaa", Env: "prod", Tenant: "x", Window: sli.Window{From: at, To: at.Add(time.Minute)}, Requests: 3000, P95: 40 * time.Millisecond}
			if !at.Before(now.Add(-3 * time.Minute)) {
				s.P95 = 400 * time.Millisecond
			}
			out = append(out, s)
			if at.After(now.Add(-time.Hour)) {
				out = append(out, sli.Stats{Group: "bbbbbb", Window: s.Window, Requests: 9000, P95: time.Second})
			}
		}
		return out
	}
	all := map[group.ID]*Series{}
	for at := start; at.Before(now); at = at.AddDate(0, 0, 1) {
		Join(all, Of(read(at, at.AddDate(0, 0, 1))))
	}
	if diff := cmp.Diff(Of(read(start, now)), all); diff != "" {
		t.Errorf("series (-at once +joined):\n%s", diff)
	}
	found, known := Look(DefaultSettings(), all, now.Add(-time.Hour))
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %s+%s %s %s", f.Time.Sub(now), f.Env, f.Tenant, f.Group, f.Measure))
	}
	want := []string{"-3m0s prod+x aaaaaa P95 in milliseconds", "-2m0s prod+x aaaaaa P95 in milliseconds", "-1m0s prod+x aaaaaa P95 in milliseconds"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if known != 1 || len(all) != 2 {
		t.Errorf("%d of %d groups are known", known, len(all))
	}
}
