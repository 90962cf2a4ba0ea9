package observability

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/observability/store"
)

// quotas holds tables to what they may take on disk.
type quotas struct {
	shrink     func(context.Context, time.Time) ([]store.Partition, error)
	now        func() time.Time
	log        *slog.Logger
	partitions *prometheus.CounterVec
	bytes      *prometheus.CounterVec
}

func newQuotas(shrink func(context.Context, time.Time) ([]store.Partition, error), bounds map[string]uint64, now func() time.Time, reg prometheus.Registerer, log *slog.Logger) (*quotas, error) {
	bound := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tracegate_store_quota_bytes", Help: "What a table may take on disk."}, []string{"table"})
	q := &quotas{
		shrink: shrink, now: now, log: log,
		partitions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tracegate_store_quota_dropped_partitions_total",
			Help: "Days (of decisions: months) dropped because a table had more than its quota; early: they would have been kept."}, []string{"table", "early"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tracegate_store_quota_dropped_bytes_total", Help: "What they had on disk."}, []string{"table"}),
	}
	for _, c := range []prometheus.Collector{bound, q.partitions, q.bytes} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register quota metrics: %w", err)
		}
	}
	for table, n := range bounds { // from the start, so that the first drop is an increase
		bound.WithLabelValues(table).Set(float64(n))
		q.bytes.WithLabelValues(table)
		for _, early := range []string{"false", "true"} {
			q.partitions.WithLabelValues(table, early)
		}
	}
	return q, nil
}

// run looks every so often until ctx is done. Where ClickHouse does not answer it waits for
// the next time.
func (q *quotas) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		q.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (q *quotas) look(ctx context.Context) {
	now := q.now()
	dropped, err := q.shrink(ctx, now)
	for _, p := range dropped {
		early := p.Early(now)
		q.partitions.WithLabelValues(p.Table, strconv.FormatBool(early)).Inc()
		q.bytes.WithLabelValues(p.Table).Add(float64(p.Bytes))
		q.log.Warn("a table had more than its quota, its oldest rows are dropped", "table", p.Table, "partition", p.ID, "rows", p.Rows, "bytes", p.Bytes, "from", p.From, "to", p.To, "early", early)
	}
	if err != nil && ctx.Err() == nil {
		q.log.Warn("tables could not be held to their quotas, trying again", "error", err)
	}
}
