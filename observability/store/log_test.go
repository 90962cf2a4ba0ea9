package store_test

import (
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/store"
)

// TestLogsComeBackWhole reads records as the exporter's users do, and has a retried batch
// count once.
func TestLogsComeBackWhole(t *testing.T) {
	s, c, _ := open(t)
	g := group.Group{Color: 7, Env: "prod", Tenant: "search"}
	want := store.Log{
		Timestamp: at(123456789 * time.Nanosecond), TraceID: "5b8efff798038103d269b633813fc60c", SpanID: "eee19b7ec3c1b174", Flags: 1, Severity: 17, SeverityText: "ERROR",
		Source: store.LogSource{
			Service: "core", Resource: map[string]string{"service.name": "core"}, ResourceSchema: "rs", Scope: "lib", ScopeVersion: "2",
			ScopeAttributes: map[string]string{"s": "t"}, ScopeSchema: "ss",
		},
		Body: "no database", Attributes: map[string]string{"error.type": "timeout"}, Event: "db.lost",
		Traffic: store.Traffic{Group: g.ID(), Color: 7, Env: "prod", Tenant: "search", Pool: "canary"},
	}
	for range 2 {
		if err := s.InsertLogs(t.Context(), "same", []store.Log{want, {Timestamp: at(0)}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, c, "SELECT count() FROM otel_logs WHERE TimestampTime >= toDateTime(Timestamp) AND hasToken(lower(Body), 'database') OR TrafficColor = ''"); n != 2 {
		t.Errorf("rows = %d, want 2", n)
	}
	var got store.Log
	var flags, severity uint8
	var id, color string
	if err := c.QueryRow(t.Context(), `SELECT Timestamp, TraceId, SpanId, TraceFlags, SeverityNumber, SeverityText, ServiceName, ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion,
		ScopeAttributes, ScopeSchemaUrl, Body, LogAttributes, EventName, TrafficGroup, TrafficColor, TrafficEnv, TrafficTenant, TrafficPool FROM otel_logs WHERE TraceId != ''`).Scan(
		&got.Timestamp, &got.TraceID, &got.SpanID, &flags, &severity, &got.SeverityText, &got.Source.Service, &got.Source.Resource, &got.Source.ResourceSchema, &got.Source.Scope, &got.Source.ScopeVersion,
		&got.Source.ScopeAttributes, &got.Source.ScopeSchema, &got.Body, &got.Attributes, &got.Event, &id, &color, &got.Traffic.Env, &got.Traffic.Tenant, &got.Traffic.Pool); err != nil {
		t.Fatal(err)
	}
	got.Flags, got.Severity, got.Traffic.Group = uint32(flags), int32(severity), group.ID(id)
	got.Traffic.Color, _ = group.ParseColor(color)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}
