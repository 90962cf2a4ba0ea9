package observability

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/observability/store"
)

// storage shows at /metrics what the tables take on disk.
type storage struct {
	rows, bytes, parts *prometheus.GaugeVec
}

func newStorage(reg prometheus.Registerer) (*storage, error) {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tracegate_store_table_" + name, Help: help}, []string{"table"})
	}
	s := &storage{rows: gauge("rows", "Rows of a table."), bytes: gauge("bytes", "What a table takes on disk."), parts: gauge("parts", "Parts a table is in.")}
	for _, g := range []*prometheus.GaugeVec{s.rows, s.bytes, s.parts} {
		if err := reg.Register(g); err != nil {
			return nil, fmt.Errorf("register storage metrics: %w", err)
		}
	}
	return s, nil
}

// run asks every so often until ctx is done. Where ClickHouse does not answer nothing is
// shown: old sizes would look alive.
func (s *storage) run(ctx context.Context, tables func(context.Context) ([]store.Table, error), every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		list, err := tables(ctx)
		for _, g := range []*prometheus.GaugeVec{s.rows, s.bytes, s.parts} {
			g.Reset()
		}
		if err == nil {
			for _, t := range list {
				s.rows.WithLabelValues(t.Name).Set(float64(t.Rows))
				s.bytes.WithLabelValues(t.Name).Set(float64(t.Bytes))
				s.parts.WithLabelValues(t.Name).Set(float64(t.Parts))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
