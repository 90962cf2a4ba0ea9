package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/tracegate/tracegate/observability/engine"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// open connects as the product does.
func open(t *testing.T, addr string, edits ...func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	o := &clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        []string{addr},
		Auth:        clickhouse.Auth{Username: enginetest.User, Password: enginetest.Password},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
	}
	for _, edit := range edits {
		edit(o)
	}
	c, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustExec(t *testing.T, c driver.Conn, sql string) {
	t.Helper()
	if err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestClickHouseGo(t *testing.T) {
	e := enginetest.Start(t)
	for name, method := range map[string]clickhouse.CompressionMethod{
		"none": clickhouse.CompressionNone, "lz4": clickhouse.CompressionLZ4, "zstd": clickhouse.CompressionZSTD, "gzip": clickhouse.CompressionGZIP,
	} {
		t.Run(name, func(t *testing.T) {
			db := "db_" + name
			mustExec(t, open(t, e.Addr), "CREATE DATABASE "+db)
			c := open(t, e.Addr, func(o *clickhouse.Options) {
				o.Compression = &clickhouse.Compression{Method: method, Level: 3}
				o.Auth.Database = db
			})
			t.Run("insert and read back", func(t *testing.T) { testRoundTrip(t, c) })
			t.Run("parameters and settings", func(t *testing.T) { testParameters(t, c) })
			t.Run("errors are typed", func(t *testing.T) { testErrors(t, c) })
			t.Run("large result", func(t *testing.T) { testLargeResult(t, c) })
		})
	}
}

func testRoundTrip(t *testing.T, c driver.Conn) {
	t.Helper()
	mustExec(t, c, "CREATE TABLE spans (id UInt64, name String, at DateTime64(9, 'UTC'), attrs Map(LowCardinality(String), String), opt Nullable(Int32)) ENGINE = MergeTree ORDER BY id")
	b, err := c.PrepareBatch(t.Context(), "INSERT INTO spans")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	for i := range 1000 {
		var opt *int32
		if i%3 == 0 {
			v := int32(i)
			opt = &v
		}
		if err := b.Append(uint64(i), "it's\n\x00", now.Add(time.Duration(i)), map[string]string{"k": fmt.Sprint(i)}, opt); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Query(t.Context(), "SELECT id, name, at, attrs, opt FROM spans ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var id uint64
		var name string
		var at time.Time
		var attrs map[string]string
		var opt *int32
		if err := rows.Scan(&id, &name, &at, &attrs, &opt); err != nil {
			t.Fatal(err)
		}
		if id != uint64(n) || name != "it's\n\x00" || !at.Equal(now.Add(time.Duration(n))) || attrs["k"] != fmt.Sprint(n) || (opt != nil) != (n%3 == 0) {
			t.Fatalf("row %d = %d %q %s %v %v", n, id, name, at, attrs, opt)
		}
	}
	if err := rows.Err(); err != nil || n != 1000 {
		t.Fatalf("read %d rows, error %v; want 1000", n, err)
	}
}

func testParameters(t *testing.T, c driver.Conn) {
	t.Helper()
	var g sync.WaitGroup
	for w := range 8 {
		g.Go(func() {
			for i := range 10 {
				want := uint64(w*1000 + i)
				ctx := clickhouse.Context(t.Context(), clickhouse.WithParameters(clickhouse.Parameters{"a": fmt.Sprint(want)}),
					clickhouse.WithSettings(clickhouse.Settings{"max_threads": 1 + w%2}))
				var got, threads uint64
				if err := c.QueryRow(ctx, "SELECT {a:UInt64}, toUInt64(getSetting('max_threads'))").Scan(&got, &threads); err != nil {
					t.Error(err)
				}
				if got != want || threads != uint64(1+w%2) {
					t.Errorf("a = %d, max_threads = %d; want %d, %d", got, threads, want, 1+w%2)
				}
			}
		})
	}
	g.Wait()
}

func testErrors(t *testing.T, c driver.Conn) {
	t.Helper()
	for _, tc := range []struct {
		name     string
		settings clickhouse.Settings
		sql      string
		code     int32
	}{
		{"unknown table", nil, "SELECT * FROM nope", 60},
		{"syntax", nil, "SELEC 1", 62},
		{"unknown column", nil, "SELECT nope FROM system.one", 47},
		{"unknown setting", clickhouse.Settings{"no_such_setting": 1}, "SELECT 1", 115},
		{"limit by setting", clickhouse.Settings{"max_rows_to_read": 10}, "SELECT sum(number) FROM numbers(1000)", 158},
		{"in the middle of the result", nil, "SELECT number, throwIf(number = 900000) FROM numbers(2000000) SETTINGS max_block_size = 10000", 395},
		{"too much memory", nil, "SELECT groupArray(number) FROM numbers(10000000000) SETTINGS max_memory_usage = 100000000", 241},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rows, err := c.Query(clickhouse.Context(t.Context(), clickhouse.WithSettings(tc.settings)), tc.sql)
			if err == nil {
				for rows.Next() {
				}
				err = rows.Err()
			}
			var ex *clickhouse.Exception
			if !errors.As(err, &ex) || ex.Code != tc.code {
				t.Errorf("error = %v, want an exception of code %d", err, tc.code)
			}
		})
	}
}

func testLargeResult(t *testing.T, c driver.Conn) {
	t.Helper()
	rows, err := c.Query(t.Context(), "SELECT number, toString(number) FROM numbers(300000)")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var n, sum uint64
	for rows.Next() {
		var x uint64
		var s string
		if err := rows.Scan(&x, &s); err != nil {
			t.Fatal(err)
		}
		n, sum = n+1, sum+x
	}
	if rows.Err() != nil || n != 300000 || sum != 300000*299999/2 {
		t.Errorf("rows = %d, sum = %d, error %v", n, sum, rows.Err())
	}
}

// post sends a request as curl would.
func post(t *testing.T, addr, query, body string, edits ...func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/?"+query, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(enginetest.User, enginetest.Password)
	for _, edit := range edits {
		edit(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPlainHTTP(t *testing.T) {
	e := enginetest.Start(t, func(c *engine.Config) { c.MaxBody, c.MaxQuery = 1<<20, 64<<10 })
	anonymous := func(r *http.Request) { r.Header.Del("Authorization") }
	for _, tc := range []struct {
		name, query, body string
		edit              func(*http.Request)
		status            int
		want              string // substring
	}{
		{"select in body", "", "SELECT 1 + 1", nil, 200, "2\n"},
		{"format clause", "", "SELECT 1 AS x FORMAT JSON", nil, 200, `"x": 1`},
		{"database that is not there", "database=nope", "SELECT 1", nil, 404, "Code: 81"},
		{"no password", "", "SELECT 1", anonymous, 401, "Code: 194"},
		{"wrong password", "", "SELECT 1", func(r *http.Request) { r.SetBasicAuth(enginetest.User, "nope") }, 403, "Code: 516"},
		{"wrong user", "", "SELECT 1", func(r *http.Request) { r.SetBasicAuth("default", enginetest.Password) }, 403, "Code: 516"},
		{"header authentication", "", "SELECT 7", func(r *http.Request) {
			anonymous(r)
			r.Header.Set("X-ClickHouse-User", enginetest.User)
			r.Header.Set("X-ClickHouse-Key", enginetest.Password)
		}, 200, "7\n"},
		{"password in the URL", "user=tracegate&password=test-password", "SELECT 1", nil, 401, "not from the URL"},
		{"session", "session_id=1", "SELECT 1", nil, 501, "no sessions"},
		{"bad setting value", "max_threads=many", "SELECT 1", nil, 400, "many"},
		{"get may not write", "query=CREATE+DATABASE+x", "", func(r *http.Request) { r.Method = http.MethodGet }, 403, "Code: 164"},
		{"statement too large", "", "SELECT '" + strings.Repeat("x", 65<<10) + "'", nil, 413, "Code: 307"},
		{"insert without data", "", "INSERT INTO FUNCTION null('x Int8') FORMAT CSV", nil, 400, "Code: 108"},
		{"not gzip", "", "x", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, 400, "Code: 33"},
		{"not compressed blocks", "decompress=1", "SELECT 1, 'a text of more than thirty bytes'", nil, 500, "Code:"},
		{"bad protocol version", "client_protocol_version=x", "SELECT 1", nil, 400, "client_protocol_version"},
		{"bad format name", "default_format=%27", "SELECT 1", nil, 400, "Code: 73"},
		{"empty statement", "", "", nil, 400, "Code: 62"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var edits []func(*http.Request)
			if tc.edit != nil {
				edits = append(edits, tc.edit)
			}
			status, body := post(t, e.Addr, tc.query, tc.body, edits...)
			if status != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("answer = %d %q, want %d and %q", status, body, tc.status, tc.want)
			}
		})
	}
	t.Run("data after the statement", func(t *testing.T) {
		post(t, e.Addr, "", "CREATE TABLE default.v (id UInt64) ENGINE = MergeTree ORDER BY id")
		if status, body := post(t, e.Addr, "query=INSERT+INTO+default.v+VALUES", "(1), (2)"); status != 200 {
			t.Fatalf("insert values: %d %s", status, body)
		}
		if status, body := post(t, e.Addr, "query=INSERT+INTO+default.v+FORMAT+CSV", "3\n4\n"); status != 200 {
			t.Fatalf("insert csv: %d %s", status, body)
		}
		if status, body := post(t, e.Addr, "query=INSERT+INTO+default.v+FORMAT+CSV", strings.Repeat("5\n", 1<<20)); status != 413 {
			t.Errorf("too large an insert: %d %s, want 413", status, body)
		}
		if status, body := post(t, e.Addr, "query=INSERT+INTO+default.v+FORMAT+CSV", "x\n"); status != 400 || !strings.Contains(body, "Code: 117") {
			t.Errorf("bad csv: %d %s, want 400 and code 117", status, body)
		}
		if _, body := post(t, e.Addr, "", "SELECT sum(id), count() FROM default.v"); body != "10\t4\n" {
			t.Errorf("sum, count = %q, want 10 and 4", body)
		}
	})
	t.Run("insert values without data", func(t *testing.T) {
		if status, body := post(t, e.Addr, "query=INSERT+INTO+default.v+VALUES", ""); status == 200 {
			t.Errorf("answer = %d %q, want an error", status, body)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		resp, err := http.Get("http://" + e.Addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if !strings.Contains(string(b), `tracegate_clickhouse_refused_total{reason="authentication"} 3`) {
			t.Errorf("three refused logins are not counted in:\n%s", b)
		}
	})
	t.Run("no log tables fill the disk", func(t *testing.T) {
		if _, body := post(t, e.Addr, "", "SELECT name FROM system.tables WHERE database = 'system' AND name LIKE '%\\_log' AND engine LIKE '%MergeTree'"); body != "" {
			t.Errorf("log tables: %q", body)
		}
	})
}

func TestClientThatLeavesEndsItsStatement(t *testing.T) {
	e := enginetest.Start(t)
	c := open(t, e.Addr)
	for _, sql := range []string{
		"SELECT sum(cityHash64(number, rand())) FROM numbers(50000000000)", // nothing to stream until the end
		"SELECT cityHash64(number) FROM numbers(50000000000)",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			waitFor(t, func() bool { return running(t, c) == 1 })
			cancel()
		}()
		rows, err := c.Query(ctx, sql)
		if err == nil {
			for rows.Next() {
			}
		}
		cancel()
		waitFor(t, func() bool { return running(t, c) == 0 })
	}
}

// running counts statements other than its own.
func running(t *testing.T, c driver.Conn) uint64 {
	var n uint64
	if err := c.QueryRow(context.WithoutCancel(t.Context()), "SELECT count() FROM system.processes WHERE query LIKE '%cityHash64%' AND query NOT LIKE '%system.processes%'").Scan(&n); err != nil {
		t.Error(err)
	}
	return n
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Error("condition not met within 20 s")
			return
		}
		time.Sleep(5 * time.Millisecond) // polling a condition with a deadline
	}
}

func TestTooManyStatements(t *testing.T) {
	e := enginetest.Start(t, func(c *engine.Config) { c.MaxQueries, c.MaxWaiting = 2, 1 })
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	for range 3 { // two run, one waits
		g.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+e.Addr, strings.NewReader("SELECT sum(cityHash64(number)) FROM numbers(500000000000)"))
			r.SetBasicAuth(enginetest.User, enginetest.Password)
			if resp, err := http.DefaultClient.Do(r); err == nil {
				resp.Body.Close()
			}
		})
	}
	waitFor(t, func() bool {
		short, done := context.WithTimeout(t.Context(), 200*time.Millisecond) // it waits until three do
		defer done()
		r, _ := http.NewRequestWithContext(short, http.MethodPost, "http://"+e.Addr, strings.NewReader("SELECT 1"))
		r.SetBasicAuth(enginetest.User, enginetest.Password)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("X-ClickHouse-Exception-Code") == "202"
	})
	cancel()
	g.Wait()
	waitFor(t, func() bool { status, _ := post(t, e.Addr, "", "SELECT 1"); return status == 200 })
}

// TestAcknowledgedInsertSurvivesKill kills the engine under load, several times, and
// counts what it had acknowledged; a row and its row in the view must both be there.
func TestAcknowledgedInsertSurvivesKill(t *testing.T) {
	e := enginetest.Start(t)
	c := open(t, e.Addr)
	for _, sql := range []string{
		"CREATE TABLE default.acks (id UInt64, s String) ENGINE = MergeTree ORDER BY id",
		"CREATE TABLE default.acks_n (k UInt8, n AggregateFunction(count)) ENGINE = AggregatingMergeTree ORDER BY k",
		"CREATE MATERIALIZED VIEW default.acks_mv TO default.acks_n AS SELECT toUInt8(0) AS k, countState() AS n FROM default.acks GROUP BY k",
	} {
		mustExec(t, c, sql)
	}
	const workers, rows = 3, 500
	var mu sync.Mutex
	acked := map[uint64]bool{} // first id of each acknowledged batch
	for round := range 3 {
		var g sync.WaitGroup
		enough := make(chan struct{}, 1)
		for w := range workers {
			g.Go(func() {
				for id := uint64(round*1e9 + w*1e6); ; id += rows {
					if err := insertRange(t.Context(), c, id, rows); err != nil {
						return // the engine has been killed
					}
					mu.Lock()
					acked[id] = true
					if len(acked) >= 10*(round+1) {
						select {
						case enough <- struct{}{}:
						default:
						}
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		e.Kill()
		g.Wait()
		e.Restart()
		c = open(t, e.Addr)
	}
	ids := make([]uint64, 0, len(acked))
	for id := range acked {
		ids = append(ids, id)
	}
	var n, inView, total uint64
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_query_size": 10 << 20}))
	err := c.QueryRow(ctx, fmt.Sprintf("SELECT countIf(intDiv(id, %d) * %d IN ?), (SELECT countMerge(n) FROM default.acks_n), count() FROM default.acks", rows, rows), ids).Scan(&n, &inView, &total)
	if err != nil {
		t.Fatal(err)
	}
	want := uint64(len(acked) * rows)
	if n != want || inView < want || inView > total {
		t.Errorf("acknowledged %d rows; table has %d of them (%d in all), view %d", want, n, total, inView)
	}
	t.Logf("acknowledged %d rows in %d batches over 3 kills, table %d, view %d", want, len(acked), total, inView)
}

func insertRange(ctx context.Context, c driver.Conn, first uint64, n int) error {
	b, err := c.PrepareBatch(ctx, "INSERT INTO default.acks (id, s)")
	if err != nil {
		return err
	}
	for i := range n {
		if err := b.Append(first+uint64(i), "xxxxxxxxxxxxxxxxxxxx"); err != nil {
			return err
		}
	}
	return b.Send()
}

func TestStopEndsLongStatements(t *testing.T) {
	e := enginetest.Start(t, func(c *engine.Config) { c.Drain = 200 * time.Millisecond })
	c := open(t, e.Addr)
	go func() {
		_ = c.QueryRow(context.WithoutCancel(t.Context()), "SELECT sum(cityHash64(number)) FROM numbers(500000000000)").Scan(new(uint64))
	}()
	waitFor(t, func() bool { return running(t, c) == 1 })
	start := time.Now()
	e.Stop() // fails the test unless the engine ends with status 0
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
}
