package ingest

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/observability/store"
)

// maxSeries bounds the label sets of group metrics; requests of others are counted
// without labels.
const maxSeries = 1000

// groupMetrics count requests by group as they are received, for Prometheus: rates and
// alerts go on while ClickHouse is away. What decides about groups are the statistics in
// ClickHouse, which know late spans and repeated batches; these do not.
type groupMetrics struct {
	requests, errors *prometheus.CounterVec
	duration         *prometheus.HistogramVec
	rest             prometheus.Counter

	mu     sync.Mutex
	series map[labels]series
}

// labels are those of a group in one service and pool.
type labels struct{ group, env, tenant, service, pool string }

type series struct {
	requests, errors prometheus.Counter
	duration         prometheus.Observer
}

func newGroupMetrics() *groupMetrics {
	names := []string{"group", "env", "tenant", "service", "pool"}
	return &groupMetrics{
		series: map[labels]series{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "traffic_group_requests_total", Help: "Requests of a group, as its users see them: entry spans.",
		}, names),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "traffic_group_errors_total", Help: "Requests of a group that failed.",
		}, names),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "traffic_group_duration_seconds", Help: "How long requests of a group took.",
			Buckets: []float64{.005, .01, .025, .05, .1, .2, .3, .5, 1, 2, 5, 10},
		}, names),
		rest: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "traffic_group_requests_without_series_total", Help: "Requests of groups that came after the most series there may be.",
		}),
	}
}

func (g *groupMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{g.requests, g.errors, g.duration, g.rest}
}

// count adds the entry spans among spans.
func (g *groupMetrics) count(spans []store.Span) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range spans {
		s := &spans[i]
		if !s.Traffic.Entry {
			continue
		}
		c, ok := g.of(s.Traffic)
		if !ok {
			g.rest.Inc()
			continue
		}
		c.requests.Inc()
		if s.Status == "Error" {
			c.errors.Inc()
		}
		c.duration.Observe(s.Duration.Seconds())
	}
}

func (g *groupMetrics) of(t store.Traffic) (series, bool) {
	l := labels{string(t.Group), t.Env, t.Tenant, t.Service, t.Pool}
	c, ok := g.series[l]
	if !ok && len(g.series) < maxSeries {
		for _, s := range []*string{&l.group, &l.env, &l.tenant, &l.service, &l.pool} {
			*s = strings.Clone(*s) // they are parts of messages, which must not stay
		}
		c = series{
			requests: g.requests.WithLabelValues(l.group, l.env, l.tenant, l.service, l.pool),
			errors:   g.errors.WithLabelValues(l.group, l.env, l.tenant, l.service, l.pool),
			duration: g.duration.WithLabelValues(l.group, l.env, l.tenant, l.service, l.pool),
		}
		g.series[l], ok = c, true
	}
	return c, ok
}
