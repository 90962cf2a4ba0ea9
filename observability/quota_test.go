package observability

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/observability/store"
)

// TestQuotasTell: what was dropped is counted and told, also where it failed on the way.
func TestQuotasTell(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	shrink := func(_ context.Context, at time.Time) ([]store.Partition, error) {
		return []store.Partition{
			{Table: "otel_traces", ID: "20260308", Bytes: 70, To: at.AddDate(0, 0, -2), Days: 3},
			{Table: "otel_traces", ID: "20260307", Bytes: 30, To: at.AddDate(0, 0, -3), Days: 3},
		}, errors.New("away")
	}
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	q, err := newQuotas(shrink, map[string]uint64{"otel_traces": 1000}, func() time.Time { return now }, reg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	q.look(t.Context())
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`# HELP tracegate_store_quota_bytes What a table may take on disk.
# TYPE tracegate_store_quota_bytes gauge
tracegate_store_quota_bytes{table="otel_traces"} 1000
# HELP tracegate_store_quota_dropped_bytes_total What they had on disk.
# TYPE tracegate_store_quota_dropped_bytes_total counter
tracegate_store_quota_dropped_bytes_total{table="otel_traces"} 100
# HELP tracegate_store_quota_dropped_partitions_total Days (of decisions: months) dropped because a table had more than its quota; early: they would have been kept.
# TYPE tracegate_store_quota_dropped_partitions_total counter
tracegate_store_quota_dropped_partitions_total{early="false",table="otel_traces"} 1
tracegate_store_quota_dropped_partitions_total{early="true",table="otel_traces"} 1
`)); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"partition=20260308", "early=false", "error=away"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log has no %s:\n%s", want, log.String())
		}
	}
}
