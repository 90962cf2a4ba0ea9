package store_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/engine"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

var update = flag.Bool("update", false, "write golden files")

func cluster() store.Cluster {
	c := store.DefaultCluster()
	c.Name = "main"
	return c
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestStatements: what a single node is asked is what the files say, to the letter; what a
// cluster is asked is in a golden file of its own.
func TestStatements(t *testing.T) {
	for name, c := range map[string]store.Cluster{"single.sql": store.DefaultCluster(), "cluster.sql": cluster()} {
		statements, err := store.MigrationStatements(c, "tracegate")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, strings.Join(statements, ";\n\n")+";\n")
	}
}

func TestClusterIsChecked(t *testing.T) {
	for _, tt := range []struct {
		edit func(*store.Cluster)
		want string
	}{
		{func(*store.Cluster) {}, ""},
		{func(c *store.Cluster) { c.Name = "{cluster}" }, ""},
		{func(c *store.Cluster) { c.Path = "/x/{shard}/{uuid}/{table}" }, ""},
		{func(c *store.Cluster) { c.Name = "it's" }, "cluster"},
		{func(c *store.Cluster) { c.Path = "tables/{table}" }, "replica_path"},
		{func(c *store.Cluster) { c.Path = "/tables/{shard}" }, "replica_path"},
		{func(c *store.Cluster) { c.Replica = "" }, "replica"},
		{func(c *store.Cluster) { c.Replica = "', x" }, "replica"},
	} {
		c := cluster()
		tt.edit(&c)
		if err := c.Validate(); (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want+":") {
			t.Errorf("%+v: %v, want %q", c, err, tt.want)
		}
	}
}

// clusterFile is ClickHouse's configuration of a cluster that is this engine alone: it has
// no port for others. Its Keeper is the engine's own stand-in for tests, in memory.
const clusterFile = `<clickhouse>
  <tcp_port>9000</tcp_port>
  <remote_servers><main><shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9000</port></replica></shard></main></remote_servers>
  <macros><shard>01</shard><replica>node-1</replica></macros>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
</clickhouse>`

func startCluster(t *testing.T) *enginetest.Engine {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cluster.xml")
	if err := os.WriteFile(file, []byte(clusterFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return enginetest.Start(t, func(c *engine.Config) { c.File = file })
}

// openCluster is a store of an engine that is the only shard of a cluster.
func openCluster(t *testing.T) (*enginetest.Engine, store.Config, *store.Store) {
	t.Helper()
	e := startCluster(t)
	cfg := config(e)
	cfg.Addr, cfg.Cluster = node(t, e), cluster()
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return e, cfg, s
}

func plain(t *testing.T, addr, database string) driver.Conn {
	t.Helper()
	c, err := clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{addr},
		Auth: clickhouse.Auth{Database: database, Username: enginetest.User, Password: enginetest.Password},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var onCluster = regexp.MustCompile(` ON CLUSTER '[^']*'`)

// TestReplicatedTablesAreTaken has the engine read every statement for a cluster with its
// own parser, and make every Replicated table, where it meets its replicas: engines, their
// arguments, settings, keys and TTLs are good. It lets nobody write to them: it has no port
// for other replicas.
func TestReplicatedTablesAreTaken(t *testing.T) {
	e := startCluster(t)
	c := plain(t, e.Addr, "default")
	statements, err := store.MigrationStatements(cluster(), "default")
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, sql := range statements {
		var read string
		if err := c.QueryRow(t.Context(), "SELECT formatQuery(?)", sql).Scan(&read); err != nil {
			t.Errorf("%s\n%v", sql, err)
			continue
		}
		if !strings.HasPrefix(sql, "INSERT") && !strings.Contains(read, "ON CLUSTER main") {
			t.Errorf("not on the cluster:\n%s", read)
		}
		name, isTable := strings.CutPrefix(sql, "CREATE TABLE IF NOT EXISTS ")
		if !isTable || !strings.Contains(sql, "Replicated") {
			continue
		}
		if err := c.Exec(t.Context(), onCluster.ReplaceAllString(sql, "")); err != nil {
			t.Errorf("%s\n%v", sql, err)
		}
		made[strings.Fields(name)[0]] = true
	}
	rows, err := c.Query(t.Context(), "SELECT table, zookeeper_path, replica_name FROM system.replicas")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, path, replica string
		if err := rows.Scan(&table, &path, &replica); err != nil {
			t.Fatal(err)
		}
		wantPath, wantReplica := "/clickhouse/tables/01/default/"+table, "node-1"
		if table == "schema_migrations" {
			wantPath, wantReplica = "/clickhouse/tables/all/default/"+table, "01-node-1"
		}
		if !made[table] || path != wantPath || replica != wantReplica {
			t.Errorf("table %s is at %s as %s, want %s as %s", table, path, replica, wantPath, wantReplica)
		}
		delete(made, table)
	}
	if len(made) > 0 || rows.Err() != nil {
		t.Errorf("not replicated: %v, %v", made, rows.Err())
	}
	e.Kill() // in order it would wait for what it cannot reach
}

// node stands before an engine and takes from statements what needs other nodes, and only
// that: ON CLUSTER, replication and the native port. Distributed tables, local ones and the
// views between them stay.
func node(t *testing.T, e *enginetest.Engine) string {
	t.Helper()
	replicated := regexp.MustCompile(`Replicated(\w*MergeTree)\('[^']*', '[^']*'(?:, )?`)
	single := func(sql string) string {
		sql = onCluster.ReplaceAllString(sql, "")
		sql = replicated.ReplaceAllString(sql, "$1(")
		sql = strings.Replace(sql, "SYSTEM SYNC REPLICA schema_migrations", "SELECT 1 FORMAT Null", 1)
		return strings.Replace(sql, "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800", "non_replicated_deduplication_window = 10000", 1)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: e.Addr})
		q := r.In.URL.Query()
		for name, want := range map[string]string{"prefer_localhost_replica": "0", "load_balancing": "in_order", "distributed_foreground_insert": "1"} {
			if got := q.Get(name); got != want && q.Get("query") != "" {
				t.Errorf("setting %s = %q, want %q: %.60s", name, got, want, q.Get("query"))
			}
		}
		q.Del("prefer_localhost_replica")
		r.Out.URL.RawQuery = q.Encode()
		if q.Get("decompress") == "1" {
			return // rows
		}
		raw, err := io.ReadAll(r.In.Body)
		if err != nil {
			t.Error(err)
		}
		raw = []byte(single(string(raw)))
		r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	}}
	s := httptest.NewServer(http.HandlerFunc(proxy.ServeHTTP))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestClusterOfOne migrates, inserts, asks and downgrades as on a cluster, by an engine that
// is its only shard; see [node] for what it leaves out.
func TestClusterOfOne(t *testing.T) {
	e, cfg, s := openCluster(t)
	for range 2 {
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c := plain(t, e.Addr, cfg.Database)
	spans := request(1, 1, "core-1", "GET /a", at(0), time.Millisecond, "200")
	for range 3 { // a batch that is sent again counts once, in the views too
		if err := s.InsertSpans(t.Context(), "same", spans); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, c, "SELECT count() FROM otel_traces_local"); n != uint64(len(spans)) {
		t.Errorf("spans = %d, want %d", n, len(spans))
	}
	w := sli.Window{From: at(0), To: at(time.Minute)}
	stats, err := s.GroupStats(t.Context(), w)
	if err != nil || len(stats) != 1 || stats[0].Requests != 1 || stats[0].P95 == 0 {
		t.Errorf("statistics: %+v, %v", stats, err)
	}
	calls, _, err := s.Calls(t.Context(), w)
	if err != nil || len(calls) == 0 {
		t.Errorf("calls: %+v, %v", calls, err)
	}
	sample, err := s.Sample(t.Context(), store.TraceQuery{Group: spans[0].Traffic.Group, Window: w, Limit: 5, Attributes: map[string]string{"db.system": "postgresql"}})
	if err != nil || len(sample) != 1 || len(sample[0]) != len(spans) {
		t.Errorf("sample: %d traces, %v", len(sample), err)
	}
	if err := s.Mark(t.Context(), "me", time.Now()); err != nil {
		t.Fatal(err)
	}
	if at, err := s.Watermark(t.Context()); err != nil || at.IsZero() {
		t.Errorf("watermark %v, %v", at, err)
	}
	if _, err := s.KernelDurations(t.Context(), w); err != nil {
		t.Error(err)
	}
	if _, err := s.Saturation(t.Context(), w); err != nil {
		t.Error(err)
	}
	if _, err := s.CallPath(t.Context(), spans[0].Traffic.Group, w); err != nil {
		t.Error(err)
	}
	tables, err := s.Tables(t.Context())
	if err != nil || !slices.ContainsFunc(tables, func(t store.Table) bool {
		return t.Name == "otel_traces" && t.Rows == uint64(len(spans)) && t.Days == 3
	}) {
		t.Errorf("tables: %+v, %v", tables, err)
	}
	if disk, err := s.Disk(t.Context()); err != nil || disk.Total == 0 {
		t.Errorf("disk: %+v, %v", disk, err)
	}

	if err := s.Downgrade(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name IN ('traffic_call', 'traffic_call_local', 'otel_logs', 'otel_logs_local')"); n != 0 {
		t.Errorf("%d tables are still there", n)
	}
	if err := s.InsertSpans(t.Context(), "at 4", spans); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c, "SELECT sum(Requests) FROM traffic_group_1s"); n != 1 {
		t.Errorf("requests at 4 = %d, want 1", n)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertSpans(t.Context(), "again", spans); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c, "SELECT count() FROM otel_traces"); n != uint64(3*len(spans)) {
		t.Errorf("spans = %d, want %d", n, 3*len(spans))
	}
}

// TestLayoutsAreNotMixed: tables of one node do not become those of a cluster.
func TestLayoutsAreNotMixed(t *testing.T) {
	e := startCluster(t)
	clustered, single := config(e), config(e)
	clustered.Addr, clustered.Cluster = node(t, e), cluster()
	for i, cfgs := range [][2]store.Config{{clustered, single}, {single, clustered}} {
		for j, cfg := range cfgs {
			cfg.Database = fmt.Sprint("db", i)
			s, err := store.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Migrate(t.Context()); (err != nil) != (j == 1) || err != nil && !strings.Contains(err.Error(), "has tables of a") {
				t.Errorf("%d: cluster %q: %v", i, cfg.Cluster.Name, err)
			}
			s.Close()
		}
	}
}
