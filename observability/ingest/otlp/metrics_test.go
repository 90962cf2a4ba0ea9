package otlp

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/observability/store"
)

var update = flag.Bool("update", false, "rewrite the golden file")

// show is a row in words, without what is zero.
func show(p store.Point) string {
	var b strings.Builder
	s := p.Source
	fmt.Fprintf(&b, "%s %s %q %q at %s since %s\n", p.Kind, p.Name, p.Unit, p.Description, p.Time.Format(time.RFC3339Nano), p.Start.Format(time.RFC3339Nano))
	fmt.Fprintf(&b, "  of %s %v schema %q\n", s.Service, s.Resource, s.ResourceSchema)
	fmt.Fprintf(&b, "  scope %q %q %v dropped %d schema %q\n", s.Scope, s.ScopeVersion, s.ScopeAttributes, s.ScopeDropped, s.ScopeSchema)
	fmt.Fprintf(&b, "  attributes %v flags %d temporality %d monotonic %v\n", p.Attributes, p.Flags, p.Temporality, p.Monotonic)
	fmt.Fprintf(&b, "  traffic group %q color %s env %q tenant %q pool %q\n", p.Traffic.Group, p.Traffic.Color, p.Traffic.Env, p.Traffic.Tenant, p.Traffic.Pool)
	switch p.Kind {
	case store.Gauge, store.Sum:
		fmt.Fprintf(&b, "  value %v\n", p.Value)
	case store.Histogram:
		fmt.Fprintf(&b, "  count %d sum %v min %v max %v bounds %v buckets %v\n", p.Count, p.Sum, p.Min, p.Max, p.Bounds, p.Buckets)
	case store.ExponentialHistogram:
		fmt.Fprintf(&b, "  count %d sum %v min %v max %v scale %d zeros %d positive %+v negative %+v\n", p.Count, p.Sum, p.Min, p.Max, p.Scale, p.ZeroCount, p.Positive, p.Negative)
	case store.Summary:
		fmt.Fprintf(&b, "  count %d sum %v quantiles %+v\n", p.Count, p.Sum, p.Quantiles)
	}
	for _, e := range p.Exemplars {
		fmt.Fprintf(&b, "  exemplar %v at %s trace %q span %q %v\n", e.Value, e.Time.Format(time.RFC3339Nano), e.TraceID, e.SpanID, e.Attributes)
	}
	return b.String()
}

// TestMetricsGolden converts a request with every type and every way to be wrong.
func TestMetricsGolden(t *testing.T) {
	raw, err := os.ReadFile("testdata/metrics.json")
	if err != nil {
		t.Fatal(err)
	}
	var req collectormetrics.ExportMetricsServiceRequest
	if err := protojson.Unmarshal(raw, &req); err != nil {
		t.Fatal(err)
	}
	r := converter().Metrics(&req, now)
	checkPoints(t, r)
	var b strings.Builder
	for _, p := range r.Points {
		b.WriteString(show(p))
	}
	fmt.Fprintf(&b, "received %d\n", r.Received)
	for _, reason := range slices.Sorted(maps.Keys(r.Dropped)) {
		fmt.Fprintf(&b, "dropped %s %d\n", reason, r.Dropped[reason])
	}
	if *update {
		if err := os.WriteFile("testdata/metrics.golden", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func gauge(resource []*commonv1.KeyValue, points ...*metricsv1.NumberDataPoint) *collectormetrics.ExportMetricsServiceRequest {
	return metricRequest(resource, &metricsv1.Metric{Name: "m", Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: points}}})
}

func metricRequest(resource []*commonv1.KeyValue, m ...*metricsv1.Metric) *collectormetrics.ExportMetricsServiceRequest {
	return &collectormetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{
		Resource: &resourcev1.Resource{Attributes: resource}, ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: m}},
	}}}
}

func number(attrs ...*commonv1.KeyValue) *metricsv1.NumberDataPoint {
	return &metricsv1.NumberDataPoint{TimeUnixNano: uint64(now.UnixNano()), Value: &metricsv1.NumberDataPoint_AsInt{AsInt: 1}, Attributes: attrs}
}

func TestPointsBeyondLimitsAreDroppedWhole(t *testing.T) {
	c := converter()
	c.Limits.Attributes, c.Limits.Key, c.Limits.Value, c.Limits.Name, c.Limits.Buckets = 2, 5, 10, 8, 3
	histogram := func(buckets int) *metricsv1.Metric {
		p := &metricsv1.HistogramDataPoint{TimeUnixNano: uint64(now.UnixNano()), BucketCounts: make([]uint64, buckets)}
		for i := range buckets - 1 {
			p.ExplicitBounds = append(p.ExplicitBounds, float64(i))
		}
		return &metricsv1.Metric{Name: "m", Data: &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{DataPoints: []*metricsv1.HistogramDataPoint{p}}}}
	}
	exponential := func(p, n int) *metricsv1.Metric {
		return &metricsv1.Metric{Name: "m", Data: &metricsv1.Metric_ExponentialHistogram{ExponentialHistogram: &metricsv1.ExponentialHistogram{DataPoints: []*metricsv1.ExponentialHistogramDataPoint{{
			TimeUnixNano: uint64(now.UnixNano()),
			Positive:     &metricsv1.ExponentialHistogramDataPoint_Buckets{BucketCounts: make([]uint64, p)}, Negative: &metricsv1.ExponentialHistogramDataPoint_Buckets{BucketCounts: make([]uint64, n)},
		}}}}}
	}
	summary := func(n int) *metricsv1.Metric {
		p := &metricsv1.SummaryDataPoint{TimeUnixNano: uint64(now.UnixNano())}
		for range n {
			p.QuantileValues = append(p.QuantileValues, &metricsv1.SummaryDataPoint_ValueAtQuantile{})
		}
		return &metricsv1.Metric{Name: "m", Data: &metricsv1.Metric_Summary{Summary: &metricsv1.Summary{DataPoints: []*metricsv1.SummaryDataPoint{p}}}}
	}
	named := gauge(nil, number())
	named.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].Name = "123456789"
	for _, tc := range []struct {
		name string
		req  *collectormetrics.ExportMetricsServiceRequest
		want int // rows; otherwise too large
	}{
		{"just fits", gauge(nil, number(pairs("12345", "1234567890", "b", "1")...)), 1},
		{"attributes", gauge(nil, number(pairs("a", "1", "b", "1", "c", "1")...)), 0},
		{"key", gauge(nil, number(pairs("123456", "1")...)), 0},
		{"value", gauge(nil, number(pairs("a", "12345678901")...)), 0},
		{"name", named, 0},
		{"buckets fit", metricRequest(nil, histogram(3)), 1},
		{"buckets", metricRequest(nil, histogram(4)), 0},
		{"both sides fit", metricRequest(nil, exponential(1, 2)), 1},
		{"both sides", metricRequest(nil, exponential(2, 2)), 0},
		{"quantiles fit", metricRequest(nil, summary(3)), 1},
		{"quantiles", metricRequest(nil, summary(4)), 0},
		{"resource is cut", gauge(pairs("a", "1", "b", "1", "c", "1"), number()), 1},
	} {
		r := c.Metrics(tc.req, now)
		if len(r.Points) != tc.want || r.Dropped[TooLarge] != 1-tc.want || r.Received != 1 {
			t.Errorf("%s: %d rows, dropped %v; want %d", tc.name, len(r.Points), r.Dropped, tc.want)
		}
	}
}

func TestPointsOfOneMessageAreBounded(t *testing.T) {
	var many []*metricsv1.NumberDataPoint
	for range 10 {
		many = append(many, number())
	}
	c := converter()
	c.Limits.Points = 4
	if r := c.Metrics(gauge(nil, many...), now); len(r.Points) != 4 || r.Dropped[TooManyPoints] != 6 {
		t.Errorf("%d rows, dropped %v; want 4 and 6", len(r.Points), r.Dropped)
	}
	c = converter()
	c.Limits.PointBytes = 10_000
	r := c.Metrics(gauge(pairs("a", strings.Repeat("x", 3000)), many...), now) // each row has it
	if len(r.Points) != 3 || r.Dropped[TooManyPoints] != 7 || r.Size < 9000 || r.Size > 10_000 {
		t.Errorf("%d rows of %d bytes, dropped %v; want 3 and 7", len(r.Points), r.Size, r.Dropped)
	}
	c.Limits.Exemplars = 2
	p := number()
	p.Exemplars = []*metricsv1.Exemplar{{}, {}, {}}
	if r := c.Metrics(gauge(nil, p), now); len(r.Points[0].Exemplars) != 2 || r.Cut[CutExemplars] != 1 {
		t.Errorf("%d exemplars, cut %v; want 2 and 1", len(r.Points[0].Exemplars), r.Cut)
	}
}

// FuzzMetrics takes any message that parses, as FuzzTraces does.
func FuzzMetrics(f *testing.F) {
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	raw, err := os.ReadFile("testdata/metrics.json")
	if err != nil {
		f.Fatal(err)
	}
	var golden collectormetrics.ExportMetricsServiceRequest
	if err := protojson.Unmarshal(raw, &golden); err != nil {
		f.Fatal(err)
	}
	add(&golden)
	add(gauge(pairs("service.name", "core"), number(pairs("traffic.color", "00000007")...)))
	add(metricRequest(nil, &metricsv1.Metric{}, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req collectormetrics.ExportMetricsServiceRequest
		if proto.Unmarshal(raw, &req) != nil {
			return
		}
		checkPoints(t, converter().Metrics(&req, now))
	})
}

func checkPoints(t *testing.T, r *Result) {
	t.Helper()
	if r.Received != len(r.Points)+r.Rejected() {
		t.Errorf("received %d, stored %d, dropped %v", r.Received, len(r.Points), r.Dropped)
	}
	for _, p := range r.Points {
		if p.Name == "" || len(p.Name) > 256 || !slices.Contains(store.PointKinds(), p.Kind) || len(p.Attributes) > 128 || len(p.Source.Resource) > 128 || len(p.Exemplars) > 32 ||
			p.Time.Before(now.Add(-72*time.Hour)) || p.Time.After(now.Add(10*time.Minute)) || p.Start.Year() < 1970 || p.Start.Year() > 2262 ||
			p.Traffic.Group != "" && (!p.Traffic.Group.Valid() || !named(p.Traffic.Env) || !named(p.Traffic.Tenant)) {
			t.Errorf("row does not fit: %+v", p)
		}
		if p.Kind == store.Histogram && len(p.Buckets) > 0 {
			var sum uint64
			for _, n := range p.Buckets {
				sum += n
			}
			if len(p.Buckets) != len(p.Bounds)+1 || sum != p.Count || slices.ContainsFunc(p.Bounds, math.IsNaN) {
				t.Errorf("buckets do not fit: %+v", p)
			}
		}
	}
}
