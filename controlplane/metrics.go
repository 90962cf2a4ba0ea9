package controlplane

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/observability/sli"
)

// metrics are all instruments of the package.
type metrics struct {
	decisions   *prometheus.CounterVec
	evaluations *prometheus.CounterVec
	isolated    prometheus.Gauge
	stale       prometheus.Gauge
	programmed  *prometheus.CounterVec
	programming prometheus.Histogram
	sourceError *prometheus.GaugeVec
	expires     *prometheus.GaugeVec
	saves       *prometheus.CounterVec
	queued      prometheus.Gauge
	durable     *prometheus.CounterVec
	whys        *prometheus.CounterVec
	quarantined prometheus.Gauge
	limited     prometheus.Gauge
	rolledBack  prometheus.Gauge
	warms       *prometheus.CounterVec
	lost        prometheus.Gauge
	trials      *prometheus.CounterVec
	settings    *prometheus.CounterVec

	unauthenticated prometheus.Counter
	draining        prometheus.Gauge
	paths           *prometheus.CounterVec
	saturation      *prometheus.GaugeVec
	unsaturated     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_decisions_total", Help: "Decisions taken.",
		}, []string{"action", "by"}),
		evaluations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_evaluations_total", Help: "Evaluations of all groups, by result: decided, stale.",
		}, []string{"result"}),
		isolated: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_groups_isolated", Help: "Groups that are moved to another pool.",
		}),
		limited: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_groups_limited", Help: "Groups whose rate edges limit.",
		}),
		rolledBack: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_policy_rolled_back", Help: "1 while the policy that is wanted was taken back, and the one before is in force.",
		}),
		warms: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_warm_requests_total", Help: "Requests for room in a pool, by result: asked, failed, dropped_queue_full.",
		}, []string{"result"}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_telemetry_stale", Help: "1 while telemetry is too old or missing, and nothing is decided.",
		}),
		programmed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_plans_total", Help: "Plans given to edges, by result: acked, late, rejected, refused.",
		}, []string{"result"}),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tracegate_program_seconds", Help: "From a new plan until every connected edge acknowledged it.",
			Buckets: []float64{.005, .01, .025, .05, .1, .2, .3, .5, 1, 2, 5},
		}),
		sourceError: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tracegate_source_error", Help: "1 while a file cannot be used and the version before it goes on.",
		}, []string{"source"}),
		expires: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tracegate_certificate_not_after_seconds", Help: "When a certificate of the certificates folder expires, as a Unix time.",
		}, []string{"certificate"}),
		saves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_decisions_saved_total", Help: "Decisions offered to the store, by result: saved, retried, dropped_queue_full.",
		}, []string{"result"}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_decisions_queued", Help: "Decisions that wait for the store.",
		}),
		durable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_durable_errors_total", Help: "Failed writes to the data folder, by file.",
		}, []string{"file"}),
		whys: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_explanations_total", Help: "Isolations whose traces were asked for a cause, by result: found, nothing_found, failed, dropped_queue_full.",
		}, []string{"result"}),
	}
	m.quarantined = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tracegate_resources_quarantined", Help: "Resources that an edge refused and that all edges have as they were before.",
	})
	m.trials = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tracegate_policy_trials_total", Help: "Policies that one edge had first, by result: passed, failed, ended.",
	}, []string{"result"})
	m.lost = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tracegate_discovery_lost", Help: "Names of endpoints that nobody answers about and that keep their last addresses.",
	})
	m.settings = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tracegate_settings_total", Help: "Settings documents of services, by result: in_force, invalid, refused, rolled_back.",
	}, []string{"result"})
	m.unauthenticated = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tracegate_control_unauthenticated_total", Help: "Requests to the control API without a token or signature that counts.",
	})
	m.draining = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tracegate_instances_draining", Help: "Instances that an operator has taken out of rotation.",
	})
	m.paths = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tracegate_call_paths_total", Help: "Times traces were asked whom a group's requests reach, by result: found, nothing_found, failed.",
	}, []string{"result"})
	m.saturation = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "tracegate_pool_saturation_ratio", Help: "How full a resource of a pool is, as the mean of its instances; 1 is full. Absent where they say nothing.",
	}, []string{"service", "pool", "resource"})
	m.unsaturated = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tracegate_pool_saturation_errors_total", Help: "Times it was not to be had how full pools are.",
	})
	reg.MustRegister(m.paths, m.saturation, m.unsaturated, m.draining, m.unauthenticated, m.settings, m.trials, m.limited, m.rolledBack, m.warms, m.lost, m.quarantined, m.decisions, m.evaluations, m.isolated, m.stale, m.programmed, m.programming, m.sourceError, m.expires, m.saves, m.queued, m.durable, m.whys)
	return m
}

// saturated shows how full pools are, and nothing of those that say nothing any more.
func (m *metrics) saturated(was, now []sli.Saturation) {
	shown := map[[3]string]bool{}
	for _, s := range now {
		shown[[3]string{s.Service, s.Pool, s.Resource}] = true
		m.saturation.WithLabelValues(s.Service, s.Pool, s.Resource).Set(s.Mean)
	}
	for _, s := range was {
		if !shown[[3]string{s.Service, s.Pool, s.Resource}] {
			m.saturation.DeleteLabelValues(s.Service, s.Pool, s.Resource)
		}
	}
}
