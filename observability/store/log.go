package store

import (
	"context"
	"time"
)

// Log is one row of otel_logs.
type Log struct {
	Timestamp       time.Time
	TraceID, SpanID string // empty where there is none
	Flags           uint32 // OTLP's; the table has the lower eight bits, W3C's
	Severity        int32  // OTLP's number, 1 to 24; 0 where there is none
	SeverityText    string
	Source          LogSource
	Body            string
	Attributes      map[string]string
	Event           string
	Traffic         Traffic // Service, Route and Entry have no column; without a Group the Color has no meaning
}

// LogSource is who wrote a record; records share its maps, which nobody changes.
type LogSource struct {
	Service         string
	Resource        map[string]string
	ResourceSchema  string
	Scope           string
	ScopeVersion    string
	ScopeAttributes map[string]string
	ScopeSchema     string
}

// InsertLogs writes one batch of log records. It promises what InsertSpans does.
func (s *Store) InsertLogs(ctx context.Context, token string, logs []Log) error {
	if len(logs) == 0 {
		return nil
	}
	b := s.logBlocks.take()
	defer s.logBlocks.give(b)
	return b.send(ctx, s, "otel_logs", token, logs)
}

// logColumns are those of otel_logs.
func logColumns() []column[Log] {
	return []column[Log]{
		timeColumn("Timestamp", func(l *Log) time.Time { return l.Timestamp }),
		textColumn("TraceId", func(l *Log) string { return l.TraceID }),
		textColumn("SpanId", func(l *Log) string { return l.SpanID }),
		uint8Column("TraceFlags", func(l *Log) uint8 { return uint8(l.Flags) }),
		lowColumn("SeverityText", func(l *Log) string { return l.SeverityText }),
		uint8Column("SeverityNumber", func(l *Log) uint8 { return uint8(l.Severity) }),
		lowColumn("ServiceName", func(l *Log) string { return l.Source.Service }),
		textColumn("Body", func(l *Log) string { return l.Body }),
		lowColumn("ResourceSchemaUrl", func(l *Log) string { return l.Source.ResourceSchema }),
		mapColumn("ResourceAttributes", func(l *Log) map[string]string { return l.Source.Resource }),
		lowColumn("ScopeSchemaUrl", func(l *Log) string { return l.Source.ScopeSchema }),
		textColumn("ScopeName", func(l *Log) string { return l.Source.Scope }),
		lowColumn("ScopeVersion", func(l *Log) string { return l.Source.ScopeVersion }),
		mapColumn("ScopeAttributes", func(l *Log) map[string]string { return l.Source.ScopeAttributes }),
		mapColumn("LogAttributes", func(l *Log) map[string]string { return l.Attributes }),
		textColumn("EventName", func(l *Log) string { return l.Event }),
		lowColumn("TrafficGroup", func(l *Log) string { return string(l.Traffic.Group) }),
		lowColumn("TrafficColor", func(l *Log) string { return l.Traffic.color() }),
		lowColumn("TrafficEnv", func(l *Log) string { return l.Traffic.Env }),
		lowColumn("TrafficTenant", func(l *Log) string { return l.Traffic.Tenant }),
		lowColumn("TrafficPool", func(l *Log) string { return l.Traffic.Pool }),
	}
}

// color is empty for what is of no group.
func (t Traffic) color() string {
	if t.Group == "" {
		return ""
	}
	return t.Color.String()
}
