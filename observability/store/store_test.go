package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

func config(e *enginetest.Engine) store.Config {
	cfg := store.DefaultConfig()
	cfg.Addr, cfg.User, cfg.Password = e.Addr, enginetest.User, enginetest.Password
	return cfg
}

// open returns a migrated store on a new engine, and a plain connection to look inside.
func open(t testing.TB) (*store.Store, driver.Conn, *enginetest.Engine) {
	t.Helper()
	e := enginetest.Start(t)
	s, err := store.Open(config(e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP, Addr: []string{e.Addr},
		Auth: clickhouse.Auth{Database: "tracegate", Username: enginetest.User, Password: enginetest.Password},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c, e
}

// at is a moment within what the tables keep.
func at(offset time.Duration) time.Time {
	return time.Now().UTC().Truncate(time.Hour).Add(-time.Hour + offset)
}

func entry(color group.Color, env, tenant, pool string, start time.Time, took time.Duration, status string) store.Span {
	g := group.Group{Color: color, Env: env, Tenant: tenant}
	return store.Span{
		Timestamp: start, TraceID: color.String() + fmt.Sprintf("%024x", rand.Uint64()), SpanID: fmt.Sprintf("%016x", rand.Uint64()|1),
		Name: "GET /", Kind: "Server", Service: "edge", Status: status, Duration: took,
		Resource: map[string]string{"service.name": "edge"}, Attributes: map[string]string{"http.request.method": "GET"},
		Traffic: store.Traffic{Group: g.ID(), Color: color, Env: env, Tenant: tenant, Service: "core", Pool: pool, Route: "/", Entry: true},
	}
}

func count(t testing.TB, c driver.Conn, sql string) uint64 {
	t.Helper()
	var n uint64
	if err := c.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func TestMigrateTwice(t *testing.T) {
	s, c, e := open(t)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.Stop()
	e.Restart()
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	if n := count(t, c, "SELECT count() FROM schema_migrations"); n != 11 {
		t.Errorf("migrations recorded = %d, want 11", n)
	}
	if err := c.Exec(t.Context(), "INSERT INTO schema_migrations (Version, Name) VALUES (99, 'later')"); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "schema 99") {
		t.Errorf("error = %v, want one about schema 99", err)
	}
}

// TestDowngrade goes back to the schema before the rollups and up again; spans stay, and
// what arrives is counted at either end.
func TestDowngrade(t *testing.T) {
	s, c, _ := open(t)
	insert := func(token string) {
		t.Helper()
		if err := s.InsertSpans(t.Context(), token, []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")}); err != nil {
			t.Fatal(err)
		}
	}
	insert("before")
	if err := s.Downgrade(t.Context(), 12); err == nil {
		t.Error("downgrade to 12 works")
	}
	for range 2 { // the second time there is nothing to do
		if err := s.Downgrade(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
	}
	insert("at 4")
	if n := count(t, c, "SELECT sum(Requests) FROM traffic_group_1s"); n != 1 {
		t.Errorf("requests at 4 = %d, want 1", n)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	insert("at 5")
	if n := count(t, c, "SELECT sum(Requests) FROM traffic_group WHERE Grain = 60"); n != 1 {
		t.Errorf("requests at 5 = %d, want 1", n)
	}
	if n := count(t, c, "SELECT count() FROM otel_traces"); n != 3 {
		t.Errorf("spans = %d, want 3", n)
	}
}

// TestInsertsAtOnceCountOnce has several writers insert spans of the same seconds at once, each
// batch twice, as one that is sent again while its first try still runs.
func TestInsertsAtOnceCountOnce(t *testing.T) {
	s, c, _ := open(t)
	const writers, batches, rows = 6, 4, 50
	var g sync.WaitGroup
	for w := range writers {
		g.Go(func() {
			for b := range batches {
				var spans []store.Span
				for i := range rows {
					spans = append(spans, entry(1, "prod", "search", "baseline", at(time.Duration(i)*time.Second), time.Millisecond, "Ok"))
				}
				var both sync.WaitGroup
				for range 2 {
					both.Go(func() {
						if err := s.InsertSpans(t.Context(), fmt.Sprintf("%d/%d", w, b), spans); err != nil {
							t.Error(err)
						}
					})
				}
				both.Wait()
			}
		})
	}
	g.Wait()
	const want = writers * batches * rows
	if n := count(t, c, "SELECT count() FROM otel_traces"); n != want {
		t.Errorf("spans = %d, want %d", n, want)
	}
	for _, grain := range []int{1, 10, 60, 101, 110, 160} {
		if n := count(t, c, fmt.Sprintf("SELECT sum(Requests) FROM traffic_group WHERE Grain = %d", grain)); n != want {
			t.Errorf("requests of grain %d = %d, want %d", grain, n, want)
		}
	}
}

// TestTotalsOfWhatIsThere comes from the schema before there were rows of all routes
// together: what a page shows is there at once, and counted once.
func TestTotalsOfWhatIsThere(t *testing.T) {
	s, c, _ := open(t)
	if err := s.Downgrade(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	var spans []store.Span
	for i := range 90 {
		sp := entry(1, "prod", "search", "baseline", now.Add(-time.Duration(i)*time.Second), time.Millisecond, "Ok")
		sp.Traffic.Route = []string{"/a", "/b"}[i%2]
		spans = append(spans, sp)
	}
	if err := s.InsertSpans(t.Context(), "before", spans); err != nil {
		t.Fatal(err)
	}
	w := sli.Window{From: now.Add(-100 * time.Second), To: now.Add(time.Second)}
	for range 2 {
		if err := c.Exec(t.Context(), "ALTER TABLE schema_migrations DELETE WHERE Version >= 9 SETTINGS mutations_sync = 1"); err != nil {
			t.Fatal(err)
		}
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := s.GroupStats(t.Context(), w)
		if err != nil || len(got) != 1 || got[0].Requests != 90 {
			t.Errorf("all routes: %+v, %v", got, err)
		}
		got, err = s.GroupStats(t.Context(), w, "/a")
		if err != nil || len(got) != 1 || got[0].Requests != 45 {
			t.Errorf("without one: %+v, %v", got, err)
		}
	}
}

// TestGrafanaFindsATrace asks as Grafana's ClickHouse plugin does: first when the trace was,
// then for its spans in that time.
func TestGrafanaFindsATrace(t *testing.T) {
	s, c, _ := open(t)
	first := entry(7, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")
	last, other := first, entry(8, "prod", "search", "baseline", at(time.Second), time.Millisecond, "Ok")
	last.SpanID, last.Timestamp = "00000000000000aa", at(3*time.Second)
	if err := s.InsertSpans(t.Context(), "t1", []store.Span{first, last, other}); err != nil {
		t.Fatal(err)
	}
	sql := `WITH '` + first.TraceID + `' AS trace_id,
		(SELECT min(Start) FROM "otel_traces_trace_id_ts" WHERE TraceId = trace_id) AS trace_start,
		(SELECT max(End) + 1 FROM "otel_traces_trace_id_ts" WHERE TraceId = trace_id) AS trace_end
		SELECT count() FROM "otel_traces" WHERE TraceId = trace_id AND "Timestamp" >= trace_start AND "Timestamp" <= trace_end`
	if n := count(t, c, sql); n != 2 {
		t.Errorf("spans = %d, want 2", n)
	}
	if n := count(t, c, "SELECT toUInt64(dateDiff('second', Start, End)) FROM otel_traces_trace_id_ts WHERE TraceId = '"+first.TraceID+"'"); n != 3 {
		t.Errorf("the trace took %d s, want 3", n)
	}
}

// TestOtherTenantsAreLeftOut: an index says which parts have nothing of a tenant or an
// environment.
func TestOtherTenantsAreLeftOut(t *testing.T) {
	s, c, _ := open(t)
	if err := s.InsertSpans(t.Context(), "t1", []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")}); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"otel_traces", "otel_logs"} {
		for name, column := range map[string]string{"idx_traffic_env": "TrafficEnv", "idx_traffic_tenant": "TrafficTenant"} {
			if n := count(t, c, "SELECT count() FROM system.data_skipping_indices WHERE table = '"+table+"' AND name = '"+name+"' AND expr = '"+column+"' AND type_full = 'set(16)'"); n != 1 {
				t.Errorf("%s: %d indexes %s of %s, want 1", table, n, name, column)
			}
		}
	}
	read := func(where string) uint64 {
		return count(t, c, "SELECT count() FROM otel_traces WHERE "+where+" SETTINGS force_data_skipping_indices = 'idx_traffic_env,idx_traffic_tenant'")
	}
	if n := read("TrafficEnv = 'prod' AND TrafficTenant = 'search'"); n != 1 {
		t.Errorf("spans = %d, want 1", n)
	}
	if n := read("TrafficEnv = 'prod' AND TrafficTenant = 'payment'"); n != 0 {
		t.Errorf("spans of another tenant = %d", n)
	}
}

func TestSpanComesBackWhole(t *testing.T) {
	s, _, _ := open(t)
	root := entry(7, "prod", "search", "baseline", at(123456789*time.Nanosecond), 1500*time.Microsecond, "Ok")
	root.TraceState, root.ScopeName, root.ScopeVersion, root.StatusText = "tg=x", "scope", "1", "fine"
	root.Events = []store.Event{{Timestamp: root.Timestamp.Add(time.Microsecond), Name: "retry", Attributes: map[string]string{"n": "1"}}, {Timestamp: root.Timestamp, Name: "x", Attributes: map[string]string{}}}
	child := root
	child.SpanID, child.ParentSpanID, child.Service, child.Timestamp = "00000000000000aa", root.SpanID, "core", root.Timestamp.Add(time.Millisecond)
	child.Traffic.Entry, child.Events = false, nil
	if err := s.InsertSpans(t.Context(), "t1", []store.Span{child, root}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Trace(t.Context(), root.TraceID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]store.Span{root, child}, got); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	tree := store.Tree(got)
	if len(tree) != 1 || tree[0].SpanID != root.SpanID || len(tree[0].Children) != 1 {
		t.Errorf("tree = %+v", tree)
	}
	window := sli.Window{From: at(0), To: at(time.Second)}
	for _, tc := range []struct {
		name string
		q    store.TraceQuery
		want int
	}{
		{"any", store.TraceQuery{Window: window, Limit: 10}, 1},
		{"its group", store.TraceQuery{Group: root.Traffic.Group, Window: window, Limit: 10}, 1},
		{"another group", store.TraceQuery{Group: "ffffff", Window: window, Limit: 10}, 0},
		{"an attempt at SQL", store.TraceQuery{Group: "' OR 1 = 1 --", Window: window, Limit: 10}, 0},
		{"slow", store.TraceQuery{MinDuration: 1500 * time.Microsecond, Window: window, Limit: 10}, 1},
		{"slower", store.TraceQuery{MinDuration: 1501 * time.Microsecond, Window: window, Limit: 10}, 0},
		{"errors", store.TraceQuery{ErrorsOnly: true, Window: window, Limit: 10}, 0},
		{"a nanosecond late", store.TraceQuery{Window: sli.Window{From: root.Timestamp.Add(1), To: window.To}, Limit: 10}, 0},
		{"just in time", store.TraceQuery{Window: sli.Window{From: root.Timestamp, To: root.Timestamp.Add(1)}, Limit: 10}, 1},
	} {
		if spans, err := s.Traces(t.Context(), tc.q); err != nil || len(spans) != tc.want {
			t.Errorf("%s: %d traces, error %v; want %d", tc.name, len(spans), err, tc.want)
		}
	}
}

// TestColumnsFit compares the types that inserts announce with those of the tables.
func TestColumnsFit(t *testing.T) {
	_, c, _ := open(t)
	for table, want := range store.ColumnTypes() {
		var got []string
		if err := c.QueryRow(t.Context(), "SELECT groupArray(name || ' ' || type) FROM (SELECT * FROM system.columns WHERE database = 'tracegate' AND table = ? AND default_kind != 'ALIAS' ORDER BY position)", table).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("columns of %s (-insert +table):\n%s", table, diff)
		}
	}
}

// TestGroupStatsAgreesWithSpans inserts random spans in random batches, in no order of
// time, and compares statistics from the views with the raw spans.
func TestGroupStatsAgreesWithSpans(t *testing.T) {
	s, c, _ := open(t)
	r := rand.New(rand.NewPCG(1, 2))
	var spans []store.Span
	for range 20_000 {
		status := "Unset"
		if r.IntN(10) == 0 {
			status = "Error"
		}
		sp := entry(group.Color(r.IntN(3)), []string{"prod", "canary"}[r.IntN(2)], []string{"search", "payment"}[r.IntN(2)],
			[]string{"baseline", "canary", ""}[r.IntN(3)], at(time.Duration(r.Int64N(int64(3*time.Minute)))), time.Duration(r.ExpFloat64()*5e7), status)
		sp.Traffic.Entry = r.IntN(4) != 0
		sp.Attributes["http.response.status_code"] = []string{"200", "404", "503", "", "odd"}[r.IntN(5)]
		spans = append(spans, sp)
	}
	for i, rest := 0, spans; len(rest) > 0; i++ {
		n := min(len(rest), 1+r.IntN(3000))
		if err := s.InsertSpans(t.Context(), fmt.Sprint("batch", i), rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	for range 2 { // merging parts changes nothing
		for range 20 {
			from := r.IntN(180)
			w := sli.Window{From: at(time.Duration(from) * time.Second), To: at(time.Duration(from+r.IntN(200-from)) * time.Second)}
			got, err := s.GroupStats(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, expected(spans, w), got)
		}
		if err := c.Exec(t.Context(), "OPTIMIZE TABLE traffic_group FINAL"); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []time.Duration{time.Second, 4 * time.Second, 10 * time.Second, time.Minute} {
		w := sli.Window{From: at(0), To: at(2 * time.Minute)}
		series, err := s.GroupSeries(t.Context(), w, step)
		if err != nil {
			t.Fatal(err)
		}
		var want []exact
		for at := w.From; at.Before(w.To); at = at.Add(step) {
			want = append(want, expected(spans, sli.Window{From: at, To: at.Add(step)})...)
		}
		compare(t, want, series)
		one := want[0].Group
		if series, err = s.GroupSeries(t.Context(), w, step, one); err != nil {
			t.Fatal(err)
		}
		compare(t, slices.DeleteFunc(want, func(e exact) bool { return e.Group != one }), series)
	}
	// The view for people says the same as the code.
	w := sli.Window{From: at(0), To: at(3 * time.Minute)}
	stats, err := s.GroupStats(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range stats {
		var requests uint64
		var p95 float64
		if err := c.QueryRow(t.Context(), "SELECT Requests, P95 FROM traffic_group_stats(from = toDateTime(?, 'UTC'), to = toDateTime(?, 'UTC'), step = 86400) WHERE TrafficGroup = ? AND TrafficPool = ?",
			w.From.Unix(), w.To.Unix(), string(st.Group), st.Pool).Scan(&requests, &p95); err != nil {
			t.Fatal(err)
		}
		if got := time.Duration(p95 * float64(time.Second)); requests != st.Requests || (got-st.P95).Abs() > time.Microsecond {
			t.Errorf("group %s pool %q: the view has %d requests with P95 %s, GroupStats %d with %s", st.Group, st.Pool, requests, got, st.Requests, st.P95)
		}
	}
	if n := count(t, c, "SELECT uniqExact(StatusClass) FROM traffic_group"); n != 4 {
		t.Errorf("%d status classes, want 0, 2, 4 and 5", n)
	}
}

// exact is statistics counted in Go, with every duration in order.
type exact struct {
	sli.Stats
	durations []time.Duration
}

// expected counts spans in Go.
func expected(spans []store.Span, w sli.Window) []exact {
	type key struct {
		id            group.ID
		service, pool string
	}
	durations := map[key][]time.Duration{}
	stats := map[key]*sli.Stats{}
	for _, sp := range spans {
		if !sp.Traffic.Entry || sp.Timestamp.Before(w.From) || !sp.Timestamp.Before(w.To) {
			continue
		}
		k := key{sp.Traffic.Group, sp.Traffic.Service, sp.Traffic.Pool}
		st := stats[k]
		if st == nil {
			st = &sli.Stats{Group: k.id, Color: sp.Traffic.Color, Env: sp.Traffic.Env, Tenant: sp.Traffic.Tenant, Service: k.service, Pool: k.pool, Window: w}
			stats[k] = st
		}
		st.Requests++
		if sp.Status == "Error" {
			st.Errors++
		}
		if sp.Timestamp.After(st.Newest) {
			st.Newest = sp.Timestamp
		}
		durations[k] = append(durations[k], sp.Duration)
	}
	var out []exact
	for k, st := range stats {
		slices.Sort(durations[k])
		out = append(out, exact{*st, durations[k]})
	}
	slices.SortFunc(out, func(a, b exact) int {
		return strings.Compare(string(a.Group)+a.Service+a.Pool, string(b.Group)+b.Service+b.Pool)
	})
	return out
}

// compare wants counts equal and quantiles in the bucket of the true ones.
func compare(t *testing.T, want []exact, got []sli.Stats) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("statistics of %d groups, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		for _, q := range []struct {
			rank float64
			got  time.Duration
		}{{0.5, g.P50}, {0.95, g.P95}, {0.99, g.P99}} {
			exact := w.durations[int(math.Ceil(q.rank*float64(len(w.durations)-1)-0.5))]
			if low, high := bounds(exact); q.got < low || q.got > high {
				t.Errorf("group %s pool %q: quantile %.2f = %s, want %s or its bucket, %s to %s (%d samples)", g.Group, g.Pool, q.rank, q.got, exact, low, high, len(w.durations))
			}
		}
		g.P50, g.P95, g.P99 = 0, 0, 0
		if diff := cmp.Diff(w.Stats, g); diff != "" {
			t.Errorf("statistics (-want +got):\n%s", diff)
		}
	}
}

// bounds are those of d's bucket, and a nanosecond for rounding.
func bounds(d time.Duration) (low, high time.Duration) {
	i := sli.BucketOf(d)
	return time.Duration(sli.BucketBound(i-1)) - 1, time.Duration(sli.BucketBound(i)) + 1
}

func TestRetriedInsertCountsOnce(t *testing.T) {
	s, c, e := open(t)
	var spans []store.Span
	for i := range 100 {
		spans = append(spans, entry(1, "prod", "search", "baseline", at(time.Duration(i)*100*time.Millisecond), time.Millisecond, "Error"))
	}
	check := func(when string, want uint64) {
		t.Helper()
		if n := count(t, c, "SELECT count() FROM otel_traces"); n != want {
			t.Errorf("%s: spans = %d, want %d", when, n, want)
		}
		for _, grain := range []string{"1", "10", "60", "101", "110", "160"} {
			if n := count(t, c, "SELECT sum(Requests) FROM traffic_group WHERE Grain = "+grain); n != want {
				t.Errorf("%s: requests by %s s = %d, want %d", when, grain, n, want)
			}
		}
	}
	for range 3 {
		if err := s.InsertSpans(t.Context(), "same", spans); err != nil {
			t.Fatal(err)
		}
	}
	check("retried", 100)
	e.Kill()
	e.Restart()
	if err := s.InsertSpans(t.Context(), "same", spans); err != nil {
		t.Fatal(err)
	}
	check("retried after kill -9", 100)
	if err := s.InsertSpans(t.Context(), "other", spans); err != nil {
		t.Fatal(err)
	}
	check("the same spans under another token", 200)
}

// TestRetryMakesUpForTheView has the view fail once: the spans are in the table then and
// the statistics are not, until the batch is retried.
func TestRetryMakesUpForTheView(t *testing.T) {
	s, c, _ := open(t)
	spans := []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")}
	exec := func(sql string) {
		t.Helper()
		if err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("ALTER TABLE traffic_group ADD CONSTRAINT broken CHECK Requests = 0")
	if err := s.InsertSpans(t.Context(), "t", spans); err == nil {
		t.Fatal("insert with a failing view succeeded")
	}
	exec("ALTER TABLE traffic_group DROP CONSTRAINT broken")
	if err := s.InsertSpans(t.Context(), "t", spans); err != nil {
		t.Fatal(err)
	}
	if n := count(t, c, "SELECT sum(Requests) FROM traffic_group WHERE Grain = 1"); n != 1 {
		t.Errorf("requests = %d, want 1", n)
	}
	if n := count(t, c, "SELECT count() FROM otel_traces"); n != 1 {
		t.Errorf("spans = %d, want 1", n)
	}
}

// TestManyRowsOfStatistics: more rows than are added up here, which ClickHouse then does, and
// more groups than are given.
func TestManyRowsOfStatistics(t *testing.T) {
	s, c, _ := open(t)
	insert := func(second int, pool string) {
		t.Helper()
		if err := c.Exec(t.Context(), fmt.Sprintf(`INSERT INTO traffic_group (Grain, Second, TrafficGroup, TrafficPool, TrafficRoute, Requests, Errors, Latency, Newest)
SELECT 101, toDateTime(%d, 'UTC'), 'aaaaaa', %s, toString(number), 2, 1, map(800::Int16, 2::UInt64), fromUnixTimestamp64Nano(number, 'UTC') FROM numbers(100001)`, at(0).Unix()+int64(second), pool)); err != nil {
			t.Fatal(err)
		}
	}
	insert(0, "'baseline'")
	got, err := s.GroupStats(t.Context(), sli.Window{From: at(0), To: at(time.Second)})
	if err != nil || len(got) != 1 || got[0].Requests != 200_002 || got[0].Errors != 100_001 || got[0].Newest.UnixNano() != 100_000 || sli.BucketOf(got[0].P95) != 800 {
		t.Errorf("statistics %+v, %v", got, err)
	}
	insert(1, "toString(number)")
	if got, err := s.GroupStats(t.Context(), sli.Window{From: at(time.Second), To: at(2 * time.Second)}); err == nil || !strings.Contains(err.Error(), "more than 100000 rows") {
		t.Errorf("%d statistics, %v", len(got), err)
	}
}

func TestLateSpanLandsInItsSecond(t *testing.T) {
	s, _, _ := open(t)
	for i, start := range []time.Time{at(30 * time.Second), at(10 * time.Second), at(10*time.Second + 999_999_999), at(11 * time.Second)} {
		if err := s.InsertSpans(t.Context(), fmt.Sprint(i), []store.Span{entry(1, "prod", "search", "baseline", start, time.Hour, "Ok")}); err != nil {
			t.Fatal(err)
		}
	}
	series, err := s.GroupSeries(t.Context(), sli.Window{From: at(0), To: at(time.Minute)}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	got := map[time.Duration]uint64{}
	for _, st := range series {
		got[st.Window.From.Sub(at(0))] = st.Requests
	}
	if diff := cmp.Diff(map[time.Duration]uint64{10 * time.Second: 2, 11 * time.Second: 1, 30 * time.Second: 1}, got); diff != "" {
		t.Errorf("requests by second (-want +got):\n%s", diff)
	}
	if err := s.InsertSpans(t.Context(), "a day late", []store.Span{entry(1, "prod", "search", "baseline", at(-24*time.Hour), time.Hour, "Ok")}); err != nil {
		t.Fatal(err)
	}
	w := sli.Window{From: at(-24 * time.Hour), To: at(-24*time.Hour + time.Minute)} // one row of a minute
	if stats, err := s.GroupStats(t.Context(), w); err != nil || len(stats) != 1 || stats[0].Requests != 1 {
		t.Errorf("a day late: %+v, %v", stats, err)
	}
}

func TestDecisions(t *testing.T) {
	s, _, _ := open(t)
	if got, err := s.Decisions(t.Context(), 5); err != nil || len(got) != 0 {
		t.Fatalf("decisions = %v, %v", got, err)
	}
	d := decide.Decision{
		ID: "1", Time: at(0), Action: decide.Isolate, Group: "abcdef", Color: 5, Env: "canary", Tenant: "payment", Service: "core", FromPool: "canary", ToPool: "isolated",
		Reason: "P95 is 'high'\n", By: "policy", Stats: sli.Stats{Group: "abcdef", Requests: 3, P95: time.Second}, Baseline: &sli.Stats{Requests: 9}, FirstBad: at(-time.Second),
	}
	later := d
	later.ID, later.Time, later.Action, later.By, later.Baseline = "2", at(time.Second), decide.Release, "operator:ada", nil
	for _, x := range []decide.Decision{d, later} {
		if err := s.SaveDecision(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	d.Programmed, d.Version = at(300*time.Millisecond), "v7"
	if err := s.SaveDecision(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	got, err := s.Decisions(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]decide.Decision{later, d}, got); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	if got, err := s.Decisions(t.Context(), 1); err != nil || len(got) != 1 || got[0].ID != "2" {
		t.Errorf("newest = %v, %v; want decision 2", got, err)
	}
	all := sli.Window{From: at(-time.Hour), To: at(time.Hour)}
	for _, tt := range []struct {
		w    sli.Window
		only []group.ID
		want []decide.Decision
	}{
		{all, nil, []decide.Decision{later, d}}, {all, []group.ID{"fedcba", "abcdef"}, []decide.Decision{later, d}}, {all, []group.ID{"fedcba"}, nil},
		{sli.Window{From: at(0), To: at(time.Second)}, []group.ID{"abcdef"}, []decide.Decision{d}},
	} {
		if got, err := s.DecisionsIn(t.Context(), tt.w, 5, tt.only...); err != nil || !cmp.Equal(tt.want, got) {
			t.Errorf("decisions on %v in %v = %v, %v", tt.only, tt.w, got, err)
		}
	}
}

// TestClickHouseIDIsTheGroupID holds the SQL expression to the vectors that Go and the
// edge filter are held to.
func TestClickHouseIDIsTheGroupID(t *testing.T) {
	_, c, _ := open(t)
	raw, err := os.ReadFile("../../mesh/group/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Name, TraceID, Env, Tenant, Group string }
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	sql := "SELECT " + fmt.Sprintf(group.ClickHouseID, "{env:String}", "{tenant:String}") + " FROM (SELECT {id:String} AS TraceId)"
	for _, v := range vectors {
		ctx := clickhouse.Context(t.Context(), clickhouse.WithParameters(clickhouse.Parameters{"id": v.TraceID, "env": v.Env, "tenant": v.Tenant}))
		var got string
		if err := c.QueryRow(ctx, sql).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != v.Group {
			t.Errorf("%s: group = %s, want %s", v.Name, got, v.Group)
		}
	}
}

func TestErrorsAreTemporaryUnlessTheDataIsBad(t *testing.T) {
	s, c, e := open(t)
	good := []store.Span{entry(1, "prod", "search", "baseline", at(0), time.Millisecond, "Ok")}
	if err := c.Exec(t.Context(), "RENAME TABLE otel_traces TO away"); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertSpans(t.Context(), "a", good); err == nil || !store.Temporary(err) {
		t.Errorf("no table: error = %v, want a temporary one", err)
	}
	if err := c.Exec(t.Context(), "RENAME TABLE away TO otel_traces"); err != nil {
		t.Fatal(err)
	}
	e.Kill()
	if err := s.InsertSpans(t.Context(), "a", good); err == nil || !store.Temporary(err) {
		t.Errorf("engine away: error = %v, want a temporary one", err)
	}
	e.Restart()
	cfg := config(e)
	cfg.Password = "wrong"
	w, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.InsertSpans(t.Context(), "a", good); err == nil || !store.Temporary(err) {
		t.Errorf("wrong password: error = %v, want a temporary one", err)
	}
	if err := fmt.Errorf("insert: %w", &clickhouse.Exception{Code: 117}); store.Temporary(err) || store.Temporary(store.ErrUnfit) {
		t.Errorf("incorrect data: %v is said to be temporary", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.InsertSpans(ctx, "c", good); err == nil || !store.Temporary(err) {
		t.Errorf("cancelled: error = %v, want a temporary one", err)
	}
}

func TestIgnoredRoutesAreNotCounted(t *testing.T) {
	s, _, _ := open(t)
	begin := time.Now().Truncate(time.Second).Add(-10 * time.Second)
	var spans []store.Span
	for i, route := range []string{"GET /a", "POST /b", `it's \ odd`, "GET /a"} {
		sp := entry(1, "prod", "search", "baseline", begin.Add(time.Duration(i)*time.Millisecond), time.Millisecond, "Unset")
		sp.Traffic.Route = route
		spans = append(spans, sp)
	}
	if err := s.InsertSpans(t.Context(), "routes", spans); err != nil {
		t.Fatal(err)
	}
	w := sli.Window{From: begin, To: begin.Add(time.Second)}
	for _, tt := range []struct {
		ignore []string
		want   uint64
	}{
		{nil, 4}, {[]string{"GET /a"}, 2}, {[]string{"POST /b", `it's \ odd`, "GET /none"}, 2}, {[]string{"GET /a", "POST /b", `it's \ odd`}, 0},
	} {
		got, err := s.GroupStats(t.Context(), w, tt.ignore...)
		if err != nil {
			t.Fatal(err)
		}
		var n uint64
		for _, st := range got {
			n += st.Requests
		}
		if n != tt.want {
			t.Errorf("ignoring %q: %d requests, want %d", tt.ignore, n, tt.want)
		}
	}
}
