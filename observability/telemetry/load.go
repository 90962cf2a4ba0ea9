package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/mesh/procfs"
	"github.com/tracegate/tracegate/observability/semconv"
)

// Load says once a second how full this process is, as OTLP gauges: its CPU time by the CPUs
// it may use, and its bounded queues. It keeps no queue and tries nothing again: a report is
// of its second, and the next one follows. A process that others keep from its CPUs is not
// full by this: kernel probes time what it waits for.
//
// The OpenTelemetry metrics SDK lost: two gauges need no aggregation. So did the machine's
// load and its pressure (PSI), which do not say whose it is, and garbage and goroutines,
// which are no share of anything.
type Load struct {
	cfg     Config
	client  collector.MetricsServiceClient
	reports *prometheus.CounterVec
	log     *slog.Logger

	mu     sync.Mutex
	queues map[string]func() float64
}

// loadEvery is how often a process reports.
const loadEvery = time.Second

// NewLoad sends over a connection that it does not own; nothing before Run. Config says who
// reports, with an Instance.
func NewLoad(cfg Config, conn grpc.ClientConnInterface, reg prometheus.Registerer, log *slog.Logger) *Load {
	l := &Load{cfg: cfg, client: collector.NewMetricsServiceClient(conn), log: log, queues: map[string]func() float64{}}
	l.reports = promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "tracegate_telemetry_load_reports_total", Help: "Reports of how full this process is, by result: sent, failed.",
	}, []string{"result"})
	for _, result := range []string{"sent", "failed"} {
		l.reports.WithLabelValues(result)
	}
	return l
}

// Watch adds a bounded queue; fill, called from another goroutine, is how full it is: 0 to 1.
func (l *Load) Watch(queue string, fill func() float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queues[queue] = fill
}

// next is how long to wait for a report. They are made as seconds begin, so that those of
// several instances are stored together: a part of a table for each costs more than its rows.
func next(now time.Time) time.Duration {
	wait := loadEvery - now.Sub(now.Truncate(loadEvery))
	if wait < loadEvery/2 {
		wait += loadEvery // of a few milliseconds nothing can be said
	}
	return wait
}

// Run reports until ctx is done.
func (l *Load) Run(ctx context.Context) error {
	due := time.NewTimer(next(time.Now()))
	defer due.Stop()
	cpus := allowed(runtime.GOMAXPROCS(0), "/")
	last, at := processTime(), time.Now()
	for well := true; ; {
		select {
		case now := <-due.C:
			due.Reset(next(now))
		case <-ctx.Done():
			return nil
		}
		used, now := processTime(), time.Now()
		err := l.report(ctx, now, utilization(used-last, now.Sub(at), cpus))
		last, at = used, now
		if ctx.Err() == nil && (err == nil) != well {
			well = err == nil
			l.log.Info("the receiver is told how full this process is", "works", well, "error", err)
		}
	}
}

func (l *Load) report(ctx context.Context, now time.Time, cpu float64) error {
	ctx, cancel := context.WithTimeout(ctx, loadEvery)
	defer cancel()
	res, err := l.client.Export(ctx, loadRequest(l.cfg, now, cpu, l.fills()))
	if p := res.GetPartialSuccess(); err == nil && p.GetRejectedDataPoints() > 0 {
		err = fmt.Errorf("%d points refused: %s", p.GetRejectedDataPoints(), p.GetErrorMessage())
	}
	if err != nil {
		l.reports.WithLabelValues("failed").Inc()
		return fmt.Errorf("report load: %w", err)
	}
	l.reports.WithLabelValues("sent").Inc()
	return nil
}

func (l *Load) fills() map[string]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]float64, len(l.queues))
	for name, fill := range l.queues {
		out[name] = fill()
	}
	return out
}

// allowed is how many CPUs a process may use: those that Go does, and not more than its
// control groups let it.
func allowed(procs int, root string) float64 {
	cpus := float64(procs)
	if quota, limited := procfs.CPUQuota(root); limited {
		cpus = min(cpus, quota)
	}
	return cpus
}

// utilization is the share of the CPUs that was used; not a number where nobody knows.
func utilization(used, elapsed time.Duration, cpus float64) float64 {
	if elapsed <= 0 || cpus <= 0 || used < 0 {
		return math.NaN()
	}
	return used.Seconds() / (elapsed.Seconds() * cpus)
}

// loadRequest leaves out what is not a number.
func loadRequest(cfg Config, now time.Time, cpu float64, queues map[string]float64) *collector.ExportMetricsServiceRequest {
	at := uint64(now.UnixNano())
	gauge := func(name, what string, points []*metricsv1.NumberDataPoint) *metricsv1.Metric {
		return &metricsv1.Metric{Name: name, Unit: "1", Description: what, Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: points}}}
	}
	var metrics []*metricsv1.Metric
	if !math.IsNaN(cpu) {
		metrics = append(metrics, gauge(semconv.CPUUtilization, "CPU time by the time that went by and the CPUs that the process may use.",
			[]*metricsv1.NumberDataPoint{{TimeUnixNano: at, Value: &metricsv1.NumberDataPoint_AsDouble{AsDouble: cpu}}}))
	}
	var points []*metricsv1.NumberDataPoint
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		if fill := queues[name]; !math.IsNaN(fill) {
			points = append(points, &metricsv1.NumberDataPoint{
				TimeUnixNano: at, Value: &metricsv1.NumberDataPoint_AsDouble{AsDouble: fill}, Attributes: []*commonv1.KeyValue{textAttribute(semconv.Queue, name)},
			})
		}
	}
	if len(points) > 0 {
		metrics = append(metrics, gauge(semconv.QueueUtilization, "How full a bounded queue is.", points))
	}
	of := &resourcev1.Resource{}
	for _, kv := range attributes(cfg) {
		of.Attributes = append(of.Attributes, textAttribute(string(kv.Key), kv.Value.AsString()))
	}
	return &collector.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{
		Resource:     of,
		ScopeMetrics: []*metricsv1.ScopeMetrics{{Scope: &commonv1.InstrumentationScope{Name: "github.com/tracegate/tracegate/observability/telemetry"}, Metrics: metrics}},
	}}}
}

func textAttribute(key, value string) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
}
