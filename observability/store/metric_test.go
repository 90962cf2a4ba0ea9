package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// kernelPoint is what the probes send of h, as ingest stores it.
func kernelPoint(service, pool, instance, kind, target string, start, at time.Time, h *hist.Histogram) store.Point {
	cumulative := h.Cumulative()
	var bounds []float64
	for b := range cumulative {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	var buckets []uint64
	var below uint64
	for _, b := range bounds {
		buckets = append(buckets, cumulative[b]-below)
		below = cumulative[b]
	}
	return store.Point{
		Kind: store.Histogram, Name: "traffic.kernel.duration", Unit: "s", Temporality: 2, Start: start, Time: at,
		Source:     store.MetricSource{Service: service, Resource: map[string]string{"service.name": service, "traffic.pool": pool, "service.instance.id": instance}},
		Attributes: map[string]string{"probe": "tcpconnect", "kind": kind, "server.address": target},
		Count:      h.Count(), Sum: float64(h.Sum) / 1e9, Bounds: bounds, Buckets: append(buckets, h.Count()-below),
		Traffic: store.Traffic{Pool: pool},
	}
}

func shuffle[T any](r *rand.Rand, list []T) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

func TestPointsComeBackWhole(t *testing.T) {
	s, c, _ := open(t)
	g := group.Group{Color: 7, Env: "prod", Tenant: "search"}
	base := store.Point{
		Source: store.MetricSource{
			Service: "core", Resource: map[string]string{"service.name": "core", "a": "1"}, ResourceSchema: "rs", Scope: "lib", ScopeVersion: "2",
			ScopeAttributes: map[string]string{"s": "t"}, ScopeDropped: 3, ScopeSchema: "ss",
		},
		Name: "m", Description: "d", Unit: "By", Attributes: map[string]string{"z": "1", "a": "2", "m": "3"}, Start: at(-time.Minute), Time: at(123456789), Flags: 1,
		Exemplars: []store.Exemplar{{Time: at(5), Value: 1.5, TraceID: "aa", SpanID: "bb", Attributes: map[string]string{"k": "v"}}},
		Traffic:   store.Traffic{Group: g.ID(), Color: 7, Env: "prod", Tenant: "search", Pool: "canary"},
		Value:     2.5, Temporality: 2, Monotonic: true, Count: 6, Sum: 9, Min: 0.5, Max: 4, Bounds: []float64{1, 2}, Buckets: []uint64{1, 2, 3},
		Scale: -1, ZeroCount: 1, Positive: store.Buckets{Offset: -2, Counts: []uint64{2}}, Negative: store.Buckets{Offset: 4, Counts: []uint64{3}},
		Quantiles: []store.Quantile{{Quantile: 0.5, Value: 1}, {Quantile: 0.99, Value: 3}},
	}
	const exemplars = `[{'k':'v'}] [1.5] ['bb'] ['aa']`
	for kind, want := range map[store.PointKind]string{
		store.Gauge:                `2.5 1 ` + exemplars,
		store.Sum:                  `2.5 1 ` + exemplars + ` 2 true`,
		store.Histogram:            `6 9 [1,2,3] [1,2] ` + exemplars + ` 1 0.5 4 2`,
		store.ExponentialHistogram: `6 9 -1 1 -2 [2] 4 [3] ` + exemplars + ` 1 0.5 4 2`,
		store.Summary:              `6 9 [0.5,0.99] [1,3] 1`,
	} {
		p := base
		p.Kind = kind
		table := "otel_metrics_" + string(kind)
		for _, token := range []string{"one", "one", "two"} { // repeated: counts once
			if err := s.InsertPoints(t.Context(), token, []store.Point{p}); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
		var own, rows, rest string
		if err := c.QueryRow(t.Context(), `SELECT arrayStringConcat(groupArray(value), ', '' '', ') FROM (SELECT if(startsWith(type, 'Array') OR startsWith(type, 'Map'), 'toString(' || name || ')', name) AS value
			FROM system.columns WHERE database = 'tracegate' AND table = ? AND position > 14 AND name NOT LIKE 'Traffic%' AND name != 'Exemplars.TimeUnix' ORDER BY position)`, table).Scan(&own); err != nil {
			t.Fatal(err)
		}
		if err := c.QueryRow(t.Context(), "SELECT any(concat("+own+", '')), toString(count()) FROM "+table).Scan(&rest, &rows); err != nil {
			t.Fatal(err)
		}
		if rest != want || rows != "2" {
			t.Errorf("%s: %s rows of %s; want 2 of %s", kind, rows, rest, want)
		}
		var common string
		if err := c.QueryRow(t.Context(), `SELECT concat(toString(ResourceAttributes), ' ', ResourceSchemaUrl, ' ', ScopeName, ScopeVersion, ' ', toString(ScopeAttributes), ' ', ScopeDroppedAttrCount, ' ', ScopeSchemaUrl, ' ', ServiceName, ' ', MetricName,
			' ', MetricDescription, ' ', MetricUnit, ' ', toString(Attributes), ' ', toUnixTimestamp64Nano(TimeUnix) - toUnixTimestamp64Nano(StartTimeUnix), ' ', TrafficGroup, ' ', TrafficColor, ' ', TrafficEnv, ' ', TrafficTenant, ' ', TrafficPool) FROM `+table+` LIMIT 1`).Scan(&common); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("{'a':'1','service.name':'core'} rs lib2 {'s':'t'} 3 ss core m d By {'a':'2','m':'3','z':'1'} 60123456789 %s 00000007 prod search canary", g.ID()); common != want {
			t.Errorf("%s: %s\nwant %s", kind, common, want)
		}
	}
	none := base
	none.Kind, none.Traffic = store.Gauge, store.Traffic{Pool: "canary"}
	other := base
	other.Kind = store.Sum
	if err := s.InsertPoints(t.Context(), "three", []store.Point{none}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c, "SELECT count() FROM otel_metrics_gauge WHERE TrafficGroup = '' AND TrafficColor = ''"); n != 1 {
		t.Errorf("%d points without a group, want 1", n)
	}
	for name, bad := range map[string][]store.Point{"a mixture": {none, other}, "no kind": {{}}} {
		if err := s.InsertPoints(t.Context(), "bad", bad); err == nil || store.Temporary(err) {
			t.Errorf("%s: error = %v, want one for good", name, err)
		}
	}
}

// TestKernelDurationsAgreesWithEvents records random events, reads them out every two
// seconds as the probes do, with restarts and points that are lost, doubled and out of
// order, and compares with what was recorded between readings.
func TestKernelDurationsAgreesWithEvents(t *testing.T) {
	s, _, _ := open(t)
	r := rand.New(rand.NewPCG(3, 4))
	from, to := at(10*time.Second), at(50*time.Second)
	type key struct{ service, pool, kind, target string }
	want := map[key]*hist.Histogram{}
	var points []store.Point
	for i := range 24 { // series: some share a key and differ in instance
		k := key{"core", []string{"baseline", "canary"}[i%2], []string{"connect", "wakeup"}[i/2%2], []string{"127.0.0.1:9092", ""}[i/4%2]}
		instance := fmt.Sprint(k.pool, i/8)
		if want[k] == nil {
			want[k] = &hist.Histogram{}
		}
		start := at(-time.Minute)
		var now, last hist.Histogram
		seen := false // a point of this start within the window
		for second := 0; second < 60; second += 2 {
			reading := at(time.Duration(second) * time.Second)
			fresh := r.IntN(12) == 0
			if fresh { // counts from zero
				now, last, seen = hist.Histogram{}, hist.Histogram{}, false
				if r.IntN(2) == 0 {
					start = reading.Add(-time.Second)
				}
			}
			for range 1 + r.IntN(20) {
				now.Record(time.Duration(r.ExpFloat64() * float64(time.Millisecond) * float64(1+i)))
			}
			if r.IntN(5) == 0 && !fresh {
				continue // lost
			}
			points = append(points, kernelPoint(k.service, k.pool, instance+fmt.Sprint(i), k.kind, k.target, start, reading, &now))
			if reading.Before(from) || !reading.Before(to) {
				continue
			}
			if seen || !start.Before(from) {
				grown := now.Since(&last)
				want[k].Add(&grown)
			} else if fresh && sameStartBefore(points, from) {
				want[k].Add(&now)
			}
			last, seen = now, true
		}
	}
	points = append(points, points[:20]...) // doubled by a sender
	shuffle(r, points)
	for i, rest := 0, points; len(rest) > 0; i++ {
		n := min(len(rest), 1+r.IntN(200))
		if err := s.InsertPoints(t.Context(), fmt.Sprint(i), rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	got, err := s.KernelDurations(t.Context(), sli.Window{From: from, To: to})
	if err != nil {
		t.Fatal(err)
	}
	var expected []store.KernelDuration
	for k, h := range want {
		p := kernelPoint("", "", "", "", "", from, from, h)
		expected = append(expected, store.KernelDuration{
			Service: k.service, Pool: k.pool, Kind: k.kind, Target: k.target, Events: h.Count(),
			P50: quantile(p, 0.5), P95: quantile(p, 0.95), P99: quantile(p, 0.99),
		})
	}
	slices.SortFunc(expected, func(a, b store.KernelDuration) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Target, b.Target))
	})
	near := gocmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= 2 })
	if diff := gocmp.Diff(expected, got, near); diff != "" {
		t.Errorf("durations (-want +got):\n%s", diff)
	}
}

// TestKernelDurationsCountsStreams has each case as a service; the window is seconds 10
// to 20 and a reading is of so many events of a millisecond.
func TestKernelDurationsCountsStreams(t *testing.T) {
	s, _, _ := open(t)
	type reading struct {
		start, at time.Duration
		n         uint64
		edit      func(*store.Point)
	}
	const before, within = 0, 11
	delta := func(p *store.Point) { p.Temporality = 1 }
	unrecorded := func(p *store.Point) { p.Flags = 1 }
	coarse := func(p *store.Point) {
		p.Bounds, p.Buckets = []float64{1}, []uint64{p.Count, 0}
	}
	bare := func(p *store.Point) { p.Bounds, p.Buckets = nil, nil }
	cases := map[string]struct {
		readings []reading
		want     uint64
	}{
		"began before, one reading":         {[]reading{{before, 15, 7, nil}}, 0},
		"began within, one reading":         {[]reading{{within, 15, 7, nil}}, 7},
		"grows":                             {[]reading{{before, 12, 7, nil}, {before, 14, 8, nil}, {before, 16, 19, nil}}, 12},
		"outside the window":                {[]reading{{before, 9, 1, nil}, {before, 10, 2, nil}, {before, 19, 5, nil}, {before, 20, 100, nil}}, 3},
		"counts from zero again":            {[]reading{{before, 12, 7, nil}, {before, 14, 9, nil}, {before, 16, 4, nil}}, 6},
		"a new start has outgrown the last": {[]reading{{before, 12, 7, nil}, {13, 14, 10, nil}}, 10},
		"two that read the same":            {[]reading{{1, 12, 100, nil}, {2, 13, 5, nil}, {1, 14, 101, nil}, {2, 15, 7, nil}}, 3},
		"sent twice":                        {[]reading{{before, 12, 7, nil}, {before, 14, 9, nil}, {before, 14, 9, nil}}, 2},
		"nothing happened":                  {[]reading{{before, 12, 7, nil}, {before, 14, 7, nil}}, 0},
		"delta":                             {[]reading{{within, 12, 7, delta}, {within, 14, 7, delta}}, 0},
		"no recorded value":                 {[]reading{{before, 12, 7, nil}, {before, 13, 0, unrecorded}, {before, 14, 9, nil}}, 2},
		"other bounds":                      {[]reading{{before, 12, 7, nil}, {before, 13, 9, nil}, {before, 14, 10, coarse}, {before, 15, 14, coarse}}, 6},
		"no buckets":                        {[]reading{{within, 12, 7, bare}}, 0},
	}
	var points []store.Point
	for name, tc := range cases {
		for _, r := range tc.readings {
			var h hist.Histogram
			h.RecordN(time.Millisecond, r.n)
			p := kernelPoint(name, "canary", "1", "connect", "", at(r.start*time.Second), at(r.at*time.Second), &h)
			if r.edit != nil {
				r.edit(&p)
			}
			points = append(points, p)
		}
	}
	if err := s.InsertPoints(t.Context(), "t", points); err != nil {
		t.Fatal(err)
	}
	got, err := s.KernelDurations(t.Context(), sli.Window{From: at(10 * time.Second), To: at(20 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]uint64{}
	for _, d := range got {
		events[d.Service] = d.Events
		if d.Events == 0 || d.P50 <= 0 || d.P50 > d.P95 || d.P95 > d.P99 || d.P99 > time.Second {
			t.Errorf("%s: %+v", d.Service, d)
		}
	}
	for name, tc := range cases {
		if events[name] != tc.want {
			t.Errorf("%s: %d events, want %d", name, events[name], tc.want)
		}
	}
}

// sameStartBefore says whether the last point's stream had a point in the window before.
func sameStartBefore(points []store.Point, from time.Time) bool {
	p := points[len(points)-1]
	for _, o := range points[:len(points)-1] {
		if o.Start.Equal(p.Start) && !o.Time.Before(from) && gocmp.Equal(o.Source.Resource, p.Source.Resource) && gocmp.Equal(o.Attributes, p.Attributes) {
			return true
		}
	}
	return false
}

// quantile is the reference: linear within the bucket.
func quantile(p store.Point, q float64) time.Duration {
	rank, below, lower := q*float64(p.Count), 0.0, 0.0
	for i, n := range p.Buckets {
		if below+float64(n) >= rank {
			if i < len(p.Bounds) {
				lower += (p.Bounds[i] - lower) * (rank - below) / float64(n)
			}
			break
		}
		below += float64(n)
		lower = p.Bounds[i]
	}
	return time.Duration(lower * 1e9)
}
