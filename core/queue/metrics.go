package queue

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tracegate/tracegate/core/chat"
)

type producerMetrics struct {
	accepted *prometheus.CounterVec
	seconds  prometheus.Histogram
}

func newProducerMetrics(reg prometheus.Registerer, client *kgo.Client) (producerMetrics, error) {
	m := producerMetrics{
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_queue_accepted_total",
			Help: "Records handed to the log by result: ok, full (refused, nothing sent), unstored (the same, because too much waits to be stored) or error (not known to be durable).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "core_queue_accept_seconds", Help: "Time until the log acknowledged a record.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	for _, result := range []string{"ok", "full", "unstored", "error"} {
		m.accepted.WithLabelValues(result)
	}
	buffered := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "core_queue_buffered_records", Help: "Records waiting for an acknowledgement.",
	}, func() float64 { return float64(client.BufferedProduceRecords()) })
	return m, register(reg, m.accepted, m.seconds, buffered)
}

func (m producerMetrics) observe(err error, d time.Duration) {
	switch {
	case err == nil:
		m.accepted.WithLabelValues("ok").Inc()
		m.seconds.Observe(d.Seconds())
	case errors.Is(err, ErrFull):
		m.accepted.WithLabelValues("full").Inc()
	default:
		m.accepted.WithLabelValues("error").Inc()
	}
}

type consumerMetrics struct {
	consumed, retries, commitErrors, fetchErrors, rejoins prometheus.Counter
	dead                                                  *prometheus.CounterVec
	batch                                                 prometheus.Histogram
	lag                                                   *prometheus.GaugeVec
}

func newConsumerMetrics(reg prometheus.Registerer) (consumerMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := consumerMetrics{
		consumed:     counter("core_queue_consumed_total", "Records stored or buried, and committed."),
		retries:      counter("core_queue_store_retries_total", "Batches that could not be stored and were tried again."),
		commitErrors: counter("core_queue_commit_errors_total", "Commits that failed; their records come again."),
		fetchErrors:  counter("core_queue_fetch_errors_total", "Fetches that failed for a partition."),
		rejoins:      counter("core_queue_rejoins_total", "Times the consumer left its group because it could not go on."),
		dead: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_queue_dead_total", Help: "Records written to the dead-letter topic by reason.",
		}, []string{"reason"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "core_queue_batch_records", Help: "Records fetched at a time.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "core_queue_lag_records", Help: "Records behind the end of a partition after its last commit here.",
		}, []string{"partition"}),
	}
	for _, reason := range chat.Reasons() {
		m.dead.WithLabelValues(string(reason))
	}
	return m, register(reg, m.consumed, m.retries, m.commitErrors, m.fetchErrors, m.rejoins, m.dead, m.batch, m.lag)
}

func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
