package bpf

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/bpf/probe"
)

// collector turns the last reading into metrics when it is asked: the kernel has
// counted already, so nothing is counted twice.
type collector struct {
	monitor *monitor

	seconds, events, lost, state, share, eventCost, sampling, queue, queueLimit, queueDrops, alert, watched *prometheus.Desc
}

func newCollector(m *monitor) *collector {
	owner := []string{"service", "pool", "name"}
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tracegate_probe_"+name, help, labels, nil)
	}
	return &collector{
		monitor:    m,
		seconds:    d("seconds", "Time of what a probe measures: connects, waits, pauses.", append([]string{"probe", "kind", "target"}, owner...)...),
		events:     d("events_total", "What a probe counts without a duration: failures, retransmissions, drops.", append([]string{"probe", "kind", "reason", "target"}, owner...)...),
		lost:       d("lost_total", "Events that are missing, by reason.", "probe", "reason"),
		state:      d("state", "1 for the state a probe is in: on, degraded, off.", "probe", "state"),
		share:      d("core_ratio", "Share of one core that the probe's programs use.", "probe"),
		eventCost:  d("event_cost_seconds", "Time of one run of the probe's programs.", "probe"),
		sampling:   d("sampling", "The probe looks at one event in so many.", "probe"),
		queue:      d("accept_queue_length", "Connections that wait to be accepted.", append([]string{"listen"}, owner...)...),
		queueLimit: d("accept_queue_limit", "Connections that may wait to be accepted.", append([]string{"listen"}, owner...)...),
		queueDrops: d("accept_queue_drops_total", "Connections refused because the accept queue was full.", append([]string{"listen"}, owner...)...),
		alert:      d("alert", "1 while P95 is over its threshold.", append([]string{"kind", "target"}, owner...)...),
		watched:    d("watched_processes", "Processes that are watched."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.seconds, c.events, c.lost, c.state, c.share, c.eventCost, c.sampling, c.queue, c.queueLimit, c.queueDrops, c.alert, c.watched,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	p := c.monitor.published.Load()
	if p == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	c.collectReading(ch, p.reading, counter)
	for _, s := range p.snapshot.Probes {
		for _, state := range []probe.State{probe.On, probe.Degraded, probe.Off} {
			gauge(c.state, map[bool]float64{true: 1}[state == s.State], s.Probe, string(state))
		}
		if s.State == probe.Off {
			continue
		}
		gauge(c.share, s.Share, s.Probe)
		gauge(c.eventCost, s.EventCost.Seconds(), s.Probe)
		gauge(c.sampling, float64(s.Sampling), s.Probe)
		for _, reason := range probe.Reasons() {
			counter(c.lost, s.Lost[reason], s.Probe, string(reason))
		}
	}
	for _, q := range p.snapshot.Queues {
		gauge(c.queue, float64(q.Length), q.Listen, q.Owner.Service, q.Owner.Pool, q.Owner.Name)
		gauge(c.queueLimit, float64(q.Limit), q.Listen, q.Owner.Service, q.Owner.Pool, q.Owner.Name)
		counter(c.queueDrops, uint64(q.Drops), q.Listen, q.Owner.Service, q.Owner.Pool, q.Owner.Name)
	}
	for _, a := range p.snapshot.Alerts {
		gauge(c.alert, 1, a.Kind, a.Target, a.Owner.Service, a.Owner.Pool, a.Owner.Name)
	}
	gauge(c.watched, float64(p.snapshot.Watched))
}

func (c *collector) collectReading(ch chan<- prometheus.Metric, r reading, counter func(*prometheus.Desc, uint64, ...string)) {
	for k, h := range r.series {
		ch <- prometheus.MustNewConstHistogram(c.seconds, h.Count(), float64(h.Sum)/1e9, h.Cumulative(),
			k.Probe, k.Kind, k.Target, k.Owner.Service, k.Owner.Pool, k.Owner.Name)
	}
	for k, n := range r.counts {
		counter(c.events, n, k.Probe, k.Kind, k.Reason, k.Target, k.Owner.Service, k.Owner.Pool, k.Owner.Name)
	}
}
