package ingest

import "github.com/prometheus/client_golang/prometheus"

// collector shows the account as Prometheus metrics: one truth for /metrics, the console
// and tests.
type collector struct {
	account func() Account

	received, recovered, stored, refused, dropped, cut *prometheus.Desc
	spooled, pending, spoolSegments, spoolBytes, away  *prometheus.Desc
}

func newCollector(account func() Account) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tracegate_ingest_"+name, help, labels, nil)
	}
	const table = "table"
	return &collector{
		account:       account,
		received:      d("received_records_total", "Records received: received + recovered = stored + spooled + pending + dropped.", table),
		recovered:     d("recovered_records_total", "Records found in the spool at the start.", table),
		stored:        d("stored_records_total", "Records acknowledged by ClickHouse.", table),
		refused:       d("refused_records_total", "Records in messages turned away because too much was pending; their senders keep them.", table),
		dropped:       d("dropped_records_total", "Records that are lost, by table and reason.", table, "reason"),
		cut:           d("cut_total", "Things cut from stored records, by kind.", "kind"),
		spooled:       d("spooled_records", "Records on disk now.", table),
		pending:       d("pending_records", "Records in memory now, not acknowledged yet.", table),
		spoolSegments: d("spool_segments", "Files on disk now; each is stored by one insert."),
		spoolBytes:    d("spool_bytes", "Bytes on disk now."),
		away:          d("clickhouse_away", "1 while ClickHouse does not take batches."),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	a := c.account()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for t, f := range a.Tables {
		table := string(t)
		counter(c.received, f.Received, table)
		counter(c.recovered, f.Recovered, table)
		counter(c.stored, f.Stored, table)
		counter(c.refused, f.Refused, table)
		for reason, n := range f.Dropped {
			counter(c.dropped, n, table, string(reason))
		}
		gauge(c.spooled, float64(f.Spooled), table)
		gauge(c.pending, float64(f.Pending), table)
	}
	for kind, n := range a.Cut {
		counter(c.cut, n, string(kind))
	}
	gauge(c.spoolSegments, float64(a.SpoolSegments))
	gauge(c.spoolBytes, float64(a.SpoolBytes))
	away := 0.0
	if a.Away {
		away = 1
	}
	gauge(c.away, away)
}
