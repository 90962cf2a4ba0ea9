package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

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

const (
	text       = "String"
	low        = "LowCardinality(String)"
	attributes = "Map(LowCardinality(String), String)"
	nanotime   = "DateTime64(9, 'UTC')"
)

// column of a table: its name, its type, and a row's value of it.
type column[T any] struct {
	name, typ string
	value     func(*T) any
}

// spanColumns are those of otel_traces. Types are known here and not asked of
// ClickHouse before each batch, which saves a round trip; a test compares.
func spanColumns() []column[Span] {
	return []column[Span]{
		{"Timestamp", nanotime, func(s *Span) any { return s.Timestamp }},
		{"TraceId", text, func(s *Span) any { return s.TraceID }},
		{"SpanId", text, func(s *Span) any { return s.SpanID }},
		{"ParentSpanId", text, func(s *Span) any { return s.ParentSpanID }},
		{"TraceState", text, func(s *Span) any { return s.TraceState }},
		{"SpanName", low, func(s *Span) any { return s.Name }},
		{"SpanKind", low, func(s *Span) any { return s.Kind }},
		{"ServiceName", low, func(s *Span) any { return s.Service }},
		{"ResourceAttributes", attributes, func(s *Span) any { return s.Resource }},
		{"ScopeName", text, func(s *Span) any { return s.ScopeName }},
		{"ScopeVersion", text, func(s *Span) any { return s.ScopeVersion }},
		{"SpanAttributes", attributes, func(s *Span) any { return s.Attributes }},
		{"Duration", "UInt64", func(s *Span) any { return uint64(max(s.Duration, 0)) }},
		{"StatusCode", low, func(s *Span) any { return s.Status }},
		{"StatusMessage", text, func(s *Span) any { return s.StatusText }},
		{"Events.Timestamp", "Array(" + nanotime + ")", func(s *Span) any { return each(s.Events, func(e Event) time.Time { return e.Timestamp }) }},
		{"Events.Name", "Array(" + low + ")", func(s *Span) any { return each(s.Events, func(e Event) string { return e.Name }) }},
		{"Events.Attributes", "Array(" + attributes + ")", func(s *Span) any { return each(s.Events, func(e Event) map[string]string { return e.Attributes }) }},
		{"Links.TraceId", "Array(String)", func(s *Span) any { return each(s.Links, func(l Link) string { return l.TraceID }) }},
		{"Links.SpanId", "Array(String)", func(s *Span) any { return each(s.Links, func(l Link) string { return l.SpanID }) }},
		{"Links.TraceState", "Array(String)", func(s *Span) any { return each(s.Links, func(l Link) string { return l.TraceState }) }},
		{"Links.Attributes", "Array(" + attributes + ")", func(s *Span) any { return each(s.Links, func(l Link) map[string]string { return l.Attributes }) }},
		{"TrafficGroup", low, func(s *Span) any { return string(s.Traffic.Group) }},
		{"TrafficColor", low, func(s *Span) any { return s.Traffic.Color.String() }},
		{"TrafficEnv", low, func(s *Span) any { return s.Traffic.Env }},
		{"TrafficTenant", low, func(s *Span) any { return s.Traffic.Tenant }},
		{"TrafficService", low, func(s *Span) any { return s.Traffic.Service }},
		{"TrafficPool", low, func(s *Span) any { return s.Traffic.Pool }},
		{"TrafficRoute", low, func(s *Span) any { return s.Traffic.Route }},
		{"TrafficEntry", "Bool", func(s *Span) any { return s.Traffic.Entry }},
	}
}

func each[T, U any](in []T, f func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

// InsertSpans writes one batch, all or nothing seen from here: it is safe to call again
// with the same token and spans after any error, and the batch counts once, in
// otel_traces and in the statistics. That holds for the last 10,000 batches. Its time is
// bounded by ctx, not by Config.Timeout.
func (s *Store) InsertSpans(ctx context.Context, token string, spans []Span) error {
	if len(spans) == 0 {
		return nil
	}
	return insert(ctx, s, "otel_traces", token, spanColumns(), spans)
}

// insert writes rows as one block, which ClickHouse recognizes by its token.
func insert[T any](ctx context.Context, s *Store, table, token string, cols []column[T], rows []T) error {
	types := make([]clickhouse.ColumnNameAndType, len(cols))
	for i, c := range cols {
		types[i] = clickhouse.ColumnNameAndType{Name: c.name, Type: c.typ}
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithColumnNamesAndTypes(types), clickhouse.WithSettings(clickhouse.Settings{
		"async_insert":               0, // acknowledged means written
		"insert_deduplicate":         1,
		"insert_deduplication_token": token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
	}))
	b, err := s.conn.PrepareBatch(ctx, "INSERT INTO "+table)
	if err != nil {
		return fmt.Errorf("prepare batch for %s: %w", table, err)
	}
	if err := appendRows(b, cols, rows); err != nil {
		_ = b.Abort()
		return fmt.Errorf("%w: %s: %w", ErrUnfit, table, err)
	}
	if err := b.Send(); err != nil {
		return fmt.Errorf("insert %d rows into %s: %w", len(rows), table, err)
	}
	return nil
}

func appendRows[T any](b driver.Batch, cols []column[T], rows []T) error {
	for i, c := range cols {
		col := b.Column(i)
		for j := range rows {
			if err := col.AppendRow(c.value(&rows[j])); err != nil {
				return fmt.Errorf("%s of row %d: %w", c.name, j, err)
			}
		}
	}
	return nil
}
