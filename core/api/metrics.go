package api

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests, limited *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	panics, unshared  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_requests_total", Help: "Requests by route and result: ok or the code of the error.",
		}, []string{"route", "result"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_requests_limited_total", Help: "Requests refused for their rate, by limit.",
		}, []string{"limit"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "core_request_seconds", Help: "Time to answer, by route.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"route"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "core_panics_total", Help: "Handlers that panicked."}),
		unshared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "core_limits_unshared_total", Help: "Times a limit of log-ins was judged by this process alone, because Redis was away.",
		}),
	}
	for _, l := range []string{"register", "login_address", "login_name", "user", "upload", "search"} {
		m.limited.WithLabelValues(l)
	}
	for _, c := range []prometheus.Collector{m.requests, m.limited, m.seconds, m.panics, m.unshared} {
		if err := reg.Register(c); err != nil {
			return m, fmt.Errorf("register api metrics: %w", err)
		}
	}
	return m, nil
}
