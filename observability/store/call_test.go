package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/observability/sli"
	"github.com/tracegate/tracegate/observability/store"
)

// hop is a span of a service that is no entry.
func hop(service, kind string, start time.Time, took time.Duration, attributes map[string]string) store.Span {
	s := entry(1, "prod", "search", "baseline", start, took, "Ok")
	s.Service, s.Kind, s.Attributes = service, kind, attributes
	s.Traffic.Entry, s.Traffic.Service, s.Traffic.Route = false, "", ""
	return s
}

func TestCalls(t *testing.T) {
	s, _, _ := open(t)
	start := at(0)
	kafka := func(operation string) map[string]string {
		return map[string]string{"messaging.system": "kafka", "messaging.destination.name": "messages", "messaging.operation": operation}
	}
	command := entry(1, "prod", "search", "baseline", start, 4*time.Millisecond, "Ok")
	command.Service = "core"
	nowhere := entry(1, "prod", "search", "", start, time.Millisecond, "Error")
	spans := []store.Span{
		entry(1, "prod", "search", "baseline", start, 8*time.Millisecond, "Ok"),
		entry(2, "prod", "pay", "baseline", start.Add(4*time.Second), 8*time.Millisecond, "Error"), // of another group
		entry(1, "prod", "search", "isolated", start.Add(time.Second), 80*time.Millisecond, "Ok"),
		command, nowhere,
		hop("core", "Server", start, time.Millisecond, nil), // the edge has counted it
		hop("core", "Producer", start, 2*time.Millisecond, kafka("publish")),
		hop("core", "Consumer", start, time.Millisecond, kafka("receive")),
		hop("core", "Consumer", start, 3*time.Millisecond, kafka("process")),
		hop("core", "Client", start, time.Millisecond, map[string]string{"db.system.name": "postgresql", "db.namespace": "chat", "server.address": "db.local"}),
		hop("core", "Client", start, time.Millisecond, map[string]string{"db.system": "redis"}), // old names
		hop("core", "Client", start, time.Millisecond, map[string]string{"server.address": "pay.shop.svc"}),
		hop("core", "Internal", start, time.Millisecond, nil),
		entry(1, "prod", "search", "baseline", start.Add(6*time.Second), time.Millisecond, "Ok"), // the next step
	}
	for range 2 { // a batch that is sent twice counts once
		if err := s.InsertSpans(t.Context(), "calls", spans); err != nil {
			t.Fatal(err)
		}
	}
	got, leftOut, err := s.Calls(t.Context(), sli.Window{From: start, To: start.Add(store.CallStep)})
	if err != nil || leftOut != 0 {
		t.Fatal(leftOut, err)
	}
	lines := make([]string, 0, len(got))
	for _, c := range got {
		lines = append(lines, fmt.Sprintf("%s[%s] %s %s:%s[%s] %d, %d bad, %v", c.Caller, c.CallerPool, c.Verb, c.System, c.Target, c.TargetPool, c.Requests, c.Errors, c.Latency.Quantile(0.95).Round(time.Millisecond)))
	}
	want := []string{
		"edge[] serve :core[baseline] 2, 1 bad, 8ms",
		"core[baseline] call :pay.shop.svc[] 1, 0 bad, 1ms",
		"core[baseline] process kafka:messages[] 1, 0 bad, 3ms",
		"core[baseline] publish kafka:messages[] 1, 0 bad, 2ms",
		"core[baseline] query postgresql:chat[] 1, 0 bad, 1ms",
		"core[baseline] query redis:[] 1, 0 bad, 1ms",
		"core[baseline] receive kafka:messages[] 1, 0 bad, 1ms",
		"edge[] command :core[baseline] 1, 0 bad, 4ms",
		"edge[] serve :core[] 1, 1 bad, 1ms",
		"edge[] serve :core[isolated] 1, 0 bad, 81ms",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, _, err := s.Calls(t.Context(), sli.Window{From: start.Add(-time.Minute), To: start}); err != nil || len(got) != 0 {
		t.Errorf("before: %v, %v", got, err)
	}
}

// TestCallsAreBounded: targets that nobody bounds (addresses of instances) leave the most
// frequent calls.
func TestCallsAreBounded(t *testing.T) {
	s, _, _ := open(t)
	start := at(0)
	spans := []store.Span{entry(1, "prod", "search", "baseline", start, time.Millisecond, "Ok"), entry(1, "prod", "search", "baseline", start, time.Millisecond, "Ok")}
	for i := range store.MaxCalls + 6 {
		spans = append(spans, hop("core", "Client", start, time.Millisecond, map[string]string{"server.address": fmt.Sprintf("10.0.0.%d", i)}))
	}
	if err := s.InsertSpans(t.Context(), "many", spans); err != nil {
		t.Fatal(err)
	}
	got, leftOut, err := s.Calls(t.Context(), sli.Window{From: start, To: start.Add(time.Second)})
	if err != nil || len(got) != store.MaxCalls || leftOut != 7 || got[0].Verb != store.Serve {
		t.Errorf("%d calls, %d left out, first %v, %v", len(got), leftOut, got[0], err)
	}
}

// BenchmarkCalls reads the window of the console's service map at a steady 20,000 spans a
// second for five minutes, of 40 kinds of calls.
func BenchmarkCalls(b *testing.B) {
	s, c, _ := open(b)
	end := time.Now().UTC().Truncate(time.Minute)
	const sql = `INSERT INTO otel_traces (Timestamp, TraceId, SpanId, SpanName, SpanKind, ServiceName, SpanAttributes, Duration, StatusCode, TrafficGroup, TrafficService, TrafficPool, TrafficEntry, CallVerb, CallSystem, CallTarget)
WITH number %% 4 AS part SELECT fromUnixTimestamp64Nano(toInt64(%d + number * 50000), 'UTC'), hex(number), hex(number), 'x', ['Server', 'Producer', 'Consumer', 'Client'][part + 1], if(part = 0, 'edge', 'core'),
    map('http.response.status_code', '200', 'server.address', 'db'),
    1000000 + number %% 90000000, 'Ok', 'abcdef', 'core', if(number %% 5 = 0, 'isolated', 'baseline'), part = 0,
    ['serve', 'publish', 'process', 'query'][part + 1], ['', 'kafka', 'kafka', 'postgresql'][part + 1], ['core', 'messages', 'messages', concat('db', toString(number %% 40))][part + 1]
FROM numbers(%d) SETTINGS max_insert_block_size = 200000, max_threads = 2`
	for i := range 5 {
		at := end.Add(time.Duration(i-5) * time.Minute)
		if err := c.Exec(b.Context(), fmt.Sprintf(sql, at.UnixNano(), 1_200_000)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		calls, _, err := s.Calls(b.Context(), sli.Window{From: end.Add(-30 * time.Second), To: end})
		if err != nil || len(calls) < 10 {
			b.Fatal(len(calls), err)
		}
	}
	b.ReportMetric(float64(count(b, c, "SELECT sum(rows) FROM system.parts WHERE table = 'traffic_call' AND active")), "rows")
}
