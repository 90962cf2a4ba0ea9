package search

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	entries  prometheus.Counter
	building prometheus.Gauge
	queries  *prometheus.CounterVec
	seconds  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, index *Index) (metrics, error) {
	m := metrics{
		entries:  prometheus.NewCounter(prometheus.CounterOpts{Name: "search_entries_total", Help: "Entries of conversations taken up."}),
		building: prometheus.NewGauge(prometheus.GaugeOpts{Name: "search_building", Help: "1 while the conversations are gone through once, after each start."}),
		queries:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "search_queries_total", Help: "Queries by result: ok or the code of the error."}, []string{"result"}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "search_query_seconds", Help: "Time to answer.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "search_index_bytes", Help: "Size of the index's files."}, func() float64 {
		_, bytes, _ := index.Size() // 0 while it cannot be read
		return float64(bytes)
	})
	messages := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "search_index_messages", Help: "Messages in the index."}, func() float64 {
		n, _, _ := index.Size() // 0 while it cannot be read
		return float64(n)
	})
	for _, c := range []prometheus.Collector{m.entries, m.building, m.queries, m.seconds, size, messages} {
		if err := reg.Register(c); err != nil {
			return m, fmt.Errorf("register search metrics: %w", err)
		}
	}
	return m, nil
}

func (m metrics) observe(result string, d time.Duration) {
	m.queries.WithLabelValues(result).Inc()
	m.seconds.Observe(d.Seconds())
}
