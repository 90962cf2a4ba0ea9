package fanout

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	published, reconnects, presenceErrors prometheus.Counter
	dropped, received                     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, f *Fanout) (metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := metrics{
		published:      counter("core_fanout_published_total", "Pushes given to Redis."),
		reconnects:     counter("core_fanout_reconnects_total", "Subscribing connections that broke."),
		presenceErrors: counter("core_fanout_presence_errors_total", "Presence updates that failed."),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_fanout_dropped_total",
			Help: "Pushes not given to Redis by reason: full (queue) or error. Sessions find them in the store.",
		}, []string{"reason"}),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_fanout_received_total", Help: "Pushes received: ok, named (to several users), group (to all members of one), signal, own (sent by this process) or garbage.",
		}, []string{"result"}),
	}
	for _, r := range []string{"full", "error"} {
		m.dropped.WithLabelValues(r)
	}
	for _, r := range []string{"ok", "named", "group", "signal", "own", "garbage"} {
		m.received.WithLabelValues(r)
	}
	healthy := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "core_fanout_healthy", Help: "1 while all subscribing connections stand.",
	}, func() float64 {
		if f.Healthy() {
			return 1
		}
		return 0
	})
	for _, c := range []prometheus.Collector{m.published, m.reconnects, m.presenceErrors, m.dropped, m.received, healthy} {
		if err := reg.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}
