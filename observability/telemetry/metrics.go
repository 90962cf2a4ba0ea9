package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons for which spans are dropped: the closed list of the label.
const (
	droppedQueueFull = "queue_full"
	droppedExport    = "export_failed"
	droppedShutdown  = "shutdown"
)

// metrics are this package's instruments.
type metrics struct {
	exported prometheus.Counter
	dropped  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, waiting func() float64) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tracegate_telemetry_queue_spans", Help: "Ended spans that wait to be sent."}, waiting)
	m := &metrics{
		exported: f.NewCounter(prometheus.CounterOpts{Name: "tracegate_telemetry_exported_spans_total", Help: "Spans that the receiver has acknowledged."}),
		dropped:  f.NewCounterVec(prometheus.CounterOpts{Name: "tracegate_telemetry_dropped_spans_total", Help: "Spans that were not sent, or sent and not acknowledged, by reason."}, []string{"reason"}),
	}
	for _, reason := range []string{droppedQueueFull, droppedExport, droppedShutdown} {
		m.dropped.WithLabelValues(reason)
	}
	return m
}
