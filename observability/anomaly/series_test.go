package anomaly

import (
	"fmt"
	"math/rand/v2"
	"runtime"
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

// BenchmarkLook is what the console does each minute: seven days of 20 groups, and what it
// keeps of them.
func BenchmarkLook(b *testing.B) {
	now := start.AddDate(0, 0, 7)
	all := map[group.ID]*Series{}
	r := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for at := start; at.Before(now); at = at.Add(6 * time.Hour) {
		var read []sli.Stats
		for m := at; m.Before(at.Add(6 * time.Hour)); m = m.Add(time.Minute) {
			for g := range 20 {
				read = append(read, sli.Stats{
					Group: group.ID(fmt.Sprintf("%06x", g)), Window: sli.Window{From: m, To: m.Add(time.Minute)},
					Requests: uint64(2000 + r.IntN(400)), P95: time.Duration(40_000+r.IntN(10_000)) * time.Microsecond,
				})
			}
		}
		Join(all, Of(read))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		Look(DefaultSettings(), all, now.Add(-time.Hour))
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
	runtime.KeepAlive(all)
}
