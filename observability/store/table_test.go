package store_test

import (
	"testing"
	"time"

	"github.com/tracegate/tracegate/observability/store"
)

// TestTablesSayHowLongTheyKeep: sizes, the oldest day and the rules of time are ClickHouse's
// own, so an ALTER TABLE shows.
func TestTablesSayHowLongTheyKeep(t *testing.T) {
	s, c, _ := open(t)
	start := at(0)
	if err := s.InsertSpans(t.Context(), "one", []store.Span{entry(1, "prod", "search", "baseline", start, time.Millisecond, "Ok")}); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(t.Context(), "ALTER TABLE otel_traces MODIFY TTL toDateTime(Timestamp) + INTERVAL 9 DAY"); err != nil {
		t.Fatal(err)
	}
	tables, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]store.Table{}
	for _, table := range tables {
		got[table.Name] = table
	}
	spans := got["otel_traces"]
	if spans.Rows != 1 || spans.Bytes == 0 || spans.Parts != 1 || spans.Days != 9 || spans.Oldest.Sub(start).Abs() > time.Second {
		t.Errorf("spans: %+v, of %v", spans, start)
	}
	if d := got["traffic_group"].Days; d != 90 {
		t.Errorf("statistics are kept %d days, want 90, the longest", d)
	}
	if m := got["schema_migrations"]; m.Days != 0 || !m.Oldest.IsZero() {
		t.Errorf("migrations: %+v, want no end", m)
	}
	disk, err := s.Disk(t.Context())
	if err != nil || disk.Free == 0 || disk.Total < disk.Free {
		t.Errorf("disk %+v, %v", disk, err)
	}
}
