package ingest

import (
	"bytes"
	"encoding/gob"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tracegate/tracegate/observability/store"
)

// measured has n points of a gauge, a sum and a histogram each.
func measured(n int) *collectormetrics.ExportMetricsServiceRequest {
	now := uint64(time.Now().UnixNano())
	var numbers []*metricsv1.NumberDataPoint
	var histograms []*metricsv1.HistogramDataPoint
	for range n {
		numbers = append(numbers, &metricsv1.NumberDataPoint{TimeUnixNano: now, Value: &metricsv1.NumberDataPoint_AsInt{AsInt: 1}})
		histograms = append(histograms, &metricsv1.HistogramDataPoint{TimeUnixNano: now, Count: 3, ExplicitBounds: []float64{1}, BucketCounts: []uint64{1, 2}})
	}
	return &collectormetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: []*metricsv1.Metric{
		{Name: "g", Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: numbers}}},
		{Name: "s", Data: &metricsv1.Metric_Sum{Sum: &metricsv1.Sum{DataPoints: numbers}}},
		{Name: "h", Data: &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{DataPoints: histograms}}},
	}}}}}}
}

func TestPointsAreStoredBeforeTheAnswer(t *testing.T) {
	s := &sink{tokens: map[string]int{}}
	r := start(t, testConfig(t), s)
	out, err := r.metrics.Export(t.Context(), measured(4))
	if err != nil || out.GetPartialSuccess() != nil {
		t.Fatal(out, err)
	}
	a := r.Account()
	balanced(t, a)
	if s.rows() != 12 || len(s.tokens) != 3 || a.Stored != 12 {
		t.Errorf("sink has %d rows under %d tokens, account = %+v; want 12 under 3", s.rows(), len(s.tokens), a)
	}
}

// TestPointsSpoolAndDrain has the sink take batches and lose its answers while it goes
// away: each table's rows come once.
func TestPointsSpoolAndDrain(t *testing.T) {
	cfg := testConfig(t)
	s := &sink{tokens: map[string]int{}, failWith: func(try int) error {
		if try <= 3 {
			return errAway
		}
		return nil
	}}
	r := start(t, cfg, s)
	var g sync.WaitGroup
	for range 5 {
		g.Go(func() {
			if _, err := r.metrics.Export(t.Context(), measured(2)); err != nil {
				t.Error(err)
			}
			if _, err := r.traces.Export(t.Context(), message(3, 0)); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	eventually(t, "stored", func() bool { return r.Account().Stored == 45 })
	balanced(t, r.Account())
	if s.rows() != 45 {
		t.Errorf("sink has %d rows, want 45", s.rows())
	}
	s.set(away)
	if _, err := r.metrics.Export(t.Context(), measured(2)); err != nil {
		t.Fatalf("while away: %v", err)
	}
	a := r.Account()
	balanced(t, a)
	if a.Spooled != 6 || a.SpoolSegments != 3 {
		t.Errorf("account while away = %+v, want 6 points in 3 batches", a)
	}
	r.stop()
	s.set(nil)
	r = start(t, cfg, s)
	eventually(t, "stored after a restart", func() bool { return r.Account().Stored == 6 })
	balanced(t, r.Account())
	if s.rows() != 51 {
		t.Errorf("sink has %d rows, want 51", s.rows())
	}
}

// TestOneTableRefuses has ClickHouse refuse the sums: they are dropped, the rest is kept.
func TestOneTableRefuses(t *testing.T) {
	s := &sink{tokens: map[string]int{}, refuse: store.Sum}
	r := start(t, testConfig(t), s)
	_, err := r.metrics.Export(t.Context(), measured(2))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error = %v, want a final one", err)
	}
	a := r.Account()
	balanced(t, a)
	if a.Dropped[Rejected] != 2 || a.Stored != 4 || a.Pending != 0 {
		t.Errorf("account = %+v, want 2 rejected and 4 stored", a)
	}
}

func TestPointsCountAsPending(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxPending = 10
	hold := make(chan struct{})
	s := &sink{tokens: map[string]int{}, fail: func(int) error { <-hold; return nil }}
	r := start(t, cfg, s)
	var g sync.WaitGroup
	g.Go(func() {
		if _, err := r.metrics.Export(t.Context(), measured(3)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "pending", func() bool { return r.Account().Pending == 9 })
	if _, err := r.metrics.Export(t.Context(), measured(1)); status.Code(err) != codes.Unavailable {
		t.Errorf("error = %v, want one that says to try again", err)
	}
	close(hold)
	g.Wait()
	if _, err := r.metrics.Export(t.Context(), measured(3)); err != nil {
		t.Errorf("afterwards: %v", err) // rows and bytes are given back
	}
	balanced(t, r.Account())
}

func TestEncodeKeepsRecords(t *testing.T) {
	spans := []store.Span{{
		Timestamp: time.Unix(1, 2).UTC(), TraceID: "a", Name: "é\x00", Duration: 5, Attributes: map[string]string{"k": "v"}, Resource: map[string]string{"r": ""},
		Events:  []store.Event{{Timestamp: time.Unix(3, 4).UTC(), Name: "e"}},
		Traffic: store.Traffic{Group: "abcdef", Color: 7, Entry: true},
	}, {}}
	points := []store.Point{{
		Kind: store.Histogram, Source: store.MetricSource{Service: "core", Resource: map[string]string{"r": ""}}, Name: "é", Attributes: map[string]string{"k": "v"}, Time: time.Unix(1, 2).UTC(),
		Exemplars: []store.Exemplar{{Time: time.Unix(3, 4).UTC(), Value: 2}}, Bounds: []float64{1}, Buckets: []uint64{1, 1 << 63},
		Positive: store.Buckets{Offset: -1, Counts: []uint64{1}}, Quantiles: []store.Quantile{{Quantile: 0.5, Value: 1}}, Traffic: store.Traffic{Pool: "canary"},
	}, {}}
	for name, want := range map[string]records{"spans": {spans: spans}, "points": {points: points}, "logs": {logs: []store.Log{{Timestamp: time.Unix(1, 2).UTC(), Body: "é", Attributes: map[string]string{"k": "v"}, Source: store.LogSource{Service: "core"}}, {}}}} {
		raw, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got.byTable(), want.byTable(), func(a, b records) bool {
			return cmp.Equal(a.spans, b.spans) && cmp.Equal(a.points, b.points) && cmp.Equal(a.logs, b.logs)
		}) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestDecodeReadsTheFirstVersion takes a payload as it was before there were points.
func TestDecodeReadsTheFirstVersion(t *testing.T) {
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := gob.NewEncoder(z).Encode([]store.Span{{TraceID: "a"}}); err != nil {
		t.Fatal(err)
	}
	z.Close()
	got, err := decode(buf.Bytes())
	if err != nil || len(got.spans) != 1 || got.spans[0].TraceID != "a" || len(got.points) != 0 {
		t.Errorf("decoded %+v, %v", got, err)
	}
}

func TestByTable(t *testing.T) {
	point := func(k store.PointKind, name string) store.Point { return store.Point{Kind: k, Name: name} }
	parts := records{spans: []store.Span{{}}, points: []store.Point{point(store.Sum, "a"), point(store.Gauge, "b"), point(store.Sum, "c")}}.byTable()
	var got []string
	for _, p := range parts {
		s := ""
		for _, x := range p.points {
			s += string(x.Kind) + x.Name + " "
		}
		got = append(got, s)
	}
	if diff := cmp.Diff([]string{"", "suma sumc ", "gaugeb "}, got); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
	if parts := (records{}).byTable(); len(parts) != 0 {
		t.Errorf("parts of nothing = %v", parts)
	}
}
