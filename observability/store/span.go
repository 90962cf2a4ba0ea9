package store

import (
	"context"
	"time"

	"github.com/tracegate/tracegate/mesh/group"
)

// Span is one row of otel_traces.
type Span struct {
	Timestamp    time.Time         `json:"timestamp"`
	TraceID      string            `json:"trace_id"` // 32 lower-case hex digits
	SpanID       string            `json:"span_id"`  // 16
	ParentSpanID string            `json:"parent_span_id"`
	TraceState   string            `json:"trace_state"`
	Name         string            `json:"name"`
	Kind         string            `json:"kind"`    // Server, Client, Producer, Consumer, Internal, Unspecified
	Service      string            `json:"service"` // that made the span
	Resource     map[string]string `json:"resource"`
	ScopeName    string            `json:"scope_name"`
	ScopeVersion string            `json:"scope_version"`
	Attributes   map[string]string `json:"attributes"`
	Duration     time.Duration     `json:"duration"`
	Status       string            `json:"status"` // Unset, Ok, Error
	StatusText   string            `json:"status_text"`
	Events       []Event           `json:"events"`
	Links        []Link            `json:"links"`

	Traffic Traffic `json:"traffic"`
}

// Traffic is a span's place in the traffic groups.
type Traffic struct {
	Group   group.ID    `json:"group"`
	Color   group.Color `json:"color"`
	Env     string      `json:"env"`
	Tenant  string      `json:"tenant"`
	Service string      `json:"service"` // that served; differs from Span.Service for the edge
	Pool    string      `json:"pool"`
	Route   string      `json:"route"`
	Entry   bool        `json:"entry"` // counts in the group statistics
}

// Event is something that happened within a span.
type Event struct {
	Timestamp  time.Time         `json:"timestamp"`
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes"`
}

// Link is another span that a span follows from.
type Link struct {
	TraceID    string            `json:"trace_id"`
	SpanID     string            `json:"span_id"`
	TraceState string            `json:"trace_state"`
	Attributes map[string]string `json:"attributes"`
}

// spanColumns are those of otel_traces.
func spanColumns() []column[Span] {
	events, links := func(s *Span) []Event { return s.Events }, func(s *Span) []Link { return s.Links }
	return []column[Span]{
		timeColumn("Timestamp", func(s *Span) time.Time { return s.Timestamp }),
		textColumn("TraceId", func(s *Span) string { return s.TraceID }),
		textColumn("SpanId", func(s *Span) string { return s.SpanID }),
		textColumn("ParentSpanId", func(s *Span) string { return s.ParentSpanID }),
		textColumn("TraceState", func(s *Span) string { return s.TraceState }),
		lowColumn("SpanName", func(s *Span) string { return s.Name }),
		lowColumn("SpanKind", func(s *Span) string { return s.Kind }),
		lowColumn("ServiceName", func(s *Span) string { return s.Service }),
		mapColumn("ResourceAttributes", func(s *Span) map[string]string { return s.Resource }),
		textColumn("ScopeName", func(s *Span) string { return s.ScopeName }),
		textColumn("ScopeVersion", func(s *Span) string { return s.ScopeVersion }),
		mapColumn("SpanAttributes", func(s *Span) map[string]string { return s.Attributes }),
		uint64Column("Duration", func(s *Span) uint64 { return uint64(max(s.Duration, 0)) }),
		lowColumn("StatusCode", func(s *Span) string { return s.Status }),
		textColumn("StatusMessage", func(s *Span) string { return s.StatusText }),
		listColumn("Events.Timestamp", timeData(), events, func(e Event) time.Time { return e.Timestamp }),
		listColumn("Events.Name", lowData(), events, func(e Event) string { return e.Name }),
		listColumn("Events.Attributes", newAttributes(), events, func(e Event) map[string]string { return e.Attributes }),
		listColumn("Links.TraceId", textData(), links, func(l Link) string { return l.TraceID }),
		listColumn("Links.SpanId", textData(), links, func(l Link) string { return l.SpanID }),
		listColumn("Links.TraceState", textData(), links, func(l Link) string { return l.TraceState }),
		listColumn("Links.Attributes", newAttributes(), links, func(l Link) map[string]string { return l.Attributes }),
		lowColumn("TrafficGroup", func(s *Span) string { return string(s.Traffic.Group) }),
		lowColumn("TrafficColor", func(s *Span) string { return s.Traffic.Color.String() }),
		lowColumn("TrafficEnv", func(s *Span) string { return s.Traffic.Env }),
		lowColumn("TrafficTenant", func(s *Span) string { return s.Traffic.Tenant }),
		lowColumn("TrafficService", func(s *Span) string { return s.Traffic.Service }),
		lowColumn("TrafficPool", func(s *Span) string { return s.Traffic.Pool }),
		lowColumn("TrafficRoute", func(s *Span) string { return s.Traffic.Route }),
		boolColumn("TrafficEntry", func(s *Span) bool { return s.Traffic.Entry }),
		lowColumn("CallVerb", func(s *Span) string { return string(calledBy(s)) }),
		lowColumn("CallSystem", func(s *Span) string { return systemOf(s, calledBy(s)) }),
		lowColumn("CallTarget", func(s *Span) string { return targetOf(s, calledBy(s)) }),
	}
}

// InsertSpans writes one batch, all or nothing seen from here: it is safe to call again
// with the same token and spans after any error, and the batch counts once, in
// otel_traces and in the statistics. That holds for the last 10,000 batches. Its time is
// bounded by ctx, not by Config.Timeout.
func (s *Store) InsertSpans(ctx context.Context, token string, spans []Span) error {
	if len(spans) == 0 {
		return nil
	}
	b := s.spanBlocks.take()
	defer s.spanBlocks.give(b)
	return b.send(ctx, s, "otel_traces", token, spans)
}
