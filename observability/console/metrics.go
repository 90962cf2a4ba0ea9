package console

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	logins  *prometheus.CounterVec
	foreign prometheus.Counter
	viewers prometheus.Gauge
	dropped *prometheus.CounterVec
	polls   *prometheus.CounterVec
}

// Reasons why a viewer is dropped or not let in; each is a label value.
const (
	dropSlow     = "slow"
	dropFull     = "full"
	dropSession  = "session"
	dropShutdown = "shutdown"
)

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_console_logins_total", Help: "Logins by outcome: granted, refused, limited.",
		}, []string{"outcome"}),
		foreign: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tracegate_console_foreign_requests_total", Help: "Requests refused because another site made them.",
		}),
		viewers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_console_viewers", Help: "Open event streams.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_console_viewers_dropped_total", Help: "Event streams ended or refused, by reason.",
		}, []string{"reason"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_console_polls_total", Help: "Questions to the stores, by source and outcome.",
		}, []string{"source", "outcome"}),
	}
	for _, reason := range []string{dropSlow, dropFull, dropSession, dropShutdown} {
		m.dropped.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.logins, m.foreign, m.viewers, m.dropped, m.polls)
	}
	return m
}
