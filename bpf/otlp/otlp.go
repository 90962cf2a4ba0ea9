// Package otlp sends what the probes count to an OTLP receiver as metrics: cumulative
// histograms in seconds and cumulative counters, under the resource of the service
// that was observed, not of the observer.
//
// It keeps no queue: readings are cumulative, so the next one has all that a lost one
// had. The OpenTelemetry metrics SDK lost: it would count a second time what the
// kernel has counted, and cannot take finished histograms.
package otlp

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/bpf/probe"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Names of the metrics.
const (
	Duration = "traffic.kernel.duration" // s
	Events   = "traffic.kernel.events"   // {event}
)

// Exporter sends readings over a connection that it does not own.
type Exporter struct {
	client  collector.MetricsServiceClient
	started time.Time
}

// New makes an exporter; started is when the probes began to count.
func New(conn grpc.ClientConnInterface, started time.Time) *Exporter {
	return &Exporter{client: collector.NewMetricsServiceClient(conn), started: started}
}

// Export implements bpf.Exporter. A reading that the receiver takes in part is an
// error that says how much was refused and why.
func (e *Exporter) Export(ctx context.Context, at time.Time, series []probe.Series, counts []probe.Count) error {
	res, err := e.client.Export(ctx, request(e.started, at, series, counts))
	if err != nil {
		return fmt.Errorf("export probe metrics: %w", err)
	}
	if p := res.GetPartialSuccess(); p.GetRejectedDataPoints() > 0 {
		return fmt.Errorf("export probe metrics: %d points refused: %s", p.GetRejectedDataPoints(), p.GetErrorMessage())
	}
	return nil
}

// points are one owner's.
type points struct {
	durations []*metrics.HistogramDataPoint
	events    []*metrics.NumberDataPoint
}

func request(started, at time.Time, series []probe.Series, counts []probe.Count) *collector.ExportMetricsServiceRequest {
	owners := map[probe.Owner]*points{}
	of := func(o probe.Owner) *points {
		if owners[o] == nil {
			owners[o] = &points{}
		}
		return owners[o]
	}
	begin, end := uint64(started.UnixNano()), uint64(at.UnixNano())
	for _, s := range series {
		bounds, buckets := histogram(s)
		sum := float64(s.Hist.Sum) / 1e9
		p := of(s.Owner)
		p.durations = append(p.durations, &metrics.HistogramDataPoint{
			StartTimeUnixNano: begin, TimeUnixNano: end, Count: s.Hist.Count(), Sum: &sum, ExplicitBounds: bounds, BucketCounts: buckets,
			Attributes: attributes("probe", s.Probe, "kind", s.Kind, "server.address", s.Target),
		})
	}
	for _, c := range counts {
		p := of(c.Owner)
		p.events = append(p.events, &metrics.NumberDataPoint{
			StartTimeUnixNano: begin, TimeUnixNano: end, Value: &metrics.NumberDataPoint_AsInt{AsInt: int64(c.N)},
			Attributes: attributes("probe", c.Probe, "kind", c.Kind, "server.address", c.Target, "error.type", c.Reason),
		})
	}
	req := &collector.ExportMetricsServiceRequest{}
	for owner, p := range owners {
		req.ResourceMetrics = append(req.ResourceMetrics, &metrics.ResourceMetrics{
			Resource: &resource.Resource{Attributes: attributes("service.name", owner.Service, semconv.Pool, owner.Pool, "service.instance.id", owner.Name)},
			ScopeMetrics: []*metrics.ScopeMetrics{{
				Scope: &common.InstrumentationScope{Name: "github.com/tracegate/tracegate/bpf"}, Metrics: p.metrics(),
			}},
		})
	}
	return req
}

func (p *points) metrics() []*metrics.Metric {
	var out []*metrics.Metric
	if len(p.durations) > 0 {
		out = append(out, &metrics.Metric{
			Name: Duration, Unit: "s", Description: "Time of what a kernel probe measures: connects, waits, pauses.",
			Data: &metrics.Metric_Histogram{Histogram: &metrics.Histogram{
				AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, DataPoints: p.durations,
			}},
		})
	}
	if len(p.events) > 0 {
		out = append(out, &metrics.Metric{
			Name: Events, Unit: "{event}", Description: "What a kernel probe counts without a duration: failures, retransmissions, drops.",
			Data: &metrics.Metric_Sum{Sum: &metrics.Sum{
				AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, IsMonotonic: true, DataPoints: p.events,
			}},
		})
	}
	return out
}

// histogram gives one bucket an octave; the last has no upper bound.
func histogram(s probe.Series) (bounds []float64, buckets []uint64) {
	cumulative := s.Hist.Cumulative()
	var below uint64
	for _, bound := range slices.Sorted(maps.Keys(cumulative)) {
		bounds = append(bounds, bound)
		buckets = append(buckets, cumulative[bound]-below)
		below = cumulative[bound]
	}
	return bounds, append(buckets, s.Hist.Count()-below)
}

// attributes takes pairs and leaves out those without a value.
func attributes(pairs ...string) []*common.KeyValue {
	var out []*common.KeyValue
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			out = append(out, &common.KeyValue{Key: pairs[i], Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: pairs[i+1]}}})
		}
	}
	return out
}
