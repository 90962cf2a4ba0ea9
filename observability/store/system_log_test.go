package store_test

import (
	"encoding/xml"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/store"
)

func names(logs []store.SystemLog) string {
	var out []string
	for _, l := range logs {
		out = append(out, l.Name)
	}
	return strings.Join(out, " ")
}

// TestSystemLogsAreBounded has tables as a server writes about itself; the embedded engine
// writes none.
func TestSystemLogsAreBounded(t *testing.T) {
	s, c, e := open(t)
	if logs, err := s.SystemLogs(t.Context()); err != nil || len(logs) != 0 {
		t.Fatalf("logs of the embedded engine: %+v, %v; want none", logs, err)
	}
	for _, sql := range []string{
		"CREATE TABLE system.query_log (event_date Date, event_time DateTime, x UInt8) ENGINE = MergeTree PARTITION BY toYYYYMM(event_date) ORDER BY (event_date, event_time)",
		"CREATE TABLE system.query_log_0 AS system.query_log ENGINE = MergeTree ORDER BY event_date",
		"CREATE TABLE system.opentelemetry_span_log (finish_date Date, x UInt8) ENGINE = MergeTree ORDER BY finish_date",
		"CREATE TABLE system.part_log (event_date Date, x UInt8) ENGINE = MergeTree ORDER BY event_date TTL event_date + INTERVAL 30 DAY",
		"CREATE TABLE system.odd_log (x UInt8) ENGINE = MergeTree ORDER BY x",
		"CREATE TABLE system.logbook (event_date Date) ENGINE = MergeTree ORDER BY event_date",
		"INSERT INTO system.query_log SELECT today() - number, now(), 1 FROM numbers(10)",
	} {
		if err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	bounded, endless, err := s.BoundSystemLogs(t.Context(), 0)
	if err != nil || len(bounded) != 0 || names(endless) != "odd_log opentelemetry_span_log query_log query_log_0" {
		t.Errorf("left alone: bounded %q, endless %q, %v", names(bounded), names(endless), err)
	}
	if i := slices.IndexFunc(endless, func(l store.SystemLog) bool { return l.Name == "query_log" }); i < 0 || endless[i].Bytes == 0 {
		t.Errorf("no size: %+v", endless)
	}
	bounded, endless, err = s.BoundSystemLogs(t.Context(), 7)
	if names(bounded) != "opentelemetry_span_log query_log query_log_0" || names(endless) != "odd_log" || err == nil || !strings.Contains(err.Error(), "system.odd_log") {
		t.Errorf("bounded %q, endless %q, %v", names(bounded), names(endless), err)
	}
	for _, sql := range []string{"ALTER TABLE system.query_log MATERIALIZE TTL SETTINGS mutations_sync = 1", "OPTIMIZE TABLE system.query_log FINAL"} { // waits for what was begun
		if err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, c, "SELECT count() FROM system.query_log"); n != 7 {
		t.Errorf("rows after seven days = %d of 10, want 7", n)
	}
	if n := count(t, c, "SELECT count() FROM system.tables WHERE name = 'part_log' AND engine_full LIKE '%TTL event_date + toIntervalDay(30)%'"); n != 1 {
		t.Error("a rule of the server was changed")
	}
	tables, err := s.Tables(t.Context())
	if err != nil || !slices.ContainsFunc(tables, func(t store.Table) bool {
		return t.Name == "system.query_log" && t.Rows == 7 && t.Days == 7 && t.Bytes > 0
	}) ||
		slices.ContainsFunc(tables, func(t store.Table) bool { return t.Name == "system.logbook" }) {
		t.Errorf("sizes: %+v, %v", tables, err)
	}

	// On a cluster it is said to every node.
	clustered := config(e)
	clustered.Cluster = cluster()
	other, err := store.Open(clustered)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, _, err := other.BoundSystemLogs(t.Context(), 7); err == nil || !strings.Contains(err.Error(), "main") {
		t.Errorf("without that cluster: %v, want an error that names it", err)
	}
}

// TestSystemLogsOfACluster asks all replicas.
func TestSystemLogsOfACluster(t *testing.T) {
	e, cfg, s := openCluster(t)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := plain(t, e.Addr, cfg.Database)
	if err := c.Exec(t.Context(), "CREATE TABLE system.query_log (event_date Date) ENGINE = MergeTree ORDER BY event_date"); err != nil {
		t.Fatal(err)
	}
	if bounded, endless, err := s.BoundSystemLogs(t.Context(), 3); err != nil || names(bounded) != "query_log" || len(endless) != 0 {
		t.Errorf("bounded %q, endless %q, %v", names(bounded), names(endless), err)
	}
	if logs, err := s.SystemLogs(t.Context()); err != nil || len(logs) != 1 || logs[0].Endless {
		t.Errorf("afterwards: %+v, %v", logs, err)
	}
}

// TestSystemLogsFile: the file for a server's config.d is XML that says for each log how long
// it is kept, and the engine starts with it.
func TestSystemLogsFile(t *testing.T) {
	raw, err := os.ReadFile("system_logs.xml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Logs []struct {
			XMLName xml.Name
			TTL     string `xml:"ttl"`
			Engine  string `xml:"engine"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	e := enginetest.Start(t)
	c := plain(t, e.Addr, "default")
	for _, l := range file.Logs {
		day, rest := "event_date", "ENGINE = MergeTree ORDER BY tuple() TTL "+l.TTL
		if l.Engine != "" {
			day, rest = "finish_date", "ENGINE = "+strings.TrimPrefix(strings.TrimSpace(l.Engine), "engine ")
		}
		if !strings.HasSuffix(l.XMLName.Local, "_log") {
			t.Errorf("%s is no log", l.XMLName.Local)
		}
		if err := c.Exec(t.Context(), "CREATE TABLE "+l.XMLName.Local+" ("+day+" Date, finish_time_us UInt64) "+rest); err != nil {
			t.Errorf("%s: %v", l.XMLName.Local, err)
		}
	}
	if n := count(t, c, "SELECT count() FROM system.tables WHERE database = 'default' AND engine_full LIKE '%toIntervalDay(7)%'"); n < 10 || n != uint64(len(file.Logs)) {
		t.Errorf("logs with an end = %d of %d", n, len(file.Logs))
	}
}
