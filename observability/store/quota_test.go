package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/store"
)

func TestExcess(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	day := func(n int, bytes uint64) store.Partition {
		from := now.Truncate(24*time.Hour).AddDate(0, 0, n)
		return store.Partition{ID: from.Format("20060102"), Bytes: bytes, From: from.Add(time.Hour), To: from.Add(23 * time.Hour)}
	}
	for _, tt := range []struct {
		name       string
		partitions []store.Partition
		bound      uint64
		want       string
	}{
		{"nothing", nil, 10, ""},
		{"as much as it may", []store.Partition{day(-1, 5), day(0, 5)}, 10, ""},
		{"a byte more", []store.Partition{day(-1, 5), day(0, 6)}, 10, "20260309"},
		{"the oldest first, in any order", []store.Partition{day(0, 5), day(-3, 1), day(-1, 5), day(-2, 5)}, 10, "20260307 20260308"},
		{"no more than it takes", []store.Partition{day(-3, 5), day(-2, 5), day(-1, 5), day(0, 5)}, 16, "20260307"},
		{"never today", []store.Partition{day(-1, 5), day(0, 50)}, 10, "20260309"},
		{"never the only one", []store.Partition{day(0, 50)}, 10, ""},
		{"not today for what a wrong clock wrote", []store.Partition{day(-1, 5), day(0, 5), day(30, 50)}, 10, "20260309"},
		{"the newest of days that are over stays", []store.Partition{day(-9, 5), day(-8, 50)}, 10, "20260301"},
		{"nothing but what a wrong clock wrote", []store.Partition{day(1, 5), day(2, 50)}, 10, ""},
	} {
		var got []string
		for _, p := range store.Excess(tt.partitions, tt.bound, now) {
			got = append(got, p.ID)
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestEarly(t *testing.T) {
	to := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		days  uint64
		after time.Duration
		want  bool
	}{{3, 72*time.Hour - 1, true}, {3, 72 * time.Hour, false}, {0, 1000 * time.Hour, true}} {
		if got := (store.Partition{To: to, Days: tt.days}).Early(to.Add(tt.after)); got != tt.want {
			t.Errorf("kept %d days, after %s: early %t", tt.days, tt.after, got)
		}
	}
}

func TestQuotasAreChecked(t *testing.T) {
	for table, want := range map[string]bool{
		"otel_traces": true, "otel_logs": true, "otel_metrics_sum": true, "traffic_group": true, "traffic_call": true, "traffic_decisions": true,
		"schema_migrations": false, "traffic_watermark": false, "otel_metrics_": false, "otel_traces; DROP": false,
	} {
		cfg := store.DefaultConfig()
		cfg.Quotas = map[string]uint64{table: 1}
		if err := cfg.Validate(); (err == nil) != want {
			t.Errorf("%s: %v", table, err)
		}
	}
	cfg := store.DefaultConfig()
	cfg.Quotas = map[string]uint64{"otel_traces": 0}
	if cfg.Validate() == nil {
		t.Error("a quota of nothing is taken")
	}
}

// TestQuotaDropsTheOldestDays has three days of spans and their statistics, and one of a
// sender whose clock is a day ahead, on one node and as on a cluster.
func TestQuotaDropsTheOldestDays(t *testing.T) {
	e := startCluster(t)
	single, clustered := config(e), config(e)
	clustered.Database, clustered.Addr, clustered.Cluster = "many", node(t, e), cluster()
	for _, cfg := range []store.Config{single, clustered} {
		t.Run(cfg.Database, func(t *testing.T) { testQuota(t, cfg, plain(t, e.Addr, cfg.Database)) })
	}
}

func testQuota(t *testing.T, cfg store.Config, c driver.Conn) {
	t.Helper()
	now := time.Now().UTC()
	open := func(quotas map[string]uint64) *store.Store {
		cfg.Quotas = quotas
		s, err := store.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	free := open(nil)
	if err := free.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	days := []int{-2, -1, 0, 1}
	for _, day := range days {
		var spans []store.Span
		for range 500 {
			spans = append(spans, entry(1, "prod", "search", "baseline", now.AddDate(0, 0, day), time.Millisecond, "Ok"))
		}
		if err := free.InsertSpans(t.Context(), fmt.Sprint("day ", day), spans); err != nil {
			t.Fatal(err)
		}
	}
	sizes := map[string]store.Table{}
	tables, err := free.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		sizes[table.Name] = table
	}
	shrink := func(s *store.Store, want ...int) {
		t.Helper()
		got, err := s.Shrink(t.Context(), now)
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string][]string{}
		for _, p := range got {
			ids[p.Table] = append(ids[p.Table], p.ID)
			if p.Bytes == 0 || p.Rows == 0 || !p.Early(now) {
				t.Errorf("dropped %+v, want what it had, and early", p)
			}
		}
		var expected []string
		for _, day := range want {
			expected = append(expected, now.AddDate(0, 0, day).Format("20060102"))
		}
		for _, table := range []string{"otel_traces", "traffic_group"} {
			if diff := cmp.Diff(expected, ids[table]); diff != "" {
				t.Errorf("dropped of %s (-want +got):\n%s", table, diff)
			}
		}
	}
	left := func(want uint64) {
		t.Helper()
		if n := count(t, c, "SELECT count() FROM otel_traces"); n != want {
			t.Errorf("%d spans are left, want %d", n, want)
		}
	}
	shrink(free)
	shrink(open(map[string]uint64{"otel_traces": sizes["otel_traces"].Bytes, "traffic_group": sizes["traffic_group"].Bytes}))
	left(2000)
	byte1 := open(map[string]uint64{"otel_traces": sizes["otel_traces"].Bytes - 1, "traffic_group": sizes["traffic_group"].Bytes - 1})
	shrink(byte1, -2)
	left(1500)
	shrink(byte1)
	shrink(open(map[string]uint64{"otel_traces": 1, "traffic_group": 1}), -1)
	left(1000)
	tables, err = byte1.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if table.Name == "otel_traces" && table.Quota != sizes["otel_traces"].Bytes-1 {
			t.Errorf("quota of %+v, want %d", table, sizes["otel_traces"].Bytes-1)
		}
	}
}

// TestEveryTableHasDays: what can have a quota is kept by days or months, and all that
// grows can have one.
func TestEveryTableHasDays(t *testing.T) {
	_, c, _ := open(t)
	rows, err := c.Query(t.Context(), "SELECT name, partition_key FROM system.tables WHERE database = 'tracegate' AND engine LIKE '%MergeTree'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, key string
		if err := rows.Scan(&name, &key); err != nil {
			t.Fatal(err)
		}
		if byTime := strings.HasPrefix(key, "toDate(") || strings.HasPrefix(key, "toYYYYMM("); byTime != store.Bounded(name) {
			t.Errorf("table %s is partitioned by %q, and can have a quota: %t", name, key, store.Bounded(name))
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
