package observability

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tracegate/tracegate/bpf/hist"
	"github.com/tracegate/tracegate/bpf/otlp"
	"github.com/tracegate/tracegate/bpf/probe"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// probes sends readings of a probe of core's canary as the kernel probes do: 1,000
// connects before the window, then 100 of which 10 are slow, then a restart and 100 more.
func probes(t *testing.T, addr string, now time.Time) {
	t.Helper()
	conn := dial(t, addr)
	canary := probe.Owner{Service: "core", Pool: "canary", Name: "core-canary"}
	var h hist.Histogram
	read := func(e *otlp.Exporter, at time.Time) {
		t.Helper()
		series := []probe.Series{{Probe: "tcpconnect", Kind: "connect", Owner: canary, Target: "127.0.0.1:9092", Hist: h}}
		counts := []probe.Count{{Probe: "tcpconnect", Kind: "connect_failed", Owner: canary, Target: "127.0.0.1:9092", Reason: "refused", N: 2}}
		if err := e.Export(t.Context(), at, series, counts); err != nil {
			t.Fatal(err)
		}
	}
	e := otlp.New(conn, now.Add(-time.Hour))
	h.RecordN(time.Second, 1000)
	read(e, now.Add(-50*time.Second))
	h.RecordN(3*time.Millisecond, 90)
	h.RecordN(100*time.Millisecond, 10)
	read(e, now.Add(-40*time.Second))
	h = hist.Histogram{}
	h.RecordN(3*time.Millisecond, 100)
	read(otlp.New(conn, now.Add(-35*time.Second)), now.Add(-30*time.Second))
}

func TestProbesGoFromOTLPToKernelDurations(t *testing.T) {
	e := enginetest.Start(t)
	cfg, _ := observe(t, e.Addr)
	now := time.Now()
	probes(t, cfg.Ingest.Addr, now)
	a := account(t, cfg.Admin)
	if a.Received != 6 || a.Stored+a.Spooled != 6 { // spooled only while the tables are being made
		t.Errorf("account = %+v, want 6 kept", a)
	}
	eventually(t, "stored", func() bool { return account(t, cfg.Admin).Stored == 6 })
	s, err := store.Open(cfg.Store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.KernelDurations(t.Context(), sli.Window{From: now.Add(-time.Minute), To: now})
	if err != nil || len(got) != 1 {
		t.Fatalf("durations = %+v, %v; want one", got, err)
	}
	d := got[0]
	within := func(d, from, to time.Duration) bool { return d >= from && d <= to }
	if d.Service != "core" || d.Pool != "canary" || d.Kind != "connect" || d.Target != "127.0.0.1:9092" || d.Events != 200 ||
		!within(d.P50, 2*time.Millisecond, 5*time.Millisecond) || !within(d.P95, 2*time.Millisecond, 70*time.Millisecond) || !within(d.P99, 65*time.Millisecond, 140*time.Millisecond) {
		t.Errorf("durations = %+v", d)
	}
	if got, err := s.KernelDurations(t.Context(), sli.Window{From: now.Add(-45 * time.Second), To: now.Add(-38 * time.Second)}); err != nil || len(got) != 0 {
		t.Errorf("durations of a window with one reading = %+v, %v; want none", got, err)
	}
}

func counter(n uint64) *collectormetrics.ExportMetricsServiceRequest {
	key := &commonv1.KeyValue{Key: "n", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: fmt.Sprint(n)}}}
	at := uint64(time.Now().UnixNano())
	return &collectormetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: []*metricsv1.Metric{
		{Name: "s", Data: &metricsv1.Metric_Sum{Sum: &metricsv1.Sum{AggregationTemporality: 2, DataPoints: []*metricsv1.NumberDataPoint{{
			TimeUnixNano: at, Value: &metricsv1.NumberDataPoint_AsInt{AsInt: 1}, Attributes: []*commonv1.KeyValue{key},
		}}}}},
		{Name: "h", Data: &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{AggregationTemporality: 2, DataPoints: []*metricsv1.HistogramDataPoint{{
			TimeUnixNano: at, Count: 1, ExplicitBounds: []float64{1}, BucketCounts: []uint64{1, 0}, Attributes: []*commonv1.KeyValue{key},
		}}}}},
	}}}}}}
}

// TestMetricsSurviveClickHouseKilled kills ClickHouse while senders send, and starts it
// again: every point that was acknowledged is in its table once.
func TestMetricsSurviveClickHouseKilled(t *testing.T) {
	e := enginetest.Start(t)
	cfg, _ := observe(t, e.Addr)
	client := collectormetrics.NewMetricsServiceClient(dial(t, cfg.Ingest.Addr))
	var sent, acked atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := client.Export(t.Context(), counter(sent.Add(1))); err != nil {
					t.Error(err)
					return
				}
				acked.Add(1)
			}
		})
	}
	eventually(t, "points stored", func() bool { return account(t, cfg.Admin).Stored > 20 })
	e.Kill()
	eventually(t, "points spooled", func() bool { return account(t, cfg.Admin).Spooled > 20 })
	e.Restart()
	eventually(t, "clickhouse is back under load", func() bool { return !account(t, cfg.Admin).Away })
	cancel()
	load.Wait()
	eventually(t, "spool drained", func() bool { return account(t, cfg.Admin).Spooled == 0 })
	n, want := acked.Load(), fmt.Sprint(acked.Load())
	for _, table := range []string{"otel_metrics_sum", "otel_metrics_histogram"} {
		rows, once := query(t, e.Addr, "SELECT count() FROM "+table), query(t, e.Addr, "SELECT uniqExact(Attributes['n']) FROM "+table)
		if rows != want || once != want {
			t.Errorf("%s: %s rows, %s different; want %s", table, rows, once, want)
		}
	}
	if a := account(t, cfg.Admin); a.Received != 2*n || a.Stored != 2*n {
		t.Errorf("acknowledged %d messages of two points, account = %+v", n, a)
	}
	t.Logf("%d messages", n)
}
