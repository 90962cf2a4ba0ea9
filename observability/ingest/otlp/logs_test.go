package otlp

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/store"
)

func logsOf(resource []*commonv1.KeyValue, records ...*logsv1.LogRecord) *collectorlogs.ExportLogsServiceRequest {
	return &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{
		Resource: &resourcev1.Resource{Attributes: resource}, SchemaUrl: "schema",
		ScopeLogs: []*logsv1.ScopeLogs{{Scope: &commonv1.InstrumentationScope{Name: "lib", Version: "1", Attributes: pairs("a", "b")}, SchemaUrl: "scope schema", LogRecords: records}},
	}}}
}

func TestLogsConvertsARecord(t *testing.T) {
	edge, r := converter().Logs(logsOf(pairs("service.name", "core", "traffic.env", "canary", "traffic.tenant", "payment", "traffic.pool", "canary"), &logsv1.LogRecord{
		TimeUnixNano: uint64(now.UnixNano()), ObservedTimeUnixNano: 1, SeverityNumber: logsv1.SeverityNumber_SEVERITY_NUMBER_ERROR, SeverityText: "ERROR",
		Body: str("no database"), Attributes: pairs("error.type", "timeout"), TraceId: bin(coloredTrace), SpanId: bin(spanID), Flags: 0x101, EventName: "db.lost",
	}), now, fixed)
	want := store.Log{
		Timestamp: now, TraceID: coloredTrace, SpanID: spanID, Flags: 0x101, Severity: 17, SeverityText: "ERROR", Body: "no database", Event: "db.lost",
		Attributes: map[string]string{"error.type": "timeout"},
		Source: store.LogSource{
			Service: "core", Resource: map[string]string{"service.name": "core", "traffic.env": "canary", "traffic.tenant": "payment", "traffic.pool": "canary"}, ResourceSchema: "schema",
			Scope: "lib", ScopeVersion: "1", ScopeAttributes: map[string]string{"a": "b"}, ScopeSchema: "scope schema",
		},
		Traffic: store.Traffic{Group: "127d33", Color: 0xf3aa1c20, Env: "canary", Tenant: "payment", Pool: "canary"},
	}
	if diff := cmp.Diff([]store.Log{want}, r.Logs); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if edge.Received != 0 || len(r.Cut) != 0 {
		t.Errorf("edge received %d, cut %v", edge.Received, r.Cut)
	}
}

func TestLogRecords(t *testing.T) {
	stamp := func(at time.Time) uint64 { return uint64(at.UnixNano()) }
	for _, tc := range []struct {
		name   string
		record *logsv1.LogRecord
		reason Reason
		cut    Cut
		check  func(store.Log) bool
	}{
		{"nothing but a body", &logsv1.LogRecord{Body: str("x")}, "", "", func(l store.Log) bool {
			return l.Timestamp.Equal(now) && l.TraceID == "" && l.Traffic == store.Traffic{}
		}},
		{"a structured body", &logsv1.LogRecord{Body: &commonv1.AnyValue{Value: &commonv1.AnyValue_KvlistValue{KvlistValue: &commonv1.KeyValueList{Values: pairs("k", "v")}}}}, "", "",
			func(l store.Log) bool { return l.Body == `{"k":"v"}` }},
		{"a stated color", &logsv1.LogRecord{Attributes: pairs("traffic.color", "f3aa1c20", "traffic.env", "canary", "traffic.tenant", "payment")}, "", "",
			func(l store.Log) bool { return l.Traffic.Group == group.ID("127d33") }},
		{"a foreign trace opens no group", &logsv1.LogRecord{TraceId: bin(coloredTrace)}, "", "", func(l store.Log) bool { return l.TraceID == coloredTrace && l.Traffic.Group == "" }},
		{"a trace id of the wrong length", &logsv1.LogRecord{TraceId: []byte{1}}, "", CutTrace, func(l store.Log) bool { return l.TraceID == "" }},
		{"only the time it was seen", &logsv1.LogRecord{ObservedTimeUnixNano: stamp(now.Add(-time.Hour))}, "", "", func(l store.Log) bool { return l.Timestamp.Equal(now.Add(-time.Hour)) }},
		{"too old", &logsv1.LogRecord{TimeUnixNano: 1}, TooOld, "", nil},
		{"in the future", &logsv1.LogRecord{TimeUnixNano: stamp(now.Add(time.Hour))}, InFuture, "", nil},
		{"a severity that does not exist", &logsv1.LogRecord{SeverityNumber: -5}, "", "", func(l store.Log) bool { return l.Severity == 0 }},
	} {
		_, r := converter().Logs(logsOf(nil, tc.record), now, fixed)
		checkLogs(t, r)
		switch {
		case r.Dropped[tc.reason] != min(len(tc.reason), 1) || r.Cut[tc.cut] != min(len(tc.cut), 1):
			t.Errorf("%s: dropped %v, cut %v", tc.name, r.Dropped, r.Cut)
		case tc.check != nil && (len(r.Logs) != 1 || !tc.check(r.Logs[0])):
			t.Errorf("%s: rows = %+v", tc.name, r.Logs)
		}
	}
}

func TestLogsOfOneMessageAreBounded(t *testing.T) {
	c := converter()
	c.Limits.Logs, c.Limits.LogBytes = 3, 2000
	_, r := c.Logs(logsOf(nil, make([]*logsv1.LogRecord, 5)...), now, fixed)
	if len(r.Logs) != 3 || r.Dropped[TooManyLogs] != 2 {
		t.Errorf("%d rows, dropped %v; want 3 and 2", len(r.Logs), r.Dropped)
	}
	big := &logsv1.LogRecord{Body: str(string(make([]byte, 1500)))}
	_, r = c.Logs(logsOf(nil, big, big), now, fixed)
	if len(r.Logs) != 1 || r.Dropped[TooManyLogs] != 1 || r.Size > 2000 {
		t.Errorf("%d rows of %d bytes, dropped %v; want 1 and 1", len(r.Logs), r.Size, r.Dropped)
	}
}

func checkLogs(t *testing.T, r *Result) {
	t.Helper()
	if r.Received != len(r.Logs)+r.Rejected() {
		t.Errorf("received %d, stored %d, dropped %v", r.Received, len(r.Logs), r.Dropped)
	}
	for _, l := range r.Logs {
		if len(l.TraceID) != 32 && l.TraceID != "" || len(l.SpanID) != 16 && l.SpanID != "" || l.Severity < 0 || l.Severity > 24 || len(l.Body) > 64<<10 ||
			l.Timestamp.Before(now.Add(-72*time.Hour)) || l.Timestamp.After(now.Add(10*time.Minute)) || len(l.Attributes) > 128 {
			t.Errorf("row does not fit: %+v", l)
		}
	}
}
