package engine

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are this package's instruments.
type metrics struct {
	queries *prometheus.CounterVec // by kind and outcome
	seconds *prometheus.HistogramVec
	written prometheus.Counter
	killed  prometheus.Counter
	refused *prometheus.CounterVec // before a statement ran, by reason
}

func newMetrics(reg prometheus.Registerer, g *gate) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tracegate_clickhouse_queries_running", Help: "Statements that run now."}, func() float64 { return float64(len(g.running)) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tracegate_clickhouse_queries_waiting", Help: "Statements that wait for a place."}, func() float64 { return float64(len(g.waiting)) })
	return &metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{Name: "tracegate_clickhouse_queries_total", Help: "Statements run, by kind and outcome."}, []string{"kind", "outcome"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "tracegate_clickhouse_query_seconds", Help: "Time of statements, by kind.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"kind"}),
		written: f.NewCounter(prometheus.CounterOpts{Name: "tracegate_clickhouse_written_rows_total", Help: "Rows inserted, views not counted."}),
		killed:  f.NewCounter(prometheus.CounterOpts{Name: "tracegate_clickhouse_killed_total", Help: "Statements ended because their client had gone."}),
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "tracegate_clickhouse_refused_total", Help: "Requests refused before a statement ran, by reason."}, []string{"reason"}),
	}
}
